"""Owns the settings of the `lambda` invoker, and the checks of its tenant and its client context."""

import base64
import json
import re
from collections.abc import Iterator
from enum import StrEnum
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from poller.config.field_types import AS_WHOM, IdentityName
from poller.config_errors.error_messages import FieldError
from poller.domain.arns import QUALIFIER
from poller.domain.plan import EventContent, SourceKind

CLIENT_CONTEXT_BYTES_MAX = 3583
"""The longest client context that Lambda takes, as base64 (aws-behaviour#client-context)."""
TENANT_CHARS_MAX = 256
_EDGE = r"[a-zA-Z0-9._:/=+\-@]"
_TENANT = re.compile(rf"{_EDGE}([a-zA-Z0-9._:/=+\-@ ]{{0,{TENANT_CHARS_MAX - 2}}}{_EDGE})?")
"""Without blanks at the ends, which a header cannot keep."""


def is_tenant(text: str) -> bool:
    """Whether Lambda takes this text for the id of a tenant (aws-behaviour#tenant-isolation)."""
    return _TENANT.fullmatch(text) is not None


def _tenant(text: str) -> str:
    if not is_tenant(text):
        raise ValueError(
            "not a tenant id of Lambda; write letters, digits, blanks inside and . _ : / = + - @, "
            f"{TENANT_CHARS_MAX} at most"
        )
    return text


def _client_context(value: object) -> object:
    """Refuses a client context that is no JSON object, or is too long for Lambda."""
    if not isinstance(value, dict):
        raise ValueError("not a table; write names and values, such as {custom: {stage: live}}")
    try:
        encoded = encoded_context(value)
    except (TypeError, ValueError, RecursionError):
        raise ValueError("has a value that JSON has not, such as a date; put it in quotes") from None
    if len(encoded) > CLIENT_CONTEXT_BYTES_MAX:
        raise ValueError(
            f"has {len(encoded)} bytes as base64; Lambda takes {CLIENT_CONTEXT_BYTES_MAX}, make it shorter"
        )
    return value


def encoded_context(context: dict[str, Any]) -> str:
    """A client context as Lambda wants it: base64 of JSON. Raises TypeError and ValueError for what JSON does not have."""
    text = json.dumps(context, separators=(",", ":"), allow_nan=False)
    return base64.b64encode(text.encode()).decode()


class TenantFrom(StrEnum):
    """Where the tenant of a call is taken from."""

    MESSAGE_GROUP = "message_group"


class LambdaSettings(BaseModel):
    """Settings of one function on Lambda; `region` None: that of the function's ARN."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    function: str
    qualifier: str | None = Field(
        default=None,
        pattern=f"^({QUALIFIER})$",
        description="The version or alias to call if the mapping names none.",
    )
    region: str | None = Field(default=None, description="Default: the region of the function's ARN.")
    identity: IdentityName | None = AS_WHOM
    tenant_id: Annotated[str, AfterValidator(_tenant)] | None = Field(
        default=None,
        description="The tenant that a function with tenant isolation is called for. With tenant_id_from: that of messages without a group.",
        examples=["blue"],
        json_schema_extra={"pattern": f"^{_TENANT.pattern}$"},
    )
    tenant_id_from: TenantFrom | None = Field(
        default=None,
        description="message_group: each event of a queue is for the tenant that its message group names.",
    )
    client_context: Annotated[dict[str, Any], BeforeValidator(_client_context)] | None = Field(
        default=None,
        description="What the function finds as its context's client context; 3583 bytes as base64 at most.",
        examples=[{"custom": {"stage": "live"}}],
    )

    @property
    def names_tenants(self) -> bool:
        """Whether calls are for a tenant."""
        return self.tenant_id is not None or self.tenant_id_from is not None


def misfits(settings: LambdaSettings, content: EventContent) -> Iterator[FieldError]:
    """What keeps a mapping with such events from calling this function, by members of the mapping."""
    if settings.tenant_id_from is None:
        return
    name = settings.function
    if content.kind is not SourceKind.SQS:
        wrong = f"{name} takes its tenant from message groups (tenant_id_from), which records of a stream do not have"
        yield FieldError("EventSourceArn", wrong, f"write tenant_id at functions.{name}, or another function")
    elif not content.one_group:
        wrong = f"an event may have messages of several groups, but a call of {name} is for one tenant (tenant_id_from)"
        remedy = "write BatchSize: 1" + (", or one_group_per_batch: true" if content.fifo else "")
        yield FieldError("BatchSize", wrong, remedy)
