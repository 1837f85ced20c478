"""The history of the last hour: which numbers each step has, what is kept, and which mappings have a place."""

from collections.abc import Generator, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from poller.domain.invocations import Ended
from poller.domain.records import Epoch, MappingId, Monotonic, ShardId
from poller.domain.rows import MappingState
from poller.domain.telemetry.event import TelemetryEvent
from poller.domain.telemetry.history import STEP_S, STEPS_MAX, MappingHistory, MappingPoint, RecentHistory
from poller.domain.telemetry.mapping_events import (
    Blocked,
    GroupsBlocked,
    InvocationFinished,
    MappingChanged,
    Polled,
    Pollers,
    ShardStopped,
)
from poller.rules.history import NUMBER_MAX, HistoryRings

ORDERS = MappingId("orders")
ONE, TWO = ShardId("shard-1"), ShardId("shard-2")
BEGAN, WALL = 1_000.0, 1_800_000_000.0


class Told:
    """A history, and the events that it takes at seconds after its beginning."""

    def __init__(self, *mappings: MappingId, mappings_max: int = 1_000) -> None:
        self.rings = HistoryRings(Monotonic(BEGAN), mappings_max=mappings_max)
        for mapping in mappings or (ORDERS,):
            self.at(0.0, state(MappingState.ENABLED, mapping))

    def at(self, second: float, *events: TelemetryEvent) -> "Told":
        for event in events:
            self.rings.take(event, Monotonic(BEGAN + second), Epoch(WALL + second))
        return self

    def after(self, steps: int) -> RecentHistory:
        """The history when so many steps have ended."""
        assert self.rings.close_steps(Monotonic(BEGAN + steps * STEP_S)) == steps
        return whole(self.rings)


def whole(rings: HistoryRings, mapping: MappingId | None = None) -> RecentHistory:
    return finish(rings.slices(mapping, ended=Epoch(WALL)))


def finish(building: Generator[None, None, RecentHistory]) -> RecentHistory:
    while True:
        try:
            next(building)
        except StopIteration as done:
            found: RecentHistory = done.value
            return found


def state(state: MappingState, mapping: MappingId = ORDERS) -> MappingChanged:
    return MappingChanged(mapping=mapping, function="f", source_arn="a", state=state)


def polled(behind_ms: int | None, shard: ShardId | None = ONE, mapping: MappingId = ORDERS) -> Polled:
    return Polled(mapping=mapping, shard=shard, records=1, behind_ms=behind_ms)


def finished(
    records: int, failed: int = 0, age_ms: float | None = None, mapping: MappingId = ORDERS
) -> InvocationFinished:
    return InvocationFinished(
        mapping=mapping,
        function="f",
        shard=ONE,
        records=records,
        failed=failed,
        ended=Ended.FUNCTION_ERROR if failed else Ended.SUCCESS,
        duration_s=0.1,
        request_id="r",
        iterator_age_ms=age_ms,
    )


def blocked(shard: ShardId = ONE, lane: int = 0, *, since: float | None = None) -> Blocked:
    return Blocked(
        mapping=ORDERS,
        shard=shard,
        lane=lane,
        blocked=True,
        since=None if since is None else Epoch(WALL + since),
    )


def freed(shard: ShardId = ONE, lane: int = 0) -> Blocked:
    return Blocked(mapping=ORDERS, shard=shard, lane=lane, blocked=False)


type Timeline = Sequence[tuple[float, TelemetryEvent]]

LAGS: dict[str, tuple[Timeline, tuple[int | None, ...] | None]] = {
    "nothing was read": ([(1, finished(3))], None),
    "a source that does not say": ([(1, polled(None))], None),
    "a queue": ([(1, polled(None, None)), (2, polled(7, None))], None),
    "the last read of the step": ([(1, polled(900)), (14, polled(100))], (100, 100, 100)),
    "the worst shard": ([(1, polled(900)), (2, polled(100, TWO))], (900, 900, 900)),
    "it became known later": ([(16, polled(5))], (None, 5, 5)),
    "the shard went elsewhere": (
        [(1, polled(5)), (16, ShardStopped(mapping=ORDERS, shard=ONE, ended=False))],
        (5, None, None),
    ),
    "an old batch, in its step alone": ([(1, polled(0)), (2, finished(1, age_ms=70.4))], (70, 0, 0)),
    "a blocked lane, although nothing is read": (
        [(1, polled(0)), (5, blocked())],
        (10_000, 25_000, 40_000),
    ),
    "blocked before this worker took the shard": ([(5, blocked(since=-100))], (115_000, 130_000, 145_000)),
    "blocked in the future of a clock that is apart": ([(5, blocked(since=500))], (10_000, 25_000, 40_000)),
    "freed": ([(1, polled(0)), (5, blocked()), (20, freed())], (10_000, 0, 0)),
    "the longest blocked lane": ([(1, blocked(lane=0)), (5, blocked(lane=1)), (6, freed(lane=0))], (10_000, 25_000, 40_000)),
    "the blocked shard went elsewhere": (
        [(1, polled(3)), (2, blocked()), (16, ShardStopped(mapping=ORDERS, shard=ONE, ended=False))],
        (13_000, None, None),
    ),
    "too long for a number": ([(1, blocked(since=-WALL))], (NUMBER_MAX,) * 3),
}  # fmt: skip


@pytest.mark.parametrize("case", LAGS)
def test_the_lag_of_a_mapping(case: str) -> None:
    timeline, expected = LAGS[case]
    told = Told()
    for second, event in timeline:
        told.at(second, event)
    assert told.after(3).mappings[ORDERS].lag_ms == expected


COUNTS: dict[str, tuple[Timeline, MappingHistory]] = {
    "nothing happened": ([], MappingHistory(records_per_s=(0.0, 0.0), failures=(0, 0))),
    "records of both steps": (
        [(1, finished(20)), (14.9, finished(10)), (15, finished(1))],
        MappingHistory(records_per_s=(2.0, 0.07), failures=(0, 0)),
    ),
    "failures": (
        [(1, finished(10, failed=10)), (2, finished(10, failed=3)), (29, finished(1, failed=1))],
        MappingHistory(records_per_s=(0.47, 0.0), failures=(2, 1)),
    ),
    "pollers": (
        [(16, Pollers(mapping=ORDERS, pollers=4)), (20, Pollers(mapping=ORDERS, pollers=2))],
        MappingHistory(records_per_s=(0.0, 0.0), failures=(0, 0), pollers=(None, 2)),
    ),
    "a disabled mapping has no pollers": (
        [(1, Pollers(mapping=ORDERS, pollers=4)), (16, state(MappingState.DISABLED))],
        MappingHistory(records_per_s=(0.0, 0.0), failures=(0, 0), pollers=(4, 0)),
    ),
    "another mapping": (
        [(1, finished(10, mapping=MappingId("unknown")))],
        MappingHistory(records_per_s=(0.0, 0.0), failures=(0, 0)),
    ),
}


@pytest.mark.parametrize("case", COUNTS)
def test_the_counts_of_a_mapping(case: str) -> None:
    timeline, expected = COUNTS[case]
    told = Told()
    for second, event in timeline:
        told.at(second, event)
    assert told.after(2).mappings == {ORDERS: expected}


def test_an_open_step_is_not_shown() -> None:
    told = Told().at(14.0, finished(150))
    assert whole(told.rings).mappings == {}
    assert told.rings.point(ended=Epoch(WALL)).mappings == {}
    assert told.after(1).mappings[ORDERS].records_per_s == (10.0,)


def test_the_point_is_the_last_of_each_series() -> None:
    told = Told(ORDERS, MappingId("mails")).at(16.0, finished(15, failed=5), polled(9))
    told.at(17.0, Pollers(mapping=MappingId("mails"), pollers=3)).after(2)
    assert told.rings.point(ended=Epoch(WALL)).mappings == {
        ORDERS: MappingPoint(lag_ms=9, records_per_s=0.67, failures=1),
        MappingId("mails"): MappingPoint(records_per_s=0.0, failures=0, pollers=3),
    }


def test_a_mapping_that_came_later_has_nothing_before() -> None:
    told = Told().at(31.0, state(MappingState.ENABLED, MappingId("late")))
    found = told.after(3).mappings[MappingId("late")]
    assert found == MappingHistory(records_per_s=(None, None, 0.0), failures=(None, None, 0))


def test_a_deleted_mapping_is_forgotten_and_events_that_come_late_bring_it_not_back() -> None:
    told = Told().at(1.0, finished(1), state(MappingState.DELETING), finished(1), polled(1))
    assert told.after(1).mappings == {}
    told.at(16.0, state(MappingState.ENABLED))
    assert told.after(2).mappings[ORDERS].records_per_s == (None, 0.0)


def test_one_mapping_can_be_read_alone() -> None:
    told = Told(ORDERS, MappingId("mails"))
    told.after(1)
    assert list(whole(told.rings, ORDERS).mappings) == [ORDERS]
    assert whole(told.rings, MappingId("unknown")).mappings == {}


@pytest.mark.parametrize("steps", [STEPS_MAX - 1, STEPS_MAX, STEPS_MAX + 1, STEPS_MAX + 100, 3 * STEPS_MAX])
def test_an_hour_is_kept(steps: int) -> None:
    told = Told()
    for step in range(steps):
        told.at(step * STEP_S, finished(15 * step))
    shown = told.after(steps).mappings[ORDERS].records_per_s
    assert shown == tuple(float(step) for step in range(max(0, steps - STEPS_MAX), steps))


def test_steps_without_events_are_closed_by_the_next_one() -> None:
    told = Told().at(1.0, finished(15), polled(5)).at(5 * STEP_S, finished(30))
    found = told.after(6).mappings[ORDERS]
    assert found.records_per_s == (1.0, 0.0, 0.0, 0.0, 0.0, 2.0)
    assert found.lag_ms == (5,) * 6


def test_a_process_that_was_stopped_for_days_goes_on() -> None:
    told = Told().at(1.0, finished(15), blocked())
    steps = 40_000
    found = told.after(steps).mappings[ORDERS]
    assert found.records_per_s == (0.0,) * STEPS_MAX
    assert found.lag_ms is not None
    assert found.lag_ms[-1] == round((steps * STEP_S - 1.0) * 1000)


def test_a_history_that_is_built_while_steps_are_closed_is_of_one_moment() -> None:
    names = [MappingId(f"m{number}") for number in range(100)]
    told = Told(*names)
    before = told.after(STEPS_MAX)
    building = told.rings.slices(None, ended=Epoch(WALL))
    next(building)
    for name in names:
        told.at(STEPS_MAX * STEP_S + 1, finished(15, mapping=name))
    told.rings.close_steps(Monotonic(BEGAN + (STEPS_MAX + 1) * STEP_S))
    assert finish(building) == before


def test_those_in_trouble_and_the_busiest_have_a_place() -> None:
    names = [MappingId(name) for name in ("idle", "busy", "broken", "failing", "quiet")]
    told = Told(*names, mappings_max=3)
    told.at(1.0, finished(50, mapping=MappingId("busy")), finished(2, mapping=MappingId("quiet")))
    told.at(2.0, state(MappingState.BROKEN, MappingId("broken")))
    told.at(3.0, GroupsBlocked(mapping=MappingId("failing"), since=Epoch(WALL)))
    assert set(told.after(1).mappings) == {"busy", "broken", "failing"}
    told.at(16.0, GroupsBlocked(mapping=MappingId("failing"), since=None))
    told.at(17.0, finished(1, mapping=MappingId("quiet")))
    assert set(told.after(2).mappings) == {"busy", "broken", "quiet"}


def test_two_that_are_about_as_busy_do_not_take_each_others_place() -> None:
    first, second = MappingId("first"), MappingId("second")
    told = Told(first, second, mappings_max=1).at(1.0, finished(10, mapping=first))
    told.after(1)
    for step in range(1, 50):
        told.at(step * STEP_S, finished(10 + step % 2, mapping=second), finished(10, mapping=first))
    assert list(told.after(50).mappings) == [first]
    told.at(50 * STEP_S, finished(5_000, mapping=second))
    assert list(told.after(51).mappings) == [second]


EVENTS = st.one_of(
    st.builds(state, st.sampled_from(MappingState), st.sampled_from(["a", "b", "c"]).map(MappingId)),
    st.builds(
        lambda records, failed, age, mapping: finished(records, min(failed, records), age, mapping),
        st.integers(0, 10_000),
        st.integers(0, 10_000),
        st.none() | st.floats(-1e6, 1e12),
        st.sampled_from(["a", "b", "c"]).map(MappingId),
    ),
    st.builds(polled, st.none() | st.integers(-5, 10**12), st.sampled_from([None, ONE, TWO]), st.just(MappingId("a"))),
    st.builds(
        lambda pollers: Pollers(mapping=MappingId("b"), pollers=pollers), st.integers(0, 10**12)
    ),
    st.builds(
        lambda lane, on, since: Blocked(mapping=MappingId("a"), shard=ONE, lane=lane, blocked=on, since=since),
        st.integers(0, 3),
        st.booleans(),
        st.none() | st.floats(-1e13, 1e13).map(Epoch),
    ),
    st.just(ShardStopped(mapping=MappingId("a"), shard=ONE, ended=True)),
)  # fmt: skip


@given(st.lists(st.tuples(st.floats(0, 90), EVENTS), max_size=60), st.integers(1, 3))
def test_series_are_equally_long_and_every_record_is_counted_once(
    timeline: list[tuple[float, TelemetryEvent]], mappings_max: int
) -> None:
    told = Told(MappingId("a"), mappings_max=mappings_max)
    now, counted, deleted = 0.0, 0, False
    for waited_s, event in timeline:
        now += waited_s
        told.at(now, event)
        if isinstance(event, MappingChanged) and event.mapping == "a":
            deleted = deleted or event.state is MappingState.DELETING
        if isinstance(event, InvocationFinished) and event.mapping == "a":
            counted += event.records - event.failed
    steps = int(now // STEP_S) + 1
    found = told.after(steps)
    assert len(found.mappings) <= mappings_max
    for series in found.mappings.values():
        lines = [series.records_per_s, series.failures, series.lag_ms, series.pollers]
        assert {len(each) for each in lines if each is not None} == {min(steps, STEPS_MAX)}
        numbers = [number for each in lines if each is not None for number in each]
        assert all(number is None or 0 <= number <= NUMBER_MAX for number in numbers)
    if mappings_max == 3 and not deleted and steps <= STEPS_MAX:
        rates = found.mappings[MappingId("a")].records_per_s
        shown = sum(rate * STEP_S for rate in rates if rate is not None)
        assert shown == pytest.approx(counted, abs=0.01 * STEP_S * len(rates))
    last = told.rings.point(ended=Epoch(WALL)).mappings
    assert {name: point.failures for name, point in last.items()} == {
        name: series.failures[-1] for name, series in found.mappings.items()
    }
