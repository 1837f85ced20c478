"""Owns the plain events of each source, built by the engine's own encoders, so that they have the shape that is sent."""

import json
from typing import Any

from poller.domain.records import Epoch, KinesisRecord, Message, Monotonic, ShardId
from poller.rules.events import DynamoEncoder, KinesisEncoder, build
from poller.rules.queues.message_encoder import MessageEncoder
from tests.records import dynamo_record

QUEUE = "arn:aws:sqs:eu-west-1:111122223333:orders.fifo"
STREAM = "arn:aws:kinesis:eu-west-1:111122223333:stream/orders"
TABLE = "arn:aws:dynamodb:eu-west-1:111122223333:table/orders/stream/2026-01-01T00:00:00.000"
REGION = "eu-west-1"
SENT = {"SentTimestamp": "1767225600123", "ApproximateReceiveCount": "1"}
FIFO = {**SENT, "SequenceNumber": "18849496460467696128", "MessageGroupId": "customer 7"}


def message(message_id: str = "m-1", *, attributes: dict[str, str] = SENT, arn: str = QUEUE) -> bytes:
    """The record of an SQS message."""
    encoder = MessageEncoder(source_arn=arn, region=REGION, windowed=False)
    return encoder.encode(Message(message_id, "receipt", '{"id": 1}', attributes, {}, None, Monotonic(0.0)))


def kinesis(number: str = "495", *, key: str = "customer 7", arn: str = STREAM) -> bytes:
    """The record of a Kinesis record."""
    encoder = KinesisEncoder(
        shard=ShardId("shardId-000000000000"), source_arn=arn, region=REGION, role_arn=""
    )
    return encoder.encode(KinesisRecord(number, Epoch(1_767_225_600.123), data="eA==", key=key))


def change(event_id: str = "c4ca", *, keys: dict[str, Any] | None = None, number: str = "300") -> bytes:
    """The record of a change of an item."""
    wire = {
        "eventID": event_id,
        "eventName": "MODIFY",
        "eventVersion": "1.1",
        "dynamodb": {
            "ApproximateCreationDateTime": 1_767_225_600,
            "Keys": {"pk": {"S": "7"}, "sk": {"N": "1"}} if keys is None else keys,
            "SequenceNumber": number,
            "StreamViewType": "KEYS_ONLY",
        },
    }
    return DynamoEncoder(source_arn=TABLE, region=REGION).encode(dynamo_record(wire))


def event(*records: bytes) -> bytes:
    """The plain event with these records."""
    return build(records)


def parsed(record: bytes) -> Any:
    """The record as a value."""
    return json.loads(record)
