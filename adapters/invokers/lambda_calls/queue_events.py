"""Owns what the `lambda` invoker looks up in events of queues: message groups, and the trace that their sender began.

Events are bytes here. Only those that have something to look up are decoded.
"""

import re

import msgspec

from adapters.aws.request_templates import decoded

TRACE_CHARS_MAX = 512
"""A longer trace header is not passed on. Those of AWS have some 120 characters."""
_TRACED = b'"AWSTraceHeader":'
"""Stands in no text of an event, since the quotes in texts are escaped."""
_TRACE = re.compile(rf"[!-~]{{1,{TRACE_CHARS_MAX}}}")


class _Attributes(msgspec.Struct, frozen=True, gc=False):
    group: str | None = msgspec.field(name="MessageGroupId", default=None)
    trace: str | None = msgspec.field(name="AWSTraceHeader", default=None)


class _Message(msgspec.Struct, frozen=True, gc=False):
    source: str = msgspec.field(name="eventSource", default="")
    attributes: _Attributes = _Attributes()


class _QueueEvent(msgspec.Struct, frozen=True, gc=False):
    messages: list[_Message] = msgspec.field(name="Records", default_factory=list)


_decoder = msgspec.json.Decoder(_QueueEvent)


def message_groups(payload: bytes) -> set[str | None]:
    """The message groups in an event, None for messages without one; empty for an event that is not of a queue."""
    return {each.attributes.group for each in _messages(payload)}


def trace_header(payload: bytes) -> str | None:
    """The trace header of an event's messages if those that have one have the same; None if not (aws-behaviour#trace-headers).

    A sender can write any text into it. One that is no header is not passed on.
    """
    if _TRACED not in payload:
        return None
    found = {each.attributes.trace for each in _messages(payload)} - {None}
    trace = found.pop() if len(found) == 1 else None
    return trace if trace is not None and _TRACE.fullmatch(trace) else None


def _messages(payload: bytes) -> list[_Message]:
    try:
        found = decoded(_decoder, payload).messages
    except (ValueError, RecursionError):
        return []
    return [each for each in found if each.source == "aws:sqs"]
