"""Owns what must hold of asynchronous calls: what the store is told of each, by whom, and what came of it.

1. Only the worker that has claimed a call writes it, or an operation that found it free, or left by a worker that is gone.
2. A call that is over stays over, with the same end. It is removed when all of its destinations have it, or when an operation drops it.
3. A call is skipped or dropped only if an operation says so.
4. It fails as often as its retries allow, and once more for each worker that did not come back.
5. In the end every call that was accepted has been removed, once.
"""

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from poller.domain.functions.queued_calls import AsyncPolicy, CallEnd, CallId, QueuedCall
from poller.domain.operations import Action, Operation
from poller.rules.functions.queued_calls import TAKEOVERS_MAX
from poller.rules.operations.members import ALL


class CallFault(AssertionError):
    """Something of a call is not as it must be."""


def require(holds: bool, text: str) -> None:
    """Raises CallFault unless it holds."""
    if not holds:
        raise CallFault(text)


@dataclass(slots=True)
class CallLedger:
    """What the store was told of calls. `gone` are workers that others may take calls from: they have crashed, or were paused for long."""

    policy: AsyncPolicy
    gone: set[str] = field(default_factory=set)
    now: float = 0.0
    put: dict[CallId, QueuedCall] = field(default_factory=dict)
    stored: dict[CallId, QueuedCall] = field(default_factory=dict)
    removed: dict[CallId, QueuedCall] = field(default_factory=dict)
    delivered: dict[CallId, set[str]] = field(default_factory=dict)
    failures: Counter[CallId] = field(default_factory=Counter)
    begun_after_skip: list[tuple[str, CallId]] = field(default_factory=list)
    skips: dict[str, tuple[bool, float, Collection[str]]] = field(default_factory=dict)
    """Skips that were asked for: whether they drop, when they were asked for, and the calls that they mean; without one all."""
    marks: Counter[str] = field(default_factory=Counter)

    def was_put(self, call: QueuedCall) -> None:
        """A new call is in the store."""
        if call.call not in self.put:
            self.put[call.call] = self.stored[call.call] = call

    def was_claimed(self, worker: str, call: QueuedCall) -> None:
        """A worker has claimed a call."""
        before = self.stored[call.call]
        require(call.owner == worker, f"{worker} has claimed {call.call} for {call.owner}")
        require(
            before.owner is None or before.owner == worker or before.owner in self.gone,
            f"{worker} has taken {call.call} from {before.owner}, who lives",
        )
        self.marks["claimed from a worker that is gone"] += before.owner is not None
        self._follows(before, call)

    def was_replaced(self, worker: str, call: QueuedCall) -> None:
        """A worker, or an operation on it, has written a call."""
        before = self.stored[call.call]
        operated = before.owner != worker
        if operated:
            self._operated(worker, before)
            require(before.attempts == call.attempts, f"an operation has used up an attempt of {call.call}")
        self.marks["an operation rewrote a call"] += operated
        if call.ended is not None and before.ended is None and call.ended.end is CallEnd.SKIPPED:
            require(operated, f"{worker} has skipped {call.call}, which it ran")
            require(self._asked_to_skip(call, drops=False), f"nobody asked for a skip of {call.call}")
            self.marks["skipped"] += 1
        self._follows(before, call)

    def was_removed(self, worker: str, call: QueuedCall) -> None:
        """A worker, or an operation on it, has removed a call."""
        before = self.stored[call.call]
        if before.owner == worker:
            has = self.delivered.get(call.call, set())
            # The end that a worker finds is not stored before it removes a call whose destinations took it at once.
            allowed = [set(each) for each in self._ends(before)]
            require(
                any(each <= has for each in allowed),
                f"{worker} has removed {call.call}, of which {sorted(has)} know",
            )
        else:
            self._operated(worker, before)
            require(self._asked_to_skip(before, drops=True), f"nobody asked to drop {call.call}")
            self.marks["dropped"] += 1
        self.removed[call.call] = self.stored.pop(call.call)

    def began(self, worker: str, call: CallId) -> None:
        """A function is called."""
        found = self.stored.get(call)
        if found is not None and found.ended is not None:
            require(
                found.owner != worker or found.ended.end is not CallEnd.SKIPPED,
                f"{worker} calls the function of {call}, which it has claimed as a skipped one",
            )
            require(worker in self.gone, f"{worker} calls the function of {call}, which is over")

    def _ends(self, before: QueuedCall) -> list[tuple[str, ...]]:
        policy = self.policy
        succeeded = () if policy.on_success is None else (policy.on_success,)
        failed = tuple(each for each in (policy.on_failure, policy.dead_letter) if each is not None)
        if before.ended is None:
            return [succeeded, failed]
        return [succeeded if before.ended.end is CallEnd.SUCCESS else failed]

    def _operated(self, worker: str, before: QueuedCall) -> None:
        require(
            before.owner is None or before.owner in self.gone,
            f"an operation on {worker} has written {before.call}, which {before.owner} works on",
        )

    def _asked_to_skip(self, call: QueuedCall, *, drops: bool) -> bool:
        return any(
            drops == discards and (call.call in calls if calls else call.accepted <= asked)
            for discards, asked, calls in self.skips.values()
        )

    def _follows(self, before: QueuedCall, call: QueuedCall) -> None:
        require(
            call.revision == before.revision + 1,
            f"{call.call} went from {before.revision} to {call.revision}",
        )
        require(call.attempts >= before.attempts, f"{call.call} has lost an attempt")
        require(call.takeovers <= TAKEOVERS_MAX + 1, f"{call.call} was taken over {call.takeovers} times")
        require(call.attempts <= self.policy.retries_max + 1, f"{call.call} has {call.attempts} attempts")
        if before.ended is not None:
            require(
                call.ended is not None and call.ended.end is before.ended.end,
                f"{call.call} was over by {before.ended.end} and is not any more",
            )
        self.stored[call.call] = call

    def check_end(self, operations: Mapping[str, Operation]) -> None:
        """Nothing is left, and what was asked for is over."""
        require(not self.stored, f"calls are left: {sorted(self.stored)[:3]}")
        require(set(self.removed) == set(self.put), "a call was neither kept nor removed")
        for name, failures in self.failures.items():
            takeovers = self.removed[name].takeovers
            most = self.policy.retries_max + 1 + takeovers + (self.removed[name].revision > 0)
            require(failures <= most, f"{name} has failed {failures} times, {most} at most")
        for operation in operations.values():
            require(operation.state.over, f"{operation.request.action} {operation.operation} is not over")
            action = operation.request.action
            chosen = "all" if operation.request.members["calls"] == ALL else "some"
            self.marks[f"{action} of {chosen} {operation.state}"] += 1
            if action is Action.RETRY:
                self.marks["retried"] += operation.progress.get("done", 0)
