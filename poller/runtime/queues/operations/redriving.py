"""Owns the redrive of a queue's dead-letter queue: its messages are called as if they came from the mapping's own queue."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress

from poller.domain.errors import InvalidConfiguration, PortError, ServiceUnavailable
from poller.domain.invocations import EncodedEvent, StoredNotice
from poller.domain.plan import SourceKind
from poller.domain.records import Message
from poller.domain.untrusted.texts import line_of
from poller.domain.wording.numbers_of import number_of
from poller.held_notices import HeldNotices
from poller.operator_ports import NoticeSource
from poller.ports import Clock, QueueSource
from poller.rules.events import build
from poller.rules.operations.redriving import NoticeRefused
from poller.rules.queues.message_encoder import MessageEncoder
from poller.rules.responses import ResponseReading
from poller.runtime.invoking import BatchInvoker, InvocationBatch
from poller.runtime.operations.long.long_run import OpenPlace, PlaceOpener
from poller.runtime.operations.long.mapping_use import MappingUse
from poller.runtime.operations.long.redriving import Called
from poller.runtime.queues.context import QueueContext
from poller.runtime.queues.in_flight import RELEASE_S_MAX
from poller.runtime.stopping import Stop

ORIGIN = "DeadLetterQueueSourceArn"
"""The attribute by which SQS says from which queue it moved a message."""
ORIGIN_CHARS_MAX = 200
NAME_CHARS_MAX = 128
"""Of an id or a message group that is shown. SQS has no longer groups."""
WAIT_S = 1.0
RECEIVES_MAX = 100
"""Receives of one read, after which its caller looks whether it shall stop."""
EMPTY_RECEIVES_MAX = 3
"""After so many receives in a row without a new message, the queue counts as read. One alone may miss messages of a large queue."""


class DeadLetters:
    """The messages of a dead-letter queue, as notices of themselves. What is received stays hidden for `hold_s`."""

    def __init__(self, source: QueueSource, clock: Clock, *, hold_s: float) -> None:
        self._source = source
        self._clock = clock
        self._held = HeldNotices(hold_s)
        self._messages: dict[str, Message] = {}
        """Those that are worked on, with their contents."""
        self.seen_all = False
        self.stuck: set[str] = set()
        """Message groups of which a message stays. Those behind it stay, too."""

    def message(self, notice: StoredNotice) -> Message:
        """The message of a notice that was neither removed nor left."""
        return self._messages[notice.place]

    async def read(self, *, notices_max: int) -> Sequence[StoredNotice]:
        """The next messages. One that was left and comes again, because it was hidden too short, is not returned again."""
        empty, self.seen_all = 0, False
        for _ in range(RECEIVES_MAX):
            messages = await self._source.receive(messages_max=notices_max, wait_s=WAIT_S)
            if not messages:
                empty += 1
                if empty == EMPTY_RECEIVES_MAX:
                    self.seen_all = True
                    break
                continue
            # Messages that were left are hidden again now, so that the others come.
            empty = 0
            await self._hide(messages)
            found = [each for each in messages if not self._held.left(each.message_id)]
            if found:
                self._messages.update((each.message_id, each) for each in found)
                return [StoredNotice(each.message_id, b"") for each in found]
        return []

    async def hold(self, notice: StoredNotice) -> bool:
        """As `HoldingNotices.hold`."""
        receipt, now = self._held.receipt(notice.place), self._clock.monotonic()
        undone = await self._source.extend([receipt], visibility_s=self._held.hold_s)
        if not undone:
            self._held.kept(notice.place, now)
        elif undone[0].lapsed:
            self._held.lapsed(notice.place, now)
        else:
            raise ServiceUnavailable(undone[0].reason)
        return not undone

    async def held_by_others(self) -> int:
        """About how many messages others have received and not deleted. What was left here may be visible again, and is not hidden then."""
        hidden = (await self._source.describe()).hidden
        return max(0, hidden - self._held.hidden(self._clock.monotonic()))

    async def remove(self, notice: StoredNotice) -> None:
        """Deletes the message. Raises ServiceUnavailable if its time was over, because it is received again then."""
        if notice.place in self._held:
            undone = await self._source.delete([self._held.receipt(notice.place)])
            if undone:
                raise ServiceUnavailable(undone[0].reason)
            self._held.removed(notice.place)
            self._messages.pop(notice.place, None)

    async def leave(self, notice: StoredNotice) -> None:
        """Notes that this message is not returned again."""
        self._held.leave(notice.place)
        message = self._messages.pop(notice.place, None)
        if message is not None and message.group is not None:
            self.stuck.add(message.group)

    async def payload(self, bucket: str, key: str) -> bytes:
        """Never: a message has its content itself."""
        raise NoticeRefused(f"a message names no object: {bucket}/{key}")

    async def close(self) -> None:
        """Makes all messages visible that were not deleted. Raises PortError; then they are when their time is over."""
        receipts = self._held.receipts(self._clock.monotonic())
        if receipts:
            await self._source.extend(receipts, visibility_s=0)

    async def _hide(self, messages: Sequence[Message]) -> None:
        """Hides messages that have just been received for as long as it may take to call them."""
        now = self._clock.monotonic()
        hide_s = [self._held.received(each.message_id, each.receipt, now) for each in messages]
        hidden = set[str]()
        try:
            undone = await self._source.extend([each.receipt for each in messages], visibility_s=hide_s)
            hidden = {each.receipt for each in messages} - {each.receipt for each in undone}
        finally:
            for each in messages:
                if each.receipt not in hidden:
                    self._held.lapsed(each.message_id, now)


class QueueRedrive:
    """Calls the function of one queue mapping with messages of its dead-letter queue, one at a time."""

    def __init__(self, parts: QueueContext, letters: DeadLetters) -> None:
        self._parts = parts
        self._letters = letters
        plan = parts.plan
        self._encoder = MessageEncoder(source_arn=plan.source_arn, region=plan.region, windowed=False)

    def look(self, stored: StoredNotice) -> str:
        """What a redrive of this message would call, for people; raises NoticeRefused."""
        message = self._readable(stored)
        named = line_of(message.message_id, chars_max=NAME_CHARS_MAX)
        group = (
            "" if message.group is None else f" of group {line_of(message.group, chars_max=NAME_CHARS_MAX)}"
        )
        return f"message {named}{group}, received {number_of(message.receives, 'time')}"

    async def again(self, stored: StoredNotice, source: NoticeSource, stop: Stop) -> Called | None:
        """Calls the function with a message. None: a stop came before the call. Raises NoticeRefused."""
        del source
        message = self._readable(stored)
        batch = InvocationBatch(
            event=EncodedEvent(build([self._encoder.encode(message)])),
            identifiers=[message.message_id],
            request_id=self._parts.new_id(),
            attempt=max(1, message.receives),
        )
        reading = ResponseReading(
            report_failures=self._parts.plan.retry.report_failures, ignore_empty_items=True
        )
        invoker = BatchInvoker(
            self._parts.function,
            self._parts.plan,
            reading,
            clock=self._parts.clock,
            observer=self._parts.observer,
        )
        verdict = await invoker.invoke_in_slot(batch, stop)
        return None if verdict is None else Called(verdict, 1)

    def _readable(self, stored: StoredNotice) -> Message:
        message = self._letters.message(stored)
        origin = message.attributes.get(ORIGIN)
        if origin is not None and origin != self._parts.plan.source_arn:
            # Several queues may have one dead-letter queue.
            raise NoticeRefused(f"it is of another queue: {line_of(origin, chars_max=ORIGIN_CHARS_MAX)}")
        if message.unreadable:
            raise NoticeRefused(f"it cannot be read: {message.unreadable}")
        if message.group in self._letters.stuck:
            raise NoticeRefused("a message before it in its group stays")
        return message


@asynccontextmanager
async def opened_letters(
    parts: QueueContext, place: str, opener: PlaceOpener, *, hold_s: float, look: bool
) -> AsyncIterator[OpenPlace]:
    """The messages of a dead-letter queue, and the mapping that can call its function with them.

    Raises InvalidConfiguration and PortError. A look receives messages too, and makes them visible again at its end.
    """
    del look
    own = parts.plan.source_arn
    if place == own:
        raise InvalidConfiguration([f"{place} is the mapping's own queue; write its dead-letter queue"])
    # A message of another queue that this function accepts would be deleted, and lost to those who should get it.
    letters_arn = (await parts.source.describe()).dead_letter_arn
    if letters_arn != place:
        there = "it has none" if letters_arn is None else f"write {letters_arn}"
        raise InvalidConfiguration([f"{place} is not the dead-letter queue of {own}; {there}"])
    async with opener("sources", SourceKind.SQS, {"arn": place}) as source:
        letters = DeadLetters(source, parts.clock, hold_s=hold_s)
        try:
            yield OpenPlace(QueueRedrive(parts, letters), letters)
        finally:
            # The worker may be cancelled, and must end also when the queue does not answer.
            with suppress(PortError, TimeoutError):
                async with asyncio.timeout(RELEASE_S_MAX):
                    await letters.close()


class QueueLongOperable:
    """What a queue mapping offers to operations that take long."""

    def __init__(self, parts: QueueContext) -> None:
        self.use = MappingUse()
        self._parts = parts

    @property
    def seekable(self) -> None:
        """None: a queue has no positions."""
        return

    def opened_place(
        self, place: str, opener: PlaceOpener, *, hold_s: float, look: bool
    ) -> AbstractAsyncContextManager[OpenPlace]:
        """Opens the dead-letter queue. Raises InvalidConfiguration and PortError."""
        return opened_letters(self._parts, place, opener, hold_s=hold_s, look=look)

    def longest_s(self) -> float:
        """How long one call of the function takes at most."""
        return self._parts.longest_s
