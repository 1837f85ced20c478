"""A closed loop on model time: the load goes up and down, the recommendation follows, and does not flap."""

import itertools
import math

import pytest

from tests.rules.workers.sizing.closed_loop import START_S, Loop

HOUR_S = 3600.0
MINUTE_S = 60.0


def ups_and_downs(loop: Loop) -> list[int]:
    """The recommendations, without repetitions."""
    found: list[int] = []
    for _, answer in loop.answers:
        if not found or found[-1] != answer:
            found.append(answer)
    return found


def turns(numbers: list[int]) -> int:
    """How often a direction changed."""
    steps = [after > before for before, after in itertools.pairwise(numbers)]
    return sum(one != other for one, other in itertools.pairwise(steps))


@pytest.mark.parametrize("seed", range(2))
def test_a_load_that_rises_gets_enough_workers_and_no_more_than_shards(seed: int) -> None:
    loop = Loop(lambda now: 150.0 if now < HOUR_S else 700.0, seed=seed)
    loop.run(HOUR_S)
    assert loop.replicas == 2
    loop.run(HOUR_S)
    assert loop.replicas == 8
    assert loop.lag_s_max < 1
    assert max(ups_and_downs(loop)) == 8


@pytest.mark.parametrize("seed", range(2))
def test_a_load_that_falls_gives_workers_up_one_by_one(seed: int) -> None:
    loop = Loop(lambda now: 700.0 if now < HOUR_S else 90.0, replicas=8, seed=seed)
    loop.run(HOUR_S)
    assert loop.replicas == 8
    loop.run(10 * MINUTE_S)
    assert loop.replicas == 8, "it waits before it gives workers up"
    loop.run(3 * HOUR_S)
    assert loop.replicas == 2, "one worker would use more of its room than a calm one does"
    assert turns(ups_and_downs(loop)) == 0


@pytest.mark.parametrize("seed", range(2))
def test_changes_up_are_a_minute_apart_and_changes_down_ten(seed: int) -> None:
    day_s = 6 * HOUR_S
    loop = Loop(lambda now: 400.0 - 350.0 * math.cos(2 * math.pi * now / day_s), seed=seed)
    loop.run(2 * day_s)
    assert len(loop.changes) > 6
    for (before_at, before), (after_at, after) in zip(loop.changes, loop.changes[1:], strict=False):
        assert after_at - before_at >= (MINUTE_S if after > before else 10 * MINUTE_S)
    assert turns(ups_and_downs(loop)) <= 2 * 2, "no more turns than the load has"
    assert max(ups_and_downs(loop)) <= 8


@pytest.mark.parametrize("seed", range(2))
def test_a_steady_load_between_two_numbers_does_not_flap(seed: int) -> None:
    loop = Loop(lambda _: 310.0, seed=seed)
    loop.run(6 * HOUR_S)
    assert turns(ups_and_downs(loop)) == 0
    assert loop.replicas == 4
    assert loop.lag_s_max < 1


@pytest.mark.parametrize("seed", range(2))
def test_many_workers_get_as_many_as_they_need_although_small_changes_are_ignored(seed: int) -> None:
    loop = Loop(lambda _: 1500.0, shards=40, replicas=20, replicas_max=60, seed=seed)
    loop.run(HOUR_S / 2)
    assert (loop.replicas, ups_and_downs(loop)) == (20, [20])
    loop.rate = lambda _: 2100.0
    loop.run(HOUR_S)
    assert 21 < loop.replicas <= 40
    assert loop.lag_s_max < 1
    loop.rate = lambda _: 200.0
    loop.run(5 * HOUR_S)
    assert loop.replicas <= 8


def test_short_peaks_change_nothing() -> None:
    loop = Loop(lambda now: 900.0 if now % 900 < 30 else 100.0)
    loop.run(2 * HOUR_S)
    assert ups_and_downs(loop) == [2]


def test_a_blocked_shard_does_not_call_for_workers() -> None:
    loop = Loop(lambda _: 150.0)
    loop.held[3].blocked = True
    loop.run(3 * HOUR_S)
    assert ups_and_downs(loop) == [2]
    assert loop.held[3].lag_s > 2 * HOUR_S


def test_more_shards_than_workers_can_be_had_does_not_wind_up() -> None:
    loop = Loop(lambda now: 700.0 if now < HOUR_S else 60.0, replicas_max=4)
    loop.run(HOUR_S)
    assert loop.answers[-1][1] <= 8
    loop.run(2 * HOUR_S)
    assert loop.replicas <= 3, "what could not be had is forgotten"


def test_nothing_is_given_up_while_one_worker_says_nothing() -> None:
    loop = Loop(lambda now: 300.0 if now < HOUR_S else 10.0, replicas=4)
    loop.run(HOUR_S / 2)
    loop.pods[0].mute = True
    loop.run(2 * HOUR_S)
    asked = {loop.ask(pod) for pod in loop.ready[1:]}
    assert asked == {4}


def test_pods_that_are_replaced_leave_the_recommendation_as_it_is() -> None:
    loop = Loop(lambda _: 250.0, replicas=4)
    loop.run(HOUR_S / 2)
    for _ in range(4):
        loop.start(at=loop.now + START_S)
        loop.run(2 * START_S)
        loop.pods.pop(0)
        loop.run(START_S)
    loop.run(HOUR_S)
    assert ups_and_downs(loop) == [4]


@pytest.mark.parametrize("seed", range(2))
def test_whichever_worker_is_asked_says_the_same(seed: int) -> None:
    loop = Loop(lambda now: 150.0 if now < HOUR_S else 700.0, seed=seed)
    checked = 0
    for _ in range(int(3 * HOUR_S / 300)):
        loop.run(300.0)
        # A recommendation needs one digest to be known to all.
        last_change = loop.changes[-1][0] if loop.changes else math.inf
        if loop.now - last_change >= 10.0:
            assert len({loop.ask(pod) for pod in loop.ready}) == 1
            checked += 1
    assert checked > 20
