"""Owns what the checkers of a queue must know of operators: what they ask for is no fault of the engine."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Self

from poller.domain.operations import Action, Operation, OperationId, OperationState
from poller.domain.records import Undone
from tests.simulation.checks.ledger import Flight, Violation
from tests.simulation.checks.queue_checks import QueueChecks
from tests.simulation.services.faults import Line
from tests.simulation.services.queues import Letter

AFTER_S = 10.0
"""So long after an operation has ended, workers may still show messages because of it."""


@dataclass(slots=True)
class OperatedQueueChecks(QueueChecks):
    """The truth about a queue on which somebody operates.

    While an operation is open, and a little longer, messages may be shown before their time and untried. One that was cancelled before
    any worker had begun excuses nothing. What a skip names may be deleted. Nothing begins on a worker that has confirmed a pause.
    """

    _operations: dict[OperationId, Operation] = field(default_factory=dict)
    _confirmed: dict[tuple[OperationId, str], float] = field(default_factory=dict)

    @classmethod
    def instead_of(cls, checks: QueueChecks) -> Self:
        """Checks of the same queue."""
        found = cls(checks.plan, checks.queue, checks.marks, timeout_s=checks.timeout_s)
        found.stops = checks.stops
        return found

    def stored(self, worker: str, operation: Operation, now: float) -> None:
        """A worker has stored an operation."""
        before = self._operations.get(operation.operation)
        self._operations[operation.operation] = operation
        untaken = before is not None and before.state is OperationState.ACCEPTED
        if untaken and operation.state is OperationState.CANCELLED:
            del self._operations[operation.operation]
        if operation.request.action is Action.PAUSE and worker in operation.parts:
            self._confirmed.setdefault((operation.operation, worker), now)

    def extends(
        self, line: Line, receipts: Sequence[str], visibility_s: int, *, asked: float, now: float
    ) -> None:
        """As QueueChecks."""
        if not self._operated(now):
            QueueChecks.extends(self, line, receipts, visibility_s, asked=asked, now=now)
            return
        for receipt in () if visibility_s else receipts:
            handed = self._handed[self.queue.owner_of(receipt).message_id]
            if handed.worker == line.name:
                handed.excused = handed.shown = True

    def deletes(self, worker: str, receipts: Sequence[str], undone: Sequence[Undone], asked: float) -> None:
        """As QueueChecks."""
        ids = {self.queue.owner_of(each).message_id for each in receipts}
        self.settled |= ids & self.skipped()
        QueueChecks.deletes(self, worker, receipts, undone, asked)

    def skipped(self) -> set[str]:
        """The messages that skips mean."""
        return {
            each
            for operation in self._operations.values()
            if operation.request.action is Action.SKIP
            for each in operation.notes.get("records", ())
        }

    def begins(self, flight: Flight, letters: Sequence[Letter], *, ill: Collection[str]) -> None:
        """As QueueChecks."""
        for (operation, worker), since in self._confirmed.items():
            pause = self._operations[operation]
            group = pause.request.target.group
            mine = worker == flight.worker and not pause.state.over and flight.issued > since
            if mine and any(group in (None, each.group) for each in letters):
                raise Violation("pause", f"{worker} calls the function with what it has confirmed as paused")
        QueueChecks.begins(self, flight, letters, ill=ill)

    def _operated(self, now: float) -> bool:
        return any(each.ended is None or now - each.ended < AFTER_S for each in self._operations.values())
