"""Owns the headers of Invoke: what kind of call is wanted, and what goes with it."""

import base64
import binascii
from dataclasses import dataclass
from enum import StrEnum

from aiohttp import web

from adapters.control.aws_errors import RejectionType, RequestRejected
from adapters.control.mappings.paging import constraint, headed
from poller.domain.mapping_api import ApiError, ApiErrorType
from poller.domain.untrusted.json_values import json_value

TYPE = "X-Amz-Invocation-Type"
LOG = "X-Amz-Log-Type"
CONTEXT = "X-Amz-Client-Context"
TENANT = "X-Amz-Tenant-Id"
CONTEXT_BYTES_MAX = 3583
LOG_TYPES = ("None", "Tail")
NO_TENANTS = "The function has no tenant isolation; leave out the tenant id"


class InvocationType(StrEnum):
    """How a caller waits for the answer."""

    EVENT = "Event"
    REQUEST_RESPONSE = "RequestResponse"
    DRY_RUN = "DryRun"


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the headers of a request ask for. `client_context` is base64 of a JSON object, or empty."""

    kind: InvocationType
    log_tail: bool
    client_context: str


def wanted(request: web.Request) -> Wanted:
    """Reads the headers of a request; raises ApiError and RequestRejected."""
    kind = request.headers.get(TYPE, InvocationType.REQUEST_RESPONSE)
    log = request.headers.get(LOG, LOG_TYPES[0])
    kinds = tuple(each.value for each in InvocationType)
    found = [
        constraint(field, value, f"satisfy enum value set: [{', '.join(values)}]")
        for field, value, values in (("invocationType", kind, kinds), ("logType", log, LOG_TYPES))
        if value not in values
    ]
    if found:
        raise ApiError(ApiErrorType.VALIDATION, headed(found))
    if TENANT in request.headers:
        raise ApiError(ApiErrorType.PARAMETER, NO_TENANTS)
    return Wanted(
        InvocationType(kind), log == LOG_TYPES[1], _client_context(request.headers.get(CONTEXT, ""))
    )


def _client_context(text: str) -> str:
    """The client context; raises RequestRejected if it is not base64 of a JSON object, or too long."""
    if len(text) > CONTEXT_BYTES_MAX:
        raise RequestRejected(
            RejectionType.CONTENT,
            f"Client context must be no more than {CONTEXT_BYTES_MAX} bytes when base64-encoded.",
        )
    if not text:
        return ""
    try:
        found = json_value(base64.b64decode(text, validate=True))
    except (binascii.Error, ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise RequestRejected(
            RejectionType.CONTENT, "Client context must be a valid Base64-encoded JSON object."
        )
    return text
