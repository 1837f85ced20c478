"""Owns one shard while its lease is held: reads pages when there is room, runs the lanes, writes checkpoints."""

import asyncio
from dataclasses import dataclass

from poller.errors import (
    AccessDenied,
    CursorExpired,
    LeaseLost,
    PortError,
    PositionTrimmed,
    ResourceMissing,
)
from poller.records import Cursor, Epoch, Page, Position
from poller.rows import Lease
from poller.rules.flow import AS_OF_STEP_S, ShardFlow
from poller.runtime.checkpoints import CheckpointWriter
from poller.runtime.lane import Lane
from poller.runtime.parts import StreamParts
from poller.runtime.stopping import Stop, interrupted_by
from poller.status import ShardStatus
from poller.telemetry import (
    Filtered,
    Loss,
    Polled,
    PortFailed,
    RecordsLost,
    ShardStarted,
    ShardStopped,
)

LAST_WORDS_S_MAX = 2.0
"""For the last checkpoint and the release of a shard that was cancelled."""


@dataclass(slots=True)
class Reading:
    """How reading goes, for those who show it."""

    cursor: Cursor | None = None
    behind_ms: int | None = None
    failures: int = 0
    reason: str = ""
    started: bool = False
    losses: int = 0
    told_at: Position | None = None


class ShardRun:
    """One shard from the moment its lease is taken until it stops or ends."""

    def __init__(self, lease: Lease, flow: ShardFlow, parts: StreamParts, stop: Stop) -> None:
        self.records = 0
        """Read so far, for who measures the load."""
        self._lease = lease
        self._flow = flow
        self._parts = parts
        self._stop = stop
        self._room = asyncio.Event()
        self._reading = Reading()
        self._checkpoints = CheckpointWriter(parts, lease, stop, flow.checkpoint)
        self._lanes = [Lane(index, flow, lease.shard, parts, stop, self._settled) for index in flow.lanes]

    async def run(self) -> None:
        """Reads and works until the scope stops or the shard is settled to its end; then gives the lease up."""
        self._parts.observer.on(
            ShardStarted(
                mapping=self._parts.plan.mapping,
                shard=self._lease.shard,
                position=self._lease.checkpoint.position,
            )
        )
        self._check_retention()
        try:
            async with asyncio.TaskGroup() as scope:
                scope.create_task(self._checkpoints.run(), name=f"checkpoints {self._lease.shard}")
                await self._work()
                self._checkpoints.close()
        except asyncio.CancelledError:
            await self._last_words()
            raise
        else:
            await self._release()
        finally:
            self._parts.observer.on(
                ShardStopped(
                    mapping=self._parts.plan.mapping,
                    shard=self._lease.shard,
                    ended=self._flow.done,
                )
            )

    @property
    def ended(self) -> bool:
        """Whether the shard was read and settled to its end."""
        return self._flow.done

    def status(self) -> ShardStatus:
        """What the shard is doing."""
        return ShardStatus(
            shard=self._lease.shard,
            state=self._state(),
            position=self._flow.position.encode(),
            behind_ms=self._reading.behind_ms,
            owner=str(self._parts.worker),
            reason=self._reading.reason,
            losses=self._reading.losses,
            lanes=tuple(lane.status() for lane in self._lanes),
        )

    def _state(self) -> str:
        if self._flow.done:
            return "ended"
        if self._stop.requested:
            return "draining"
        if self._reading.reason:
            return "failing"
        return "reading" if self._reading.started else "starting"

    async def _work(self) -> None:
        async with asyncio.TaskGroup() as scope:
            scope.create_task(self._read(), name=f"reader {self._lease.shard}")
            for lane in self._lanes:
                scope.create_task(lane.run(), name=f"lane {self._lease.shard}")

    def _settled(self) -> None:
        self._room.set()
        self._checkpoints.touch()

    async def _read(self) -> None:
        with self._stop.waking(self._room):
            while not self._stop.requested and not self._flow.done:
                self._room.clear()
                if not self._flow.hungry:
                    await self._room.wait()
                    continue
                asked = self._parts.clock.now()
                page = await self._page()
                if page is not None and await self._taken(page, asked):
                    return

    async def _taken(self, page: Page, asked: Epoch) -> bool:
        """Takes in a page, or rests when it is empty; whether it was the last one."""
        if page.records:
            # What a stop overtook on the way was not tracked yet and comes again.
            return not self._stop.requested and self._accept(page, asked)
        last = self._accept(page, asked)
        if not last and not page.behind_ms:
            await self._stop.sleep(self._parts.tuning.idle_poll_s)
        return last

    def _accept(self, page: Page, asked: Epoch) -> bool:
        """Takes in a page that was asked for at `asked`; whether it was the last one."""
        intake = self._flow.accept(page.records, caught_up=_caught_up(page), asked=asked)
        self.records += len(page.records)
        self._reading.cursor = page.cursor
        self._reading.behind_ms = page.behind_ms
        self._tell_polled(page, intake.filtered, intake.filtered + intake.taken)
        if page.cursor is None:
            self._flow.end()
        self._checkpoints.touch()
        if page.records or page.cursor is None:
            for lane in self._lanes:
                lane.changed.set()
        return page.cursor is None

    async def _page(self) -> Page | None:
        """The next page; None after trouble that was waited out, or when a stop came first."""
        try:
            async with interrupted_by(self._stop):
                page = await self._call()
                self._reading.failures = 0
                self._reading.reason = ""
                self._reading.started = True
                return page
        except CursorExpired:
            self._reading.cursor = None
        except PositionTrimmed:
            self._lose(Loss.TRIMMED)
        except ResourceMissing as error:
            await self._missing(error)
        except PortError as error:
            await self._wait_out(error)
        return None

    async def _call(self) -> Page:
        shard, reading = self._lease.shard, self._reading
        if reading.cursor is None:
            reading.cursor = await self._parts.source.cursor(shard, self._flow.read_to)
        return await self._parts.source.read(
            shard, reading.cursor, records_max=self._parts.tuning.read_records_max
        )

    def _lose(self, loss: Loss) -> None:
        """Records that were never read are gone: say so, then go on where the source still has some."""
        if loss is not Loss.TRIMMED or self._may_be_lost():
            self._tell_lost(loss)
        self._reading.cursor = None
        self._flow.restart_at(Position.horizon())

    def _tell_lost(self, loss: Loss) -> None:
        self._reading.losses += 1
        self._reading.told_at = self._flow.read_to
        self._parts.observer.on(
            RecordsLost(
                mapping=self._parts.plan.mapping,
                shard=self._lease.shard,
                loss=loss,
                position=self._flow.read_to,
            )
        )

    def _check_retention(self) -> None:
        """Not every source refuses a position that is older than what it keeps; a loss must not be silent (spec 3)."""
        if self._flow.as_of is not None and self._parts.retention.seconds is not None and self._may_be_lost():
            self._tell_lost(Loss.TRIMMED)

    def _may_be_lost(self) -> bool:
        """Whether the source may have dropped records behind the position that it has trimmed.

        It cannot where the checkpoint says that everything was settled up to a moment within the retention: the shard was
        idle. A loss is told once for each place.
        """
        if self._reading.told_at == self._flow.read_to:
            return False
        as_of, retention_s = self._flow.as_of, self._parts.retention.seconds
        if as_of is None or retention_s is None:
            return True
        return self._parts.clock.now() - as_of > retention_s + AS_OF_STEP_S

    async def _missing(self, error: ResourceMissing) -> None:
        """The shard or its whole stream is gone. A stream that exists without the shard will never have it again."""
        try:
            listed = await self._parts.source.shards()
        except PortError:
            await self._wait_out(error)
            return
        if any(shard.shard_id == self._lease.shard for shard in listed):
            await self._wait_out(error)
            return
        self._lose(Loss.SHARD_GONE)
        self._flow.end()
        self._checkpoints.touch()
        for lane in self._lanes:
            lane.changed.set()

    async def _wait_out(self, error: PortError) -> None:
        wait_s = self._parts.port_wait_s(self._reading.failures)
        if isinstance(error, (AccessDenied, ResourceMissing)):
            wait_s = max(wait_s, self._parts.tuning.idle_poll_s)
        self._reading.failures += 1
        self._reading.reason = error.reason
        self._parts.observer.on(
            PortFailed(
                mapping=self._parts.plan.mapping,
                shard=self._lease.shard,
                port="source",
                error=type(error).__name__,
                reason=error.reason,
                wait_s=wait_s,
            )
        )
        await self._stop.sleep(wait_s)

    def _tell_polled(self, page: Page, filtered: int, evaluated: int) -> None:
        mapping, shard = self._parts.plan.mapping, self._lease.shard
        self._parts.observer.on(
            Polled(mapping=mapping, shard=shard, records=len(page.records), behind_ms=page.behind_ms)
        )
        if self._parts.plan.filters:
            self._parts.observer.on(
                Filtered(mapping=mapping, shard=shard, records=filtered, evaluated=evaluated)
            )

    async def _last_words(self) -> None:
        """The grace is over: one try at saving what is settled, and at giving the lease up."""
        try:
            async with asyncio.timeout(LAST_WORDS_S_MAX):
                await self._checkpoints.save_at_once()
                await self._release()
        except TimeoutError:
            return

    async def _release(self) -> None:
        if self._stop.lost:
            return
        try:
            await self._parts.store.release(self._parts.plan.mapping, self._lease)
        except LeaseLost:
            return
        except PortError as error:
            # Whoever comes next takes the lease over; nothing depends on its being free.
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


def _caught_up(page: Page) -> bool:
    """Whether the source had nothing more; one that does not say how far behind a page is shows it by an empty page."""
    return not page.records if page.behind_ms is None else page.behind_ms == 0
