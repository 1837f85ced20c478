"""Owns the events that functions see, byte for byte in AWS's key order (spec 1).

A record is encoded once, when it is taken into a batch; an event joins encoded records, so that retries, halves and
suffixes of a batch cost a join, and the size of a finished event is a sum.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, cast, final

import orjson

from poller.records import DynamoRecord, JsonObject, KinesisRecord, Message, Record, ShardId

_HEAD = b'{"Records":['
_TAIL = b"]}"
_STANDARD_ATTRIBUTES = (
    "ApproximateReceiveCount",
    "AWSTraceHeader",
    "SentTimestamp",
    "SenderId",
    "ApproximateFirstReceiveTimestamp",
)
_FIFO_ATTRIBUTES = (
    "ApproximateReceiveCount",
    "AWSTraceHeader",
    "SentTimestamp",
    "SequenceNumber",
    "MessageGroupId",
    "SenderId",
    "MessageDeduplicationId",
    "ApproximateFirstReceiveTimestamp",
)


def encode_json(value: object) -> bytes:
    """Compact UTF-8 JSON; lone surrogates, which UTF-8 cannot carry, stay escaped."""
    try:
        return orjson.dumps(value)
    except TypeError:
        return json.dumps(value, separators=(",", ":")).encode()


class RecordEncoder(Protocol):
    """Encodes the records of one shard for one mapping."""

    def encode_all(self, records: Sequence[Record]) -> list[bytes]:
        """Each record as it stands in the event's `Records` array; in one go, since a page has thousands."""
        ...


@final
class KinesisEncoder:
    """Encodes Kinesis records (spec 1.1)."""

    def __init__(self, *, shard: ShardId, source_arn: str, region: str, role_arn: str) -> None:
        self._event_id = b'},"eventSource":"aws:kinesis","eventVersion":"1.0","eventID":"%s:' % shard.encode()
        self._tail = (
            b'","eventName":"aws:kinesis:record","invokeIdentityArn":%s,"awsRegion":%s,"eventSourceARN":%s}'
            % (encode_json(role_arn), encode_json(region), encode_json(source_arn))
        )

    def encode(self, record: Record) -> bytes:
        """The record as it stands in the event's `Records` array."""
        return self._encoded([record], encode_json)[0]

    def encode_all(self, records: Sequence[Record]) -> list[bytes]:
        """Each record as it stands in the event's `Records` array."""
        try:
            return self._encoded(records, orjson.dumps)
        except TypeError:
            # Some key has a lone surrogate.
            return self._encoded(records, encode_json)

    def _encoded(self, records: Sequence[Record], dumps: Callable[[object], bytes]) -> list[bytes]:
        event_id, tail = self._event_id, self._tail
        return [
            b"".join(
                (
                    b'{"kinesis":{"kinesisSchemaVersion":"1.0","partitionKey":',
                    dumps(record.key),
                    b',"sequenceNumber":"',
                    sequence := record.sequence_number.encode(),
                    b'","data":"',
                    record.data.encode(),
                    b'","approximateArrivalTimestamp":',
                    # The shortest digits that give this double, as repr has them, in a fifth of its time.
                    dumps(float(record.arrived)),
                    event_id,
                    sequence,
                    tail,
                )
            )
            for record in cast("Sequence[KinesisRecord]", records)
        ]


@final
class DynamoEncoder:
    """Encodes DynamoDB stream records (spec 1.2)."""

    def __init__(self, *, source_arn: str) -> None:
        self._arn = source_arn
        self._tail = b',"eventSourceARN":%s}' % encode_json(source_arn)

    def encode(self, record: Record) -> bytes:
        """The record as it stands in the event's `Records` array; a TTL removal's `userIdentity` comes last."""
        assert isinstance(record, DynamoRecord)
        # Images may hold the word too; then this is only slower.
        if b'"userIdentity"' not in record.encoded:
            return record.encoded[:-1] + self._tail
        return encode_json(dynamo_view(record, self._arn))

    def encode_all(self, records: Sequence[Record]) -> list[bytes]:
        """Each record as it stands in the event's `Records` array."""
        return [self.encode(record) for record in records]


def dynamo_view(record: DynamoRecord, source_arn: str) -> JsonObject:
    """The whole record as functions and filters see it."""
    view = record.event
    identity = view.pop("userIdentity", None)
    view["eventSourceARN"] = source_arn
    if identity is not None:
        view["userIdentity"] = identity
    return view


@final
class MessageEncoder:
    """Encodes SQS messages (spec 1.3). With a batching window, an absent attribute digest is written as null."""

    def __init__(self, *, source_arn: str, region: str, windowed: bool) -> None:
        self._arn = source_arn
        self._region = region
        self._windowed = windowed
        self._order = _FIFO_ATTRIBUTES if source_arn.endswith(".fifo") else _STANDARD_ATTRIBUTES

    def view(self, message: Message) -> JsonObject:
        """The record as functions and filters see it."""
        view: JsonObject = {
            "messageId": message.message_id,
            "receiptHandle": message.receipt,
            "body": message.body,
            "attributes": self._attributes(message),
            "messageAttributes": message.message_attributes,
        }
        if message.md5_of_message_attributes is not None or self._windowed:
            view["md5OfMessageAttributes"] = message.md5_of_message_attributes
        view["md5OfBody"] = message.md5_of_body
        view["eventSource"] = "aws:sqs"
        view["eventSourceARN"] = self._arn
        view["awsRegion"] = self._region
        return view

    def encode(self, message: Message) -> bytes:
        """The message as it stands in the event's `Records` array."""
        return encode_json(self.view(message))

    def _attributes(self, message: Message) -> dict[str, str]:
        attributes = message.attributes
        return {name: attributes[name] for name in self._order if name in attributes}


@dataclass(frozen=True, slots=True)
class WindowFacts:
    """The members that a tumbling window adds to an event (spec 1.4); `state` is encoded JSON, times are RFC 3339."""

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
    """The event for these encoded records within a tumbling window, members in the order of spec 1.4."""
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
