"""Owns the events that functions get, with the same bytes and key order as on AWS (aws-behaviour#events).

The size of a record is computed before the record is encoded, so the size of an event is a sum. An event is encoded only when
it is sent to another process. A function in this process gets Python objects with the same content.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, cast, final

import msgspec
import orjson
from msgspec import UNSET, Raw

from poller.domain.records import (
    ABSENT,
    EVENT_VERSION,
    AggregatedPart,
    DynamoIdentity,
    DynamoRecord,
    Epoch,
    JsonObject,
    KinesisRecord,
    Record,
    ShardId,
)
from poller.domain.untrusted.json_values import json_value

_HEAD = b'{"Records":['
_TAIL = b"]}"
_KINESIS_PARTS = (
    b'{"kinesis":{"kinesisSchemaVersion":"1.0","partitionKey":',
    b',"sequenceNumber":"',
    b'","data":"',
    b'","approximateArrivalTimestamp":',
)
"""The constant parts before the key, the sequence number, the data and the time."""
_DYNAMO_PARTS = (b'{"eventID":', b',"eventName":', b',"eventVersion":', b',"SequenceNumber":"')
"""The constant parts before the id, the name, the version and the sequence number."""
_KEYS = b',"Keys":'
_NEW_IMAGE = b',"NewImage":'
_OLD_IMAGE = b',"OldImage":'
_SIZE_BYTES = b',"SizeBytes":'
_VIEW_TYPE = b',"StreamViewType":'
_IDENTITY = b',"userIdentity":'

_SECONDS_BYTES = len("1767225600.0")
"""Bytes of a time between the years 2001 and 2286, in whole seconds."""


def encode_json(value: object) -> bytes:
    """Compact UTF-8 JSON. Lone surrogates stay escaped, because UTF-8 cannot encode them."""
    try:
        return orjson.dumps(value)
    except TypeError:
        return json.dumps(value, separators=(",", ":")).encode()


_LENGTHS: dict[str | None, int] = {
    text: len(encode_json(text))
    for text in (
        *("INSERT", "MODIFY", "REMOVE", EVENT_VERSION),
        *("KEYS_ONLY", "NEW_IMAGE", "OLD_IMAGE", "NEW_AND_OLD_IMAGES"),
    )
}
"""Bytes of the texts that nearly all DynamoDB records have, as JSON. To look one up takes a quarter of the time of encoding it."""


class RecordEncoder(Protocol):
    """Encodes the records of one shard for one mapping."""

    def sizes(self, records: Sequence[Record]) -> list[int]:
        """The number of bytes that `encode_all` gives for each record. All at once, because a page has thousands of records."""
        ...

    def encode_all(self, records: Sequence[Record]) -> list[bytes]:
        """Each record, encoded as in the event's `Records` array."""
        ...

    def views(self, records: Sequence[Record]) -> list[JsonObject]:
        """Each record as a new object, equal to its parsed encoded form."""
        ...


@final
class RecordsEvent(msgspec.Struct, frozen=True, gc=False):
    """The event for records of a stream. They are encoded only when the event is sent; the size is known before."""

    encoder: RecordEncoder
    records: Sequence[Record]
    encoded_bytes: int
    """The size of all encoded records together."""

    @property
    def size(self) -> int:
        """Bytes of the finished event."""
        return event_bytes(len(self.records), self.encoded_bytes)

    def fits(self, bytes_max: int) -> bool:
        """Whether the finished event has at most `bytes_max` bytes."""
        return self.size <= bytes_max

    def encoded(self) -> bytes:
        """The event as UTF-8 JSON."""
        return build(self.encoder.encode_all(self.records))

    def decoded(self) -> JsonObject:
        """The event as a new object."""
        return {"Records": self.encoder.views(self.records)}


@final
class KinesisEncoder:
    """Encodes Kinesis records (aws-behaviour#kinesis-event)."""

    def __init__(self, *, shard: ShardId, source_arn: str, region: str, role_arn: str) -> None:
        self._event_id = b'},"eventSource":"aws:kinesis","eventVersion":"1.0","eventID":"%s:' % shard.encode()
        self._tail = (
            b'","eventName":"aws:kinesis:record","invokeIdentityArn":%s,"awsRegion":%s,"eventSourceARN":%s}'
            % (encode_json(role_arn), encode_json(region), encode_json(source_arn))
        )
        self._shard = shard
        self._source_arn = source_arn
        self._region = region
        self._role_arn = role_arn
        self._fixed_bytes = sum(map(len, (*_KINESIS_PARTS, self._event_id, self._tail)))

    def encode(self, record: Record) -> bytes:
        """The record encoded as in the event's `Records` array."""
        return self._encoded([record], encode_json)[0]

    def sizes(self, records: Sequence[Record]) -> list[int]:
        """The number of bytes that `encode_all` gives for each record."""
        try:
            return self._sizes(records, orjson.dumps)
        except TypeError:
            # A key has a lone surrogate.
            return self._sizes(records, encode_json)

    def encode_all(self, records: Sequence[Record]) -> list[bytes]:
        """Each record encoded as in the event's `Records` array."""
        try:
            return self._encoded(records, orjson.dumps)
        except TypeError:
            return self._encoded(records, encode_json)

    def views(self, records: Sequence[Record]) -> list[JsonObject]:
        """Each record as a new object."""
        shard, region, role_arn, source_arn = self._shard, self._region, self._role_arn, self._source_arn
        return [
            {
                "kinesis": {
                    "kinesisSchemaVersion": "1.0",
                    "partitionKey": record.key,
                    "sequenceNumber": (sequence := record.sequence_number),
                    "data": record.data,
                    "approximateArrivalTimestamp": float(record.arrived),
                },
                "eventSource": "aws:kinesis",
                "eventVersion": "1.0",
                "eventID": f"{shard}:{sequence}",
                "eventName": "aws:kinesis:record",
                "invokeIdentityArn": role_arn,
                "awsRegion": region,
                "eventSourceARN": source_arn,
            }
            for record in _numbered(records)
        ]

    def _sizes(self, records: Sequence[Record], dumps: Callable[[object], bytes]) -> list[int]:
        fixed = self._fixed_bytes
        return [
            fixed
            + len(dumps(record.key))
            + 2 * len(record.sequence_number)
            + len(record.data)
            + len(dumps(float(record.arrived)))
            for record in _numbered(records)
        ]

    def _encoded(self, records: Sequence[Record], dumps: Callable[[object], bytes]) -> list[bytes]:
        key, number, data, arrived = _KINESIS_PARTS
        event_id, tail = self._event_id, self._tail
        return [
            b"".join(
                (
                    key,
                    dumps(record.key),
                    number,
                    sequence := record.sequence_number.encode(),
                    data,
                    record.data.encode(),
                    arrived,
                    # The shortest digits that give this double. `repr` gives the same, but takes five times as long.
                    dumps(float(record.arrived)),
                    event_id,
                    sequence,
                    tail,
                )
            )
            for record in _numbered(records)
        ]


def _numbered(records: Sequence[Record]) -> Sequence[KinesisRecord]:
    """Kinesis records with the numbers that events show: parts of an aggregated record have that of the whole one (aws-behaviour#aggregated-records)."""
    found = cast("Sequence[KinesisRecord]", records)
    if AggregatedPart not in set(map(type, found)):
        return found
    return [
        KinesisRecord(each.outer, each.arrived, each.data, each.key) if type(each) is AggregatedPart else each
        for each in found
    ]


@final
class DynamoEncoder:
    """Encodes DynamoDB stream records (aws-behaviour#dynamodb-event). `userIdentity` is the last member; AWS's place for it is not known."""

    def __init__(self, *, source_arn: str, region: str) -> None:
        self._source_arn = source_arn
        self._region = region
        self._source = (
            b',"eventSource":"aws:dynamodb","awsRegion":%b,"dynamodb":{"ApproximateCreationDateTime":'
            % encode_json(region)
        )
        self._tail = b'},"eventSourceARN":%b' % encode_json(source_arn)
        self._fixed_bytes = sum(map(len, (*_DYNAMO_PARTS, self._source, self._tail, b"}")))

    def encode(self, record: DynamoRecord) -> bytes:
        """The record encoded as in the event's `Records` array."""
        event_id, name, version, number = _DYNAMO_PARTS
        change = record.change
        parts: list[bytes | Raw] = [
            event_id,
            encode_json(record.event_id),
            name,
            encode_json(record.event_name),
            version,
            encode_json(record.event_version),
            self._source,
            _whole_seconds(change.arrived),
        ]
        if change.keys is not ABSENT:
            parts += (_KEYS, change.keys)
        if change.new_image is not ABSENT:
            parts += (_NEW_IMAGE, change.new_image)
        if change.old_image is not ABSENT:
            parts += (_OLD_IMAGE, change.old_image)
        parts += (number, change.sequence_number.encode(), b'"')
        if change.size_bytes is not ABSENT:
            parts += (_SIZE_BYTES, change.size_bytes)
        if change.view_type is not UNSET:
            parts += (_VIEW_TYPE, encode_json(change.view_type))
        parts.append(self._tail)
        if record.identity is not None:
            parts += (_IDENTITY, encode_json(_identity(record.identity)))
        parts.append(b"}")
        return b"".join(parts)

    def sizes(self, records: Sequence[Record]) -> list[int]:
        """The number of bytes that `encode_all` gives for each record."""
        return [self._size(record) for record in cast("Sequence[DynamoRecord]", records)]

    def encode_all(self, records: Sequence[Record]) -> list[bytes]:
        """Each record encoded as in the event's `Records` array."""
        return [self.encode(record) for record in cast("Sequence[DynamoRecord]", records)]

    def views(self, records: Sequence[Record]) -> list[JsonObject]:
        """Each record as a new object."""
        return [self.view(record) for record in cast("Sequence[DynamoRecord]", records)]

    def view(self, record: DynamoRecord) -> JsonObject:
        """The record as functions and filters see it, as a new object."""
        change = record.change
        shown: JsonObject = {
            "ApproximateCreationDateTime": float(int(change.arrived)),
        }
        if change.keys is not ABSENT:
            shown["Keys"] = json_value(change.keys)
        if change.new_image is not ABSENT:
            shown["NewImage"] = json_value(change.new_image)
        if change.old_image is not ABSENT:
            shown["OldImage"] = json_value(change.old_image)
        shown["SequenceNumber"] = change.sequence_number
        if change.size_bytes is not ABSENT:
            shown["SizeBytes"] = json_value(change.size_bytes)
        if change.view_type is not UNSET:
            shown["StreamViewType"] = change.view_type
        view: JsonObject = {
            "eventID": record.event_id,
            "eventName": record.event_name,
            "eventVersion": record.event_version,
            "eventSource": "aws:dynamodb",
            "awsRegion": self._region,
            "dynamodb": shown,
            "eventSourceARN": self._source_arn,
        }
        if record.identity is not None:
            view["userIdentity"] = _identity(record.identity)
        return view

    def _size(self, record: DynamoRecord) -> int:
        change = record.change
        size = (
            self._fixed_bytes
            + len(encode_json(record.event_id))
            + _encoded_length(record.event_name)
            + _encoded_length(record.event_version)
            + (_SECONDS_BYTES if 1e9 <= change.arrived < 1e10 else len(_whole_seconds(change.arrived)))
            + len(change.sequence_number)
            + 1
        )
        if change.keys is not ABSENT:
            size += len(_KEYS) + len(change.keys)
        if change.new_image is not ABSENT:
            size += len(_NEW_IMAGE) + len(change.new_image)
        if change.old_image is not ABSENT:
            size += len(_OLD_IMAGE) + len(change.old_image)
        if change.size_bytes is not ABSENT:
            size += len(_SIZE_BYTES) + len(change.size_bytes)
        if change.view_type is not UNSET:
            size += len(_VIEW_TYPE) + _encoded_length(change.view_type)
        if record.identity is not None:
            size += len(_IDENTITY) + len(encode_json(_identity(record.identity)))
        return size


def _encoded_length(text: str | None) -> int:
    """The number of bytes of a text, or null, in JSON."""
    return _LENGTHS.get(text) or len(encode_json(text))


def _whole_seconds(moment: Epoch) -> bytes:
    # It is a float even for whole seconds. In JSON, 1767225600.0 and 1767225600 are different for some functions.
    return b"%d.0" % moment


def _identity(identity: DynamoIdentity) -> JsonObject:
    return {"type": identity.type_, "principalId": identity.principal_id}


@dataclass(frozen=True, slots=True)
class WindowFacts:
    """The members that a tumbling window adds to an event (aws-behaviour#window-event). `state` is encoded JSON, times are RFC 3339."""

    start: str
    end: str
    state: bytes
    final: bool
    terminated_early: bool


def build(encoded: Sequence[bytes]) -> bytes:
    """The event for these encoded records."""
    return b"".join((_HEAD, b",".join(encoded), _TAIL))


def build_windowed(
    encoded: Sequence[bytes], window: WindowFacts, *, shard: ShardId, source_arn: str
) -> bytes:
    """The event for these encoded records in a tumbling window; the order of members is AWS's (aws-behaviour#window-event)."""
    members = (
        b',"shardId":%s,"eventSourceARN":%s' % (encode_json(shard), encode_json(source_arn)),
        b',"window":{"start":%s,"end":%s}' % (encode_json(window.start), encode_json(window.end)),
        b',"state":%s' % window.state,
        b',"isFinalInvokeForWindow":%s' % _boolean(window.final),
        b',"isWindowTerminatedEarly":%s}' % _boolean(window.terminated_early),
    )
    return b"".join((_HEAD, b",".join(encoded), b"]", *members))


def event_bytes(records: int, encoded_bytes: int) -> int:
    """Size of the finished event of `records` records that take `encoded_bytes` bytes together."""
    return len(_HEAD) + len(_TAIL) + encoded_bytes + max(0, records - 1)


def _boolean(value: bool) -> bytes:
    return b"true" if value else b"false"
