"""Answers built from the service model, each optional member absent, null, unknown or new, are read record by record."""

import base64
import json
from collections.abc import Callable
from random import Random
from typing import Any

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from adapters.sources import dynamodb_streams, sqs_answers
from adapters.sources.kinesis import stream as kinesis
from poller.domain.records import Epoch, Monotonic, Position, Record, ShardId
from poller.domain.untrusted.numbers import MOMENT_MAX
from poller.rules.events import (
    DynamoEncoder,
    KinesisEncoder,
    RecordsEvent,
)
from poller.rules.filtering import Filter
from poller.rules.queues.message_encoder import SYSTEM_ATTRIBUTES, MessageEncoder
from poller.rules.streams.lanes import lane_of_record
from tests.shapes import CHANGE_RECORD, MESSAGE, ODD_TEXTS, RECORD, SYSTEM_ATTRIBUTE_NAMES, Shaper

NOW = Epoch(1767225700.25)
TABLE = "arn:aws:dynamodb:eu-west-1:111122223333:table/orders/stream/2026-01-01T00:00:00.000"
KINESIS = KinesisEncoder(
    shard=ShardId("shardId-000000000000"),
    source_arn="arn:aws:kinesis:eu-west-1:111122223333:stream/orders",
    region="eu-west-1",
    role_arn="",
)
DYNAMO = DynamoEncoder(source_arn=TABLE, region="eu-west-1")
ODD_MOMENTS = (None, -1, True, "2026-01-01T00:00:00Z", 1e300, 1767225600000, {"a": 1})

shapers = st.builds(Shaper, st.integers(0, 2**32).map(Random), st.sampled_from([0.0, 0.1, 0.3, 0.5]))
texts = st.sampled_from(ODD_TEXTS) | st.text(st.characters(), max_size=20)


def test_the_model_names_no_attribute_of_a_message_that_has_no_place() -> None:
    assert set(SYSTEM_ATTRIBUTE_NAMES) == set(SYSTEM_ATTRIBUTES)


def kinesis_wire(shaper: Shaper, number: int, key: str) -> dict[str, Any]:
    """A record of GetRecords."""
    values = {
        "SequenceNumber": str(49650000000000 + number),
        "Data": base64.b64encode(str(number).encode()).decode(),
        "PartitionKey": key,
    }
    return shaper.structure(RECORD, values)


def dynamo_wire(shaper: Shaper, number: int, key: str) -> dict[str, Any]:
    """A record of a table's GetRecords."""
    shaper.kept = frozenset({"dynamodb", "dynamodb.SequenceNumber"})
    image = {"pk": {"S": key}, "set": {"BS": ["/w=="]}, "none": {"NULL": True}}
    change = {
        "SequenceNumber": str(2400001838000228527000 + number),
        "Keys": {"pk": {"S": key}},
        "NewImage": image,
        "OldImage": image,
        "ApproximateCreationDateTime": 1767225600,
    }
    return shaper.structure(CHANGE_RECORD, {"dynamodb": change})


def message_wire(shaper: Shaper, number: int, text: str) -> dict[str, Any]:
    """A message of ReceiveMessage."""
    shaper.kept = frozenset({"MessageId", "ReceiptHandle"})
    scalars: tuple[dict[str, Any], ...] = (
        {"StringValue": text},
        {"StringValue": ""},
        {"StringValue": None},
        {"BinaryValue": "AAE="},
        {},
    )
    kind = shaper.rng.choice(("String", "Number.int", "String.", "Binary.png", ""))
    attribute = {"DataType": kind} | shaper.rng.choice(scalars)
    names = [name for name in SYSTEM_ATTRIBUTE_NAMES if shaper.rng.random() < 0.7]
    values = {
        "MessageId": f"id-{number}",
        "ReceiptHandle": f"receipt-{number}",
        "Body": text,
        "Attributes": dict.fromkeys(names, "1") | {"MadeLater": "2", "NoValue": None},
        "MessageAttributes": {"one": attribute, "two": None},
    }
    return shaper.structure(MESSAGE, values)


def body(members: str, wires: list[Any]) -> bytes:
    """An answer with these records."""
    return json.dumps({members: wires, "NextShardIterator": "next", "SomethingNew": {"a": None}}).encode()


def checked(encoder: KinesisEncoder | DynamoEncoder, records: list[Record]) -> list[dict[str, Any]]:
    """The records as functions see them, told the same way in each form and of the size that was measured."""
    event = RecordsEvent(encoder, records, sum(encoder.sizes(records)))
    assert len(event.encoded()) == event.size
    assert json.loads(event.encoded()) == event.decoded()
    for record in records:
        assert lane_of_record(record, 10) == lane_of_record(record, 10)
        assert Position.after(record.sequence_number).encode() == f"AFTER:{record.sequence_number}"
    found: list[dict[str, Any]] = event.decoded()["Records"]
    return found


@settings(max_examples=300)
@given(shapers, st.lists(texts, min_size=1, max_size=5))
def test_every_kinesis_record_of_the_model_becomes_an_event(shaper: Shaper, keys: list[str]) -> None:
    wires = [kinesis_wire(shaper, number, key) for number, key in enumerate(keys)]
    read = kinesis.read_answer(body("Records", wires), NOW)
    assert (read.trouble, read.following) == ("", "next")
    seen = checked(KINESIS, list(read.records))
    assert len(seen) == len(wires)
    criteria = Filter.of(['{"partitionKey":[null]}'], "kinesis")
    assert criteria is not None
    for wire, record, shown in zip(wires, read.records, seen, strict=True):
        assert shown["kinesis"]["partitionKey"] == wire.get("PartitionKey")
        assert shown["kinesis"]["data"] == wire["Data"]
        arrived = wire.get("ApproximateArrivalTimestamp")
        assert (record.arrived, record.dated) == (arrived or NOW, arrived is not None)
        passes = criteria.matches_kinesis(record.key, record.sequence_number, record.arrived, record.data)
        assert passes == (wire.get("PartitionKey") is None)


times = st.floats(0.0, MOMENT_MAX, exclude_max=True) | st.integers(0, 10**13).map(lambda ms: ms / 1000)


@given(st.lists(times, min_size=1, max_size=5))
@example([0.0005, 0.0015, 1e9 + 0.0005])
def test_every_arrival_time_is_rounded_to_its_millisecond(arrived: list[float]) -> None:
    wires = [
        {"SequenceNumber": str(number), "Data": "", "PartitionKey": "k", "ApproximateArrivalTimestamp": each}
        for number, each in enumerate(arrived, 1)
    ]
    found = kinesis.read_answer(body("Records", wires), NOW).records
    assert [each.arrived for each in found] == [round(each * 1000) / 1000 for each in arrived]
    checked(KINESIS, list(found))


@given(st.lists(times, min_size=1, max_size=3), texts)
@example([1e9, 1e9 - 1, 1e10 - 1, 1e10, 0.0], "")
def test_the_size_of_a_dynamodb_record_is_known_for_every_time_and_name(
    created: list[float], name: str
) -> None:
    record = dynamodb_streams.read_record(
        {"eventName": name, "dynamodb": {"SequenceNumber": "1", "StreamViewType": name}}, NOW
    )
    checked(
        DYNAMO,
        [
            msgspec.structs.replace(
                record, change=msgspec.structs.replace(record.change, arrived=Epoch(each))
            )
            for each in created
        ],
    )


@settings(max_examples=300)
@given(shapers, st.lists(texts, min_size=1, max_size=5))
def test_every_dynamodb_record_of_the_model_becomes_an_event(shaper: Shaper, keys: list[str]) -> None:
    wires = [dynamo_wire(shaper, number, key) for number, key in enumerate(keys)]
    read = dynamodb_streams.read_answer(body("Records", wires), NOW)
    assert (read.trouble, read.following) == ("", "next")
    seen = checked(DYNAMO, list(read.records))
    assert len(seen) == len(wires)
    for wire, record, shown in zip(wires, read.records, seen, strict=True):
        change = wire["dynamodb"]
        members = ("Keys", "NewImage", "OldImage", "SizeBytes", "StreamViewType")
        assert {name: shown["dynamodb"][name] for name in members if name in shown["dynamodb"]} == {
            name: change[name] for name in members if name in change
        }
        assert shown["eventID"] == wire.get("eventID")
        assert shown["eventName"] == wire.get("eventName")
        assert shown["dynamodb"]["ApproximateCreationDateTime"] == int(
            change.get("ApproximateCreationDateTime") or NOW
        )
        assert record.dated == (change.get("ApproximateCreationDateTime") is not None)
        assert (record.key is None) == (change.get("Keys") is None)
        identity = wire.get("userIdentity")
        assert ("userIdentity" in shown) == (identity is not None)
        if identity is not None:
            assert shown["userIdentity"] == {
                "type": identity.get("Type"),
                "principalId": identity.get("PrincipalId"),
            }


@settings(max_examples=300)
@given(shapers, st.lists(texts, min_size=1, max_size=5), st.booleans())
def test_every_message_of_the_model_becomes_an_event(shaper: Shaper, bodies: list[str], fifo: bool) -> None:
    wires = [message_wire(shaper, number, text) for number, text in enumerate(bodies)]
    messages = sqs_answers.read_answer(body("Messages", wires), Monotonic(5.0), fifo=fifo)
    assert [each.unreadable for each in messages] == [""] * len(wires)
    encoder = MessageEncoder(source_arn="arn:x" + ".fifo" * fifo, region="eu-west-1", windowed=False)
    for wire, message in zip(wires, messages, strict=True):
        shown = json.loads(encoder.encode(message))
        assert shown == encoder.view(message)
        assert (shown["messageId"], shown["receiptHandle"]) == (wire["MessageId"], wire["ReceiptHandle"])
        assert (shown["body"], shown["md5OfBody"]) == (wire.get("Body"), wire.get("MD5OfBody"))
        system = {name: each for name, each in (wire.get("Attributes") or {}).items() if each is not None}
        assert shown["attributes"] == system
        assert message.group == (system.get("MessageGroupId", "") if fifo else None)
        for name, attribute in (wire.get("MessageAttributes") or {}).items():
            scalars = {"binaryValue", "stringValue"} & set(shown["messageAttributes"][name])
            expected = {
                f"{kind}Value"
                for kind in ("binary", "string")
                if (attribute or {}).get(f"{kind.title()}Value") is not None
            }
            assert scalars == expected
            assert shown["messageAttributes"][name]["dataType"] == (attribute or {}).get("DataType")


@pytest.mark.parametrize("moment", ODD_MOMENTS, ids=str)
def test_a_record_without_a_time_that_a_date_can_show_is_from_the_read_and_says_so(moment: Any) -> None:
    plain = Shaper(Random(1), odd=0.0)
    wire = kinesis_wire(plain, 1, "k") | {"ApproximateArrivalTimestamp": moment}
    read = kinesis.read_answer(body("Records", [wire]), NOW).records
    assert [(each.arrived, each.dated) for each in read] == [(NOW, False)]
    change = dynamo_wire(plain, 1, "k")
    change["dynamodb"]["ApproximateCreationDateTime"] = moment
    found = dynamodb_streams.read_answer(body("Records", [change]), NOW)
    assert [(each.arrived, each.dated) for each in found.records] == [(NOW, False)]
    assert DYNAMO.view(found.records[0])["dynamodb"]["ApproximateCreationDateTime"] == 1767225700.0


def _kinesis(wires: list[Any]) -> tuple[list[Record], str]:
    read = kinesis.read_answer(body("Records", wires), NOW)
    return list(read.records), read.trouble


def _dynamo(wires: list[Any]) -> tuple[list[Record], str]:
    read = dynamodb_streams.read_answer(body("Records", wires), NOW)
    return list(read.records), read.trouble


def _with(wire: Any, **changes: Any) -> Any:
    inner = wire.get("dynamodb")
    return wire | ({"dynamodb": inner | changes} if inner else changes)


NUMBERS = (None, "", "x", "-1", " 1", "1_0", "１", 5, "1" * 130)
DATA = (None, 5, '"', "a\\b", "é", ["AA=="])
UNREADABLE: list[
    tuple[Callable[[list[Any]], tuple[list[Record], str]], Callable[..., Any], dict[str, Any]]
] = [
    *((_kinesis, kinesis_wire, {"SequenceNumber": number}) for number in NUMBERS),
    *((_dynamo, dynamo_wire, {"SequenceNumber": number}) for number in NUMBERS),
    *((_kinesis, kinesis_wire, {"Data": data}) for data in DATA),
    (_kinesis, kinesis_wire, {"PartitionKey": 5}),
    (_dynamo, dynamo_wire, {"StreamViewType": 5}),
]


@pytest.mark.parametrize(
    ("read", "wire_of", "changes"),
    UNREADABLE,
    ids=lambda each: each.__name__ if callable(each) else str(each)[:40],
)
def test_what_comes_before_a_record_that_cannot_be_read_is_read_and_nothing_behind_it(
    read: Callable[[list[Any]], tuple[list[Record], str]],
    wire_of: Callable[[Shaper, int, str], Any],
    changes: dict[str, Any],
) -> None:
    plain = Shaper(Random(1), odd=0.0)
    wires = [wire_of(plain, number, "k") for number in range(4)]
    wires[2] = _with(wires[2], **changes)
    records, trouble = read(wires)
    assert len(records) == 2
    assert "cannot be read: " in trouble
    odd_records: tuple[Any, ...] = ("text", None, [], 5)
    for odd in odd_records:
        records, trouble = read([wires[0], odd])
        assert (len(records), trouble.partition(":")[0]) == (
            1,
            "a record without sequence number cannot be read",
        )


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"MessageId": None}, "Expected `str`, got `null` - at `$.MessageId`"),
        ({"MessageId": ""}, "Expected `str` of length >= 1 - at `$.MessageId`"),
        ({"ReceiptHandle": 5}, "Expected `str`, got `int` - at `$.ReceiptHandle`"),
        ({"Body": {"a": 1}}, "Expected `str | null`, got `object` - at `$.Body`"),
        ({"Attributes": {"SentTimestamp": 5}}, "Expected `str`, got `int` - at `$.Attributes[...]`"),
        (
            {"MessageAttributes": {"a": "b"}},
            "Expected `object | null`, got `str` - at `$.MessageAttributes[...]`",
        ),
    ],
)
def test_a_message_that_cannot_be_read_says_why_and_the_others_are_read(
    changes: dict[str, Any], why: str
) -> None:
    plain = Shaper(Random(1), odd=0.0)
    wires: list[Any] = [message_wire(plain, number, "body") for number in range(3)]
    wires[1] |= changes
    messages = sqs_answers.read_answer(body("Messages", [*wires, "text"]), Monotonic(5.0), fifo=False)
    assert [each.unreadable for each in messages] == ["", why, "", "Expected `object`, got `str`"]
