"""All receives of a mapping go to its open batch; a second one opens when the first is closed."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from poller.domain.policies import BatchPolicy
from poller.domain.records import Message, Monotonic
from poller.rules.events import event_bytes
from poller.rules.queues.open_batch import OpenBatch
from poller.rules.queues.receive_batch import CloseBatch, Pause, QueueItem, Receive
from tests.rules.build import ENCODER

ANN, BOB, CAT = 1, 2, 3
WIDE = BatchPolicy(50, 2.0)


def queue_items(count: int, *, first: int = 0, size: int = 10) -> list[QueueItem]:
    return [
        QueueItem.encoded_as(b"x" * size, Message(f"m{number}", "r", "", {}, {}, "", Monotonic(0.0)), ENCODER)
        for number in range(first, first + count)
    ]


def names(found: list[QueueItem]) -> list[str]:
    return [each.message_id for each in found]


def got(batch: OpenBatch, poller: int, found: list[QueueItem], at: float = 0.0) -> list[QueueItem]:
    return batch.received(poller, found, drained=len(found) < 10, now=Monotonic(at))


def step(batch: OpenBatch, poller: int, at: float = 0.0) -> Receive | Pause | CloseBatch:
    return batch.step(poller, now=Monotonic(at), wait_s=20, contended=False)


def test_what_several_pollers_receive_is_one_batch() -> None:
    batch = OpenBatch(WIDE)
    for place, poller in enumerate((ANN, BOB, CAT)):
        assert got(batch, poller, queue_items(10, first=10 * place)) == []
    assert got(batch, BOB, queue_items(7, first=30), at=1.9) == []
    assert step(batch, ANN, 2.0) == CloseBatch()
    assert len(batch.close(ANN)) == 37
    assert batch.items == ()


def test_the_keeper_receives_within_the_window_and_others_as_long_as_they_like() -> None:
    batch = OpenBatch(WIDE)
    assert (step(batch, ANN), step(batch, BOB)) == (Receive(10, 20), Receive(10, 20))
    got(batch, BOB, queue_items(3))
    assert (batch.opened_by(ANN), batch.opened_by(BOB)) == (False, True)
    assert (step(batch, ANN, 1.0), step(batch, BOB, 1.0)) == (Receive(10, 20), Receive(10, 1))
    assert step(batch, BOB, 1.5) == Pause(Monotonic(2.0))


def test_who_makes_a_batch_full_runs_it_and_the_keeper_keeps_what_is_left() -> None:
    batch = OpenBatch(BatchPolicy(15, 2.0))
    assert got(batch, ANN, queue_items(10)) == []
    assert names(got(batch, BOB, queue_items(10, first=10), at=0.5)) == [f"m{number}" for number in range(15)]
    assert batch.opened_by(ANN)
    assert names(list(batch.items)) == [f"m{number}" for number in range(15, 20)]
    assert step(batch, ANN, 2.0) == Receive(10, 0), "the next window begins with its own first message"
    assert step(batch, ANN, 2.5) == CloseBatch()


def test_a_full_batch_without_a_rest_leaves_no_keeper() -> None:
    batch = OpenBatch(BatchPolicy(20, 2.0))
    got(batch, ANN, queue_items(10))
    assert len(got(batch, BOB, queue_items(10))) == 20
    assert not batch.opened_by(ANN)
    assert batch.close(ANN) == []
    assert got(batch, ANN, queue_items(1)) == []
    assert batch.opened_by(ANN)


def test_the_keeper_runs_what_has_no_room_behind_its_batch() -> None:
    batch = OpenBatch(BatchPolicy(100, 2.0, payload_bytes_max=event_bytes(3, 300)))
    assert got(batch, ANN, queue_items(2, size=100)) == []
    assert len(got(batch, ANN, queue_items(3, size=100))) == 5
    assert batch.items == ()


def test_an_event_is_never_filled_beyond_its_bytes_by_another_poller() -> None:
    batch = OpenBatch(BatchPolicy(100, 2.0, payload_bytes_max=event_bytes(3, 300)))
    assert got(batch, ANN, queue_items(2, size=100)) == []
    assert len(got(batch, BOB, queue_items(3, size=100))) == 3
    assert len(batch.items) == 2


def test_what_would_fill_the_next_batch_as_well_is_not_kept_waiting() -> None:
    batch = OpenBatch(BatchPolicy(100, 2.0, payload_bytes_max=event_bytes(3, 300)))
    got(batch, ANN, queue_items(1, size=100))
    assert len(got(batch, BOB, queue_items(8, size=100))) == 9


def test_a_window_that_is_over_is_closed_by_whoever_comes() -> None:
    batch = OpenBatch(WIDE)
    got(batch, ANN, queue_items(2))
    assert len(got(batch, BOB, [], at=2.0)) == 2
    assert batch.close(ANN) == []


def test_only_the_keeper_closes_early() -> None:
    batch = OpenBatch(WIDE)
    got(batch, ANN, queue_items(2))
    assert batch.close(BOB) == []
    assert len(batch.close(ANN)) == 2


@pytest.mark.parametrize("most", [1, 7, 10, 10_000])
def test_no_receive_asks_for_more_than_ten_or_a_batch(most: int) -> None:
    assert step(OpenBatch(BatchPolicy(most, 1.0)), ANN) == Receive(min(most, 10), 20)


@given(
    records_max=st.integers(1, 40),
    payload_bytes_max=st.sampled_from([event_bytes(3, 300), 10**6]),
    receives=st.lists(
        st.tuples(st.integers(1, 4), st.integers(0, 10), st.floats(0.0, 3.0), st.booleans()), max_size=60
    ),
)
def test_everything_comes_out_once_and_batches_open_one_after_the_other(
    records_max: int, payload_bytes_max: int, receives: list[tuple[int, int, float, bool]]
) -> None:
    policy = BatchPolicy(records_max, 2.0, payload_bytes_max)
    batch, now, number = OpenBatch(policy), 0.0, 0
    out: list[list[str]] = []
    for poller, count, later_s, steps in receives:
        now += later_s
        if steps and isinstance(step(batch, poller, now), CloseBatch):
            out.append(names(batch.close(poller)))
            continue
        found = queue_items(min(count, records_max), first=number, size=100)
        number += len(found)
        before = len(batch.items)
        if closed := got(batch, poller, found, at=now):
            out.append(names(closed))
            # Full by count or bytes, or over: nothing is handed out of a batch that can take more.
            over = len(closed) >= records_max or len(closed) >= 3 > payload_bytes_max / 1000 or later_s > 0
            assert over or before + len(found) >= records_max
        assert len(batch.items) < records_max
    for poller in range(1, 5):
        if left := batch.close(poller):
            out.append(names(left))
    assert [each for one in out for each in one] == [f"m{place}" for place in range(number)]
