"""Events are byte for byte as AWS writes them (aws-behaviour#events)."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from poller.domain.records import DynamoRecord, Epoch, KinesisRecord, ShardId
from poller.rules.events import (
    DynamoEncoder,
    KinesisEncoder,
    RecordsEvent,
    WindowFacts,
    build,
    build_windowed,
    encode_json,
    event_bytes,
)
from poller.rules.queues.message_encoder import MessageEncoder
from tests.rules.build import dynamo, message

STREAM = "arn:aws:kinesis:eu-west-1:111122223333:stream/readings"
TABLE = "arn:aws:dynamodb:eu-west-1:111122223333:table/orders/stream/2026-01-01T00:00:00.000"
QUEUE = "arn:aws:sqs:eu-west-1:111122223333:orders"
SHARD = ShardId("shardId-000000000000")
IDENTITY = {"Type": "Service", "PrincipalId": "dynamodb.amazonaws.com"}

KINESIS_EVENT = (
    '{"Records":[{"kinesis":{"kinesisSchemaVersion":"1.0","partitionKey":"device-7","sequenceNumber":'
    '"49650000000000000000000000000000000000000000000000000002","data":"eyJ0ZW1wIjogMjF9",'
    '"approximateArrivalTimestamp":1767225600.125},"eventSource":"aws:kinesis","eventVersion":"1.0","eventID":'
    '"shardId-000000000000:49650000000000000000000000000000000000000000000000000002","eventName":'
    '"aws:kinesis:record","invokeIdentityArn":"arn:aws:iam::111122223333:role/readings-role","awsRegion":"eu-west-1",'
    '"eventSourceARN":"arn:aws:kinesis:eu-west-1:111122223333:stream/readings"}]}'
)
STANDARD_EVENT = (
    '{"Records":[{"messageId":"2e1424d4-f796-459a-8184-9c92662be6da","receiptHandle":"AQEBzWwaftRI0KuVm4tP","body":'
    '"hello","attributes":{"ApproximateReceiveCount":"1","SentTimestamp":"1767225600123","SenderId":'
    '"AIDAIENQZJOLO23YVJ4VO","ApproximateFirstReceiveTimestamp":"1767225600130"},"messageAttributes":{},"md5OfBody":'
    '"5d41402abc4b2a76b9719d911017c592","eventSource":"aws:sqs","eventSourceARN":'
    '"arn:aws:sqs:eu-west-1:111122223333:orders","awsRegion":"eu-west-1"}]}'
)
STANDARD_ATTRIBUTES = {
    "SenderId": "AIDAIENQZJOLO23YVJ4VO",
    "ApproximateFirstReceiveTimestamp": "1767225600130",
    "ApproximateReceiveCount": "1",
    "SentTimestamp": "1767225600123",
}


def _kinesis_encoder() -> KinesisEncoder:
    role = "arn:aws:iam::111122223333:role/readings-role"
    return KinesisEncoder(shard=SHARD, source_arn=STREAM, region="eu-west-1", role_arn=role)


def test_a_kinesis_event_is_aws_own_bytes() -> None:
    record = KinesisRecord(
        "49650000000000000000000000000000000000000000000000000002",
        Epoch(1767225600.125),
        "eyJ0ZW1wIjogMjF9",
        "device-7",
    )
    assert build([_kinesis_encoder().encode(record)]).decode() == KINESIS_EVENT


def test_a_dynamodb_event_keeps_the_record_and_adds_the_stream() -> None:
    event = json.loads(build([DynamoEncoder(source_arn=TABLE, region="eu-west-1").encode(dynamo(7))]))
    (record,) = event["Records"]
    assert list(record) == [
        "eventID",
        "eventName",
        "eventVersion",
        "eventSource",
        "awsRegion",
        "dynamodb",
        "eventSourceARN",
    ]
    assert record["eventSourceARN"] == TABLE


def test_a_dynamodb_timestamp_is_written_as_a_double() -> None:
    encoded = DynamoEncoder(source_arn=TABLE, region="eu-west-1").encode(dynamo(7, arrived=1767225600.0))
    assert b'"ApproximateCreationDateTime":1767225600.0,' in encoded


def test_a_ttl_removal_carries_its_identity_last() -> None:
    encoder = DynamoEncoder(source_arn=TABLE, region="eu-west-1")
    record = json.loads(encoder.encode(dynamo(7, identity=IDENTITY)))
    assert list(record)[-2:] == ["eventSourceARN", "userIdentity"]
    assert record["userIdentity"] == {"type": "Service", "principalId": "dynamodb.amazonaws.com"}


def test_a_standard_queue_event_is_aws_own_bytes() -> None:
    encoder = MessageEncoder(source_arn=QUEUE, region="eu-west-1", windowed=False)
    assert build([encoder.encode(message(**STANDARD_ATTRIBUTES))]).decode() == STANDARD_EVENT


@pytest.mark.parametrize("arn", [QUEUE, QUEUE + ".fifo"])
def test_a_message_of_either_kind_of_queue_shows_every_attribute_in_aws_order(arn: str) -> None:
    encoder = MessageEncoder(source_arn=arn, region="eu-west-1", windowed=False)
    names = [
        "DeadLetterQueueSourceArn",
        "ApproximateReceiveCount",
        "AWSTraceHeader",
        "SentTimestamp",
        "SequenceNumber",
        "MessageGroupId",
        "SenderId",
        "MessageDeduplicationId",
        "ApproximateFirstReceiveTimestamp",
    ]
    for some in (names, names[::-1], names[1::2], names[::-2]):
        for _ in range(2):
            record = json.loads(encoder.encode(message(**dict.fromkeys(some, "1"))))
            assert list(record["attributes"]) == [name for name in names if name in some]


def test_new_attributes_stand_last_as_given_and_what_belongs_to_the_queue_is_left_out() -> None:
    encoder = MessageEncoder(source_arn=QUEUE, region="eu-west-1", windowed=False)
    odd = {"Zeta": "1", "SenderId": "2", "SqsManagedSseEnabled": "true", "Alpha": "3"}
    for _ in range(2):
        record = json.loads(encoder.encode(message(**odd)))
        assert record["attributes"] == {"SenderId": "2", "Zeta": "1", "Alpha": "3"}
        assert list(record["attributes"]) == ["SenderId", "Zeta", "Alpha"]


def test_attributes_in_any_number_of_combinations_take_no_more_memory() -> None:
    encoder = MessageEncoder(source_arn=QUEUE, region="eu-west-1", windowed=False)
    for number in range(1000):
        record = json.loads(encoder.encode(message(**{f"New{number}": "1", "SenderId": "2"})))
        assert list(record["attributes"]) == ["SenderId", f"New{number}"]
    assert len(encoder._orders) < 100


def test_a_record_without_partition_key_has_null() -> None:
    encoder, record = _kinesis_encoder(), KinesisRecord("2", Epoch(1.5), "")
    assert b'{"kinesisSchemaVersion":"1.0","partitionKey":null,"sequenceNumber":"2",' in encoder.encode(
        record
    )
    assert encoder.views([record])[0]["kinesis"]["partitionKey"] is None


@pytest.mark.parametrize(
    ("digest", "windowed", "expected"),
    [(None, False, "absent"), (None, True, None), ("d1", False, "d1"), ("d1", True, "d1")],
)
def test_the_attribute_digest_depends_on_attributes_and_window(
    digest: str | None,
    windowed: bool,
    expected: str | None,
) -> None:
    encoder = MessageEncoder(source_arn=QUEUE, region="eu-west-1", windowed=windowed)
    with_digest = message()
    with_digest = type(with_digest)(
        **{name: getattr(with_digest, name) for name in with_digest.__struct_fields__}
        | {"md5_of_message_attributes": digest}
    )
    record = json.loads(encoder.encode(with_digest))
    assert record.get("md5OfMessageAttributes", "absent") == expected


def test_a_window_adds_its_members_in_aws_order() -> None:
    facts = WindowFacts(
        "2026-01-01T00:00:10Z", "2026-01-01T00:00:20Z", b'{"count":4}', final=True, terminated_early=False
    )
    assert build_windowed([], facts, shard=SHARD, source_arn=STREAM).decode() == (
        '{"Records":[],"shardId":"shardId-000000000000",'
        '"eventSourceARN":"arn:aws:kinesis:eu-west-1:111122223333:stream/readings",'
        '"window":{"start":"2026-01-01T00:00:10Z","end":"2026-01-01T00:00:20Z"},"state":{"count":4},'
        '"isFinalInvokeForWindow":true,"isWindowTerminatedEarly":false}'
    )


def test_a_key_with_a_lone_surrogate_stays_escaped() -> None:
    assert encode_json("a\ud800") == b'"a\\ud800"'


@given(st.lists(st.binary(min_size=2, max_size=40), max_size=20))
def test_the_size_of_an_event_is_known_before_it_is_built(encoded: list[bytes]) -> None:
    assert event_bytes(len(encoded), sum(map(len, encoded))) == len(build(encoded))


def _kinesis_records() -> st.SearchStrategy[list[KinesisRecord]]:
    times = st.integers(0, 4_000_000_000_000).map(lambda ms: Epoch(ms / 1000))
    number = st.text(alphabet="0123456789", min_size=1)
    key = st.none() | st.text(st.characters())
    return st.lists(st.builds(KinesisRecord, number, times, st.just("eyJ0ZW1wIjogMjF9"), key), max_size=5)


def _agrees(event: RecordsEvent) -> None:
    assert event.size == len(event.encoded())
    assert event.decoded() == json.loads(event.encoded())


@given(_kinesis_records())
def test_a_kinesis_event_is_measured_and_read_as_it_is_written(records: list[KinesisRecord]) -> None:
    encoder = _kinesis_encoder()
    _agrees(RecordsEvent(encoder, records, sum(encoder.sizes(records))))


@given(st.lists(st.tuples(st.text(st.characters()), st.booleans()), max_size=5))
def test_a_dynamodb_event_is_measured_and_read_as_it_is_written(drawn: list[tuple[str, bool]]) -> None:
    encoder = DynamoEncoder(source_arn=TABLE, region="eu-west-1")
    records = [_drawn(text, removal=removal) for text, removal in drawn]
    _agrees(RecordsEvent(encoder, records, sum(encoder.sizes(records))))


def _drawn(text: str, *, removal: bool) -> DynamoRecord:
    image = {"pk": {"S": text}, "userIdentity": {"N": "1e300"}}
    return dynamo(7, image=image, identity=IDENTITY if removal else None)


def test_a_function_may_change_what_it_gets() -> None:
    encoder, record = _kinesis_encoder(), KinesisRecord("2", Epoch(1.5), "", "device-7")
    event = RecordsEvent(encoder, [record], sum(encoder.sizes([record])))
    event.decoded()["Records"][0]["kinesis"].clear()
    assert event.decoded() == json.loads(event.encoded())


@given(st.text(), st.text(alphabet="0123456789", min_size=1))
def test_any_partition_key_survives_the_event(key: str, sequence: str) -> None:
    record = KinesisRecord(sequence, Epoch(1.5), "", key)
    (decoded,) = json.loads(build([_kinesis_encoder().encode(record)]))["Records"]
    assert decoded["kinesis"]["partitionKey"] == key
    assert decoded["eventID"] == f"{SHARD}:{sequence}"
