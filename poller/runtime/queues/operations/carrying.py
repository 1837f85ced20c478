"""Owns what operators have done to the messages of a queue: failed ones are tried now, and given up ones are moved or deleted.

A message is skipped where it is. One that failed and waits is skipped by its last receipt. One that is received, or that waits here for
another reason, is skipped when it would run. In both cases it is deleted only after its copy is in the dead-letter queue.
"""

import asyncio
from collections.abc import Sequence

from poller.domain.errors import LeaseLost, PortError, ServiceThrottled, ServiceUnavailable
from poller.domain.operations import Action, Operation, OperationId, OperationState, PartResult
from poller.domain.records import Message, Monotonic, QueueFacts
from poller.domain.untrusted.texts import line_of
from poller.domain.wording.numbers_of import inflected, number_of
from poller.operator_ports import MessageMover
from poller.rules.queues.failing import FailingItem, meant
from poller.rules.queues.in_flight import PendingDelete
from poller.rules.queues.interventions import ArmedSkip
from poller.rules.queues.receive_batch import QueueItem
from poller.rules.responses import cut
from poller.runtime.operations.operable import ResolvedRecords, SettledRecords
from poller.runtime.queues.in_flight import CALL_S_MAX, RELEASE_S_MAX, InFlight, extend
from poller.runtime.queues.operations.controls import QueueControls
from poller.runtime.queues.operations.redriving import QueueLongOperable
from poller.runtime.stopping import Stop

HIDDEN_S = 90
"""How long a failed message is hidden from now on while it is moved and deleted. It is enough for one call of each kind."""
TRIES_MAX = 3
"""How often a copy is sent while the dead-letter queue cannot be reached. Then the skip has failed."""
DELETES_MAX = 8
"""How often a delete is tried. Then the message comes again, and is skipped again."""
WAITING_S = 2.0
"""After this time the messages that were skipped so far are stored, before the next ones are skipped."""
KNOWN_S_MAX = 15.0
"""How long a skip waits until some worker knows which messages it means."""
REMEDY = 'ask again when that is repaired, or write "discard": true to delete it'
UNKNOWN = "nothing of it is known here"
IDS_SHOWN_MAX = 10
MOVED = "moved to "
DELETED = "deleted"
ID_CHARS_MAX = 100

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

    def withdraw(self, scope: InFlight | None, operation: OperationId) -> None:
        """As `RemembersOperations.withdraw`. `scope` is as for `carry_out`."""
        if scope is not None:
            scope.tracker.interventions.unarm(operation, scope.now)
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
            shown = await show(scope, found)
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


async def skip_started(scope: InFlight, receive_id: int, items: Sequence[QueueItem]) -> None:
    """Skips items that are started, one after the other. If one cannot be moved, it and those behind it have failed."""
    for place, item in enumerate(items):
        skip = scope.tracker.interventions.skip_of(item.message_id, scope.now)
        if skip is None:
            # The skip has ended meanwhile.
            await scope.release(receive_id, items[place:], started=True)
            return
        what = await _copied(scope, skip, item.message)
        if what is None:
            reason = f"the message is to be skipped, and cannot be moved: {skip.reason}"
            scope.unmoved(receive_id, items[place:], cut(reason))
            return
        if await _deleted(scope, PendingDelete(item.message, receive_id)):
            scope.tracker.interventions.settle([item.message_id], what)


async def skip_waiting(scope: InFlight, skip: ArmedSkip) -> None:
    """Skips those messages of an armed skip that failed here and wait for their next try.

    It returns after WAITING_S with those that were skipped until then. The caller stores that, and begins again with the others.
    """
    began, before = scope.now, len(skip.settled)
    for key, item in scope.tracker.waiting(scope.now).items():
        if len(skip.settled) > before and scope.now - began >= WAITING_S:
            return
        scope.tracker.interventions.renew(skip, scope.now)
        mine = [
            each
            for each in item.messages
            if each.message_id in skip.records and each.message_id not in skip.settled
        ]
        if mine and item.waits(scope.now) and scope.tracker.failures.claim(key):
            try:
                await _skip_item(scope, skip, key, item, mine)
            finally:
                scope.tracker.failures.unclaim(key)


async def show(scope: InFlight, items: dict[str, FailingItem]) -> int | PortError:
    """Makes the messages of these failing items visible; returns how many were hidden until now."""
    receipts = [each.receipt for item in items.values() for each in item.messages]
    if not receipts:
        return 0
    scope.tracker.delays.forget({each.message_id for item in items.values() for each in item.messages})
    undone = await extend(scope, receipts, visibility_s=0, within_s=RELEASE_S_MAX)
    if isinstance(undone, PortError):
        scope.report_failed(undone)
        return undone
    for key in items:
        scope.tracker.failures.shown(key, scope.parts.clock.now())
    return len(receipts) - len(undone)


async def _skip_item(
    scope: InFlight, skip: ArmedSkip, key: str, item: FailingItem, mine: Sequence[Message]
) -> None:
    failures = scope.tracker.failures
    if not skip.discard and not all(item.whole(each) for each in mine):
        # Its content is not here any more. It is received again, and skipped then.
        await show(scope, {key: item})
        return
    receipts = [each.receipt for each in mine]
    scope.tracker.delays.forget({each.message_id for each in mine})
    undone = await extend(scope, receipts, visibility_s=HIDDEN_S, within_s=CALL_S_MAX)
    if isinstance(undone, PortError):
        scope.report_failed(undone)
        return
    if undone:
        # Another worker may have it. The worker that receives it next skips it.
        failures.shown(key, scope.parts.clock.now())
        return
    for message in mine:
        what = await _copied(scope, skip, message)
        if what is None or not await _deleted_by_receipt(scope, message):
            return
        scope.tracker.interventions.settle([message.message_id], what)
        rest = failures.gone(key, {message.message_id}, scope.parts.clock.now())
        item = rest if rest is not None else item
        if rest is None:
            return
    if not scope.controls.stopped and key not in scope.controls.asked.groups:
        await show(scope, {key: item})


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


async def _copied(scope: InFlight, skip: ArmedSkip, message: Message) -> str | None:
    """What becomes of the message when it is deleted now; None if its copy could not be sent."""
    if skip.discard:
        return DELETED
    source = scope.parts.source
    assert isinstance(source, MessageMover), (
        "a skip that moves messages is armed for a source that can move them only"
    )
    try:
        async with asyncio.timeout(CALL_S_MAX):
            moved = MOVED + await source.send_to_dead_letters(message)
    except TimeoutError:
        error: PortError = ServiceUnavailable(f"no answer within {CALL_S_MAX:g} s")
    except PortError as failed:
        error = failed
    else:
        skip.tries = 0
        return moved
    scope.report_failed(error)
    skip.tries += 1
    skip.reason = error.reason
    if skip.tries >= TRIES_MAX or not isinstance(error, ServiceUnavailable | ServiceThrottled):
        named = line_of(message.message_id, chars_max=ID_CHARS_MAX)
        skip.trouble = f"message {named} cannot be moved: {error.reason}; {REMEDY}"
    return None


async def _deleted(scope: InFlight, pending: PendingDelete) -> bool:
    """Deletes a message that is in flight here; returns whether it is gone for good."""
    left: Sequence[PendingDelete] = [pending]
    for tries in range(DELETES_MAX):
        left, gone = await scope.delete_one(left)
        if not left:
            return gone
        await scope.stop.sleep(scope.parts.port_wait_s(tries))
    scope.delete_failed(left)
    return False


async def _deleted_by_receipt(scope: InFlight, message: Message) -> bool:
    """Deletes a message that failed here and is hidden; returns whether it is gone for good."""
    try:
        async with asyncio.timeout(CALL_S_MAX):
            return not await scope.parts.source.delete([message.receipt])
    except TimeoutError:
        error: PortError = ServiceUnavailable(f"no answer within {CALL_S_MAX:g} s")
    except PortError as failed:
        error = failed
    scope.report_failed(error)
    return False
