"""Owns the deletes of one queue mapping: batched by ten across batches, tried again, told when they are through."""

import asyncio
from collections import deque
from collections.abc import Iterable, Sequence
from itertools import groupby

import msgspec

from poller.errors import PortError
from poller.records import Message
from poller.runtime.queue_scope import QueueScope, delete
from poller.runtime.stopping import wait_until
from poller.telemetry import Deleted

DELETES_MAX = 10
"""Messages in one call of SQS."""
WORKERS_MAX = 32
"""Calls on the way at once."""
LINGER_S = 0.02
"""How long a delete waits for others to share its call."""
TRIES_MAX = 8
"""Failed tries before a delete is given up; the message comes again. At the default back-off that is one to two minutes."""
BACKLOG_MAX = 10_000
"""Messages that may wait for their delete; with more, pollers wait too."""


class Parcel(msgspec.Struct, frozen=True, gc=False):
    """A message to be deleted, and who ran it (None: a filter did not match it)."""

    message: Message
    owner: int | None


class Deleter:
    """Deletes what was processed or filtered.

    A worker has one call on the way. One of them waits for company while there is not enough for a whole call; more are
    hired when all of them are busy.
    """

    def __init__(self, scope: QueueScope) -> None:
        self._scope = scope
        self._pending: deque[Parcel] = deque()
        self._due = asyncio.Semaphore(0)
        self._full = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()
        self._closing = False
        self._lingering = False
        self._workers = self._idle = 0

    def add(self, parcels: Iterable[Parcel]) -> None:
        """Takes messages; returns at once."""
        self._pending.extend(parcels)
        self._call()
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
        self._full.set()
        for _ in range(self._workers):
            self._due.release()

    async def run(self) -> None:
        """Deletes until closed."""
        async with asyncio.TaskGroup() as scope:
            self._hire(scope)

    async def last_try(self) -> None:
        """One try at what is left, for a mapping whose grace is over."""
        if self._pending:
            await self._try(list(self._pending))

    def _call(self) -> None:
        """Wakes a worker. While all are busy one call waits for the next of them: more would only be taken back one by one."""
        if self._due.locked():
            self._due.release()

    def _hire(self, scope: asyncio.TaskGroup) -> None:
        self._workers += 1
        scope.create_task(self._work(scope), name=f"deleter {self._workers}")

    async def _work(self, scope: asyncio.TaskGroup) -> None:
        while self._pending or not self._closing:
            if not self._closing:
                await self._next()
            if not (parcels := self._take()):
                continue
            if not self._idle and self._workers < WORKERS_MAX:
                self._hire(scope)
            await self._delete(parcels)

    async def _next(self) -> None:
        """Returns when there is something to take, most times."""
        self._idle += 1
        try:
            await self._due.acquire()
            if 0 < len(self._pending) < DELETES_MAX and not self._lingering:
                await self._linger()
        finally:
            self._idle -= 1

    async def _linger(self) -> None:
        self._lingering = True
        try:
            if not self._closing:
                self._full.clear()
            await wait_until(self._full, LINGER_S)
        finally:
            self._lingering = False

    def _take(self) -> list[Parcel]:
        """The parcels of one call; none while somebody waits for company for too few of them."""
        if self._lingering and len(self._pending) < DELETES_MAX and not self._closing:
            return []
        taken = [self._pending.popleft() for _ in range(min(len(self._pending), DELETES_MAX))]
        if self._pending:
            self._call()
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
        if not undone and not lapsed:
            self._settle(parcels, done=True)
            self._tell(messages=len(parcels))
            return []
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
        for owner, own in groupby(parcels, lambda each: each.owner):
            self._scope.settle(owner, [each.message for each in own], started=True, done=done)

    def _tell(self, *, messages: int = 0, lapsed: int = 0, failed: int = 0) -> None:
        if messages or lapsed or failed:
            self._scope.parts.observer.on(
                Deleted(
                    mapping=self._scope.parts.plan.mapping, messages=messages, lapsed=lapsed, failed=failed
                )
            )
