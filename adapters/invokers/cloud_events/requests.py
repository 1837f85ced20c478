"""Owns how the records of an invocation are sent as CloudEvents: body and headers in each content mode of the HTTP binding.

A CloudEvent is always one record. Brokers and triggers choose by the attributes of a single occurrence, so that an event about
several records would pass all of them unseen. A request in binary or structured mode has one event, thus one record; batched
mode has any number. What cannot be sent like that is refused with the remedy, and no retry is used up.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, assert_never
from urllib.parse import quote

import msgspec

from adapters.invokers.cloud_events.attributes import CloudEvent, cloud_event
from poller.domain.untrusted.json_values import json_value

BINARY_TYPE = "application/json"
STRUCTURED_TYPE = "application/cloudevents+json"
BATCHED_TYPE = "application/cloudevents-batch+json"
_IN_HEADER = "".join(chr(code) for code in range(0x21, 0x7F) if chr(code) not in '"%')
"""What stays as it is in a header: printable ASCII but the blank, the double quote and the percent sign."""


class Mode(StrEnum):
    """The content mode of the HTTP binding: attributes in headers, one event as JSON, or a list of events as JSON."""

    BINARY = "binary"
    STRUCTURED = "structured"
    BATCHED = "batched"


@dataclass(frozen=True, slots=True)
class Request:
    """A body, its headers, and the records that answers may name: id of the event to identifier, where these differ."""

    body: bytes
    headers: Mapping[str, str]
    identifiers: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Refused:
    """The records cannot be sent in this mode. `reason` names the remedy."""

    reason: str


class _Plain(msgspec.Struct, frozen=True, rename={"records": "Records"}):
    """The members of a plain event that are read."""

    records: list[msgspec.Raw]
    window: msgspec.Raw = msgspec.Raw()


_PLAIN = msgspec.json.Decoder(_Plain)
WINDOWED = (
    "cloud_events cannot carry the state of a tumbling window; remove cloud_events from the function, or "
    "TumblingWindowInSeconds from the mapping"
)
UNREADABLE = "the event has no list of records that could become CloudEvents; remove cloud_events"


def request_of(
    payload: bytes, mode: Mode, *, function_arn: str, extensions: Mapping[str, str] | None = None
) -> Request | Refused:
    """Returns the request for a plain event in JSON. Each CloudEvent gets the `extensions` as further attributes."""
    records = _records(payload)
    if isinstance(records, Refused):
        return records
    if mode is not Mode.BATCHED and len(records) != 1:
        return Refused(
            f"cloud_events: {mode} sends one record in a request, and this batch has {len(records)}; "
            "set BatchSize: 1 in the mapping, or cloud_events: batched"
        )
    events = [
        cloud_event(record, function_arn=function_arn, extensions=extensions or {}) for record in records
    ]
    identifiers = {
        event.event_id: event.identifier
        for event in events
        if event.identifier and event.identifier != event.event_id
    }
    body, headers = _message(events, mode)
    return Request(body, headers, identifiers)


def _message(events: list[CloudEvent], mode: Mode) -> tuple[bytes, dict[str, str]]:
    match mode:
        case Mode.BINARY:
            return events[0].data, {"Content-Type": BINARY_TYPE, **binary_headers(events[0].attributes)}
        case Mode.STRUCTURED:
            return events[0].encoded(), {"Content-Type": STRUCTURED_TYPE}
        case Mode.BATCHED:
            body = b"[%b]" % b",".join(event.encoded() for event in events)
            return body, {"Content-Type": BATCHED_TYPE}
        case _:
            assert_never(mode)


def binary_headers(attributes: Mapping[str, str]) -> dict[str, str]:
    """The headers of attributes in binary mode, percent-encoded. The type of the data is the Content-Type instead."""
    return {
        f"ce-{name}": quote(value, safe=_IN_HEADER)
        for name, value in attributes.items()
        if name != "datacontenttype"
    }


def _records(payload: bytes) -> list[bytes] | Refused:
    """Each record of a plain event, as it is in the event."""
    try:
        plain = _PLAIN.decode(payload)
    except (msgspec.MsgspecError, RecursionError):
        return _records_of_odd(payload)
    return Refused(WINDOWED) if bytes(plain.window) else [bytes(each) for each in plain.records]


def _records_of_odd(payload: bytes) -> list[bytes] | Refused:
    """The same for an event with halves of surrogate pairs, which the fast parser refuses. Records are encoded anew."""
    try:
        plain: Any = json_value(payload)
        if not isinstance(plain, dict) or not isinstance(plain.get("Records"), list):
            return Refused(UNREADABLE)
        if "window" in plain:
            return Refused(WINDOWED)
        return [_encoded(each) for each in plain["Records"]]
    except (ValueError, RecursionError):
        return Refused(UNREADABLE)


def _encoded(record: Any) -> bytes:
    """A record as JSON. Halves of surrogate pairs stay escaped. Raises ValueError for a number that JSON does not have."""
    return json.dumps(record, separators=(",", ":"), allow_nan=False).encode()
