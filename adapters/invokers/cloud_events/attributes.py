"""Owns the CloudEvent that a record becomes: its context attributes, and the record itself as its data.

The specification has no adapter for SQS, Kinesis or DynamoDB Streams. Types, subjects and `dynamodboperation` are those of
TriggerMesh's AWS sources for Knative, and `partitionkey` is the specification's own extension.

An attribute must be a text without control characters, halves of surrogate pairs and noncharacters. Keys and ids may have them all.
In a subject or a partition key U+FFFD stands for each of them; the data has the true key. An id is not changed like this, since
two ids could become one and a receiver would take the second event for a repetition. A digest stands for it instead.
"""

import hashlib
import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any
from urllib.parse import quote

import msgspec
import orjson

from poller.domain.untrusted import numbers
from poller.domain.untrusted.json_values import json_value

SPEC_VERSION = "1.0"
ATTRIBUTE_CHARS_MAX = 512
"""A longer source, subject or partition key is cut. Percent-encoded, one of this length is within 8 KiB, which servers take as a header."""
TYPES = {
    "aws:sqs": "com.amazon.sqs.message",
    "aws:kinesis": "com.amazon.kinesis.stream_record",
    "aws:dynamodb": "com.amazon.dynamodb.stream_record",
}
OTHER_TYPE = "poller.record"
"""The type of a record of any other source, such as a plug-in's."""
MILLISECONDS_MAX = numbers.MOMENT_MAX * 1000

_DISALLOWED = re.compile(
    "[\x00-\x1f\x7f-\x9f\ud800-\udfff\ufdd0-\ufdef"
    + "".join(chr(plane + last) for plane in range(0, 0x110000, 0x10000) for last in (0xFFFE, 0xFFFF))
    + "]"
)
_IN_URI = "!$&'()*+,/;=?@"
"""What stays as it is in a URI reference, besides letters, digits and `-._~`."""
_ARN = "arn:"


class _Kinesis(msgspec.Struct, frozen=True, rename="camel"):
    partition_key: Any = None
    sequence_number: Any = None
    approximate_arrival_timestamp: Any = None


class _Change(msgspec.Struct, frozen=True, rename="pascal"):
    keys: dict[str, Any] = {}
    sequence_number: Any = None
    approximate_creation_date_time: Any = None


_NAMES = {
    "source": "eventSource",
    "arn": "eventSourceARN",
    "event_id": "eventID",
    "event_name": "eventName",
    "message_id": "messageId",
}


class _Record(msgspec.Struct, frozen=True, rename=_NAMES):
    """The members of a record that are read. `Any` where a record of a plug-in or an emulator may have another type."""

    source: Any = None
    arn: Any = None
    event_id: Any = None
    event_name: Any = None
    message_id: Any = None
    attributes: dict[str, Any] | None = None
    kinesis: _Kinesis | None = None
    dynamodb: _Change | None = None


_RECORD = msgspec.json.Decoder(_Record)


class CloudEvent(msgspec.Struct, frozen=True, gc=False):
    """One record as a CloudEvent. `data` is the record's JSON as in the plain event, `identifier` what reports of failures call it."""

    attributes: dict[str, str]
    data: bytes
    identifier: str

    @property
    def event_id(self) -> str:
        """The attribute `id`."""
        return self.attributes["id"]

    def encoded(self) -> bytes:
        """The event in the JSON format, with its data as a JSON value."""
        return b'%b,"data":%b}' % (orjson.dumps(self.attributes)[:-1], self.data)


def cloud_event(
    record: bytes, *, function_arn: str, extensions: Mapping[str, str] = MappingProxyType({})
) -> CloudEvent:
    """Returns the CloudEvent of a record in JSON. A record without the ARN of a source has the function's as its source."""
    members = _members(record)
    event_id, subject, partition_key, when, identifier = _facts(members)
    given = {
        "specversion": SPEC_VERSION,
        "id": usable_id(event_id, record),
        "source": source_of(members.arn) or source_of(function_arn) or "/",
        "type": TYPES.get(str(members.source), OTHER_TYPE),
        "subject": usable_text(subject),
        "time": time_of(when),
        "datacontenttype": "application/json",
        "partitionkey": usable_text(partition_key),
        "dynamodboperation": usable_text(members.event_name) if members.dynamodb else None,
        **extensions,
    }
    attributes = {name: value for name, value in given.items() if value}
    return CloudEvent(attributes, record, identifier if isinstance(identifier, str) else "")


def usable_text(value: object) -> str | None:
    """A text as an attribute may have it: U+FFFD stands for what is not allowed, and it is cut. None for nothing, or no text."""
    if not isinstance(value, str) or not value:
        return None
    return _DISALLOWED.sub("\N{REPLACEMENT CHARACTER}", value[:ATTRIBUTE_CHARS_MAX])


def usable_id(value: object, record: bytes) -> str:
    """The id if an attribute may have it, else a digest of it. A record without an id gets a digest of the whole record."""
    if not isinstance(value, str) or not value:
        return f"sha256-{hashlib.sha256(record).hexdigest()}"
    if len(value) > ATTRIBUTE_CHARS_MAX or _DISALLOWED.search(value):
        return f"sha256-{hashlib.sha256(value.encode('utf-8', 'surrogatepass')).hexdigest()}"
    return value


def source_of(arn: object) -> str:
    """An ARN as a URI reference. What such a reference may not have is percent-encoded. Empty for nothing, or no text."""
    if not isinstance(arn, str):
        return ""
    # Without a scheme before it, a colon may not stand in the first segment.
    kept = _IN_URI + ":" if arn.startswith(_ARN) else _IN_URI
    return quote(arn[:ATTRIBUTE_CHARS_MAX], safe=kept, errors="replace")


def time_of(seconds: float | None) -> str | None:
    """A moment as RFC 3339, in UTC with milliseconds."""
    if seconds is None:
        return None
    return numbers.date_of(seconds).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _members(record: bytes) -> _Record:
    """The members of a record; none of them if the record is no object, or one of another form."""
    try:
        return _RECORD.decode(record)
    except (msgspec.MsgspecError, RecursionError):
        pass
    try:
        # The slower parser reads halves of surrogate pairs and numbers beyond a double.
        return msgspec.convert(json_value(record), _Record)
    except (ValueError, msgspec.MsgspecError, RecursionError):
        return _Record()


def _facts(members: _Record) -> tuple[object, object, object, float | None, object]:
    """Id, subject, partition key, time and identifier of a record."""
    if members.kinesis is not None:
        kinesis = members.kinesis
        when = numbers.moment(kinesis.approximate_arrival_timestamp, default=None)
        key = kinesis.partition_key
        return members.event_id, key, key, when, kinesis.sequence_number
    if members.dynamodb is not None:
        change = members.dynamodb
        when = numbers.moment(change.approximate_creation_date_time, default=None)
        return members.event_id, ",".join(change.keys), None, when, change.sequence_number
    attributes = members.attributes or {}
    sent_ms = numbers.number(attributes.get("SentTimestamp"), most=MILLISECONDS_MAX, default=None)
    when = None if sent_ms is None else numbers.moment(sent_ms / 1000, default=None)
    # A group orders messages in a FIFO queue only; in a standard queue it is the label of a tenant.
    ordered = "SequenceNumber" in attributes
    group = attributes.get("MessageGroupId") if ordered else None
    return members.message_id or members.event_id, None, group, when, members.message_id
