"""A refused batch holds up itself only; a function that refuses everything is asked with care."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from poller.domain.records import Monotonic
from poller.rules.queues.refusals import PROBE_S_MAX, REFUSED_MAX, RELIEF_S, WAITING_MAX, Refusals


def refused(count: int, at: float = 0.0) -> Refusals:
    refusals = Refusals()
    for _ in range(count):
        refusals.refused(Monotonic(at))
        if refusals.waiting == WAITING_MAX and count > WAITING_MAX:
            refusals.gone()
    return refusals


@pytest.mark.parametrize(("count", "pause_s"), [(0, 0.0), (1, 0.0), (2, 0.0), (3, 1.0), (5, 1.0), (50, 1.0)])
def test_the_first_probe_comes_after_a_second_however_many_were_under_way(count: int, pause_s: float) -> None:
    assert refused(count).pause_s(Monotonic(0.0)) == pause_s
    assert refused(count).everything is (count >= REFUSED_MAX)


def test_each_refused_probe_doubles_the_pause_up_to_a_minute() -> None:
    refusals, now, pauses = refused(5), 0.0, []
    for _ in range(9):
        pause_s = refusals.pause_s(Monotonic(now))
        assert pause_s is not None
        pauses.append(pause_s)
        now += pause_s
        assert refusals.begin()
        refusals.refused(Monotonic(now))
    assert pauses == [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, PROBE_S_MAX, PROBE_S_MAX, PROBE_S_MAX]
    refusals.accepted(Monotonic(now))
    for _ in range(REFUSED_MAX):
        refusals.refused(Monotonic(now))
    assert refusals.pause_s(Monotonic(now)) == 1.0, "after a call that went through it begins anew"


def test_one_call_that_goes_through_opens_everything() -> None:
    refusals = refused(10)
    refusals.accepted(Monotonic(0.0))
    assert refusals.pause_s(Monotonic(0.0)) == 0.0
    refusals.refused(Monotonic(0.0))
    assert refusals.pause_s(Monotonic(0.0)) == 0.0


def test_one_probe_at_a_time() -> None:
    refusals = refused(3)
    assert refusals.pause_s(Monotonic(0.4)) == pytest.approx(0.6)
    assert refusals.pause_s(Monotonic(1.0)) == 0.0
    probe = refusals.begin()
    assert probe
    assert refusals.pause_s(Monotonic(50.0)) is None
    refusals.end(probe)
    assert refusals.pause_s(Monotonic(50.0)) == 0.0


def test_a_probe_that_is_refused_is_followed_by_another_one_later() -> None:
    refusals = refused(3)
    probe = refusals.begin()
    refusals.refused(Monotonic(10.0))
    assert refusals.pause_s(Monotonic(10.0)) == 2.0
    second = refusals.begin()
    refusals.end(probe)
    assert refusals.pause_s(Monotonic(20.0)) is None, "an old probe that is settled is not the present one"
    refusals.end(second)
    assert refusals.pause_s(Monotonic(20.0)) == 0.0


def test_an_ordinary_receive_is_no_probe() -> None:
    assert Refusals().begin() == 0
    assert refused(2).begin() == 0


@pytest.mark.parametrize(
    ("since_s", "now_s", "there"),
    [(None, 1000.0, False), (5.0, 5.0, False), (5.0, 14.9, False), (5.0, 15.0, True), (5.0, 900.0, True)],
)
def test_another_poller_takes_the_place_of_one_whose_batch_has_waited_long_enough(
    since_s: float | None, now_s: float, there: bool
) -> None:
    since = None if since_s is None else Monotonic(since_s)
    assert refused(2).replaceable(since, Monotonic(now_s)) is there


def test_what_waited_while_everything_was_refused_keeps_nobody_waiting_when_a_call_goes_through() -> None:
    refusals = refused(REFUSED_MAX)
    assert refusals.replaceable(Monotonic(0.0), Monotonic(0.0)), "the gate lets one receive at a time pass"
    refusals.accepted(Monotonic(4.0))
    assert refusals.replaceable(Monotonic(3.0), Monotonic(4.0))
    assert not refusals.replaceable(Monotonic(5.0), Monotonic(5.0 + RELIEF_S / 2))
    assert not refusals.replaceable(None, Monotonic(5.0))


def test_no_receive_begins_while_so_many_batches_wait() -> None:
    refusals = refused(WAITING_MAX - 1)
    refusals.accepted(Monotonic(0.0))
    assert refusals.pause_s(Monotonic(0.0)) == 0.0
    refusals.refused(Monotonic(0.0))
    assert refusals.pause_s(Monotonic(1e6)) is None
    refusals.gone()
    assert refusals.pause_s(Monotonic(0.0)) == 0.0


@given(
    st.lists(
        st.tuples(st.sampled_from(["refused", "begin", "end", "accepted"]), st.floats(0.0, 30.0)), max_size=80
    )
)
def test_while_everything_is_refused_receives_are_few(steps: list[tuple[str, float]]) -> None:
    refusals, now, under_way = Refusals(), 0.0, list[int]()
    since, begun = 0.0, 0
    for verb, later_s in steps:
        now += later_s
        moment = Monotonic(now)
        match verb:
            case "refused":
                if not refusals.everything:
                    since, begun = now, 0
                refusals.refused(moment)
            case "accepted":
                refusals.accepted(moment)
            case "begin" if refusals.pause_s(moment) == 0.0:
                probe = refusals.begin()
                assert bool(probe) is refusals.everything
                if probe:
                    under_way.append(probe)
                    begun += 1
            case "end" if under_way:
                refusals.end(under_way.pop())
        if refusals.everything:
            assert begun <= 1 + sum(each[0] in ("refused", "end") for each in steps)
            assert begun <= 1 + (now - since) + len([each for each in steps if each[0] == "end"])
