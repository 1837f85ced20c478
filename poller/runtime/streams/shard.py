"""Owns one shard while this worker has its lease: runs its reader and its lanes, writes checkpoints, and releases the lease."""

import asyncio
from collections.abc import Awaitable, Callable

from poller.domain.errors import LeaseLost, PortError, ServiceUnavailable
from poller.domain.operations import OperatorPause
from poller.domain.rows import Lease
from poller.domain.status import ShardStatus, pause_status
from poller.domain.telemetry.labels import TaskKind
from poller.domain.telemetry.mapping_events import ShardStarted, ShardStopped
from poller.rules.filtering.pages import Matches
from poller.rules.streams.flow import ShardFlow
from poller.runtime.port_failures import report_failure
from poller.runtime.stopping import Reason, Stop, interrupted_by
from poller.runtime.streams.checkpoints import CheckpointWriter
from poller.runtime.streams.context import StreamContext
from poller.runtime.streams.lane import Lane
from poller.runtime.streams.operating import ShardOperations
from poller.runtime.streams.reader import ShardReader
from poller.runtime.watched_tasks import WatchedTasks

RELEASE_S_MAX = 5.0
"""How long the release of the lease may take. The next owner does not depend on it."""
LAST_WORDS_S_MAX = 2.0
"""How long the last checkpoint and the release may take for a shard that was cancelled."""

PAUSES_UNKNOWN = "nothing is called before it is known what operators have paused"


class ShardRun:
    """One shard from the moment its lease is taken until it stops or ends."""

    def __init__(
        self,
        lease: Lease,
        flow: ShardFlow,
        parts: StreamContext,
        stop: Stop,
        *,
        matches: Matches | None = None,
        recreated: Callable[[], Awaitable[bool]],
    ) -> None:
        self._lease = lease
        self._flow = flow
        self._parts = parts
        self._stop = stop
        self._checkpoints = CheckpointWriter(parts, lease, stop, flow.checkpoint)
        self._reader = ShardReader(
            lease.shard,
            flow,
            parts,
            stop,
            matches=matches,
            recreated=recreated,
            touch=self._touch,
            wake=self._wake_lanes,
        )
        self._lanes = [Lane(index, flow, lease.shard, parts, stop, self._settled) for index in flow.lanes]
        self.operations = ShardOperations(
            lease.shard,
            flow,
            self._lanes,
            reader=self._reader,
            checkpoints=self._checkpoints,
            clock=parts.clock,
            destination=parts.destination is not None,
        )

    async def run(self) -> None:
        """Reads and delivers until the scope stops or the shard is settled to its end. Then it releases the lease."""
        self._parts.observer.on(
            ShardStarted(
                mapping=self._parts.plan.mapping,
                shard=self._lease.shard,
                position=self._lease.checkpoint.position,
            )
        )
        self._reader.check_retention()
        self._stop.attach(self._end_operations)
        try:
            async with self._tasks() as scope:
                writing = self._checkpoints.run()
                scope.start(
                    TaskKind.CHECKPOINTS, writing, of=self._lease.shard, over=self._checkpoints.may_end
                )
                await self._work()
                self._checkpoints.close()
        except BaseException:
            # The run was cancelled or failed. Records that are settled but not saved would run again.
            await self._last_words()
            raise
        else:
            await self._release()
        finally:
            self._reader.memory.close()
            self._stop.detach(self._end_operations)
            self._end_operations()
            self._parts.observer.on(
                ShardStopped(
                    mapping=self._parts.plan.mapping,
                    shard=self._lease.shard,
                    ended=self._flow.done,
                )
            )

    def _end_operations(self) -> None:
        self.operations.over.request(Reason.REQUESTED)

    @property
    def ended(self) -> bool:
        """Whether the shard was read and settled to its end."""
        return self._flow.done

    @property
    def records(self) -> int:
        """How many records were read so far. The load is measured by it."""
        return self._reader.state.records

    @property
    def troubled(self) -> bool:
        """Whether it is blocked, failing or paused, or does not read yet or any more."""
        if self._flow.operator.interventions.busy:
            return True
        blocked = any(self._flow.view(lane).blocked is not None for lane in self._flow.lanes)
        return self._state(unknown=False, paused=False, blocked=blocked) != "reading"

    @property
    def stands(self) -> bool:
        """Whether a lane is blocked or an operator holds something back, so that its lag says nothing about the workers."""
        blocked = any(self._flow.view(lane).blocked is not None for lane in self._flow.lanes)
        return blocked or self._flow.operator.interventions.busy

    @property
    def lag_s(self) -> float | None:
        """How many seconds what is settled is behind the source. None while that is not known, or while the shard is not read."""
        state, settled = self._reader.state, self._flow.settled_through
        if self._stop.requested or state.reason or not state.started:
            return None
        if state.behind_ms is None and settled is None:
            return None
        age_s = 0.0 if settled is None else self._parts.clock.now() - settled
        return max(0.0, age_s, (state.behind_ms or 0) / 1000)

    def status(self) -> ShardStatus:
        """What the shard is doing."""
        lanes = tuple(lane.status() for lane in self._lanes)
        unknown, paused = self._pause()
        return ShardStatus(
            shard=self._lease.shard,
            state=self._state(
                unknown=unknown,
                paused=paused is not None,
                blocked=any(lane.blocked_since is not None for lane in lanes),
            ),
            position=self._flow.position.encode(),
            behind_ms=self._reader.state.behind_ms,
            owner=str(self._parts.worker),
            reason=self._reader.reason or (PAUSES_UNKNOWN if unknown else ""),
            losses=self._reader.state.losses,
            lanes=lanes,
            paused=None if paused is None else pause_status(paused),
        )

    def _pause(self) -> tuple[bool, OperatorPause | None]:
        """Whether the pauses are not known yet, and the pause of all lanes."""
        interventions, lanes = self._flow.operator.interventions, self._flow.lanes
        if not interventions.busy or not all(interventions.paused(lane) for lane in lanes):
            return False, None
        pauses = [interventions.pause(lane) for lane in lanes]
        return None in pauses, pauses[0]

    def _state(self, *, unknown: bool, paused: bool, blocked: bool) -> str:
        if self._flow.done:
            return "ended"
        if self._stop.requested:
            return "draining"
        if self._reader.state.reason:
            return "failing"
        if unknown or paused:
            return "starting" if unknown else "paused"
        if blocked:
            return "blocked"
        return "reading" if self._reader.state.started else "starting"

    async def _work(self) -> None:
        async with self._tasks() as scope:
            scope.start(TaskKind.READER, self._reader.run(), of=self._lease.shard, over=self._reader.may_end)
            for lane in self._lanes:
                scope.start(TaskKind.LANE, lane.run(), of=self._lease.shard, over=lane.may_end)

    def _tasks(self) -> WatchedTasks:
        return WatchedTasks(self._parts.observer, self._parts.plan.mapping)

    def _settled(self) -> None:
        self._reader.memory.count()
        self._reader.room.set()
        self._touch()

    def _touch(self) -> None:
        self._checkpoints.wake()
        if self.operations.waiting:
            self.operations.look()

    def _wake_lanes(self) -> None:
        for lane in self._lanes:
            lane.changed.set()

    async def _last_words(self) -> None:
        """Tries once to save what is settled and to release the lease, because the grace time is over."""
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
            async with interrupted_by(self._stop, Reason.LOST), asyncio.timeout(RELEASE_S_MAX):
                await self._parts.store.release(self._parts.plan.mapping, self._lease)
        except LeaseLost:
            return
        except TimeoutError:
            # The next owner takes the lease even if it is not released.
            self._emit_failed(ServiceUnavailable(f"no answer within {RELEASE_S_MAX:g} s"))
        except PortError as error:
            self._emit_failed(error)

    def _emit_failed(self, error: PortError) -> None:
        report_failure(
            self._parts.observer,
            error,
            mapping=self._parts.plan.mapping,
            port="store",
            shard=self._lease.shard,
            wait_s=0.0,
        )
