"""Owns the deletes of one queue mapping: ten messages a call, across batches, with retries (aws-behaviour#failed-messages)."""

import asyncio
from collections import deque
from collections.abc import Iterable, Sequence

from poller.domain.telemetry.labels import TaskKind
from poller.rules.queues.in_flight import PendingDelete
from poller.runtime.queues.in_flight import InFlight
from poller.runtime.stopping import wait_until
from poller.runtime.watched_tasks import WatchedTasks

DELETES_MAX = 10
"""The most messages in one delete call of SQS."""
WORKERS_MAX = 32
"""The most delete calls at the same time."""
LINGER_S = 0.02
"""How long a delete waits for others to share its call."""
TRIES_MAX = 8
"""A delete is given up after this many failed tries, and its message is received again. At the default back-off that takes one to two minutes."""
STOPPING_WAIT_S_MAX = 3.0
"""The longest wait between two tries after a stop, so that all tries fit into the grace time."""
BACKLOG_MAX = 10_000
"""While more messages than this wait for their delete, pollers receive nothing."""


class Deleter:
    """Deletes messages that were processed or that no filter matched.

    Each worker makes one call at a time. While there are too few messages for a full call, one worker waits a moment for more.
    A new worker starts when all others are busy.
    """

    def __init__(self, scope: InFlight) -> None:
        self._scope = scope
        self._pending: deque[PendingDelete] = deque()
        self._due = asyncio.Semaphore(0)
        self._full = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()
        self._closing = False
        self._lingering = False
        self._workers = self._idle = 0

    def add(self, pending: Iterable[PendingDelete]) -> None:
        """Takes messages to delete; returns at once."""
        self._pending.extend(pending)
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
        """No more messages will be added: `run` deletes the rest and returns."""
        self._closing = True
        self._full.set()
        for _ in range(self._workers):
            self._due.release()

    def may_end(self) -> bool:
        """Whether nothing is left to delete."""
        return self._closing and not self._pending

    async def run(self) -> None:
        """Deletes until closed."""
        async with self._scope.tasks() as scope:
            self._hire(scope)

    async def last_try(self) -> None:
        """Makes one delete call for all remaining messages, when the grace time is over."""
        if self._pending:
            await self._scope.delete(list(self._pending))

    def _call(self) -> None:
        """Wakes a worker. If all are busy, one signal waits for the next free worker. More signals would have no effect."""
        if self._due.locked():
            self._due.release()

    def _hire(self, scope: WatchedTasks) -> None:
        self._workers += 1
        scope.start(TaskKind.DELETES, self._work(scope), of=str(self._workers), over=self.may_end)

    async def _work(self, scope: WatchedTasks) -> None:
        while self._pending or not self._closing:
            if not self._closing:
                await self._next()
            if not (pending := self._take()):
                continue
            if not self._idle and self._workers < WORKERS_MAX:
                self._hire(scope)
            await self._delete(pending)

    async def _next(self) -> None:
        """Waits until there is probably something to take."""
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

    def _take(self) -> list[PendingDelete]:
        """The messages of one call; none while a worker waits for a call to become full."""
        if self._lingering and len(self._pending) < DELETES_MAX and not self._closing:
            return []
        taken = [self._pending.popleft() for _ in range(min(len(self._pending), DELETES_MAX))]
        if self._pending:
            self._call()
        if len(self._pending) <= BACKLOG_MAX:
            self._room.set()
        return taken

    async def _delete(self, pending: Sequence[PendingDelete]) -> None:
        left = list(pending)
        tries = 0
        try:
            while left := list(await self._scope.delete(left)):
                tries += 1
                if tries == TRIES_MAX:
                    break
                await self._pause(tries - 1)
        except asyncio.CancelledError:
            self._pending.extendleft(left)
            raise
        if left:
            self.add(self._scope.delete_failed(left))

    async def _pause(self, tries: int) -> None:
        """The wait between two tries. A stop ends it."""
        stop, wait_s = self._scope.stop, self._scope.parts.port_wait_s(tries)
        if stop.requested:
            await asyncio.sleep(min(wait_s, STOPPING_WAIT_S_MAX))
        else:
            await stop.sleep(wait_s)
