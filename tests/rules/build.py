"""Owns small builders of values for tests of rules."""

from collections.abc import Sequence
from itertools import count

from poller.domain.records import (
    AggregatedPart,
    DynamoRecord,
    Epoch,
    JsonObject,
    KinesisRecord,
    Message,
    Monotonic,
    Record,
)
from poller.domain.streams.places import name_of
from poller.rules.queues.message_encoder import MessageEncoder
from poller.rules.streams.attempts import NewId
from poller.rules.streams.batching import Entry
from tests.records import dynamo_record

BASE = 1_767_225_600.0
ENCODER = MessageEncoder(
    source_arn="arn:aws:sqs:eu-west-1:111122223333:orders", region="eu-west-1", windowed=False
)
"""Of a standard queue's messages."""


def kinesis(
    number: int | str,
    *,
    key: str | None = "k",
    arrived: float = BASE,
    data: str = "aGVsbG8=",
    dated: bool = True,
) -> KinesisRecord:
    """A Kinesis record whose sequence number is `number`, or a part of one at such a place."""
    kind = KinesisRecord if str(number).isdigit() else AggregatedPart
    return kind(str(number), Epoch(arrived), data, key, dated)


def dynamo(
    number: int,
    *,
    arrived: float = BASE,
    image: JsonObject | None = None,
    identity: JsonObject | None = None,
) -> DynamoRecord:
    """A DynamoDB stream record whose sequence number is `number`; `image` is its new one."""
    wire = {
        "eventID": "5f0c9d2e7a1b4c3d8e6f0a1b2c3d4e5f",
        "eventName": "INSERT",
        "eventVersion": "1.1",
        "eventSource": "aws:dynamodb",
        "awsRegion": "eu-west-1",
        "dynamodb": {
            "ApproximateCreationDateTime": arrived,
            "Keys": {"pk": {"S": "order-1"}},
            "SequenceNumber": str(number),
            "SizeBytes": 47,
            "StreamViewType": "KEYS_ONLY",
            **({"NewImage": image} if image is not None else {}),
        },
        **({"userIdentity": identity} if identity is not None else {}),
    }
    return dynamo_record(wire)


class Plain:
    """Encodes a record as its sequence number, and a part of one as its name."""

    def sizes(self, records: Sequence[Record]) -> list[int]:
        """How long each is."""
        return [len(each) for each in self.encode_all(records)]

    def encode_all(self, records: Sequence[Record]) -> list[bytes]:
        """The numbers and names."""
        return [_shown(record.sequence_number).encode() for record in records]

    def views(self, records: Sequence[Record]) -> list[JsonObject]:
        """Objects with the numbers."""
        return [{"number": int(record.sequence_number)} for record in records]


def _shown(place: str) -> str:
    return place if place.isdigit() else f'"{name_of(place)}"'


def entry(number: int, *, arrived: float = BASE, bytes_: int = 10, key: str = "k") -> Entry:
    """An entry whose index and sequence number are `number` and which takes `bytes_` bytes."""
    return Entry(number, kinesis(number, arrived=arrived, key=key), bytes_)


def entries(*numbers: int, arrived: float = BASE) -> tuple[Entry, ...]:
    """Entries with these numbers."""
    return tuple(entry(number, arrived=arrived) for number in numbers)


def numbers_of(taken: tuple[Entry, ...]) -> list[int]:
    """The numbers that these entries were built with."""
    return [each.index for each in taken]


def ids() -> NewId:
    """Request ids id-1, id-2 and so on."""
    counter = count(1)
    return lambda: f"id-{next(counter)}"


def message(body: str = "hello", **attributes: str) -> Message:
    """A message without message attributes."""
    return Message(
        message_id="2e1424d4-f796-459a-8184-9c92662be6da",
        receipt="AQEBzWwaftRI0KuVm4tP",
        body=body,
        attributes=attributes,
        message_attributes={},
        md5_of_body="5d41402abc4b2a76b9719d911017c592",
        received=Monotonic(0.0),
    )
