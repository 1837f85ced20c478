"""Owns the queue source of a dry run: it receives messages, deletes none, and gives all of them back at the end.

Deletes and changes of visibility by the engine have no effect. So a message stays hidden until the end, when it is made visible
again, or until the queue's visibility timeout is over, if that is sooner. Before a message could become visible by itself,
receiving stops: a second receive would raise its receive count again. A message that has become visible by itself is not given back,
because another consumer may work on it.
"""

import asyncio
from collections.abc import Callable, Sequence

from poller.domain.errors import PortError
from poller.domain.records import Message, QueueFacts, Undone
from poller.domain.wording.numbers_of import inflected, number_of
from poller.ports import QueueSource

WAIT_S_MAX = 1.0
"""The longest poll. A longer one would only delay the end."""
RECEIVED_MAX = 10_000
"""Messages that are received from one queue. After that it counts as empty."""
GIVE_BACK_S_MAX = 5.0
RECEIVES_MIN = 2
"""A queue with a smaller maxReceiveCount is refused: its messages would go to the dead-letter queue and never to the function."""


class QueueRefused(PortError):
    """A dry run would do harm to the queue. Do not receive from it."""


class ReceivedOnly:
    """A QueueSource over another one. `on_note` gets lines for people."""

    def __init__(self, source: QueueSource, on_note: Callable[[str], None]) -> None:
        self._source = source
        self._on_note = on_note
        self._visibility_s = 0
        self._receipts: dict[str, tuple[str, float]] = {}
        """The receipt of each message and until when it is hidden, by its id, in the order of the receives."""
        self._receives_until: float | None = None
        """The time of the loop at which the first message may become visible by itself."""
        self._first = asyncio.Lock()
        self._empty_at: float | None = None
        """When the last receive without messages was answered."""

    async def receive(self, *, messages_max: int, wait_s: float) -> Sequence[Message]:
        """As the queue's, without messages that were received before. Returns none when receiving has stopped."""
        wait_s = min(wait_s, WAIT_S_MAX)
        if self._receives_until is not None:
            return await self._receive(messages_max, wait_s)
        asked = asyncio.get_running_loop().time()
        # One receive at a time until there was a message: only then it is known when messages become visible by themselves.
        async with self._first:
            if self._empty_at is not None and self._empty_at > asked:
                return ()
            return await self._receive(messages_max, wait_s)

    async def _receive(self, messages_max: int, wait_s: float) -> Sequence[Message]:
        loop = asyncio.get_running_loop()
        now = loop.time()
        if not self._may_receive(now + wait_s):
            await asyncio.sleep(wait_s)
            return ()
        found = await self._source.receive(messages_max=messages_max, wait_s=wait_s)
        if not found:
            self._empty_at = loop.time()
        elif self._receives_until is None:
            self._receives_until = now + self._visibility_s
        fresh = [each for each in found if each.message_id not in self._receipts]
        self._receipts |= {each.message_id: (each.receipt, now + self._visibility_s) for each in found}
        return fresh

    def _may_receive(self, answered: float) -> bool:
        """Whether a receive that is answered then brings no message a second time, and there is room for more."""
        if len(self._receipts) >= RECEIVED_MAX:
            self._on_note(f"{RECEIVED_MAX} messages were received; the queue is not asked for more")
            return False
        return self._receives_until is None or answered < self._receives_until

    async def delete(self, receipts: Sequence[str]) -> Sequence[Undone]:
        """Deletes nothing."""
        return ()

    async def extend(self, receipts: Sequence[str], *, visibility_s: int | Sequence[int]) -> Sequence[Undone]:
        """Changes nothing."""
        return ()

    async def describe(self) -> QueueFacts:
        """As the queue's. Raises QueueRefused if messages would be moved to the dead-letter queue because of the dry run."""
        facts = await self._source.describe()
        self._visibility_s = facts.visibility_timeout_s
        receives_max = facts.redrive_receives_max
        if receives_max is not None and receives_max < RECEIVES_MIN:
            raise QueueRefused(
                f"the queue has maxReceiveCount {receives_max}: after a dry run its messages would go to the dead-letter queue"
                " and never to the function"
            )
        return facts

    async def give_back(self) -> None:
        """Makes the received messages that are still hidden visible again. Reports those for which that failed."""
        now = asyncio.get_running_loop().time()
        receipts = [receipt for receipt, until in self._receipts.values() if now < until]
        if not receipts:
            return
        left, reason = len(receipts), f"no answer within {GIVE_BACK_S_MAX:g} s"
        try:
            async with asyncio.timeout(GIVE_BACK_S_MAX):
                undone = await self._source.extend(receipts, visibility_s=0)
                left, reason = len(undone), next((each.reason for each in undone), "")
        except TimeoutError:
            pass
        except PortError as error:
            reason = error.reason
        if left:
            self._on_note(
                f"not given back ({reason}): {number_of(left, 'message', of=len(receipts))}; {inflected(left, 'it comes', 'they come')} back after the queue's"
                " visibility timeout"
            )
