"""Owns the promises about failed messages that wait for their next try: none is tried before its time because of what a worker did.

The waits are worked out from the event, the answer and the mapping alone, without a look at the engine's rules.
"""

import json
import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from poller.domain.invocations import Outcome, Succeeded
from poller.domain.plan import MappingPlan
from tests.simulation.checks.ledger import Flight, Violation, done_by
from tests.simulation.services.faults import Marks
from tests.simulation.services.queues import FakeQueue, Letter

POLL_S_MAX = 22.0
"""A stopping worker hides a message from its own polls, which are answered within this time."""
SLACK_S = 0.01


@dataclass(slots=True)
class Due:
    """A message that failed at `failed`, and when it is to be tried again; None: nothing may be changed about it.

    `shared`: somebody else was given it meanwhile, so that nobody knows whose call is about what.
    """

    failed: float
    retry_at: float | None
    shared: bool = False
    put_off: bool = False


@dataclass(slots=True)
class RetryChecks:
    """The failed messages of one mapping until they come again."""

    plan: MappingPlan
    queue: FakeQueue
    marks: Marks
    _due: dict[str, Due] = field(default_factory=dict)

    def failed(
        self,
        flight: Flight,
        outcome: Outcome,
        letters: Sequence[Letter],
        now: float,
        *,
        shared: Collection[str],
    ) -> None:
        """The function ran and did not do these messages; others were given the `shared` ones meanwhile."""
        ids = {each.message_id for each in letters}
        waits = self._waits(flight, outcome, ids)
        for message_id in ids:
            wait_s = waits.get(message_id)
            retry_at = None if wait_s is None else now + wait_s
            before = self._due.get(message_id)
            if before is not None and message_id in shared:
                # Another worker's run of it has failed as well, and each of them may put it off from its own end on.
                self._due[message_id] = replace(before, shared=True)
            else:
                self._due[message_id] = Due(now, retry_at, message_id in shared)

    def received(self, letter: Letter, now: float) -> None:
        """A message was handed out again."""
        due = self._due.pop(letter.message_id, None)
        if due is None or not due.put_off or letter.early:
            return
        assert due.retry_at is not None
        if now < due.retry_at - SLACK_S:
            raise Violation("retry", f"{letter.message_id} came {due.retry_at - now:.2f} s before its time")
        self.marks.saw("retry after its wait")

    def puts_off(
        self, receipt: str, visibility_s: int, *, asked: float, now: float, stopping: bool, healthy: bool
    ) -> bool:
        """Whether this change of visibility is about a failed message. `asked` is when the worker decided on it."""
        letter = self.queue.owner_of(receipt)
        due = self._due.get(letter.message_id)
        in_flight = letter.here and letter.receipt == receipt and letter.visible_at > now
        if due is None or asked <= due.failed or not in_flight:
            return False
        if due.shared:
            return True
        if due.retry_at is None:
            raise Violation(
                "retry", f"{letter.message_id} failed, and its visibility was changed for nothing"
            )
        shown_at = now + visibility_s
        if shown_at < due.retry_at - SLACK_S:
            early_s = due.retry_at - shown_at
            raise Violation("retry", f"{letter.message_id} is shown {early_s:.2f} s before its time")
        latest = max(due.retry_at, asked + POLL_S_MAX) + 1 + (now - asked)
        if healthy and shown_at > latest + SLACK_S:
            raise Violation("retry", f"{letter.message_id} is shown {shown_at - latest:.2f} s too late")
        due.put_off = True
        self.marks.saw("retry put off")
        return True

    def _waits(self, flight: Flight, outcome: Outcome, failed: set[str]) -> dict[str, float]:
        asked = self._asked(flight, outcome)
        backoff, limit = self.plan.queue.retry_backoff, self.queue.facts.redrive_receives_max
        waits: dict[str, float] = {}
        longest: dict[str, float] = {}
        last: set[str] = set()
        for each in flight.delivery.event["Records"]:
            message_id = each["messageId"]
            receives = int(each["attributes"].get("ApproximateReceiveCount") or 0)
            if message_id not in failed:
                continue
            if limit is not None and receives >= limit:
                last.add(message_id)
                continue
            if message_id in asked:
                waits[message_id] = asked[message_id]
            elif backoff is not None:
                grown = backoff.base_s * backoff.factor ** max(receives - 1, 0)
                waits[message_id] = min(grown, backoff.cap_s)
            group = self.queue.letters[message_id].group
            if group is not None and message_id in waits:
                longest[group] = max(longest.get(group, 0.0), waits[message_id])
        for message_id in failed - last:
            group = self.queue.letters[message_id].group
            if group in longest:
                if waits.get(message_id) != longest[group]:
                    self.marks.saw("group that waits as one")
                waits[message_id] = longest[group]
        return waits

    def _asked(self, flight: Flight, outcome: Outcome) -> dict[str, float]:
        """What the function asked for by message, where its report counts."""
        if not (self.plan.retry.report_failures and isinstance(outcome, Succeeded) and outcome.payload):
            return {}
        if not done_by(outcome, flight.delivery, reports=True, stream=False) and not self._whole(
            flight, outcome
        ):
            return {}
        found: dict[str, float] = {}
        for item in (json.loads(outcome.payload) or {}).get("batchItemFailures", ()):
            value = item.get("retryAfterSeconds")
            if _is_wait(value):
                found[item["itemIdentifier"]] = value
                self.marks.saw("retry asked for")
            elif value is not None:
                self.marks.saw("wait that is none")
        return found

    def _whole(self, flight: Flight, outcome: Succeeded) -> bool:
        """Whether a report that names every message is a valid one."""
        names = {each.identifier for each in flight.delivery.records}
        items = (json.loads(outcome.payload) or {}).get("batchItemFailures", ())
        return all(item.get("itemIdentifier") in names for item in items)


def _is_wait(value: Any) -> bool:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and math.isfinite(value) and 0 <= value < 1e9
