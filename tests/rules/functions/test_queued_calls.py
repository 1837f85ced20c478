"""What follows an attempt of an asynchronous call."""

import json
from collections.abc import Callable
from dataclasses import replace
from random import Random

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.stores.stored_calls import checked
from poller.domain.functions.queued_calls import (
    ANSWER_BYTES_MAX,
    AsyncPolicy,
    CallEnd,
    CallId,
    QueuedCall,
)
from poller.domain.invocations import FunctionError, Outcome, Succeeded, Throttled, TimedOut, Unreachable
from poller.domain.records import Epoch, WorkerId
from poller.rules.functions.call_documents import notice
from poller.rules.functions.lineage import extended
from poller.rules.functions.queued_calls import (
    ROUNDS_MAX,
    TAKEOVERS_MAX,
    after,
    before,
    deferred,
    reclaimed,
    undelivered,
)
from tests.hostile_texts import HOSTILE

ARN = "arn:aws:lambda:eu-west-1:111122223333:function:orders"
NOW = Epoch(1_000_000.0)
OK = "arn:aws:sqs:eu-west-1:111122223333:done"
BAD = "arn:aws:sns:eu-west-1:111122223333:failed"
DEAD = "arn:aws:sqs:eu-west-1:111122223333:dead"
POLICY = AsyncPolicy(on_success=OK, on_failure=BAD, dead_letter=DEAD)
FAILED = FunctionError("ValueError", "bad order", executed_version="7")


def call(**changes: object) -> QueuedCall:
    new = QueuedCall(
        call=CallId("call-1"),
        function="orders",
        arn=ARN,
        payload=b'{"order":1}',
        accepted=NOW,
        due=NOW,
        owner=WorkerId("ann"),
    )
    return replace(new, **changes)  # type: ignore[arg-type] # members of the call


def tried(
    start: QueuedCall, outcome: Outcome, *, now: float = NOW, policy: AsyncPolicy = POLICY
) -> QueuedCall:
    return after(start, outcome, policy, Epoch(now), Random(1))


def test_a_call_that_succeeds_is_over_and_its_destination_gets_the_answer() -> None:
    done = tried(call(), Succeeded(b'"done"', "7"))
    assert done.ended is not None
    assert (done.ended.end, done.ended.undelivered, done.attempts) == (CallEnd.SUCCESS, (OK,), 1)
    assert (done.ended.answer.payload, done.ended.answer.executed_version) == (b'"done"', "7")
    assert done.owner == "ann"


@pytest.mark.parametrize("outcome", [FAILED, TimedOut(3.0)])
def test_a_call_whose_function_fails_is_tried_three_times_after_one_and_two_minutes(outcome: Outcome) -> None:
    first = tried(call(), outcome)
    assert (first.attempts, first.due, first.owner, first.ended) == (1, NOW + 60, None, None)
    second = tried(first, outcome, now=NOW + 61)
    assert (second.attempts, second.due, second.ended) == (2, NOW + 181, None)
    third = tried(second, outcome, now=NOW + 182)
    assert third.ended is not None
    assert (third.ended.end, third.attempts) == (CallEnd.RETRIES, 3)
    assert third.ended.undelivered == (BAD, DEAD)


@pytest.mark.parametrize(("retries_max", "attempts"), [(0, 1), (1, 2), (2, 3)])
def test_the_retries_are_as_many_as_configured(retries_max: int, attempts: int) -> None:
    policy, now, state = AsyncPolicy(retries_max=retries_max), NOW, call()
    while state.ended is None:
        state = tried(state, FAILED, now=now, policy=policy)
        now = state.due
    assert (state.attempts, state.ended.end, state.ended.undelivered) == (attempts, CallEnd.RETRIES, ())


def test_a_retry_that_would_come_too_late_is_not_waited_for() -> None:
    policy = AsyncPolicy(age_s_max=100, on_failure=BAD)
    first = tried(call(), FAILED, policy=policy)
    assert first.ended is None
    second = tried(first, FAILED, now=NOW + 60, policy=policy)
    assert second.ended is not None
    assert (second.ended.end, second.attempts) == (CallEnd.AGE, 2)
    assert orjson.loads(second.ended.answer.payload)["errorMessage"] == "bad order"


@pytest.mark.parametrize("outcome", [Throttled("no room"), Unreachable("refused")])
def test_a_function_that_cannot_be_called_is_tried_until_the_age_with_growing_waits(
    outcome: Throttled | Unreachable,
) -> None:
    policy, state, now, waits = AsyncPolicy(age_s_max=3600, on_failure=BAD), call(), float(NOW), []
    while state.ended is None:
        state = tried(before(state, policy, Epoch(now)), outcome, now=now, policy=policy)
        waits.append(state.due - now)
        now = max(now, state.due)
    waits.pop()
    assert state.attempts == 0
    assert state.ended.end is CallEnd.AGE
    assert now == NOW + 3600
    assert 0.5 <= waits[0] <= 1.0
    assert all(150.0 <= wait_s <= 300.0 for wait_s in waits[9:-1])
    assert state.ended.answer.executed_version is None
    assert state.ended.answer.error == outcome.reason


def test_a_wait_that_the_function_asks_for_is_kept_within_the_age() -> None:
    assert tried(call(), Throttled("slow down", 250.0)).due == NOW + 250
    assert tried(call(), Throttled("slow down", 250.0), policy=AsyncPolicy(age_s_max=60)).due == NOW + 60


def test_a_failure_begins_the_waits_for_an_unreachable_function_anew() -> None:
    assert tried(call(deferrals=9), FAILED).deferrals == 0
    assert tried(call(deferrals=9), Throttled("no room")).deferrals == 10


def test_what_is_too_old_is_not_tried() -> None:
    policy = AsyncPolicy(age_s_max=60, on_failure=BAD)
    assert before(call(), policy, Epoch(NOW + 59)) == call()
    over = before(call(), policy, Epoch(NOW + 60)).ended
    assert over is not None
    assert (over.end, over.undelivered, over.answer.executed_version) == (CallEnd.AGE, (BAD,), None)


def test_a_call_that_ends_its_workers_is_given_up() -> None:
    assert before(call(takeovers=TAKEOVERS_MAX), POLICY, NOW).ended is None
    over = before(call(takeovers=TAKEOVERS_MAX + 1), POLICY, NOW).ended
    assert over is not None
    assert over.end is CallEnd.RETRIES
    assert "did not come back: 6" in over.answer.error


def test_a_worker_that_comes_back_from_a_call_clears_it_of_having_ended_others() -> None:
    for outcome in (FAILED, Throttled("no room"), Unreachable("refused")):
        assert tried(call(takeovers=TAKEOVERS_MAX), outcome).takeovers == 0
    # It was not called.
    assert deferred(call(takeovers=3), "not configured", POLICY, NOW, Random(1)).takeovers == 3


def test_claims_whose_answers_were_lost_are_no_takeovers() -> None:
    assert reclaimed(call(takeovers=4), 3).takeovers == 1
    assert reclaimed(call(takeovers=1), 3).takeovers == 0


def test_a_loop_of_calls_is_stopped_after_sixteen_rounds() -> None:
    header = ""
    for _ in range(ROUNDS_MAX):
        assert before(call(trace_header=header), POLICY, NOW).ended is None
        header = extended(header, ARN, root="1-0-0")
    over = before(call(trace_header=header), POLICY, NOW).ended
    assert over is not None
    assert (over.end, over.undelivered) == (CallEnd.RECURSION, (BAD, DEAD))


def test_an_answer_that_is_too_long_is_told_by_its_length() -> None:
    done = tried(call(), Succeeded(b"x" * (ANSWER_BYTES_MAX + 1)))
    assert done.ended is not None
    assert (done.ended.end, done.ended.answer.payload) == (CallEnd.SUCCESS, b"")
    assert str(ANSWER_BYTES_MAX + 1) in done.ended.answer.error


def test_destinations_that_cannot_be_reached_are_tried_again_and_those_that_have_it_are_not() -> None:
    state = tried(call(attempts=2), FAILED)
    for number in range(12):
        state = undelivered(state, (DEAD,), Epoch(NOW), Random(number))
        assert state.ended is not None
        assert (state.ended.undelivered, state.ended.deliveries, state.owner) == ((DEAD,), number + 1, None)
    assert NOW + 150 <= state.due <= NOW + 300
    assert before(state, AsyncPolicy(age_s_max=60), Epoch(NOW + 1e6)) == state


def test_the_same_destination_is_named_once() -> None:
    over = tried(call(attempts=2), FAILED, policy=AsyncPolicy(on_failure=DEAD, dead_letter=DEAD)).ended
    assert over is not None
    assert over.undelivered == (DEAD,)


OUTCOMES = st.one_of(
    st.builds(Succeeded, st.binary(max_size=20)),
    st.just(FAILED),
    st.builds(TimedOut, st.floats(0.1, 900)),
    st.builds(Throttled, st.text(max_size=20), st.none() | st.floats(0, 300)),
    st.builds(Unreachable, st.text(max_size=20), st.none() | st.floats(0, 300)),
)


@given(
    outcomes=st.lists(OUTCOMES, min_size=1, max_size=60),
    late_s=st.lists(st.floats(0, 5000), min_size=60, max_size=60),
    retries_max=st.integers(0, 2),
    age_s_max=st.integers(60, 21_600),
)
def test_whatever_happens_a_call_ends_once_by_its_age_and_never_uses_more_attempts_than_it_has(
    outcomes: list[Outcome], late_s: list[float], retries_max: int, age_s_max: int
) -> None:
    policy = AsyncPolicy(retries_max=retries_max, age_s_max=age_s_max)
    state, now = call(), float(NOW)
    for outcome, late in zip(outcomes, late_s, strict=False):
        state = before(state, policy, Epoch(now))
        if state.ended is None:
            state = tried(state, outcome, now=now, policy=policy)
        if state.ended is not None:
            break
        assert state.owner is None
        assert now < state.due <= NOW + age_s_max
        now = state.due + late
    assert state.attempts <= retries_max + 1
    if state.ended is not None and state.ended.end is CallEnd.RETRIES:
        assert state.attempts == retries_max + 1


SAYING: list[Callable[[str], Outcome]] = [
    lambda text: Succeeded(b"1", text),
    lambda text: Succeeded(text.encode("utf-8", "replace"), "7"),
    lambda text: FunctionError(text, text, text, text, stack_trace=(text,) * 100, document=b"x" * 10_000_000),
    lambda text: TimedOut(float("nan"), text),
    lambda text: TimedOut(1e308, text),
    lambda text: Throttled(text, float("inf")),
    lambda text: Unreachable(text, float("nan")),
]


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("outcome", SAYING)
def test_a_call_can_be_stored_and_told_whatever_its_function_says(
    name: str, outcome: Callable[[str], Outcome]
) -> None:
    text = HOSTILE[name]
    for accepted in (NOW, 0.0):
        later = tried(call(accepted=accepted), outcome(text), policy=replace(POLICY, retries_max=0))
        checked(later)
        if later.ended is not None:
            checked(undelivered(later, later.ended.undelivered, NOW, Random(1), error=text))
            for document in notice(later).documents:
                json.loads(document.decode(), parse_int=float, parse_constant=pytest.fail)
            notice(later).error_message.encode()
    checked(deferred(call(), text, POLICY, NOW, Random(1)))
