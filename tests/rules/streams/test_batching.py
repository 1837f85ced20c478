"""A batch closes by count, by window or by bytes (aws-behaviour#stream-batches)."""

from hypothesis import given
from hypothesis import strategies as st

from poller.domain.policies import BatchPolicy
from poller.domain.records import Monotonic
from poller.domain.streams.places import end_of
from poller.rules.events import event_bytes
from poller.rules.streams.batching import Buffer
from tests.rules.build import entry, numbers_of


def _buffer(count: int, policy: BatchPolicy, *, bytes_: int = 10) -> Buffer:
    buffer = Buffer(policy)
    for number in range(count):
        buffer.add(entry(number, bytes_=bytes_))
    return buffer


def _at(seconds: float) -> Monotonic:
    return Monotonic(seconds)


def test_without_a_window_whatever_is_there_goes_at_once() -> None:
    buffer = _buffer(3, BatchPolicy(records_max=10))
    assert numbers_of(buffer.take(_at(0))) == [0, 1, 2]
    assert buffer.take(_at(0)) == ()


def test_a_batch_holds_records_max_at_most() -> None:
    buffer = _buffer(25, BatchPolicy(records_max=10))
    assert [len(buffer.take(_at(0))) for _ in range(4)] == [10, 10, 5, 0]


def test_a_window_waits_for_more_and_closes_at_its_end() -> None:
    buffer = _buffer(1, BatchPolicy(records_max=3, window_s=5))
    assert buffer.take(_at(100)) == ()
    assert buffer.deadline == _at(105)
    buffer.add(entry(1))
    assert buffer.take(_at(104.9)) == ()
    assert numbers_of(buffer.take(_at(105))) == [0, 1]
    assert buffer.deadline is None


def test_a_full_batch_does_not_wait_for_its_window() -> None:
    buffer = _buffer(7, BatchPolicy(records_max=3, window_s=5))
    assert numbers_of(buffer.take(_at(0))) == [0, 1, 2]


def test_the_next_window_begins_when_the_lane_asks_again() -> None:
    buffer = _buffer(5, BatchPolicy(records_max=3, window_s=5))
    buffer.take(_at(0))
    assert buffer.take(_at(50)) == ()
    assert buffer.deadline == _at(55)


def test_five_records_in_a_window_of_five_seconds_make_batches_of_two_two_one() -> None:
    buffer = _buffer(5, BatchPolicy(records_max=2, window_s=5))
    assert [len(buffer.take(_at(0))) for _ in range(2)] == [2, 2]
    assert buffer.take(_at(0)) == ()
    assert len(buffer.take(_at(5))) == 1


def test_the_end_of_the_shard_closes_a_window() -> None:
    buffer = _buffer(1, BatchPolicy(records_max=3, window_s=300))
    assert len(buffer.take(_at(0), closing=True)) == 1


def test_the_finished_event_never_exceeds_the_limit() -> None:
    limit = event_bytes(2, 20)
    buffer = _buffer(5, BatchPolicy(records_max=100, payload_bytes_max=limit))
    assert [len(buffer.take(_at(0))) for _ in range(3)] == [2, 2, 1]


def test_bytes_close_a_batch_before_its_window() -> None:
    buffer = _buffer(3, BatchPolicy(records_max=100, window_s=300, payload_bytes_max=event_bytes(2, 20)))
    assert len(buffer.take(_at(0))) == 2


def test_an_oversized_record_is_a_batch_of_its_own() -> None:
    buffer = Buffer(BatchPolicy(records_max=100, payload_bytes_max=50))
    for number, size in enumerate((10, 100, 10)):
        buffer.add(entry(number, bytes_=size))
    assert [numbers_of(buffer.take(_at(0))) for _ in range(3)] == [[0], [1], [2]]


def test_entries_can_be_taken_through_a_sequence_number() -> None:
    buffer = _buffer(5, BatchPolicy(records_max=2))
    assert numbers_of(buffer.take_through(end_of(str(2)))) == [0, 1, 2]
    assert numbers_of(buffer.take_through(end_of(str(2)))) == []
    assert len(buffer) == 2


@given(
    sizes=st.lists(st.integers(2, 60), max_size=60),
    records_max=st.integers(1, 10),
    limit=st.integers(40, 200),
)
def test_batches_keep_order_lose_nothing_and_hold_the_limits(
    sizes: list[int], records_max: int, limit: int
) -> None:
    buffer = Buffer(BatchPolicy(records_max=records_max, payload_bytes_max=limit))
    for number, size in enumerate(sizes):
        buffer.add(entry(number, bytes_=size))
    seen: list[int] = []
    while batch := buffer.take(_at(0)):
        assert len(batch) <= records_max
        assert len(batch) == 1 or event_bytes(len(batch), sum(each.size for each in batch)) <= limit
        seen += numbers_of(batch)
    assert seen == list(range(len(sizes)))
    assert buffer.encoded_bytes == 0
