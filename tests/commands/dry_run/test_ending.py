"""When a dry run has seen everything that was there."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from poller.commands.dry_run.ending import SETTLE_S, STUCK_S, mapping_finished
from poller.commands.dry_run.recorder import SourceTally
from poller.domain.records import Epoch, MappingId, Monotonic, ShardId
from poller.domain.rows import MappingState
from poller.domain.status import LaneStatus, MappingStatus, ShardStatus

A, B = ShardId("a"), ShardId("b")
NOW = Monotonic(100.0)


def tally(*, caught_up_s: float | None = 50.0, progress_s: float = 50.0, problem: str = "") -> SourceTally:
    """What was seen of a shard: since how long it is caught up, and when it last made progress."""
    caught_up_at = None if caught_up_s is None else Monotonic(NOW - caught_up_s)
    return SourceTally(Monotonic(NOW - progress_s), caught_up_at=caught_up_at, problem=problem)


def shard(name: ShardId = A, state: str = "reading", *lanes: str, blocked: bool = False) -> ShardStatus:
    since = Epoch(1.0) if blocked else None
    shown = tuple(
        LaneStatus(lane=str(number), state=each, blocked_since=since) for number, each in enumerate(lanes)
    )
    return ShardStatus(shard=name, state=state, position="TRIM_HORIZON", lanes=shown)


def finished(
    *shards: ShardStatus, of: dict[ShardId | None, SourceTally], lanes: tuple[str, ...] = (), **changes: Any
) -> bool:
    state = changes.pop("state", MappingState.ENABLED)
    status = MappingStatus(
        mapping=MappingId("m"),
        function="f",
        source_arn="s",
        state=state,
        shards=shards,
        lanes=tuple(LaneStatus(lane="poller 1", state=each) for each in lanes),
    )
    given: dict[str, Any] = {"queue": False, "opened": True, "window_s": 0.0, "now": NOW}
    return mapping_finished(status, of, **(given | changes))


@pytest.mark.parametrize(
    ("shards", "tallies", "expected"),
    [
        ((), {}, True),
        ((shard(),), {}, False),
        ((shard(),), {A: tally()}, True),
        ((shard(),), {A: tally(caught_up_s=None)}, False),
        ((shard(), shard(B)), {A: tally()}, False),
        ((shard(), shard(B)), {A: tally(), B: tally()}, True),
        ((shard(A, "failing"),), {A: tally(caught_up_s=None, problem="unreadable")}, True),
        ((shard(A, "failing"),), {A: tally(caught_up_s=None)}, False),
        ((shard(), shard(B, "waiting")), {A: tally()}, False),
        ((shard(A, "failing"), shard(B, "waiting")), {A: tally(problem="gone")}, True),
        ((shard(A, "blocked", "waiting", blocked=True),), {A: tally(caught_up_s=None)}, True),
        (
            (shard(A, "blocked", "waiting", blocked=True),),
            {A: tally(caught_up_s=None, progress_s=STUCK_S / 2)},
            False,
        ),
    ],
)
def test_a_stream_is_finished_when_each_shard_is(
    shards: tuple[ShardStatus, ...], tallies: dict[ShardId | None, SourceTally], expected: bool
) -> None:
    assert finished(*shards, of=tallies) is expected


@pytest.mark.parametrize(
    ("caught_up_s", "window_s", "expected"),
    [(0.5, 0.0, False), (SETTLE_S, 0.0, True), (19.0, 20.0, False), (20.0 + SETTLE_S, 20.0, True)],
)
def test_a_gathering_lane_is_waited_for_as_long_as_its_window(
    caught_up_s: float, window_s: float, expected: bool
) -> None:
    tallies: dict[ShardId | None, SourceTally] = {A: tally(caught_up_s=caught_up_s)}
    assert finished(shard(A, "reading", "idle", "gathering"), of=tallies, window_s=window_s) is expected


@pytest.mark.parametrize(
    ("tallies", "changes", "expected"),
    [
        ({}, {"opened": False}, False),
        ({None: tally(problem="denied")}, {"opened": False}, True),
        ({}, {"state": MappingState.BROKEN, "opened": False}, True),
        ({}, {"queue": True}, False),
        ({None: tally()}, {"queue": True}, True),
        ({None: tally(caught_up_s=None)}, {"queue": True}, False),
        ({None: tally(caught_up_s=0.5)}, {"queue": True, "lanes": ("gathering",)}, False),
    ],
)
def test_a_mapping_that_is_not_open_or_broken_and_a_queue(
    tallies: dict[ShardId | None, SourceTally], changes: dict[str, Any], expected: bool
) -> None:
    assert finished(of=tallies, **changes) is expected


STATES = st.sampled_from(["idle", "gathering", "invoking", "waiting", "discarding"])


@given(
    st.lists(STATES, max_size=4),
    st.floats(0, 300),
    st.floats(0, 1000),
    st.sampled_from(["starting", "reading", "blocked", "ended"]),
)
def test_a_shard_that_was_caught_up_for_longer_than_the_window_is_never_waited_for(
    lanes: list[str], window_s: float, more_s: float, state: str
) -> None:
    since = tally(caught_up_s=window_s + SETTLE_S + 0.001 + more_s, progress_s=0.0)
    assert finished(shard(A, state, *lanes), of={A: since}, window_s=window_s)
