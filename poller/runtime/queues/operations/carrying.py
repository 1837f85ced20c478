"""Owns what operators have done to the messages of a queue: failed ones are tried now, and given up ones are moved or deleted."""

import asyncio

from poller.domain.errors import LeaseLost, PortError, ServiceUnavailable
from poller.domain.operations import Action, Operation, OperationId, OperationState, PartResult
from poller.domain.records import Monotonic, QueueFacts
from poller.domain.untrusted.texts import line_of
from poller.domain.wording.numbers_of import inflected, number_of
from poller.operator_ports import MessageMover
from poller.rules.queues.failing import FailingItem, meant
from poller.runtime.operations.operable import ResolvedRecords, SettledRecords
from poller.runtime.queues.in_flight import CALL_S_MAX, InFlight
from poller.runtime.queues.operations.controls import QueueControls
from poller.runtime.queues.operations.redriving import QueueLongOperable
from poller.runtime.queues.operations.skipping import ID_CHARS_MAX, show, skip_waiting
from poller.runtime.stopping import Stop

KNOWN_S_MAX = 15.0
"""How long a skip waits until some worker knows which messages it means."""
UNKNOWN = "nothing of it is known here"
IDS_SHOWN_MAX = 10

type Carried = PartResult | ResolvedRecords | SettledRecords | None


class QueueOperations:
    """Carries out retries and skips on the part of one worker. `operated`: nothing is received before the pauses are known."""

    def __init__(self, stop: Stop, long_operable: QueueLongOperable, *, operated: bool) -> None:
        self.controls = QueueControls()
        self.long_operable = long_operable
        """What the mapping offers to operations that take long."""
        self.facts: QueueFacts | None = None
        """The queue's own settings; None until they were read."""
        self._stop = stop
        self._first_asked: dict[OperationId, Monotonic] = {}
        if operated:
            self.controls.pause(None)

    async def carry_out(self, scope: InFlight | None, operation: Operation) -> Carried:
        """As `Operable.carry_out`. `scope` is None until the queue is open."""
        if self._stop.requested:
            raise LeaseLost("the mapping stops here")
        action = operation.request.action
        if action is Action.RETRY:
            return await self._retry(scope, operation)
        if action is not Action.SKIP:
            return _failed(f"a queue has no {action}: SQS itself counts receives and age")
        if scope is None or self.facts is None:
            return None
        done = await self._skip(scope, operation)
        if isinstance(done, PartResult):
            self.controls.asked.disarm(operation.operation)
            self._first_asked.pop(operation.operation, None)
        return done

    def withdraw(self, operation: OperationId) -> None:
        """As `RemembersOperations.withdraw`."""
        self.controls.asked.unarm(operation)
        self._first_asked.pop(operation, None)

    async def _retry(self, scope: InFlight | None, operation: Operation) -> Carried:
        controls = self.controls
        if controls.stopped:
            return _failed("the mapping is paused; resume it first")
        target = operation.request.target
        if target.group is not None and target.group in controls.asked.groups:
            return _failed("the group is paused; resume it first")
        found: dict[str, FailingItem] = {}
        if scope is not None:
            found = {
                key: each
                for key, each in scope.tracker.waiting(scope.now).items()
                if target.group in (None, key) and key not in controls.asked.groups
            }
            failures = scope.tracker.failures
            claimed = [key for key in found if failures.claim(key)]
            try:
                shown = await show(scope, found)
            finally:
                for key in claimed:
                    failures.unclaim(key)
            if isinstance(shown, PortError):
                return None
            if target.group is None:
                scope.gate.try_now()
        controls.wake()
        held = _held(scope)
        if not found:
            return _done((UNKNOWN if target.group is not None else "nothing that failed waits here") + held)
        count = sum(len(each.messages) for each in found.values())
        return _done(f"{number_of(count, 'message')} {inflected(count, 'is', 'are')} visible again{held}")

    async def _skip(self, scope: InFlight, operation: Operation) -> Carried:
        discard = operation.request.members.get("discard") is True
        if not discard and (obstacle := await self._obstacle(scope)):
            return _failed(f'{obstacle} write "discard": true to delete the messages')
        records = operation.notes.get("records")
        if records is None:
            return self._meant(scope, operation)
        settled = set(operation.notes.get("settled", ()))
        left = [each for each in records if each not in settled]
        if not left:
            return _done("; ".join(operation.notes.get("results", ())) or "all records are settled")
        if any(part.state is OperationState.FAILED for part in operation.parts.values()):
            return _done("given up, because it failed on another worker")
        new = not scope.tracker.interventions.armed(operation.operation, scope.now)
        skip = scope.tracker.interventions.arm(operation.operation, left, discard=discard, now=scope.now)
        scope.resume_held()
        if new:
            self.controls.look_again()
        await skip_waiting(scope, skip)
        here = {each: what for each, what in skip.settled.items() if each in left}
        if here:
            return SettledRecords(tuple(here), _summary(here))
        return _failed(skip.trouble) if skip.trouble else None

    async def _obstacle(self, scope: InFlight) -> str:
        """Why no message can be moved; empty if messages can."""
        if not isinstance(scope.parts.source, MessageMover):
            return "this source cannot move messages;"
        if self.facts is not None and self.facts.dead_letter_arn is None:
            # It may have got one since its settings were read.
            read = await _described(scope)
            if isinstance(read, PortError):
                return f"the queue had no dead-letter queue, and its settings cannot be read again: {read.reason}; ask again, or"
            self.facts = read
        known = self.facts is not None and self.facts.dead_letter_arn is not None
        return (
            "" if known else "the queue has no dead-letter queue; give it a redrive policy and ask again, or"
        )

    def _meant(self, scope: InFlight, operation: Operation) -> Carried:
        """The messages that `first` or `batch` means, if they fail here. Otherwise another worker may know them."""
        batch = operation.request.members.get("records") == "batch"
        items = {
            key: each
            for key, each in scope.tracker.failing(scope.parts.clock.now(), receives_max=None).items()
            if each.waits(scope.now) or any(scope.tracker.here(message) for message in each.messages)
        }
        group = operation.request.target.group
        found = meant(items, group, batch=batch, alone=len(operation.wanted) <= 1)
        if isinstance(found, tuple):
            return ResolvedRecords(found)
        if found:
            return _failed(found)
        since = self._first_asked.setdefault(operation.operation, scope.now)
        if scope.now - since < KNOWN_S_MAX:
            return None
        failing = ", ".join(line_of(key, chars_max=ID_CHARS_MAX) for key in list(items)[:IDS_SHOWN_MAX])
        return _failed(f"no failing message of it waits or runs here; failing here: {failing or 'nothing'}")


def _held(scope: InFlight | None) -> str:
    """What keeps the messages from being tried although they are visible: an open breaker. Nothing is received while it is open."""
    flow = None if scope is None else scope.parts.function.flow
    breaker = "" if flow is None else flow.open_breaker()
    return f"; calls wait for {breaker}" if breaker else ""


def _summary(settled: dict[str, str]) -> str:
    """What became of these messages, in one line."""
    by_what: dict[str, list[str]] = {}
    for message_id, what in settled.items():
        by_what.setdefault(what, []).append(line_of(message_id, chars_max=ID_CHARS_MAX))
    lines = []
    for what, ids in by_what.items():
        more = f" and {len(ids) - IDS_SHOWN_MAX} more" if len(ids) > IDS_SHOWN_MAX else ""
        lines.append(f"{', '.join(ids[:IDS_SHOWN_MAX])}{more}: {what}")
    return "; ".join(lines)


def _done(result: str) -> PartResult:
    return PartResult(state=OperationState.DONE, result=result)


def _failed(result: str) -> PartResult:
    return PartResult(state=OperationState.FAILED, result=result)


async def _described(scope: InFlight) -> QueueFacts | PortError:
    """The queue's own settings, with a time limit."""
    try:
        async with asyncio.timeout(CALL_S_MAX):
            return await scope.parts.source.describe()
    except TimeoutError:
        error: PortError = ServiceUnavailable(f"no answer within {CALL_S_MAX:g} s")
    except PortError as failed:
        error = failed
    scope.report_failed(error)
    return error
