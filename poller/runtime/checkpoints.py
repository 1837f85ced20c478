"""Owns the writing of one shard's checkpoints: coalesced, monotonic, fenced by the lease."""

import asyncio
from collections.abc import Callable

from poller.errors import LeaseLost, PortError, ServiceUnavailable
from poller.rows import Checkpoint, Lease
from poller.runtime.parts import Parts
from poller.runtime.stopping import Reason, Stop, wait_until
from poller.telemetry import CheckpointSaved, PortFailed

SAVE_S_MAX = 15.0
"""How long one save may take before it counts as failed."""
LAST_TRIES_MAX = 5
"""Failed saves that a stopping shard accepts before it gives up; the records since then come again after a restart."""


class CheckpointWriter:
    """Writes what `snapshot` says whenever it changed, at most once per interval."""

    def __init__(self, parts: Parts, lease: Lease, stop: Stop, snapshot: Callable[[], Checkpoint]) -> None:
        self._parts = parts
        self._lease = lease
        self._stop = stop
        self._snapshot = snapshot
        self._saved = lease.checkpoint
        self._touched = asyncio.Event()
        self._closing = asyncio.Event()

    def touch(self) -> None:
        """Something was settled."""
        self._touched.set()

    def close(self) -> None:
        """Nothing more will be settled: `run` writes what is left and returns."""
        self._closing.set()
        self._touched.set()

    async def run(self) -> None:
        """Writes until closed, then once more. Returns early when the lease is lost."""
        tries = 0
        while not self._stop.lost:
            await self._touched.wait()
            closing = self._closing.is_set()
            self._touched.clear()
            if await self._save():
                tries = 0
                if closing:
                    return
                await wait_until(self._closing, self._parts.tuning.checkpoint_s)
                continue
            tries += 1
            self._touched.set()
            if closing and self._stop.requested and tries >= LAST_TRIES_MAX:
                return
            await asyncio.sleep(self._failed_wait_s(tries))

    async def save_at_once(self) -> None:
        """One try at writing what is settled; for a shard whose grace is over."""
        if not self._stop.lost:
            await self._save()

    def _failed_wait_s(self, tries: int) -> float:
        return self._parts.port_wait_s(tries - 1)

    async def _save(self) -> bool:
        """Whether the store has the present state, or never will because the lease is lost."""
        checkpoint = self._snapshot()
        if checkpoint == self._saved or self._stop.lost:
            return True
        assert checkpoint.position >= self._saved.position, "a checkpoint that goes back"
        try:
            async with asyncio.timeout(SAVE_S_MAX):
                await self._parts.store.save(self._parts.plan.mapping, self._lease, checkpoint)
        except LeaseLost:
            self._stop.request(Reason.LOST)
            return True
        except TimeoutError:
            self._failed(ServiceUnavailable(f"no answer within {SAVE_S_MAX:g} s"))
            return False
        except PortError as error:
            self._failed(error)
            return False
        self._saved = checkpoint
        self._parts.observer.on(
            CheckpointSaved(
                mapping=self._parts.plan.mapping,
                shard=self._lease.shard,
                position=checkpoint.position,
            )
        )
        return True

    def _failed(self, error: PortError) -> None:
        self._parts.observer.on(
            PortFailed(
                mapping=self._parts.plan.mapping,
                shard=self._lease.shard,
                port="store",
                error=type(error).__name__,
                reason=error.reason,
                wait_s=0.0,
            )
        )
