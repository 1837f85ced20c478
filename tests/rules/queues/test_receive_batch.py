"""A batch closes by count, by window, or by the bytes of its event."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from poller.domain.policies import BatchPolicy
from poller.domain.records import Message, Monotonic
from poller.rules.events import build, event_bytes
from poller.rules.queues.message_encoder import MessageEncoder
from poller.rules.queues.receive_batch import (
    CloseBatch,
    Pause,
    QueueItem,
    QueueItemsEvent,
    Receive,
    ReceiveBatch,
    fitting,
)
from tests.rules.build import ENCODER

QUEUE = "arn:aws:sqs:eu-west-1:111122223333:orders"


def letter(number: int = 0, size: int = 10) -> QueueItem:
    return QueueItem.encoded_as(
        b"x" * size, Message(f"m{number}", "r", "", {}, {}, "", Monotonic(0.0)), ENCODER
    )


def queue_items(count: int, size: int = 10) -> list[QueueItem]:
    return [letter(number, size) for number in range(count)]


def step(
    gathering: ReceiveBatch, now: float = 0.0, *, wait_s: int = 20, contended: bool = False
) -> Receive | Pause | CloseBatch:
    return gathering.step(now=Monotonic(now), wait_s=wait_s, contended=contended)


ATTRIBUTES = st.dictionaries(st.sampled_from(["SenderId", "SentTimestamp", "MessageGroupId"]), st.text())
MESSAGES = st.lists(
    st.builds(
        Message,
        message_id=st.text(),
        receipt=st.text(),
        body=st.text() | st.just("a\ud800"),
        attributes=ATTRIBUTES,
        message_attributes=st.dictionaries(
            st.text(), st.just({"stringValue": "7", "stringListValues": [], "dataType": "Number"}), max_size=2
        ),
        md5_of_body=st.text(),
        received=st.just(Monotonic(0.0)),
        md5_of_message_attributes=st.none() | st.text(),
    ),
    max_size=5,
)


@given(MESSAGES, st.booleans())
def test_an_event_is_measured_and_read_as_it_is_written(messages: list[Message], windowed: bool) -> None:
    encoder = MessageEncoder(source_arn=QUEUE, region="eu-west-1", windowed=windowed)
    event = QueueItemsEvent([QueueItem.of(each, encoder) for each in messages])
    written = event.encoded()
    assert event.size == len(written)
    assert event.fits(len(written))
    assert not event.fits(len(written) - 1)
    assert all(encoder.bytes_max(each) >= len(encoder.encode(each)) for each in messages)
    for _ in range(2):
        found = event.decoded()
        assert json.dumps(found) == json.dumps(json.loads(written))
        # A function may change what it gets.
        for record in found["Records"]:
            record["attributes"]["SenderId"] = record["messageAttributes"]["more"] = None
            for attribute in record["messageAttributes"].values():
                (attribute or {}).clear()
            record.clear()


def gathered(policy: BatchPolicy, count: int, *, drained: bool = True, size: int = 10) -> ReceiveBatch:
    gathering = ReceiveBatch(policy)
    gathering.add(queue_items(count, size), drained=drained, now=Monotonic(0.0))
    return gathering


@pytest.mark.parametrize(("size", "asked"), [(1, 1), (7, 7), (10, 10), (10_000, 10)])
def test_the_first_receive_asks_for_a_batch_or_ten(size: int, asked: int) -> None:
    assert step(ReceiveBatch(BatchPolicy(size, 5.0))) == Receive(asked, 20)


@pytest.mark.parametrize("drained", [True, False])
def test_without_a_window_one_receive_is_one_batch(drained: bool) -> None:
    assert step(gathered(BatchPolicy(10, 0.0), 3, drained=drained)) == CloseBatch()


def test_a_full_batch_closes_before_its_window_is_over() -> None:
    assert step(gathered(BatchPolicy(20, 5.0), 20, drained=False)) == CloseBatch()


def test_a_batch_is_never_asked_beyond_its_size() -> None:
    assert step(gathered(BatchPolicy(15, 5.0), 10, drained=False)) == Receive(5, 5)


def test_the_window_runs_from_the_first_message() -> None:
    gathering = ReceiveBatch(BatchPolicy(100, 3.0))
    gathering.add([], drained=True, now=Monotonic(10.0))
    assert step(gathering, 50.0) == Receive(10, 20)
    gathering.add(queue_items(2), drained=True, now=Monotonic(60.0))
    assert step(gathering, 60.0) == Receive(10, 3)
    assert step(gathering, 61.5) == Receive(10, 1)
    assert step(gathering, 63.0) == CloseBatch()


def test_the_last_part_of_a_second_is_waited_out_without_a_receive() -> None:
    assert step(gathered(BatchPolicy(100, 3.0), 2), 2.5) == Pause(Monotonic(3.0))


def test_a_queue_that_has_more_is_asked_until_the_window_ends() -> None:
    assert step(gathered(BatchPolicy(100, 3.0), 10, drained=False), 2.5) == Receive(10, 0)


def test_a_receive_within_a_window_waits_no_longer_than_allowed() -> None:
    assert step(gathered(BatchPolicy(100, 300.0), 2), 1.0, wait_s=1) == Receive(10, 1)


def test_a_batch_that_others_wait_for_closes_once_the_queue_is_drained() -> None:
    policy = BatchPolicy(100, 300.0)
    assert step(gathered(policy, 10, drained=False), contended=True) == Receive(10, 20)
    assert step(gathered(policy, 10, drained=True), contended=True) == CloseBatch()


def test_a_batch_of_enough_bytes_closes() -> None:
    assert step(gathered(BatchPolicy(100, 5.0, payload_bytes_max=1000), 9, size=120)) == CloseBatch()


def test_a_single_letter_that_is_too_large_is_an_event_of_its_own() -> None:
    assert fitting([letter(0, 2000), letter(1, 1)], BatchPolicy(10, 0.0, 1000)) == 1


def test_letters_fill_an_event_to_the_byte() -> None:
    limit = event_bytes(3, 30)
    assert fitting(queue_items(5), BatchPolicy(10, 0.0, limit)) == 3
    assert fitting(queue_items(5), BatchPolicy(10, 0.0, limit - 1)) == 2


@given(
    sizes=st.lists(st.integers(1, 400), min_size=1, max_size=60),
    records_max=st.integers(1, 20),
    payload_bytes_max=st.integers(20, 1000),
)
def test_cutting_loses_nothing_and_keeps_to_every_limit(
    sizes: list[int], records_max: int, payload_bytes_max: int
) -> None:
    policy = BatchPolicy(records_max, 1.0, payload_bytes_max)
    left = [letter(number, size) for number, size in enumerate(sizes)]
    seen: list[QueueItem] = []
    while left:
        count = fitting(left, policy)
        chunk, left = left[:count], left[count:]
        assert 1 <= len(chunk) <= records_max
        payload = build([each.encoded for each in chunk])
        assert len(chunk) == 1 or len(payload) <= payload_bytes_max
        seen += chunk
    assert [each.message_id for each in seen] == [f"m{number}" for number in range(len(sizes))]


@given(
    window_s=st.integers(1, 300),
    receives=st.lists(st.tuples(st.integers(0, 10), st.floats(0, 30)), max_size=80),
)
def test_a_batch_closes_by_the_end_of_its_window(window_s: int, receives: list[tuple[int, float]]) -> None:
    gathering = ReceiveBatch(BatchPolicy(10_000, float(window_s)))
    now, opened = 0.0, None
    for count, delay_s in receives:
        match step(gathering, now):
            case CloseBatch():
                assert opened is not None
                assert now >= opened + window_s
                return
            case Pause(until):
                assert opened is not None
                assert until == pytest.approx(opened + window_s)
                now = until
            case Receive(asked, wait_s):
                assert opened is None or now + wait_s <= opened + window_s
                now += min(delay_s, wait_s)
                got = min(count, asked)
                opened = now if got and opened is None else opened
                gathering.add(queue_items(got), drained=got < asked, now=Monotonic(now))
