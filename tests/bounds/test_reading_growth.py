"""What reads from outside is linear in it: answers of services and functions, events, batches, keys, configuration, error texts."""

import json
from collections.abc import Callable
from random import Random
from typing import Any

import pytest

from adapters.observers.log_throttle import kind_of
from adapters.sources import dynamodb_streams, sqs_answers
from adapters.sources.kinesis import stream as kinesis
from poller.config.yaml_files import parse_document
from poller.domain.errors import InvalidConfiguration
from poller.domain.invocations import Succeeded
from poller.domain.policies import BatchPolicy, RetryPolicy
from poller.domain.records import DynamoChange, DynamoRecord, Epoch, Monotonic, Position
from poller.domain.rows import Checkpoint
from poller.rules.events import KinesisEncoder, RecordsEvent, encode_json
from poller.rules.responses import Accepted, Partial, Rejected, ResponseReading, parse
from poller.rules.streams.flow import ShardFlow
from poller.rules.streams.lanes import InvokePart
from tests.bounds.growth import assert_linear, cost
from tests.rules.build import BASE, ids
from tests.rules.build import kinesis as record

type Case = tuple[Callable[[int], Any], Callable[[Any], object], int]
NOW = Epoch(BASE)
ENCODER = KinesisEncoder(shard=record(1).sequence_number, source_arn="arn", region="r", role_arn="role")  # type: ignore[arg-type]  # any text


def kinesis_answer(data: str, **others: object) -> Callable[[int], bytes]:
    def answer(size: int) -> bytes:
        records = [
            {"SequenceNumber": str(n), "Data": data, "PartitionKey": "k", "ApproximateArrivalTimestamp": BASE}
            | others
            for n in range(1, size)
        ]
        return json.dumps({"Records": records, "NextShardIterator": "i"}).encode()

    return answer


def dynamo_answer(size: int) -> bytes:
    image = {"l": {"L": [{"L": [{"S": "\ud800"}]}] * size}}
    change = {"SequenceNumber": "1", "ApproximateCreationDateTime": BASE, "NewImage": image, "Keys": None}
    return json.dumps({"Records": [{"dynamodb": change, "eventID": 5}], "NextShardIterator": "i"}).encode()


def sqs_answer(size: int) -> bytes:
    odd = {"MessageId": "m", "ReceiptHandle": "r", "Body": "\ud800" * size, "Attributes": {"a": None}}
    return json.dumps({"Messages": [odd] * 10}).encode()


def report(item: object) -> Callable[[int], bytes]:
    return lambda size: json.dumps({"batchItemFailures": [item] * size}).encode()


def answered(payload: bytes) -> object:
    reading = ResponseReading(report_failures=True, ignore_empty_items=True)
    return parse(Succeeded(payload), ["a", "b"], reading)


def batched(size: int) -> int:
    """Takes a page in and works it off, a record at a time."""
    flow = ShardFlow(
        Checkpoint(Position.horizon()),
        batch=BatchPolicy(records_max=1),
        retry=RetryPolicy(),
        lanes=4,
        look_ahead_records_max=10**6,
        encoder=ENCODER,
        new_id=ids(),
        rng=Random(1),
    )
    records = [record(n, key=str(n)) for n in range(1, size)]
    flow.accept(records, caught_up=True, asked=NOW, passing=[n % 3 > 0 for n in range(1, size)])
    settled, now = 0, Monotonic(0.0)
    for lane in flow.lanes:
        while isinstance(flow.next(lane, now=now, epoch=NOW)[0], InvokePart):
            flow.answered(lane, Accepted(), now=now, epoch=NOW)
            settled += 1
    return settled


def keyed(size: int) -> DynamoRecord:
    keys = b'{ "a": {"S": "' + b'\\"' * size + b'"}}'
    return DynamoRecord(change=DynamoChange(Epoch(0.0), "1", keys=keys))  # type: ignore[arg-type]  # bytes, as the decoder gives slices


def configured(text: str) -> object:
    try:
        return parse_document(text, name="file")
    except InvalidConfiguration as invalid:
        return invalid


def bomb(levels: int) -> str:
    """Each level stands for ten of the one before."""
    lines = ["a0: &a0 [1]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, levels)]
    return "\n".join(lines)


CASES: dict[str, Case] = {
    "records of Kinesis": (kinesis_answer("QUJD"), lambda body: kinesis.read_answer(body, NOW), 300),
    "odd records of Kinesis": (
        kinesis_answer("QUJD", PartitionKey="\ud800"),
        lambda body: kinesis.read_answer(body, NOW),
        150,
    ),
    "an odd record of DynamoDB": (dynamo_answer, lambda body: dynamodb_streams.read_answer(body, NOW), 500),
    "odd messages of SQS": (
        sqs_answer,
        lambda body: sqs_answers.read_answer(body, Monotonic(0.0), fifo=False),
        1_000,
    ),
    "reports of a record": (report({"itemIdentifier": "b"}), answered, 2_000),
    "empty reports": (report({}), answered, 5_000),
    "reports in each other": (lambda size: b"[" * size + b"]" * size, answered, 20_000),
    "events": (
        lambda size: [record(n, key="\ud800" if n % 2 else "é") for n in range(1, size)],
        lambda records: (event := RecordsEvent(ENCODER, records, 0)).encoded() + encode_json(event.decoded()),
        300,
    ),
    "batches": (lambda size: size, batched, 200),
    "keys": (keyed, lambda each: each.key, 20_000),
    "settings": (lambda size: "\n".join(f"a{n}: [1, two]" for n in range(size)), configured, 50),
    "one setting": (lambda size: f"a: '{'x ' * size}'", configured, 2_000),
    "settings in each other": (lambda size: "[" * size, configured, 50),
    "a bomb of aliases": (bomb, configured, 20),
    "merged settings": (
        lambda size: "a: &a {b: 1}\n" + "\n".join(f"c{n}: {{<<: *a, d: 2}}" for n in range(size)),
        configured,
        30,
    ),
    "kinds of digits": (lambda size: "1" * size + "g", kind_of, 5_000),
    "kinds of quotation marks": (lambda size: "'\"" * size, kind_of, 5_000),
    "kinds of hyphens": (lambda size: "12345678-" * size, kind_of, 5_000),
}


@pytest.mark.parametrize(("make", "work", "size"), CASES.values(), ids=CASES)
def test_four_times_as_much_takes_four_times_as_long(
    make: Callable[[int], Any], work: Callable[[Any], object], size: int
) -> None:
    assert_linear(work, make, size)


STEP_S_MAX = 0.05


@pytest.mark.parametrize("filler", ["[]", "{}", "1", '{"itemIdentifier":"b"}'])
@pytest.mark.parametrize("member", ["batchItemFailures", "state", "other"])
def test_an_answer_of_six_megabytes_is_read_within_a_step(filler: str, member: str) -> None:
    units = ",".join([filler] * (ANSWER_BYTES // (len(filler) + 1)))
    payload = f'{{"{member}":[{units}],"batchItemFailures":[{{"itemIdentifier":"b"}}]}}'.encode()
    if member == "batchItemFailures":
        payload = f'{{"{member}":[{units}]}}'.encode()
    found = answered(payload)
    if member == "batchItemFailures":
        assert isinstance(found, Rejected)
    else:
        assert isinstance(found, Partial)
        assert found.failed == {1}
    assert min(cost(answered, lambda _: payload, 1).seconds for _ in range(2)) < STEP_S_MAX


ANSWER_BYTES = 6 * 1024 * 1024


def test_a_state_within_a_long_answer_is_kept() -> None:
    payload = b'{"junk":[%b1],"state":{"a": 1}}' % (b"[]," * 300_000)
    assert parse(Succeeded(payload), [], ResponseReading(state_required=True)) == Accepted(b'{"a": 1}')
    assert isinstance(parse(Succeeded(payload + b"}"), [], ResponseReading(state_required=True)), Rejected)
    listed = payload.replace(b'{"a": 1}', b"[1]")
    assert isinstance(parse(Succeeded(listed), [], ResponseReading(state_required=True)), Rejected)


def test_numbers_of_thousands_of_digits_are_answered() -> None:
    digits = "1" * 5_000
    assert configured(f"a: {digits}") == {"a": digits}
    odd = b'{"Records":[{"SequenceNumber":"%b","Data":"","MillisBehindLatest":%b}]}'
    with pytest.raises(ValueError, match="a number is too large"):
        kinesis.read_answer(odd.replace(b'"Records":[', b'"Records":5,"x":[') % ((digits.encode(),) * 2), NOW)
    assert "cannot be read" in kinesis.read_answer(odd % (digits.encode(), b"1"), NOW).trouble
