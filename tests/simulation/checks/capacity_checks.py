"""Owns the promises about how many batches of a queue mapping run at once (aws-behaviour#queue-scaling)."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from poller.domain.plan import MappingPlan
from poller.runtime.queues.capacity import LOST_AFTER_S
from tests.simulation.checks.ledger import Flight, Violation
from tests.simulation.services.faults import Line, Marks

START = 5
PER_MINUTE = 300
PROVISIONED_CONCURRENCY = 10
"""Concurrent invocations of one of AWS's provisioned pollers."""


@dataclass(slots=True)
class CapacityChecks:
    """The concurrency of one mapping."""

    plan: MappingPlan
    marks: Marks
    _since: dict[str, float] = field(default_factory=dict)
    """When each worker first received."""
    _in_use: dict[str, int] = field(default_factory=dict)
    """How many slots of the function each worker has in use."""
    _took: dict[str, float] = field(default_factory=dict)
    """When each worker last took a slot. It keeps one from call to call of a batch, also when its part is gone meanwhile."""

    def receives(self, worker: str, now: float) -> None:
        """A worker receives, perhaps nothing."""
        self._since.setdefault(worker, now)

    def uses(self, worker: str, in_flight: int, now: float) -> None:
        """A worker says how many slots of the function it has in use. To take one it needs a part of the maximum."""
        if in_flight > self._in_use.get(worker, 0):
            self._took[worker] = now
        self._in_use[worker] = in_flight

    def may_be_without_part(self, line: Line, now: float) -> bool:
        """Whether the worker's part of a shared maximum may be lost: then it gives back what it could never try.

        There has to be somebody who took the part, or a store that was not reached; and who takes a slot has a part.
        """
        if self.cap() is None or not (line.store_faults or self._since.keys() - {line.name}):
            return False
        return now - self._took.get(line.name, self._since.get(line.name, now)) >= LOST_AFTER_S

    def begins(self, flight: Flight, others: Sequence[Flight], *, ill: Collection[str]) -> None:
        """A batch is handed to the function while `others` run.

        `ill`: workers that something has happened to; the others may take over their part while their calls still run.
        """
        here = 1 + sum(1 for each in others if each.worker == flight.worker)
        if (cap := self.cap()) is not None:
            self._within(cap, here, "of one worker")
            self._within_together(cap, flight, others, ill)
            if here == cap:
                self.marks.saw("queue at its maximum")
        if self.plan.scaling.provisioned_max is not None:
            self.marks.saw("provisioned pollers")
        else:
            self._grown_slowly(flight, here)

    def cap(self) -> int | None:
        """The most batches at once; None where only AWS's own ceiling holds."""
        scaling = self.plan.scaling
        if scaling.provisioned_max is not None:
            return scaling.provisioned_max * PROVISIONED_CONCURRENCY
        return scaling.concurrency_max

    def _within(self, cap: int, busy: int, whose: str) -> None:
        if busy > cap:
            raise Violation("cap", f"{busy} batches of {self.plan.source_arn} {whose}, at most {cap}")

    def _within_together(
        self, cap: int, flight: Flight, others: Sequence[Flight], ill: Collection[str]
    ) -> None:
        busy = {flight.worker, *(each.worker for each in others)}
        if len(busy) == 1 or not busy.isdisjoint(ill):
            return
        self.marks.saw("workers share a maximum")
        self._within(cap, 1 + len(others), "of all workers")

    def _grown_slowly(self, flight: Flight, here: int) -> None:
        """Five at first, then so many more a minute. A poller runs several groups at once where they go apart."""
        if self.plan.queue.one_group_per_batch:
            return
        since = self._since.get(flight.worker, flight.began)
        allowed = START + (flight.began - since) * PER_MINUTE / 60
        if here > max(START, allowed):
            raise Violation("scaling", f"{here} batches at once after {flight.began - since:.1f} s")
        if here > START:
            self.marks.saw("more pollers than at first")
