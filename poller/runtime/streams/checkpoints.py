"""Owns the writing of one shard's checkpoints: coalesced, monotonic, fenced by the lease."""

import asyncio
from collections.abc import Callable

from poller.domain.errors import LeaseLost, PortError, ServiceUnavailable
from poller.domain.records import Rank
from poller.domain.rows import Checkpoint, Lease
from poller.domain.telemetry.mapping_events import CheckpointSaved
from poller.runtime.context import MappingContext
from poller.runtime.port_failures import report_failure
from poller.runtime.stopping import Reason, Stop, interrupted_by, wait_until

SAVE_S_MAX = 15.0
"""How long one save may take before it counts as failed."""
LAST_SAVE_S_MAX = 5.0
"""The same for a shard that stops. If the store does not answer in this time, it is not asked again."""
LAST_TRIES_MAX = 5
"""Failed saves after which a stopping shard gives up. Records settled since the last save run again after a restart."""


class CheckpointWriter:
    """Writes the checkpoint that `snapshot` returns when it has changed, at most once per interval."""

    def __init__(
        self, parts: MappingContext, lease: Lease, stop: Stop, snapshot: Callable[[], Checkpoint]
    ) -> None:
        self._parts = parts
        self._lease = lease
        self._stop = stop
        self._snapshot = snapshot
        self._saved = lease.checkpoint
        self._touched = asyncio.Event()
        self._over = asyncio.Event()
        """Set when nothing more will be settled, or nothing more may be written."""
        self._hurry = asyncio.Event()
        """Set when a failed save should be tried again at once."""
        self._closed = False
        self._silent = False
        """Whether the store did not answer the last save."""
        self._saving: asyncio.Timeout | None = None
        self._waiters: list[asyncio.Future[None]] = []

    def wake(self) -> None:
        """Says that something was settled."""
        self._touched.set()

    async def saved(self) -> None:
        """Returns when the store has the present checkpoint, or a later one. The caller ends its wait when the scope stops."""
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        self.wake()
        await waiter

    @property
    def end_saved(self) -> bool:
        """Whether the store has that all records of the shard are settled to its end."""
        return self._saved.position.rank is Rank.END

    def close(self) -> None:
        """Says that nothing more will be settled. `run` writes what is left and returns."""
        self._closed = True
        self._end_waits()

    def may_end(self) -> bool:
        """Whether nothing more has to be written."""
        return self._closed or self._stop.lost

    async def run(self) -> None:
        """Writes checkpoints until `close` is called, then the last one. Returns early when the lease is lost."""
        tries = 0
        with self._stop.listening(self._on_stop):
            while not self._stop.lost:
                await self._touched.wait()
                self._touched.clear()
                self._hurry.clear()
                closed = self._closed
                if await self._save():
                    if closed:
                        return
                    tries = 0
                    await wait_until(self._over, self._parts.tuning.checkpoint_s)
                    continue
                self._touched.set()
                tries += 1
                last = self._closed if self._silent else closed and tries >= LAST_TRIES_MAX
                if last and self._stop.requested:
                    return
                if await wait_until(self._hurry, self._parts.port_wait_s(tries - 1)):
                    # A stop starts the count of tries again, because the store may answer by now.
                    tries = 0

    def _on_stop(self) -> None:
        self._hurry.set()
        if self._saving is not None and not self._saving.expired():
            now = asyncio.get_running_loop().time()
            self._saving.reschedule(min(self._saving.when() or now, now + LAST_SAVE_S_MAX))
        if self._stop.reason is Reason.LOST:
            self._end_waits()

    def _end_waits(self) -> None:
        for event in (self._touched, self._over, self._hurry):
            event.set()

    async def save_at_once(self) -> None:
        """Tries once to write what is settled, for a shard whose grace time is over."""
        if not self._stop.lost:
            await self._save()

    async def _save(self) -> bool:
        """Writes the present checkpoint. Returns False if it must be tried again; a lost lease needs no other try."""
        checkpoint = self._snapshot()
        waiters = len(self._waiters)
        if self._stop.lost:
            return True
        if checkpoint == self._saved:
            self._end_waiters(waiters)
            return True
        assert checkpoint.position >= self._saved.position, "a checkpoint that goes back"
        try:
            saved = await self._write(checkpoint)
        except LeaseLost:
            self._stop.request(Reason.LOST)
            return True
        except PortError as error:
            self._failed(error)
            return False
        if not saved:
            return True
        self._saved = checkpoint
        self._end_waiters(waiters)
        self._parts.observer.on(
            CheckpointSaved(
                mapping=self._parts.plan.mapping,
                shard=self._lease.shard,
                position=checkpoint.position,
            )
        )
        return True

    def _end_waiters(self, count: int) -> None:
        for waiter in self._waiters[:count]:
            if not waiter.done():
                waiter.set_result(None)
        del self._waiters[:count]

    async def _write(self, checkpoint: Checkpoint) -> bool:
        """Whether the store has taken the checkpoint; False when the lease was lost meanwhile. Raises PortError."""
        self._silent = False
        limit_s = LAST_SAVE_S_MAX if self._stop.requested else SAVE_S_MAX
        try:
            async with interrupted_by(self._stop, Reason.LOST), asyncio.timeout(limit_s) as self._saving:
                await self._parts.store.save(self._parts.plan.mapping, self._lease, checkpoint)
                return True
        except TimeoutError:
            self._silent = True
            raise ServiceUnavailable("the store does not answer") from None
        finally:
            self._saving = None
        return False

    def _failed(self, error: PortError) -> None:
        report_failure(
            self._parts.observer,
            error,
            mapping=self._parts.plan.mapping,
            port="store",
            shard=self._lease.shard,
        )
