"""How shifts go on: the names of strategies, the share at a time, the transitions, and which calls move."""

from dataclasses import replace

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from poller.domain.functions.shift_strategies import own_strategy, strategy, total_s
from poller.domain.functions.shifts import ENDED, SHIFT_S_MAX, Shift, ShiftState, ShiftStrategy
from poller.domain.invocations import FunctionError, Outcome, Succeeded, TimedOut, Unreachable
from poller.domain.records import Epoch
from poller.rules.functions.aliases.choice import chosen, point
from poller.rules.functions.aliases.hooks import answer_of, payload
from poller.rules.functions.aliases.shift_steps import (
    HOOK_S_MAX,
    HookAnswer,
    NewCalls,
    begun,
    rolled_back,
    share,
    stepped,
    too_many_failures,
)

T0 = 1_000_000.0
CANARY = strategy("Canary10Percent5Minutes")


def shift(found: ShiftStrategy = CANARY, state: ShiftState = ShiftState.SHIFTING, **changes: object) -> Shift:
    made = Shift(
        shift="s", old="1", new="2", strategy=found, state=state, accepted=Epoch(T0), began=Epoch(T0)
    )
    return replace(made, **changes)  # type: ignore[arg-type]  # the fields' own types


def at(after_s: float) -> Epoch:
    return Epoch(T0 + after_s)


@pytest.mark.parametrize("prefix", ["", "Lambda", "CodeDeployDefault.Lambda", "CodeDeployDefault."])
@pytest.mark.parametrize(
    ("name", "percent", "interval_s", "linear", "whole_s"),
    [
        ("AllAtOnce", 100, 0, False, 0),
        ("Canary10Percent5Minutes", 10, 300, False, 300),
        ("Canary10Percent10Minutes", 10, 600, False, 600),
        ("Canary10Percent15Minutes", 10, 900, False, 900),
        ("Canary10Percent30Minutes", 10, 1800, False, 1800),
        ("Linear10PercentEvery1Minute", 10, 60, True, 540),
        ("Linear10PercentEvery2Minutes", 10, 120, True, 1080),
        ("Linear10PercentEvery3Minutes", 10, 180, True, 1620),
        ("Linear10PercentEvery10Minutes", 10, 600, True, 5400),
        ("Linear33PercentEvery1Minute", 33, 60, True, 180),
        ("Canary1Percent2880Minutes", 1, 172_800, False, 172_800),
    ],
)
def test_names_of_strategies(
    prefix: str, name: str, percent: float, interval_s: float, linear: bool, whole_s: float
) -> None:
    found = strategy(prefix + name)
    assert found == ShiftStrategy(name, percent, interval_s, linear)
    assert total_s(found) == whole_s


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("", "write AllAtOnce"),
        ("allatonce", "write AllAtOnce"),
        ("Canary10Percent", "write AllAtOnce"),
        ("Canary0Percent5Minutes", "percent"),
        ("Canary101Percent5Minutes", "percent"),
        ("Canary10Percent2881Minutes", "an interval"),
        ("Linear1PercentEvery30Minutes", "would take"),
        ("Canary10Percent5Minutes\n", "write AllAtOnce"),
    ],
)
def test_names_that_are_none(name: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        strategy(name)


def test_own_numbers_are_checked_and_named() -> None:
    assert own_strategy(25, 90, True) == ShiftStrategy("Linear25PercentEvery90Seconds", 25, 90, True)
    assert own_strategy(2.5, 30, False).name == "Canary2.5Percent30Seconds"
    for percent, interval_s in ((0, 1), (101, 1), (float("nan"), 1), (10, -1), (10, SHIFT_S_MAX + 1)):
        with pytest.raises(ValueError, match="write"):
            own_strategy(percent, interval_s, False)


@pytest.mark.parametrize(
    ("name", "shares"),
    [
        ("AllAtOnce", [(0, 1.0), (1, 1.0)]),
        ("Canary10Percent5Minutes", [(-5, 0.1), (0, 0.1), (299.9, 0.1), (300, 1.0), (9999, 1.0)]),
        ("Linear10PercentEvery1Minute", [(0, 0.1), (59.9, 0.1), (60, 0.2), (539.9, 0.9), (540, 1.0)]),
        ("Linear33PercentEvery1Minute", [(0, 0.33), (60, 0.66), (120, 0.99), (180, 1.0)]),
    ],
)
def test_the_share_at_a_time(name: str, shares: list[tuple[float, float]]) -> None:
    found = shift(strategy(name))
    assert [(s, round(share(found, at(s)), 9)) for s, _ in shares] == shares


def test_other_states_have_all_or_nothing() -> None:
    found = {
        state: share(shift(state=state), at(0)) for state in ShiftState if state is not ShiftState.SHIFTING
    }
    assert found == {
        ShiftState.BEFORE: 0.0,
        ShiftState.AFTER: 1.0,
        ShiftState.DONE: 1.0,
        ShiftState.ROLLED_BACK: 0.0,
    }


STRATEGIES = st.builds(
    lambda percent, interval_s, linear: ShiftStrategy("own", percent, interval_s, linear),
    st.floats(0.1, 100),
    st.floats(0, 3600),
    st.booleans(),
)


@given(STRATEGIES, st.lists(st.floats(0, 200_000), min_size=2, max_size=20), st.text(max_size=40))
def test_the_share_only_grows_and_a_call_never_goes_back(
    found: ShiftStrategy, moments: list[float], text: str
) -> None:
    moving = shift(found)
    shares = [share(moving, at(each)) for each in sorted(moments)]
    assert shares == sorted(shares)
    assert all(0 <= each <= 1 for each in shares)
    versions = [chosen("1", {"2": each}, text) for each in shares]
    assert versions == sorted(versions)
    assert share(moving, at(total_s(found) + 1e-3)) == 1.0


@given(st.text(max_size=200))
def test_a_point_is_the_same_each_time_and_lies_below_one(text: str) -> None:
    assert 0 <= point(text) < 1
    assert point(text) == point(text)
    assert chosen("1", {"2": 1.0}, text) == "2"
    assert chosen("1", {}, text) == chosen("1", {"2": 0.0}, text) == "1"


def test_a_share_is_about_that_share_of_all_texts() -> None:
    found = sum(chosen("1", {"2": 0.1}, f"shardId-000:{number}") == "2" for number in range(10_000))
    assert 900 < found < 1100


STATES = st.sampled_from(list(ShiftState))
SHIFTS = st.builds(
    lambda found, state, before, after, rate: shift(
        found, state, before=before, after=after, failure_rate=rate, moved=at(0)
    ),
    STRATEGIES,
    STATES,
    st.sampled_from([None, "check"]),
    st.sampled_from([None, "check"]),
    st.sampled_from([None, 0.0, 0.5]),
)
ANSWERS = st.none() | st.builds(HookAnswer, STATES, st.booleans(), st.just("no"))
CALLS = st.integers(0, 50).flatmap(
    lambda calls: st.builds(lambda failed: NewCalls(calls, failed), st.integers(0, calls))
)
ORDER = [ShiftState.BEFORE, ShiftState.SHIFTING, ShiftState.AFTER, ShiftState.DONE]


@given(SHIFTS, st.floats(0, 300_000), ANSWERS, CALLS)
def test_a_step_that_is_taken_again_changes_nothing_and_none_leads_back(
    found: Shift, after_s: float, answer: HookAnswer | None, calls: NewCalls
) -> None:
    once = stepped(found, at(after_s), answer=answer, calls=calls)
    assert stepped(once, at(after_s), answer=answer, calls=calls) == once
    if found.state in ENDED:
        assert once == found
    elif once.state is not ShiftState.ROLLED_BACK:
        assert ORDER.index(once.state) >= ORDER.index(found.state)
        assert not too_many_failures(found, calls) or found.state is ShiftState.BEFORE or once.state in ENDED
    else:
        assert once.ended == at(after_s)
        assert once.ended_because
    # Without an answer a hook ends nothing before its time.
    if found.state is ShiftState.BEFORE and found.before and after_s < HOOK_S_MAX:
        assert stepped(found, at(after_s), calls=calls) == found


def test_a_shift_with_both_hooks_takes_every_state() -> None:
    first = begun(shift(state=ShiftState.BEFORE, began=None, before="check", after="check"))
    assert first.state is ShiftState.BEFORE
    assert stepped(first, at(9)) == first
    wrong = HookAnswer(ShiftState.AFTER, succeeded=True)
    assert stepped(first, at(9), answer=wrong) == first
    moving = stepped(first, at(10), answer=HookAnswer(ShiftState.BEFORE, succeeded=True))
    assert (moving.state, moving.began) == (ShiftState.SHIFTING, at(10))
    assert stepped(moving, at(309)) == moving
    moved = stepped(moving, at(310))
    assert (moved.state, moved.moved, moved.ended) == (ShiftState.AFTER, at(310), None)
    done = stepped(moved, at(320), answer=HookAnswer(ShiftState.AFTER, succeeded=True))
    assert (done.state, done.ended) == (ShiftState.DONE, at(320))
    late = stepped(moved, at(310 + HOOK_S_MAX))
    assert (late.state, "has not answered" in late.ended_because) == (ShiftState.ROLLED_BACK, True)
    refused = stepped(
        first, at(1), answer=HookAnswer(ShiftState.BEFORE, succeeded=False, reason="it says no")
    )
    assert refused.ended_because == "the hook check did not succeed: it says no"


def test_without_hooks_all_at_once_is_over_at_once() -> None:
    assert stepped(begun(shift(strategy("AllAtOnce"))), at(0)).state is ShiftState.DONE


@pytest.mark.parametrize(
    ("calls", "failed", "ends"),
    [(9, 9, False), (10, 1, False), (10, 2, True), (100, 10, False), (100, 11, True)],
)
def test_a_failure_rate_counts_from_ten_calls_on(calls: int, failed: int, ends: bool) -> None:
    found = stepped(shift(failure_rate=0.1), at(1), calls=NewCalls(calls, failed))
    assert (found.state is ShiftState.ROLLED_BACK) is ends
    assert not ends or found.ended_because.startswith(f"{failed} of {calls} calls of version 2 failed")


def test_what_has_ended_is_not_rolled_back() -> None:
    done = shift(state=ShiftState.DONE)
    assert rolled_back(done, at(1), "by hand") is done


@pytest.mark.parametrize(
    ("outcome", "succeeded", "said"),
    [
        (Succeeded(b'"Succeeded"'), True, ""),
        (Succeeded(b'{"status": "Succeeded"}'), True, ""),
        (Succeeded(b'{"status": "Failed"}'), False, "it answered"),
        (Succeeded(b'"Failed"'), False, "it answered"),
        (Succeeded(b""), False, "it answered nothing"),
        (Succeeded(b"["), False, "it answered"),
        (Succeeded(b'["Succeeded"]'), False, "it answered"),
        (FunctionError("ValueError", "no"), False, "ValueError: no"),
        (TimedOut(3.0), False, "timed out"),
        (Unreachable("gone"), False, "gone"),
    ],
)
def test_answers_of_hooks(outcome: Outcome, succeeded: bool, said: str) -> None:
    found = answer_of(shift(state=ShiftState.BEFORE, before="check"), outcome)
    assert (found.state, found.succeeded) == (ShiftState.BEFORE, succeeded)
    assert said in found.reason


def test_a_hook_gets_the_ids_that_codedeploy_sends() -> None:
    assert orjson.loads(payload(shift(state=ShiftState.AFTER))) == {
        "DeploymentId": "s",
        "LifecycleEventHookExecutionId": "s:after",
    }
