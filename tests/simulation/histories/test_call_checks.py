"""The checker of asynchronous calls finds every wrong history, and lets the right ones pass."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from poller.domain.functions.queued_calls import (
    RETRY_WAITS_S,
    AsyncPolicy,
    CallAnswer,
    CallEnd,
    CallId,
    EndedCall,
    QueuedCall,
)
from poller.domain.operations import Action
from poller.domain.records import Epoch, WorkerId
from poller.rules.functions.queued_calls import TAKEOVERS_MAX
from tests.simulation.calls.call_checks import AskedOperation, CallFault, CallLedger

CALL = CallId("call-1")
DONE, FAILED = "done", "failed"
POLICY = AsyncPolicy(on_success=DONE, on_failure=FAILED, retries_max=1, age_s_max=600)
FOR_EVER = float("inf")


@dataclass
class Bench:
    """A ledger, a call in it, and the time. Each method is one event, carried out as a worker that is in order does it."""

    now: float = 1_000.0
    ledger: CallLedger = field(init=False)

    def __post_init__(self) -> None:
        self.ledger = CallLedger(POLICY, lambda: self.now)
        at = Epoch(self.now)
        self.ledger.was_put(QueuedCall(call=CALL, function="f", arn="f", payload=b"", accepted=at, due=at))

    @property
    def call(self) -> QueuedCall:
        return self.ledger.stored[CALL]

    def claim(self, worker: str = "ann") -> None:
        self.ledger.was_claimed(worker, self.call.claimed(WorkerId(worker)))

    def begin(self, worker: str = "ann") -> None:
        self.ledger.began(worker, CALL)

    def answer(self, *, failed: bool) -> None:
        self.ledger.answered(CALL, failed=failed)

    def write(self, worker: str = "ann", **changes: Any) -> None:
        changed: Any = replace(self.call, **{"owner": None, "revision": self.call.revision + 1} | changes)
        self.ledger.was_replaced(worker, changed)

    def put_off(self) -> None:
        """After a failure."""
        due = Epoch(self.now + RETRY_WAITS_S[self.call.attempts])
        self.write(attempts=self.call.attempts + 1, due=due)

    def deliver(self, to: str) -> None:
        self.ledger.delivered.setdefault(CALL, set()).add(to)

    def remove(self, worker: str = "ann") -> None:
        self.ledger.was_removed(worker, self.call)

    def ask(self, action: Action, *calls: str, drops: bool = False) -> None:
        self.ledger.asked[str(len(self.ledger.asked))] = AskedOperation(action, calls, self.now, drops=drops)

    def lose(self, worker: str = "ann") -> None:
        self.ledger.gone[worker] = FOR_EVER

    def run(self, *, failed: bool = False) -> None:
        self.claim()
        self.begin()
        self.answer(failed=failed)


def over(end: CallEnd, *undelivered: str) -> EndedCall:
    return EndedCall(end, Epoch(1_000.0), CallAnswer(), undelivered)


def success() -> Bench:
    bench = Bench()
    bench.run()
    bench.deliver(DONE)
    bench.remove()
    return bench


def second_try() -> Bench:
    bench = Bench()
    bench.run(failed=True)
    bench.put_off()
    bench.now += RETRY_WAITS_S[0]
    bench.run(failed=True)
    bench.deliver(FAILED)
    bench.remove()
    return bench


def taken_over() -> Bench:
    bench = Bench()
    bench.claim()
    bench.begin()
    bench.lose()
    bench.claim("bob")
    bench.begin("bob")
    bench.answer(failed=True)
    # The first one's function goes on, and nobody hears of it.
    bench.answer(failed=False)
    bench.write("bob", attempts=1, due=Epoch(bench.now + RETRY_WAITS_S[0]))
    bench.ask(Action.SKIP, CALL)
    bench.write("ann", ended=over(CallEnd.SKIPPED, FAILED), due=Epoch(bench.now))
    bench.claim("bob")
    bench.deliver(FAILED)
    bench.remove("bob")
    return bench


def retried_at_once() -> Bench:
    bench = Bench()
    bench.run(failed=True)
    bench.put_off()
    bench.ask(Action.RETRY)
    bench.write("bob", due=Epoch(bench.now))
    bench.run()
    bench.deliver(DONE)
    bench.remove()
    return bench


def dropped() -> Bench:
    bench = Bench()
    bench.ask(Action.SKIP, CALL, drops=True)
    bench.remove("bob")
    return bench


def too_old() -> Bench:
    bench = Bench()
    bench.now += POLICY.age_s_max
    bench.claim()
    bench.deliver(FAILED)
    bench.remove()
    return bench


@pytest.mark.parametrize(
    "history",
    [success, second_try, taken_over, retried_at_once, dropped, too_old],
    ids=lambda it: it.__name__,
)
def test_a_right_history_passes(history: Callable[[], Bench]) -> None:
    history().ledger.check_end({})


def taken_from_the_living(bench: Bench) -> None:
    bench.claim()
    bench.claim("bob")


def taken_from_one_that_came_back_before_it_claimed(bench: Bench) -> None:
    bench.ledger.gone["ann"] = bench.now
    bench.now += 1.0
    bench.claim()
    bench.claim("bob")


def claimed_early(bench: Bench) -> None:
    bench.run(failed=True)
    bench.put_off()
    bench.claim()


def put_off_for_too_short(bench: Bench) -> None:
    bench.run(failed=True)
    bench.write(attempts=1, due=Epoch(bench.now + 1.0))


def called_without_a_claim(bench: Bench) -> None:
    bench.begin()


def called_after_its_end(bench: Bench) -> None:
    bench.claim()
    bench.answer(failed=False)
    bench.write(ended=over(CallEnd.SUCCESS, DONE))
    bench.claim()
    bench.begin()


def called_by_two(bench: Bench) -> None:
    bench.claim()
    bench.begin("bob")


def removed_before_its_destination_has_it(bench: Bench) -> None:
    bench.run()
    bench.remove()


def removed_with_the_document_of_another_end(bench: Bench) -> None:
    bench.run(failed=True)
    bench.deliver(DONE)
    bench.remove()


def removed_without_a_call(bench: Bench) -> None:
    bench.claim()
    bench.deliver(DONE)
    bench.deliver(FAILED)
    bench.remove()


def given_up_after_one_failure_of_two(bench: Bench) -> None:
    bench.run(failed=True)
    bench.write(ended=over(CallEnd.RETRIES, FAILED), attempts=1)


def given_up_for_claims_without_an_answer(bench: Bench) -> None:
    for _ in range(TAKEOVERS_MAX + 2):
        bench.claim()
    bench.deliver(FAILED)
    bench.remove()


def given_up_young(bench: Bench) -> None:
    bench.claim()
    bench.write(ended=over(CallEnd.AGE, FAILED))


def skipped_without_an_operation(bench: Bench) -> None:
    bench.write("bob", ended=over(CallEnd.SKIPPED, FAILED))


def skipped_by_an_operation_on_another(bench: Bench) -> None:
    bench.ask(Action.SKIP, "call-2")
    bench.write("bob", ended=over(CallEnd.SKIPPED, FAILED))


def skipped_by_an_operation_that_drops(bench: Bench) -> None:
    bench.ask(Action.SKIP, CALL, drops=True)
    bench.write("bob", ended=over(CallEnd.SKIPPED, FAILED))


def skipped_by_its_owner(bench: Bench) -> None:
    bench.ask(Action.SKIP, CALL)
    bench.claim()
    bench.write(ended=over(CallEnd.SKIPPED, FAILED))


def skipped_while_it_runs(bench: Bench) -> None:
    bench.ask(Action.SKIP, CALL)
    bench.claim()
    bench.begin()
    bench.write("bob", ended=over(CallEnd.SKIPPED, FAILED))


def dropped_without_an_operation(bench: Bench) -> None:
    bench.remove("bob")


def retried_without_an_operation(bench: Bench) -> None:
    bench.write("bob", deferrals=0)


def retried_for_an_attempt(bench: Bench) -> None:
    bench.ask(Action.RETRY, CALL)
    bench.write("bob", attempts=1)


def deferred_for_an_attempt(bench: Bench) -> None:
    bench.claim()
    bench.begin()
    bench.write(attempts=1, due=Epoch(bench.now + RETRY_WAITS_S[0]))


def lost_an_attempt(bench: Bench) -> None:
    bench.run(failed=True)
    bench.put_off()
    bench.now += RETRY_WAITS_S[0]
    bench.claim()
    bench.write(attempts=0)


def written_over(bench: Bench) -> None:
    bench.claim()
    bench.write(revision=bench.call.revision + 2)


def alive_again(bench: Bench) -> None:
    bench.run()
    bench.write(ended=over(CallEnd.SUCCESS, DONE))
    bench.claim()
    bench.write(ended=None)


def left_behind(bench: Bench) -> None:
    bench.run(failed=True)
    bench.put_off()
    bench.ledger.check_end({})


def failed_too_often(bench: Bench) -> None:
    bench.run(failed=True)
    bench.answer(failed=True)
    bench.answer(failed=True)
    bench.deliver(FAILED)
    bench.remove()
    bench.ledger.check_end({})


WRONG: dict[Callable[[Bench], None], str] = {
    taken_from_the_living: "bob has taken call-1 from ann, who lives",
    taken_from_one_that_came_back_before_it_claimed: "bob has taken call-1 from ann, who lives",
    claimed_early: "before it was due",
    put_off_for_too_short: "which is not 60.0 s after a failure",
    called_without_a_claim: "which None owns",
    called_after_its_end: "which is over",
    called_by_two: "which ann owns",
    removed_before_its_destination_has_it: r"of which \[\] know",
    removed_with_the_document_of_another_end: "which is not over",
    removed_without_a_call: "which is not over",
    given_up_after_one_failure_of_two: "is over by RetriesExhausted: why",
    given_up_for_claims_without_an_answer: "which is not over",
    given_up_young: "is over by EventAgeExceeded: why",
    skipped_without_an_operation: "is over by SkippedByOperator: why",
    skipped_by_an_operation_on_another: "is over by SkippedByOperator: why",
    skipped_by_an_operation_that_drops: "is over by SkippedByOperator: why",
    skipped_by_its_owner: "ann has skipped call-1, which it ran",
    skipped_while_it_runs: "which ann works on",
    dropped_without_an_operation: "nobody asked to drop",
    retried_without_an_operation: "nobody asked for a retry",
    retried_for_an_attempt: "an operation has changed the attempts",
    deferred_for_an_attempt: "which is not 60.0 s after a failure",
    lost_an_attempt: "has lost an attempt",
    written_over: "went from 1 to 3",
    alive_again: "was over by Success and is not any more",
    left_behind: "calls are left",
    failed_too_often: "has failed 3 times, 2 at most",
}


@pytest.mark.parametrize("history", WRONG, ids=lambda it: it.__name__)
def test_a_wrong_history_is_found(history: Callable[[Bench], None]) -> None:
    with pytest.raises(CallFault, match=WRONG[history]):
        history(bench := Bench())
    assert len(bench.ledger.faults.found) == 1
