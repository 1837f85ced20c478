"""Owns the promises about visibility: how long a queue's messages are hidden, and who may show them early (aws-behaviour#visibility)."""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from poller.domain.plan import MappingPlan
from tests.simulation.checks.ledger import Violation, names
from tests.simulation.services.faults import Marks
from tests.simulation.services.queues import FakeQueue

MARGIN_S = 30
"""What AWS adds to window and function timeout when it extends for a window."""


@dataclass(slots=True)
class VisibilityChecks:
    """The visibility of one queue's messages; `timeout_s` is the function's limit."""

    plan: MappingPlan
    queue: FakeQueue
    marks: Marks
    timeout_s: float
    _extended: Counter[str] = field(default_factory=Counter)
    _failed: dict[str, str] = field(default_factory=dict)
    """Messages that the function failed, and the receipt by which it had them."""
    _late: dict[str, set[str]] = field(default_factory=dict)
    """Messages that each worker deleted when others might have had them."""
    _told: Counter[str] = field(default_factory=Counter)
    """Deletes that each worker said came too late or may have failed."""

    def failed(self, receipts: Mapping[str, str]) -> None:
        """The function ran and did not do these messages, which it had by these receipts."""
        self._failed |= receipts

    def extends(self, receipts: Sequence[str], visibility_s: int, now: float, *, healthy: bool) -> None:
        """These are about to be hidden for `visibility_s` from now on; 0 shows them."""
        hidden = [each for each in receipts if self._in_flight(each, now)]
        if not hidden:
            return
        if not visibility_s:
            self._not_in_vain(hidden)
        elif self.plan.queue.extend_visibility:
            self._longer(hidden, now + visibility_s)
        else:
            self._as_aws_does(hidden, visibility_s, healthy=healthy)

    def deletes(self, worker: str, receipts: Iterable[str], asked: float) -> None:
        """These were deleted, as was decided on `asked`."""
        owners = [(each, self.queue.owner_of(each)) for each in receipts]
        late = {letter.message_id for each, letter in owners if letter.hidden_until(each) <= asked}
        if late:
            self._late.setdefault(worker, set()).update(late)
            self.marks.saw("deleted too late")

    def tells(self, worker: str, count: int) -> None:
        """A worker says that so many deletes came too late or failed."""
        self._told[worker] += count

    def untold(self, workers: Iterable[str]) -> list[str]:
        """Messages that these workers deleted too late without a word."""
        silent = [each for each in workers if len(self._late.get(each, ())) > self._told[each]]
        return sorted(letter for each in silent for letter in self._late[each])

    def came_while_it_ran(self, message_id: str, running: Iterable[str]) -> None:
        """A message was handed out again whose worker has had no trouble, while these were with the function."""
        if self.plan.queue.extend_visibility and message_id in running:
            raise Violation("visibility", f"{message_id} came again while it ran")

    def _in_flight(self, receipt: str, now: float) -> bool:
        letter = self.queue.owner_of(receipt)
        return letter.here and letter.receipt == receipt and letter.visible_at > now

    def _not_in_vain(self, receipts: Sequence[str]) -> None:
        for receipt in receipts:
            letter = self.queue.owner_of(receipt)
            if self._failed.get(letter.message_id) == receipt:
                raise Violation("visibility", f"{letter.message_id} failed and is shown before its time")
        if receipts:
            self.marks.saw("messages shown again")

    def _longer(self, receipts: Sequence[str], until: float) -> None:
        short = [each for each in receipts if self.queue.owner_of(each).visible_at > until]
        if short:
            raise Violation("visibility", f"the time of {names(short)} is cut short")
        if receipts:
            self.marks.saw("visibility extended")

    def _as_aws_does(self, receipts: Sequence[str], visibility_s: int, *, healthy: bool) -> None:
        """Once, to window + timeout + 30 s, where a window asks for it. A lost reply may lead to a repetition."""
        needed_s = self.plan.batch.window_s + self.timeout_s
        if not self.plan.batch.window_s or needed_s <= self.queue.facts.visibility_timeout_s:
            raise Violation("visibility", f"{names(receipts)} extended, which nothing asks for")
        if visibility_s != math.ceil(needed_s) + MARGIN_S:
            raise Violation("visibility", f"extended by {visibility_s} s for {needed_s:g} s")
        self._extended.update(receipts)
        twice = [each for each in receipts if self._extended[each] > 1]
        if twice and healthy:
            raise Violation("visibility", f"{names(twice)} extended twice")
        self.marks.saw("visibility extended once")
