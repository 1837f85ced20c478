"""What a lane's batch takes in memory is known after each step, without all of its records being looked at again."""

from math import log2
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from poller.domain.invocations import Condition, Ended
from poller.domain.policies import BatchPolicy, RetryPolicy
from poller.domain.records import Epoch, Monotonic
from poller.rules.responses import Accepted, Deferred, Partial, Rejected, Response, Verdict
from poller.rules.streams import lanes
from poller.rules.streams.attempts import BatchState, Discard, drop, interpose, settle, start
from poller.rules.streams.batching import Entry
from poller.rules.streams.lanes import LaneState
from tests.rules.build import entry, ids

NOW, BEGUN = Monotonic(0.0), Epoch(0.0)
FAILED = Rejected(Ended.FUNCTION_ERROR, "E: no", Response("$LATEST", "Unhandled"))
BISECT = RetryPolicy(bisect=True)


def begun(count: int) -> BatchState:
    """A batch of records of different sizes."""
    entries = tuple(entry(number, bytes_=100 + number * 7 % 50) for number in range(count))
    return start(entries, new_id=ids(), now=NOW, epoch=BEGUN)


def settled(work: BatchState, verdict: Verdict) -> BatchState | None:
    """The batch after this verdict on its first part."""
    return settle(work, verdict, BISECT, new_id=ids(), now=NOW, rng=Random(1))[0]


def dropped(work: BatchState, count: int) -> BatchState | None:
    """The batch after the first records of its first part were discarded."""
    part = work.parts[0]
    discard = Discard(part, part.entries[:count], Condition.AGE, 1, part.request_id, None)
    return drop(work, discard, new_id=ids(), now=NOW)[0]


@pytest.mark.parametrize("count", [64, 512, 4096])
def test_a_bisect_down_to_single_records_sums_each_record_once_for_each_halving(
    count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    summed: list[int] = []
    size_of = lanes.size_of

    def counted(entries: tuple[Entry, ...]) -> int:
        summed.append(len(entries))
        return size_of(entries)

    monkeypatch.setattr(lanes, "size_of", counted)
    state = LaneState(BatchPolicy(records_max=count))
    work: BatchState | None = begun(count)
    while work is not None:
        state.hold(work)
        work = settled(work, FAILED if len(work.parts[0].entries) > 1 else Accepted())
    state.hold(None)
    assert state.held_bytes == 0
    assert sum(summed) == count * (1 + log2(count))


@given(st.integers(1, 40), st.lists(st.tuples(st.integers(0, 5), st.integers(0, 40)), max_size=60))
def test_what_a_batch_takes_is_the_same_as_if_it_were_summed_anew(
    count: int, steps: list[tuple[int, int]]
) -> None:
    state = LaneState(BatchPolicy(records_max=count))
    work: BatchState | None = begun(count)
    for kind, place in steps:
        if work is None:
            break
        state.hold(work)
        anew = LaneState(BatchPolicy(records_max=count))
        anew.hold(work)
        assert state.held_bytes == anew.held_bytes > 0
        inside = len(work.parts[0].entries)
        match kind:
            case 0:
                work = settled(work, Accepted())
            case 1 if inside > 1:
                work = settled(work, Partial(frozenset({place % inside}), Response("$LATEST", None)))
            case 2 if inside:
                work = dropped(work, 1 + place % inside)
            case 3 if inside:
                work = interpose(work, ends=BEGUN, new_id=ids())
            case 4:
                work = settled(work, Deferred(Ended.THROTTLED, "busy"))
            case _:
                work = settled(work, FAILED)
