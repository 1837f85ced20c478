"""Owns how messages are skipped on one worker: each is moved to the dead-letter queue, or deleted.

A message is skipped where it is. One that failed and waits is skipped by its last receipt. One that is received, or that waits here for
another reason, is skipped when it would run. In both cases it is deleted only after its copy is in the dead-letter queue. A copy is sent
once, however often the delete is tried.
"""

import asyncio
from collections.abc import Sequence

from poller.domain.errors import PortError, ServiceThrottled, ServiceUnavailable
from poller.domain.records import Message, Undone
from poller.domain.untrusted.texts import line_of
from poller.operator_ports import MessageMover
from poller.rules.queues.failing import FailingItem
from poller.rules.queues.in_flight import PendingDelete
from poller.rules.queues.interventions import ArmedSkip
from poller.rules.queues.receive_batch import QueueItem
from poller.rules.responses import cut
from poller.runtime.queues.in_flight import CALL_S_MAX, RELEASE_S_MAX, InFlight, extend

HIDDEN_S = 90
"""How long a failed message is hidden from now on while it is moved and deleted. It is enough for one call of each kind."""
TRIES_MAX = 3
"""How often a copy is sent while the dead-letter queue cannot be reached. Then the skip has failed."""
DELETES_MAX = 8
"""How often a delete is tried while the queue cannot be reached. Then the skip has failed."""
WAITING_S = 2.0
"""After this time the messages that were skipped so far are stored, before the next ones are skipped."""
REMEDY = 'ask again when that is repaired, or write "discard": true to delete it'
UNDELETED = "ask again when that is repaired"
UNDELETED_COPIED = 'its copy is in {}, so write "discard": true when you ask again after the repair'
MOVED = "moved to "
DELETED = "deleted"
ID_CHARS_MAX = 100


async def skip_started(scope: InFlight, receive_id: int, items: Sequence[QueueItem]) -> None:
    """Skips items that are started, one after the other. If one cannot be moved, it and those behind it have failed."""
    for place, item in enumerate(items):
        skip = scope.tracker.interventions.skip_of(item.message_id, scope.now)
        if skip is None:
            # The skip has ended meanwhile.
            await scope.release(receive_id, items[place:], started=True)
            return
        what = None if skip.trouble else await _copied(scope, skip, item.message)
        if what is None:
            _stays(scope, skip, receive_id, items[place:])
            return
        if await _deleted(scope, skip, receive_id, item):
            scope.tracker.interventions.settle([item.message_id], what)


def _stays(scope: InFlight, skip: ArmedSkip, receive_id: int, items: Sequence[QueueItem]) -> None:
    """These messages have failed, because they cannot be skipped now."""
    scope.unmoved(receive_id, items, cut(f"the message is to be skipped, and {skip.reason}"))


async def skip_waiting(scope: InFlight, skip: ArmedSkip) -> None:
    """Skips those messages of an armed skip that failed here and wait for their next try.

    It returns after WAITING_S with those that were skipped until then. The caller stores that, and begins again with the others. It
    returns too when a message cannot be deleted, since the others could not be either.
    """
    began, before = scope.now, len(skip.settled)
    for key, item in scope.tracker.waiting(scope.now).items():
        if skip.trouble or (len(skip.settled) > before and scope.now - began >= WAITING_S):
            return
        scope.tracker.interventions.renew(skip, scope.now)
        mine = [
            each
            for each in item.messages
            if each.message_id in skip.records and each.message_id not in skip.settled
        ]
        if mine and item.waits(scope.now) and scope.tracker.failures.claim(key):
            try:
                if not await _skip_item(scope, skip, key, item, mine):
                    return
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
) -> bool:
    """Skips messages of one item. Returns whether the queue may take a call about others now."""
    failures = scope.tracker.failures
    if not skip.discard and not all(item.whole(each) or each.message_id in skip.copied for each in mine):
        # Its content is not here any more. It is received again, and skipped then.
        await show(scope, {key: item})
        return True
    receipts = [each.receipt for each in mine]
    scope.tracker.delays.forget({each.message_id for each in mine})
    undone = await extend(scope, receipts, visibility_s=HIDDEN_S, within_s=CALL_S_MAX)
    if isinstance(undone, PortError):
        scope.report_failed(undone)
        _undeleted(skip, mine[0], undone.reason, passes=_passes(undone))
        return False
    if undone:
        # Another worker may have it. The worker that receives it next skips it.
        failures.shown(key, scope.parts.clock.now())
        return True
    rest: FailingItem | None = item
    for message in mine:
        what = await _copied(scope, skip, message)
        if what is None:
            return True
        if not await _deleted_by_receipt(scope, skip, message):
            return False
        scope.tracker.interventions.settle([message.message_id], what)
        rest = failures.gone(key, {message.message_id}, scope.parts.clock.now())
    if rest is not None and not scope.controls.stopped and key not in scope.controls.asked.groups:
        await show(scope, {key: rest})
    return True


async def _copied(scope: InFlight, skip: ArmedSkip, message: Message) -> str | None:
    """What becomes of the message when it is deleted now; None if its copy could not be sent. A copy is sent once."""
    if skip.discard:
        return DELETED
    if message.message_id in skip.copied:
        return MOVED + skip.copied[message.message_id]
    source = scope.parts.source
    assert isinstance(source, MessageMover), (
        "a skip that moves messages is armed for a source that can move them only"
    )
    try:
        async with asyncio.timeout(CALL_S_MAX):
            there = await source.send_to_dead_letters(message)
    except TimeoutError:
        error: PortError = ServiceUnavailable(f"no answer within {CALL_S_MAX:g} s")
    except PortError as failed:
        error = failed
    else:
        skip.tries = 0
        skip.copied[message.message_id] = there
        return MOVED + there
    scope.report_failed(error)
    skip.tries += 1
    skip.reason = f"cannot be moved: {error.reason}"
    if skip.tries >= TRIES_MAX or not _passes(error):
        skip.trouble = f"message {_named(message)} {skip.reason}; {REMEDY}"
    return None


async def _deleted(scope: InFlight, skip: ArmedSkip, receive_id: int, item: QueueItem) -> bool:
    """Deletes a message that is in flight here; returns whether it is gone for good. If it stays, it has failed."""
    left: Sequence[PendingDelete] = [PendingDelete(item.message, receive_id)]
    for tries in range(DELETES_MAX):
        left, undone = await scope.delete_one(left)
        gone = _gone(skip, item.message, undone)
        if not left:
            return gone
        if skip.trouble:
            break
        await scope.stop.sleep(scope.parts.port_wait_s(tries))
    _stays(scope, skip, receive_id, [item])
    return False


async def _deleted_by_receipt(scope: InFlight, skip: ArmedSkip, message: Message) -> bool:
    """Deletes a message that failed here and is hidden; returns whether it is gone for good."""
    undone: Sequence[Undone] | PortError
    try:
        async with asyncio.timeout(CALL_S_MAX):
            undone = await scope.parts.source.delete([message.receipt])
    except TimeoutError:
        undone = ServiceUnavailable(f"no answer within {CALL_S_MAX:g} s")
    except PortError as failed:
        undone = failed
    if isinstance(undone, PortError):
        scope.report_failed(undone)
    return _gone(skip, message, undone)


def _gone(skip: ArmedSkip, message: Message, undone: Sequence[Undone] | PortError) -> bool:
    """Whether the queue deleted this message; `undone` is its answer. One that may be received again is skipped then."""
    if isinstance(undone, PortError):
        _undeleted(skip, message, undone.reason, passes=_passes(undone))
        return False
    if not undone:
        skip.undeleted = 0
        return True
    if not undone[0].lapsed:
        _undeleted(skip, message, undone[0].reason, passes=True)
    return False


def _undeleted(skip: ArmedSkip, message: Message, reason: str, *, passes: bool) -> None:
    """The queue refuses to hide or delete a message. The skip has failed if another try is of no use, or was of none often enough."""
    skip.undeleted += 1
    skip.reason = f"cannot be deleted: {reason}"
    if skip.undeleted >= DELETES_MAX or not passes:
        there = skip.copied.get(message.message_id)
        remedy = UNDELETED if there is None else UNDELETED_COPIED.format(there)
        skip.trouble = f"message {_named(message)} {skip.reason}; {remedy}"


def _passes(error: PortError) -> bool:
    """Whether it may pass without an operator."""
    return isinstance(error, ServiceUnavailable | ServiceThrottled)


def _named(message: Message) -> str:
    return line_of(message.message_id, chars_max=ID_CHARS_MAX)
