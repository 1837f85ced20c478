"""Owns the digest of this worker's status in the store: it writes it when something has changed, and removes those of workers that are gone.

Only other workers read it, so nothing is written while there are none. A failure is reported once and has no effect on anything else.
"""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from poller.domain.errors import PortError, ServiceUnavailable
from poller.domain.records import Monotonic, WorkerId
from poller.domain.rows import DigestStore
from poller.domain.sizing.fleet_size import WorkerLoad
from poller.domain.status import FunctionStatus, MappingStatus
from poller.domain.telemetry.daemon_events import StoreFailed
from poller.domain.telemetry.labels import TaskKind
from poller.domain.telemetry.observers import Observer
from poller.ports import Clock
from poller.rules.workers.status_digest import StatusDigest, digest_of, encode
from poller.runtime.watched_tasks import WatchedTasks
from poller.runtime.workers.heartbeat import Heartbeat

CHECK_S = 1.0
"""The interval at which the status is compared with what was written."""
GAP_S = 2.0
"""The shortest time between two writes."""
REWRITE_S = 60.0
"""The digest is written again after this time although nothing has changed, in case the store lost it."""
AGAIN_S = 5.0
"""The wait after a write that failed."""
PRUNE_S = 600.0
"""The interval at which digests of workers that are gone are removed."""
CALL_S_MAX = 5.0
"""How long one call of the store may take."""
LEAVE_S_MAX = 2.0
"""How long a worker that leaves may take to remove its digest."""


@contextmanager
def writing(writer: "DigestWriter | None", scope: WatchedTasks) -> Iterator[None]:
    """Keeps the writer at work until the block ends. None: the store takes no digests."""
    task = None if writer is None else scope.kept(TaskKind.STATUS_DIGEST, writer.run)
    try:
        yield
    finally:
        if task is not None:
            task.cancel()


class DigestWriter:
    """Writes the digest of one worker.

    `statuses` returns its mappings with those of its shards that a digest names. `functions` returns those with a breaker, and
    `load` what it tells of its load.
    """

    def __init__(
        self,
        store: DigestStore,
        worker: WorkerId,
        *,
        statuses: Callable[[], Sequence[MappingStatus]],
        functions: Callable[[], Sequence[FunctionStatus]],
        load: Callable[[], WorkerLoad],
        heartbeat: Heartbeat,
        clock: Clock,
        observer: Observer,
    ) -> None:
        self._store = store
        self._worker = worker
        self._statuses = statuses
        self._functions = functions
        self._load = load
        self._heartbeat = heartbeat
        self._clock = clock
        self._observer = observer
        self._written: StatusDigest | None = None
        self._due = Monotonic(0.0)
        self._rewrite = Monotonic(0.0)
        self._prune = Monotonic(clock.monotonic() + PRUNE_S)
        self._failing = False

    async def run(self) -> None:
        """Writes until it is cancelled, then removes the digest."""
        try:
            while True:
                await self._step()
                await asyncio.sleep(CHECK_S)
        finally:
            if self._written is not None:
                await self._leave()

    async def _step(self) -> None:
        now = self._clock.monotonic()
        if now < self._due or not self._heartbeat.others().alive:
            return
        digest = digest_of(self._statuses(), self._functions(), self._load())
        try:
            async with asyncio.timeout(CALL_S_MAX):
                if digest != self._written or now >= self._rewrite:
                    await self._write(digest, now)
                if now >= self._prune:
                    await self._drop_others(now)
        except TimeoutError:
            self._failed(ServiceUnavailable("the store does not take this worker's digest in time"))
        except PortError as error:
            self._failed(error)
        else:
            self._failing = False

    async def _write(self, digest: StatusDigest, now: Monotonic) -> None:
        # Also if the answer is lost, the digest may be in the store and is removed at the end.
        self._written = StatusDigest()
        await self._store.put_digest(self._worker, encode(digest))
        self._written = digest
        self._due, self._rewrite = Monotonic(now + GAP_S), Monotonic(now + REWRITE_S)

    async def _drop_others(self, now: Monotonic) -> None:
        """Removes digests without a worker. One that has just come and is not listed yet writes its digest again."""
        self._prune = Monotonic(now + PRUNE_S)
        known = {self._worker, *self._heartbeat.others().sightings}
        for row in await self._store.digests():
            if row.worker not in known:
                await self._store.put_digest(row.worker, b"")

    def _failed(self, error: PortError) -> None:
        self._due = Monotonic(self._clock.monotonic() + AGAIN_S)
        if not self._failing:
            self._failing = True
            self._observer.on(StoreFailed(error=type(error).__name__, reason=error.reason, wait_s=AGAIN_S))

    async def _leave(self) -> None:
        try:
            async with asyncio.timeout(LEAVE_S_MAX):
                await self._store.put_digest(self._worker, b"")
        except (TimeoutError, PortError):
            # Another worker removes it when it knows this one no more.
            return
