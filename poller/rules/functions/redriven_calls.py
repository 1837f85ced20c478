"""Owns what can be called again of a message in an on-failure or dead-letter queue of asynchronous calls (aws-behaviour#async-documents).

A failure document has the event as `requestPayload`, and the function that was called. A dead letter is the event itself, with three
attributes beside it, and does not say for which function it was: whoever redrives it says so.
"""

import uuid
from dataclasses import dataclass

import msgspec

from poller.domain.arns import Arn
from poller.domain.functions.queued_calls import PAYLOAD_BYTES_MAX, CallEnd, CallId
from poller.domain.invocations import StoredNotice
from poller.domain.untrusted.json_values import json_value
from poller.domain.untrusted.texts import line_of
from poller.rules.functions.naming import qualifier_of
from poller.rules.operations.redriving import NoticeRefused

DEAD_LETTER = frozenset({"RequestID", "ErrorCode"})
"""The attributes that each dead letter has. The third one, `ErrorMessage`, is missing if it would be empty."""
REQUEST_CHARS_MAX = 128
LATEST = "$LATEST"
_IDS = uuid.UUID("6f1f8c1e-2f39-4f0f-9d33-0f5c1d2a7b10")
"""The namespace of the ids of calls that are made of messages."""


class _Context(msgspec.Struct):
    functionArn: str  # noqa: N815 - Lambda's name
    condition: str = ""
    requestId: str = ""  # noqa: N815


class _Document(msgspec.Struct):
    requestContext: _Context  # noqa: N815
    requestPayload: msgspec.Raw  # noqa: N815


@dataclass(frozen=True, slots=True, kw_only=True)
class RedrivenCall:
    """The event of a message, for the same qualifier of the function. `request` is the id that the call had."""

    payload: bytes
    qualifier: str
    request: str


def redriven_call(stored: StoredNotice, function: str) -> RedrivenCall:
    """What can be called again. Raises NoticeRefused for a message that is no failed call of this function, or has no event."""
    if stored.unreadable:
        raise NoticeRefused(stored.unreadable)
    found = _dead_letter(stored) if stored.attributes.keys() >= DEAD_LETTER else _document(stored, function)
    if len(found.payload) > PAYLOAD_BYTES_MAX:
        raise NoticeRefused(f"its event has more than {PAYLOAD_BYTES_MAX} bytes")
    try:
        json_value(found.payload)
    except (ValueError, RecursionError):
        raise NoticeRefused("its event is no JSON") from None
    return found


def redriven_id(place: str, message: str) -> CallId:
    """The id of the call that is made of a message: always the same one, so that a message that is read twice is one call while that waits."""
    return CallId(str(uuid.uuid5(_IDS, f"{place} {message}")))


def _dead_letter(stored: StoredNotice) -> RedrivenCall:
    request = line_of(stored.attributes["RequestID"], chars_max=REQUEST_CHARS_MAX)
    return RedrivenCall(payload=stored.document, qualifier="", request=request)


def _document(stored: StoredNotice, function: str) -> RedrivenCall:
    try:
        found = msgspec.json.decode(stored.document, type=_Document)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        raise NoticeRefused("it is no document of an asynchronous call, and no dead letter") from None
    context, payload = found.requestContext, bytes(found.requestPayload)
    if context.condition == CallEnd.SUCCESS:
        raise NoticeRefused("the call succeeded")
    if _function_name(context.functionArn) != function:
        raise NoticeRefused("it is a call of another function")
    if payload == b"null":
        raise NoticeRefused("it has no event: its document was too large for the queue")
    qualifier = qualifier_of(context.functionArn)
    request = line_of(context.requestId, chars_max=REQUEST_CHARS_MAX)
    return RedrivenCall(payload=payload, qualifier="" if qualifier == LATEST else qualifier, request=request)


def _function_name(arn: str) -> str:
    parsed = Arn.read(arn)
    parts = [] if parsed is None or parsed.service != "lambda" else parsed.resource.split(":")
    return parts[1] if len(parts) > 1 and parts[0] == "function" else ""
