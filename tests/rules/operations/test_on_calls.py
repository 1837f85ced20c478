"""What operations on asynchronous calls do to one call, and how their results read."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from poller.domain.functions.queued_calls import (
    AsyncPolicy,
    CallAnswer,
    CallEnd,
    CallId,
    EndedCall,
    QueuedCall,
)
from poller.domain.operations import OperationState
from poller.domain.records import Epoch, WorkerId
from poller.rules.operations.on_calls import (
    CallStep,
    CallWord,
    LeaveAlone,
    Remove,
    Rewrite,
    retried,
    retry_result,
    skip_result,
    skipped,
)

NOW = Epoch(1_000_000.0)
POLICY = AsyncPolicy(on_success="arn:ok", on_failure="arn:bad", dead_letter="arn:dead")
NEW = QueuedCall(
    call=CallId("one"),
    function="orders",
    arn="arn:aws:lambda:eu-west-1:111122223333:function:orders",
    payload=b"{}",
    accepted=Epoch(NOW - 60),
    due=Epoch(NOW + 60),
    attempts=1,
    deferrals=3,
    last_error="ValueError: no",
)
RUNS = replace(NEW, owner=WorkerId("ann"))
OVER = replace(NEW, ended=EndedCall(CallEnd.AGE, NOW, CallAnswer(), ("arn:bad",), 4))
SKIPPED = replace(NEW, ended=EndedCall(CallEnd.SKIPPED, NOW, CallAnswer(), ("arn:bad",), 4))


def skip(
    call: QueuedCall, *, policy: AsyncPolicy = POLICY, running: bool = False, discard: bool = False
) -> CallStep:
    return skipped(call, policy, NOW, running=running, discard=discard, reason="ticket 7")


def test_a_retry_makes_a_call_due_and_begins_its_back_off_again() -> None:
    assert retried(NEW, NOW, running=False) == Rewrite(replace(NEW, due=NOW, deferrals=0))
    assert OVER.ended is not None
    again = replace(OVER, due=NOW, deferrals=0, ended=replace(OVER.ended, deliveries=0))
    assert retried(OVER, NOW, running=False) == Rewrite(again)


def test_a_retry_of_what_is_due_changes_nothing_and_leaves_what_runs() -> None:
    due = replace(NEW, due=Epoch(NOW - 5), deferrals=0)
    assert retried(due, NOW, running=False) == LeaveAlone(CallWord.DONE)
    assert retried(RUNS, NOW, running=True) == LeaveAlone(CallWord.RUNNING)


def test_what_a_worker_has_left_that_is_gone_counts_as_taken_over() -> None:
    assert retried(RUNS, NOW, running=False) == Rewrite(
        replace(RUNS, owner=None, due=NOW, deferrals=0, takeovers=1)
    )


def test_a_skip_ends_a_call_without_an_attempt() -> None:
    step = skip(NEW)
    assert isinstance(step, Rewrite)
    assert step.call.ended is not None
    assert (step.call.ended.end, step.call.ended.undelivered) == (CallEnd.SKIPPED, ("arn:bad", "arn:dead"))
    assert step.call.ended.answer == CallAnswer(error="an operator skipped the call: ticket 7")
    assert (step.call.attempts, step.call.due, step.call.owner) == (1, NOW, None)


@pytest.mark.parametrize(
    ("call", "given_", "expected"),
    [
        (RUNS, {"running": True}, LeaveAlone(CallWord.RUNNING)),
        (RUNS, {"running": True, "discard": True}, LeaveAlone(CallWord.RUNNING)),
        (NEW, {"policy": AsyncPolicy()}, LeaveAlone(CallWord.WITHOUT_DESTINATION)),
        (NEW, {"discard": True}, Remove(NEW)),
        (OVER, {}, LeaveAlone(CallWord.OVER)),
        (OVER, {"discard": True}, Remove(OVER)),
        (SKIPPED, {}, LeaveAlone(CallWord.DONE)),
        (SKIPPED, {"running": True}, LeaveAlone(CallWord.DONE)),
        (SKIPPED, {"discard": True}, Remove(SKIPPED)),
    ],
)
def test_a_skip_leaves_alone_what_it_cannot_end(
    call: QueuedCall, given_: dict[str, object], expected: CallStep
) -> None:
    assert skip(call, **given_) == expected  # type: ignore[arg-type] # its own arguments


@given(
    st.sampled_from([NEW, RUNS, OVER, SKIPPED]),
    st.booleans(),
    st.booleans(),
    st.sampled_from([POLICY, AsyncPolicy(), AsyncPolicy(dead_letter="arn:dead")]),
)
def test_whatever_is_asked_twice_is_done_once(
    call: QueuedCall, running: bool, discard: bool, policy: AsyncPolicy
) -> None:
    for step in (
        retried(call, NOW, running=running),
        skip(call, policy=policy, running=running, discard=discard),
    ):
        if isinstance(step, Rewrite):
            assert step.call.payload == call.payload
            assert step.call.attempts == call.attempts
            assert step.call.revision == call.revision
    once = retried(call, NOW, running=False)
    if isinstance(once, Rewrite):
        assert retried(once.call, NOW, running=False) == LeaveAlone(CallWord.DONE)
    ended = skip(call, policy=policy)
    if isinstance(ended, Rewrite):
        assert skip(ended.call, policy=policy) == LeaveAlone(CallWord.DONE)


def test_results_say_what_came_of_the_calls() -> None:
    assert retry_result({"done": 2, "running": 1}).result == "2 calls are tried now; 1 runs already"
    assert retry_result({"done": 1, "gone": 2}).result == "1 call is tried now; 2 are over or unknown"
    assert skip_result({"done": 1}, discard=False).result == "1 call skipped"
    dropped = skip_result({"done": 3, "gone": 1}, discard=True)
    assert (dropped.state, dropped.result) == (OperationState.DONE, "3 calls dropped; 1 is over or unknown")
    left = skip_result({"without_destination": 1, "over": 2}, discard=False)
    assert left.state is OperationState.FAILED
    assert left.result == (
        '0 calls skipped; 1 has no destination and stays: write "discard": true to drop them; '
        '2 are over already and wait for a destination: write "discard": true to drop them'
    )
