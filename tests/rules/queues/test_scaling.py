"""How many pollers a mapping runs, second by second."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from poller.domain.policies import ScalingPolicy
from poller.domain.records import Monotonic
from poller.rules.queues.scaling import Bounds, PollStats, Scaling, bounds, maximum, start, step

BUSY = PollStats(full=50, done=50)
FREE = ScalingPolicy()


def run(
    scaling: Scaling, seen: PollStats, limits: Bounds, seconds: int, *, tolerant: bool = False
) -> Scaling:
    for _ in range(seconds):
        scaling = step(scaling, seen, limits, tolerant=tolerant, now=Monotonic(scaling.at + 1.0))
    return scaling


def begun(limits: Bounds, target: int | None = None) -> Scaling:
    scaling = start(limits, now=Monotonic(0.0))
    return scaling if target is None else replace(scaling, target=target)


@pytest.mark.parametrize(
    ("policy", "limit", "expected"),
    [
        (FREE, None, (2, 5, 1250, 300)),
        (FREE, 3, (2, 3, 3, 300)),
        (FREE, 1, (1, 1, 1, 300)),
        (FREE, 5000, (2, 5, 1250, 300)),
        (ScalingPolicy(concurrency_max=1), None, (1, 1, 1, 300)),
        (ScalingPolicy(concurrency_max=1000), None, (2, 5, 1000, 300)),
        (ScalingPolicy(concurrency_max=20), 8, (2, 5, 8, 300)),
        (ScalingPolicy(None, 2, 200), None, (2, 20, 2000, 1000)),
        (ScalingPolicy(None, 30, 40), None, (30, 300, 400, 1000)),
        (ScalingPolicy(None, 30, 40), 100, (30, 100, 100, 1000)),
    ],
)
def test_bounds_follow_the_mapping_and_the_function(
    policy: ScalingPolicy, limit: int | None, expected: tuple[int, int, int, int]
) -> None:
    found = bounds(policy, limit)
    assert (found.floor, found.ready, found.ceiling, found.per_minute) == expected


@pytest.mark.parametrize(
    ("seconds", "pollers"), [(0, 5), (1, 10), (12, 65), (60, 305), (120, 605), (249, 1250), (600, 1250)]
)
def test_a_busy_queue_gets_three_hundred_pollers_a_minute(seconds: int, pollers: int) -> None:
    limits = bounds(FREE, None)
    assert run(begun(limits), BUSY, limits, seconds).target == pollers


@pytest.mark.parametrize(("seconds", "pollers"), [(0, 20), (1, 36), (3, 70), (60, 1020), (119, 2000)])
def test_provisioned_pollers_grow_by_a_thousand_a_minute(seconds: int, pollers: int) -> None:
    limits = bounds(ScalingPolicy(None, 2, 200), None)
    scaling = run(begun(limits), BUSY, limits, seconds)
    assert scaling.target == pollers


def test_an_idle_mapping_goes_back_to_two() -> None:
    limits = bounds(FREE, None)
    scaling = run(begun(limits, 700), PollStats(empty=100, idle=100), limits, 6)
    assert scaling.target == 100
    assert run(scaling, PollStats(empty=100, idle=100), limits, 1).target == 2


def test_a_mapping_that_is_hungry_again_begins_with_five_at_once() -> None:
    limits = bounds(FREE, None)
    assert run(begun(limits, 2), BUSY, limits, 1).target == 5


def test_a_queue_that_is_just_drained_keeps_its_pollers() -> None:
    limits = bounds(FREE, None)
    assert run(begun(limits, 90), PollStats(some=20, full=10, done=30), limits, 30).target == 90


def test_hunger_lasts_while_every_poller_is_busy() -> None:
    limits = bounds(FREE, None)
    scaling = run(begun(limits), BUSY, limits, 1)
    assert run(scaling, PollStats(), limits, 3).target == 25


def test_pollers_that_wait_for_messages_or_slots_are_enough() -> None:
    limits = bounds(FREE, None)
    assert run(begun(limits), replace(BUSY, waiting=1), limits, 60).target == 5


def test_a_refusing_function_takes_a_quarter_away_each_second_and_calm_follows() -> None:
    limits = bounds(FREE, None)
    scaling = begun(limits, 100)
    targets = []
    for _ in range(4):
        scaling = run(scaling, replace(BUSY, refused=3), limits, 1)
        targets.append(scaling.target)
    assert targets == [75, 57, 43, 33]
    assert run(scaling, BUSY, limits, 9).target == 33
    assert run(scaling, BUSY, limits, 10).target == 38


def test_failing_messages_scale_down_unless_they_are_reported() -> None:
    limits = bounds(FREE, None)
    failing = PollStats(full=5, failed=5, done=1)
    assert run(begun(limits, 40), failing, limits, 1).target == 30
    assert run(begun(limits, 40), failing, limits, 1, tolerant=True).target == 45


def test_a_serial_mapping_has_one_poller_whatever_happens() -> None:
    limits = bounds(ScalingPolicy(concurrency_max=1), None)
    for seen in (BUSY, PollStats(idle=9, empty=9), PollStats(refused=4), PollStats()):
        assert run(begun(limits), seen, limits, 60).target == 1


seens = st.builds(
    PollStats,
    full=st.integers(0, 50),
    some=st.integers(0, 50),
    empty=st.integers(0, 50),
    idle=st.integers(0, 50),
    done=st.integers(0, 50),
    failed=st.integers(0, 50),
    refused=st.integers(0, 3),
    waiting=st.integers(0, 3),
)


@given(
    policy=st.one_of(
        st.builds(ScalingPolicy, concurrency_max=st.none() | st.integers(1, 1000)),
        st.builds(
            ScalingPolicy,
            concurrency_max=st.none(),
            provisioned_min=st.integers(2, 200),
            provisioned_max=st.integers(200, 2000),
        ),
    ),
    limit=st.none() | st.integers(1, 3000),
    events=st.lists(st.tuples(seens, st.floats(0.1, 30)), max_size=60),
    tolerant=st.booleans(),
)
def test_pollers_stay_within_bounds_and_grow_no_faster_than_allowed(
    policy: ScalingPolicy, limit: int | None, events: list[tuple[PollStats, float]], tolerant: bool
) -> None:
    limits = bounds(policy, limit)
    scaling = begun(limits)
    for seen, elapsed_s in events:
        before = scaling
        now = Monotonic(scaling.at + elapsed_s)
        scaling = step(scaling, seen, limits, tolerant=tolerant, now=now)
        assert limits.floor <= scaling.target <= limits.ceiling
        allowed = before.target + limits.per_minute / 60.0 * elapsed_s + 1.0
        assert scaling.target <= max(allowed, limits.ready)


@pytest.mark.parametrize(
    ("policy", "most"),
    [
        (ScalingPolicy(), None),
        (ScalingPolicy(concurrency_max=7), 7),
        (ScalingPolicy(provisioned_min=2, provisioned_max=3), 30),
    ],
)
def test_only_what_a_user_set_is_a_maximum_for_all_workers(policy: ScalingPolicy, most: int | None) -> None:
    assert maximum(policy) == most
