"""Owns what must hold of asynchronous calls: what the store is told of each, by whom, and what came of it.

1. Only the worker that has claimed a call writes it and calls its function, or an operation that found it free, or left by a worker that is gone.
2. A call is claimed when it is due: at once, or after the wait that its last failure says.
3. A call that is over stays over, with the same end, and that end has a reason: an answer of the function, an age, lost workers, an operator.
   It is removed when all of its destinations have it, or when an operation drops it.
4. Only a failed call of the function uses up an attempt. It fails as often as its retries allow, and once more for each worker that did not come back.
5. An operation changes the calls that it names, and nothing else of them than it says.
6. In the end every call that was accepted has been removed, once.
"""

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field

from poller.domain.functions.queued_calls import (
    RETRY_WAITS_S,
    AsyncPolicy,
    CallEnd,
    CallId,
    QueuedCall,
)
from poller.domain.operations import Action, Operation
from poller.rules.functions.queued_calls import TAKEOVERS_MAX
from poller.rules.operations.members import ALL

NEVER = float("-inf")
EXACT_S = 1e-3
RUN_ENDS = (CallEnd.SUCCESS, CallEnd.RETRIES, CallEnd.AGE)
"""The ends to which a run of a call can come."""


class CallFault(AssertionError):
    """Something of a call is not as it must be."""


@dataclass(slots=True)
class Faults:
    """What did not hold. A daemon starts a task again that a fault has ended, so whoever runs the world looks here."""

    found: list[CallFault] = field(default_factory=list)

    def require(self, holds: bool, text: str) -> None:
        """Notes and raises CallFault unless it holds."""
        if not holds:
            self.found.append(CallFault(text))
            raise self.found[-1]


@dataclass(frozen=True, slots=True)
class AskedOperation:
    """A request of an operator: the calls that it means, without one all that were there `at` that time."""

    action: Action
    calls: Collection[str]
    at: float
    drops: bool = False

    def means(self, call: QueuedCall) -> bool:
        """Whether the operation is on this call."""
        return call.call in self.calls if self.calls else call.accepted <= self.at


@dataclass(slots=True)
class CallLedger:
    """What the store was told of calls. `clock` gives epoch seconds.

    `gone` has the workers that others may take calls from, and until when: they have crashed, or were paused or stopped.
    """

    policy: AsyncPolicy
    clock: Callable[[], float]
    gone: dict[str, float] = field(default_factory=dict)
    put: dict[CallId, QueuedCall] = field(default_factory=dict)
    stored: dict[CallId, QueuedCall] = field(default_factory=dict)
    removed: dict[CallId, QueuedCall] = field(default_factory=dict)
    claimed: dict[tuple[str, CallId], float] = field(default_factory=dict)
    """When each worker claimed a call last."""
    delivered: dict[CallId, set[str]] = field(default_factory=dict)
    failed: dict[CallId, list[float]] = field(default_factory=dict)
    """When the function failed on each call."""
    succeeded: set[CallId] = field(default_factory=set)
    lost: Counter[CallId] = field(default_factory=Counter)
    """How often each call was written while somebody owned it who did not write it."""
    taken: Counter[CallId] = field(default_factory=Counter)
    """How often each call was taken over from another worker."""
    asked: dict[str, AskedOperation] = field(default_factory=dict)
    """By the id of the operation. It may never have been accepted."""
    marks: Counter[str] = field(default_factory=Counter)
    faults: Faults = field(default_factory=Faults)

    def was_put(self, call: QueuedCall) -> None:
        """A new call is in the store."""
        if call.call not in self.put:
            self.put[call.call] = self.stored[call.call] = call

    def was_claimed(self, worker: str, call: QueuedCall) -> None:
        """A worker has claimed a call."""
        before = self.stored[call.call]
        self.faults.require(call.owner == worker, f"{worker} has claimed {call.call} for {call.owner}")
        self.faults.require(
            before.owner in {None, worker} or self._may_be_lost(before),
            f"{worker} has taken {call.call} from {before.owner}, who lives",
        )
        self.faults.require(before.due <= self.clock(), f"{worker} has claimed {call.call} before it was due")
        taken = before.owner not in {None, worker}
        self.taken[call.call] += taken
        self.marks["claimed from a worker that is gone"] += taken
        self.lost[call.call] += before.owner is not None
        self.claimed[worker, call.call] = self.clock()
        self._follows(before, call)

    def was_replaced(self, worker: str, call: QueuedCall) -> None:
        """A worker, or an operation on it, has written a call."""
        before = self.stored[call.call]
        newly_over = call.ended is not None and before.ended is None
        if before.owner == worker:
            self._by_its_owner(worker, before, call)
        else:
            self._by_an_operation(worker, before, call)
        if newly_over and call.ended is not None:
            self.faults.require(
                self._may_end(call, call.ended.end), f"{call.call} is over by {call.ended.end}: why?"
            )
        self._follows(before, call)

    def was_removed(self, worker: str, call: QueuedCall) -> None:
        """A worker, or an operation on it, has removed a call."""
        before = self.stored[call.call]
        if before.owner == worker and not self._is_asked(before, Action.SKIP, drops=True):
            has = self.delivered.get(call.call, set())
            # The end that a worker finds is not stored before it removes a call whose destinations took it at once.
            ends = [before.ended.end] if before.ended is not None else RUN_ENDS
            possible = [each for each in ends if before.ended is not None or self._may_end(before, each)]
            self.faults.require(bool(possible), f"{worker} has removed {call.call}, which is not over")
            self.faults.require(
                any(self._destinations(each) <= has for each in possible),
                f"{worker} has removed {call.call}, of which {sorted(has)} know",
            )
        elif before.owner != worker:
            self._found_free(worker, before)
            self.faults.require(
                self._is_asked(before, Action.SKIP, drops=True), f"nobody asked to drop {call.call}"
            )
            self.marks["dropped"] += 1
        self.removed[call.call] = self.stored.pop(call.call)

    def began(self, worker: str, call: CallId) -> None:
        """A function is called."""
        found = self.stored.get(call)
        if self._was_hindered(worker, call):
            return
        self.faults.require(
            found is not None, f"{worker} calls the function of {call}, which is not there any more"
        )
        assert found is not None
        self.faults.require(
            found.owner == worker, f"{worker} calls the function of {call}, which {found.owner} owns"
        )
        self.faults.require(found.ended is None, f"{worker} calls the function of {call}, which is over")

    def answered(self, call: CallId, *, failed: bool) -> None:
        """The function has failed on a call, or succeeded."""
        if failed:
            self.failed.setdefault(call, []).append(self.clock())
        else:
            self.succeeded.add(call)

    def check_end(self, operations: Mapping[str, Operation]) -> None:
        """Nothing is left, and what was asked for is over."""
        self.faults.require(not self.stored, f"calls are left: {sorted(self.stored)[:3]}")
        self.faults.require(set(self.removed) == set(self.put), "a call was neither kept nor removed")
        for name, failed in self.failed.items():
            most = self.policy.retries_max + 1 + self.lost[name]
            self.faults.require(len(failed) <= most, f"{name} has failed {len(failed)} times, {most} at most")
        for operation in operations.values():
            self.faults.require(
                operation.state.over, f"{operation.request.action} {operation.operation} is not over"
            )
            self._mark(operation)

    def _mark(self, operation: Operation) -> None:
        action = operation.request.action
        chosen = "all" if operation.request.members["calls"] == ALL else "some"
        self.marks[f"{action} of {chosen} {operation.state}"] += 1
        if action is Action.RETRY:
            self.marks["retried"] += operation.progress.get("done", 0)

    def _by_its_owner(self, worker: str, before: QueuedCall, call: QueuedCall) -> None:
        if call.ended is not None and before.ended is None:
            self.faults.require(
                call.ended.end is not CallEnd.SKIPPED, f"{worker} has skipped {call.call}, which it ran"
            )
        if call.attempts > before.attempts and call.ended is None:
            waits = RETRY_WAITS_S[min(call.attempts, len(RETRY_WAITS_S)) - 1]
            self.faults.require(
                any(abs(call.due - each - waits) < EXACT_S for each in self.failed.get(call.call, ())),
                f"{call.call} is due at {call.due}, which is not {waits} s after a failure",
            )

    def _by_an_operation(self, worker: str, before: QueuedCall, call: QueuedCall) -> None:
        self._found_free(worker, before)
        self.lost[call.call] += before.owner is not None
        self.marks["an operation rewrote a call"] += 1
        self.faults.require(
            before.attempts == call.attempts, f"an operation has changed the attempts of {call.call}"
        )
        self.faults.require(call.owner is None, f"an operation has claimed {call.call}")
        if call.ended is not None and before.ended is None:
            self.faults.require(
                call.ended.end is CallEnd.SKIPPED, f"an operation has ended {call.call}: {call.ended.end}"
            )
            self.marks["skipped"] += 1
        else:
            self.faults.require(
                self._is_asked(call, Action.RETRY), f"nobody asked for a retry of {call.call}"
            )
            self.faults.require(call.due <= self.clock(), f"{call.call} was retried, and is due later")

    def _destinations(self, end: CallEnd) -> set[str]:
        policy = self.policy
        wanted = (policy.on_success,) if end is CallEnd.SUCCESS else (policy.on_failure, policy.dead_letter)
        return {each for each in wanted if each is not None}

    def _may_end(self, call: QueuedCall, end: CallEnd) -> bool:
        """Whether there is a reason for this end of a call now."""
        match end:
            case CallEnd.SUCCESS:
                return call.call in self.succeeded
            case CallEnd.RETRIES:
                failures = len(self.failed.get(call.call, ()))
                return failures > self.policy.retries_max or self.taken[call.call] > TAKEOVERS_MAX
            case CallEnd.AGE:
                # A call whose next try would be too late is over before.
                return self.clock() >= call.accepted + self.policy.age_s_max - max(RETRY_WAITS_S)
            case CallEnd.SKIPPED:
                return self._is_asked(call, Action.SKIP, drops=False)
            case _:
                return False

    def _found_free(self, worker: str, before: QueuedCall) -> None:
        self.faults.require(
            before.owner is None or self._may_be_lost(before),
            f"an operation on {worker} has written {before.call}, which {before.owner} works on",
        )

    def _may_be_lost(self, call: QueuedCall) -> bool:
        """Whether the owner of a call was gone at some time since it claimed it."""
        assert call.owner is not None
        return self._was_hindered(call.owner, call.call)

    def _was_hindered(self, worker: str, call: CallId) -> bool:
        return self.gone.get(worker, NEVER) >= self.claimed.get((worker, call), NEVER) > NEVER

    def _is_asked(self, call: QueuedCall, action: Action, *, drops: bool | None = None) -> bool:
        return any(each.means(call) for each in self._requests(action, drops))

    def _requests(self, action: Action, drops: bool | None) -> Iterator[AskedOperation]:
        return (
            each
            for each in self.asked.values()
            if each.action is action and (drops is None or each.drops == drops)
        )

    def _follows(self, before: QueuedCall, call: QueuedCall) -> None:
        self.faults.require(
            call.revision == before.revision + 1,
            f"{call.call} went from {before.revision} to {call.revision}",
        )
        failures = len(self.failed.get(call.call, ()))
        self.faults.require(call.attempts >= before.attempts, f"{call.call} has lost an attempt")
        self.faults.require(
            call.attempts <= failures or self._succeeded(call),
            f"{call.call} has {call.attempts} attempts and failed {failures} times",
        )
        self.faults.require(
            call.attempts <= self.policy.retries_max + 1, f"{call.call} has {call.attempts} attempts"
        )
        if before.ended is not None:
            self.faults.require(
                call.ended is not None and call.ended.end is before.ended.end,
                f"{call.call} was over by {before.ended.end} and is not any more",
            )
        self.stored[call.call] = call

    @staticmethod
    def _succeeded(call: QueuedCall) -> bool:
        return call.ended is not None and call.ended.end is CallEnd.SUCCESS
