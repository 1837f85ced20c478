"""Owns facts of a function's circuit breaker."""

from collections import deque

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from poller.domain.invocations import Ended
from poller.domain.policies import BreakerPolicy
from poller.domain.records import Monotonic
from poller.domain.telemetry.labels import BreakerState
from poller.rules.flow_control.breaker import (
    AGAIN_S,
    BUCKETS,
    CALLS_MIN,
    Breaker,
    BreakerTurn,
    Ticket,
    failure_of,
)
from poller.rules.responses import Accepted, Deferred, Partial, Rejected, Response, Verdict

POLICY = BreakerPolicy(failures=0.5, window_s=60.0, open_s=30.0)
RESPONSE = Response("$LATEST", None)
GOOD = Accepted()
BAD = Rejected(Ended.FUNCTION_ERROR, "ValueError: x", RESPONSE)
BUSY = Deferred(Ended.THROTTLED, "no capacity")


def at(moment: float) -> Monotonic:
    return Monotonic(moment)


def ended(breaker: Breaker, verdict: Verdict, now: float) -> BreakerTurn | None:
    """One call that begins and ends at this moment."""
    ticket, _ = breaker.admit(at(now))
    assert breaker.may_start(ticket)
    return breaker.answered(ticket, verdict, at(now))


def opened(policy: BreakerPolicy = POLICY, *, now: float = 0.0) -> Breaker:
    breaker = Breaker(policy, now=at(now))
    turns = [ended(breaker, BAD, now) for _ in range(CALLS_MIN)]
    assert [turn.state for turn in turns if turn is not None] == [BreakerState.OPEN]
    return breaker


@pytest.mark.parametrize(
    ("verdict", "counts_as"),
    [
        (Accepted(), False),
        (Partial(frozenset({0}), RESPONSE), False),
        (Rejected(Ended.FUNCTION_ERROR, "x", RESPONSE), True),
        (Rejected(Ended.TIMED_OUT, "x", RESPONSE), True),
        (Rejected(Ended.REJECTED, "the answer is not JSON", RESPONSE), True),
        (Rejected(Ended.OVERSIZED, "x", None), None),
        (Deferred(Ended.UNREACHABLE, "x"), True),
        (Deferred(Ended.THROTTLED, "x"), None),
    ],
)
def test_which_verdicts_count_as_failures(verdict: Verdict, counts_as: bool | None) -> None:
    assert failure_of(verdict) is counts_as


@pytest.mark.parametrize(
    ("verdicts", "opens"),
    [
        ([BAD] * (CALLS_MIN - 1), False),
        ([BAD] * CALLS_MIN, True),
        ([GOOD] * 3 + [BAD] * 2, False),
        ([GOOD] * 3 + [BAD] * 3, True),
        ([BUSY] * 20 + [BAD] * 4, False),
        ([BAD] * 4 + [GOOD] * 1, False),
    ],
)
def test_the_breaker_opens_at_the_share_of_failures_and_not_below_the_least_number_of_calls(
    verdicts: list[Verdict], opens: bool
) -> None:
    breaker = Breaker(POLICY, now=at(0))
    for verdict in verdicts:
        ended(breaker, verdict, 1.0)
    assert (breaker.view(at(1.0)).state is BreakerState.OPEN) is opens


def test_failures_that_have_left_the_window_do_not_count() -> None:
    breaker = Breaker(POLICY, now=at(0))
    for now in (0.0, 0.0, 0.0, 0.0, 66.0):
        assert ended(breaker, BAD, now) is None
    assert breaker.view(at(66.0)).calls == 1


def test_an_open_breaker_says_why_since_when_and_until_when() -> None:
    breaker = opened(now=100.0)
    view = breaker.view(at(105.0))
    assert (view.state, view.since, view.until) == (BreakerState.OPEN, 100.0, 130.0)
    assert view.reason == "5 of 5 calls failed within 60 s: ValueError: x"
    assert (view.calls, view.failed) == (5, 5)
    assert breaker.wait_s(at(105.0)) == 25.0


def test_after_its_time_exactly_one_call_tries() -> None:
    breaker = opened()
    assert breaker.wait_s(at(30.0)) == 0.0
    ticket, turn = breaker.admit(at(30.0))
    assert (ticket.trial, turn is not None and turn.state) == (True, BreakerState.HALF_OPEN)
    assert breaker.wait_s(at(99.0)) is None


def test_a_try_that_succeeds_closes_and_counting_begins_from_zero() -> None:
    breaker = opened()
    turn = ended(breaker, GOOD, 31.0)
    assert turn == BreakerTurn(BreakerState.CLOSED, "the try succeeded")
    assert (breaker.view(at(31.0)).calls, breaker.view(at(31.0)).since) == (0, 31.0)


def test_a_try_that_fails_opens_again_for_the_whole_time_and_keeps_since_when() -> None:
    breaker = opened()
    turn = ended(breaker, BAD, 40.0)
    assert turn is not None
    assert (turn.state, turn.reason) == (BreakerState.OPEN, "the try failed: ValueError: x")
    assert (breaker.wait_s(at(40.0)), breaker.view(at(40.0)).since) == (30.0, 0.0)


def test_a_try_that_was_not_called_leaves_the_try_to_the_next_call() -> None:
    breaker = opened()
    ticket, _ = breaker.admit(at(30.0))
    breaker.returned(ticket, at(35.0))
    assert breaker.wait_s(at(35.0)) == 0.0
    assert not breaker.may_start(ticket)
    following, turn = breaker.admit(at(35.0))
    assert (following.trial, turn) == (True, None)


def test_a_try_that_the_function_throttled_shows_nothing_and_is_repeated_after_a_moment() -> None:
    breaker = opened()
    assert ended(breaker, BUSY, 30.0) is None
    assert (breaker.view(at(30.0)).state, breaker.wait_s(at(30.0))) == (BreakerState.HALF_OPEN, AGAIN_S)


def test_what_began_before_the_breaker_opened_neither_starts_nor_counts() -> None:
    breaker = Breaker(POLICY, now=at(0))
    early, _ = breaker.admit(at(0))
    for _ in range(CALLS_MIN):
        ended(breaker, BAD, 0.0)
    assert not breaker.may_start(early)
    assert breaker.answered(early, GOOD, at(31.0)) is None
    assert breaker.view(at(31.0)).state is BreakerState.OPEN
    ticket, _ = breaker.admit(at(31.0))
    assert breaker.answered(early, GOOD, at(32.0)) is None, "only the call that tries decides"
    turn = breaker.answered(ticket, GOOD, at(33.0))
    assert turn is not None
    assert turn.state is BreakerState.CLOSED


def test_closing_by_hand_lets_calls_begin_at_once_and_what_ran_before_does_not_count() -> None:
    breaker = opened()
    trial, _ = breaker.admit(at(30.0))
    assert breaker.close("closed by hand by ops", at(31.0)) == BreakerTurn(
        BreakerState.CLOSED, "closed by hand by ops"
    )
    assert breaker.wait_s(at(31.0)) == 0.0
    assert breaker.answered(trial, BAD, at(32.0)) is None
    assert breaker.close("again", at(33.0)) is None


VERDICTS: dict[str, Verdict] = {"good": GOOD, "bad": BAD, "busy": BUSY}
STEPS = st.lists(
    st.tuples(
        st.sampled_from(["admit", "start", "good", "bad", "busy", "return", "close"]),
        st.integers(0, 5),
        st.floats(0, 20),
    ),
    max_size=120,
)


@given(STEPS, st.sampled_from([0.2, 0.5, 1.0]))
@settings(max_examples=300)
def test_while_it_is_open_nothing_starts_and_only_one_call_at_a_time_tries(
    steps: list[tuple[str, int, float]], share: float
) -> None:
    policy = BreakerPolicy(failures=share, window_s=30.0, open_s=15.0)
    breaker, now = Breaker(policy, now=at(0)), 0.0
    waiting: list[Ticket] = []
    running: list[Ticket] = []
    opened_at: float | None = None
    for kind, pick, passes in steps:
        now += passes
        turn: BreakerTurn | None = None
        match kind:
            case "admit" if breaker.wait_s(at(now)) == 0.0:
                ticket, turn = breaker.admit(at(now))
                waiting.append(ticket)
            case "start" if waiting:
                ticket = waiting.pop(pick % len(waiting))
                may = breaker.may_start(ticket)
                state = breaker.view(at(now)).state
                assert not (may and state is BreakerState.OPEN)
                assert not (may and state is BreakerState.HALF_OPEN and not ticket.trial)
                if may:
                    running.append(ticket)
                else:
                    breaker.returned(ticket, at(now))
            case "return" if waiting:
                breaker.returned(waiting.pop(pick % len(waiting)), at(now))
            case "good" | "bad" | "busy" if running:
                verdict = VERDICTS[kind]
                turn = breaker.answered(running.pop(pick % len(running)), verdict, at(now))
            case "close":
                turn = breaker.close("by hand", at(now))
        if turn is not None and turn.state is BreakerState.HALF_OPEN:
            assert opened_at is not None
            assert now >= opened_at + policy.open_s
        if turn is not None and turn.state is BreakerState.OPEN:
            opened_at = now
        valid = [each for each in (*waiting, *running) if each.trial and breaker.may_start(each)]
        assert len(valid) <= 1
        if breaker.view(at(now)).state is BreakerState.OPEN:
            assert not any(breaker.may_start(each) for each in waiting)


@given(st.lists(st.tuples(st.booleans(), st.floats(0, 8)), max_size=80))
@settings(max_examples=300)
def test_it_opens_when_a_count_over_the_window_says_so(calls: list[tuple[bool, float]]) -> None:
    """The window is counted in parts, so calls of its oldest part may be left out."""
    policy = BreakerPolicy(failures=0.6, window_s=30.0, open_s=15.0)
    breaker, now = Breaker(policy, now=at(0)), 0.0
    seen: deque[tuple[float, bool]] = deque()
    part_s = policy.window_s / BUCKETS
    for failed, passes in calls:
        now += passes
        seen.append((now, failed))
        turn = ended(breaker, BAD if failed else GOOD, now)
        oldest = (int(now / part_s) - BUCKETS + 1) * part_s
        counted = [each for moment, each in seen if int(moment / part_s) * part_s >= oldest]
        expected = failed and len(counted) >= CALLS_MIN and sum(counted) >= policy.failures * len(counted)
        assert (turn is not None) is expected
        if turn is not None:
            return
