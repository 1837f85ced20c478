"""Owns the deletes of one queue mapping: batched by ten across batches, tried again, told when they are through."""

import asyncio
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from poller.errors import PortError
from poller.records import Message
from poller.runtime.queue_scope import QueueScope, delete
from poller.runtime.stopping import wait_until
from poller.telemetry import Deleted

DELETES_MAX = 10
"""Messages in one call of SQS."""
CALLS_MAX = 8
"""Calls that one worker has on the way at once."""
WORKERS_MAX = 4
LINGER_S = 0.02
"""How long a delete waits for others to share its call."""
TRIES_MAX = 8
"""Failed tries before a delete is given up; the message comes again. At the default back-off that is one to two minutes."""
BACKLOG_MAX = 10_000
"""Messages that may wait for their delete; with more, pollers wait too."""


@dataclass(frozen=True, slots=True)
class Parcel:
    """A message to be deleted, and who ran it (None: a filter did not match it)."""

    message: Message
    owner: int | None


class Deleter:
    """Deletes what was processed or filtered."""

    def __init__(self, scope: QueueScope) -> None:
        self._scope = scope
        self._pending: deque[Parcel] = deque()
        self._added = asyncio.Event()
        self._full = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()
        self._closing = False

    def add(self, parcels: Iterable[Parcel]) -> None:
        """Takes messages; returns at once."""
        self._pending.extend(parcels)
        self._added.set()
        if len(self._pending) >= DELETES_MAX:
            self._full.set()
        if len(self._pending) > BACKLOG_MAX:
            self._room.clear()

    @property
    def roomy(self) -> bool:
        """Whether the backlog is not too long."""
        return self._room.is_set()

    async def room(self) -> None:
        """Returns when the backlog is not too long."""
        await self._room.wait()

    def close(self) -> None:
        """Nothing more will come: `run` deletes what is left and returns."""
        self._closing = True
        self._added.set()
        self._full.set()

    async def run(self) -> None:
        """Deletes until closed."""
        async with asyncio.TaskGroup() as scope:
            for number in range(WORKERS_MAX):
                scope.create_task(self._work(), name=f"deleter {number}")

    async def last_try(self) -> None:
        """One try at what is left, for a mapping whose grace is over."""
        if self._pending:
            await self._try(list(self._pending))

    async def _work(self) -> None:
        while True:
            await self._added.wait()
            if not self._pending:
                if self._closing:
                    return
                self._added.clear()
                continue
            if len(self._pending) < DELETES_MAX and not self._closing:
                self._full.clear()
                await wait_until(self._full, LINGER_S)
            if parcels := self._take(DELETES_MAX * CALLS_MAX):
                await self._delete(parcels)

    def _take(self, count: int) -> list[Parcel]:
        """The next parcels; whole calls where there are enough of them."""
        whole = len(self._pending) // DELETES_MAX * DELETES_MAX or len(self._pending)
        taken = [self._pending.popleft() for _ in range(min(whole, count))]
        if len(self._pending) <= BACKLOG_MAX:
            self._room.set()
        return taken

    async def _delete(self, parcels: Sequence[Parcel]) -> None:
        left = list(parcels)
        try:
            for tries in range(TRIES_MAX):
                left = await self._try(left)
                if not left:
                    return
                await asyncio.sleep(self._scope.parts.port_wait_s(tries))
        except asyncio.CancelledError:
            self._pending.extendleft(left)
            raise
        self._settle(left, done=False)
        self._tell(failed=len(left))

    async def _try(self, parcels: Sequence[Parcel]) -> list[Parcel]:
        """One call; returns what is to be tried again. Receipts are the newest: a message may have come again."""
        scope = self._scope
        now = scope.now
        lapsed = {
            each.message.message_id
            for each in parcels
            if scope.holds.lapsed(each.message.message_id, now=now)
        }
        receipts = [scope.holds.receipt(each.message.message_id) for each in parcels]
        undone = await delete(scope, receipts)
        if isinstance(undone, PortError):
            scope.tell_failed(undone, wait_s=0.0)
            return list(parcels)
        refused = {each.receipt: each.lapsed for each in undone}
        answers = [
            # A message that came anew during the call has a receipt that is worth another try.
            (each, refused[receipt] and scope.holds.receipt(each.message.message_id) == receipt)
            if receipt in refused
            else (each, None)
            for each, receipt in zip(parcels, receipts, strict=True)
        ]
        done = [each for each, answer in answers if answer is None]
        gone = [each for each, answer in answers if answer is True]
        self._settle(done, done=True)
        self._settle(gone, done=False)
        late = sum(each.message.message_id in lapsed for each in done) if lapsed else 0
        self._tell(messages=len(done) - late, lapsed=len(gone) + late)
        return [each for each, answer in answers if answer is False]

    def _settle(self, parcels: Sequence[Parcel], *, done: bool) -> None:
        for each in parcels:
            self._scope.settle(each.owner, [each.message], started=True, done=done)

    def _tell(self, *, messages: int = 0, lapsed: int = 0, failed: int = 0) -> None:
        if messages or lapsed or failed:
            self._scope.parts.observer.on(
                Deleted(
                    mapping=self._scope.parts.plan.mapping, messages=messages, lapsed=lapsed, failed=failed
                )
            )
