"""Owns one replay on this worker: its hidden mapping, what it has counted, and its end.

Every worker that runs the mapping has a run of each of its replays. When all leases have ended, the first of them by name looks
whether that is everything, and ends the operation. If it does not, because it cannot list the stream, the next one does. A batch that
fails ends the operation from the worker that has the batch.
"""

import asyncio
from collections import Counter
from dataclasses import dataclass
from functools import partial
from random import Random

from poller.domain.errors import PortError
from poller.domain.operations import Operation, OperationId
from poller.domain.plan import MappingPlan
from poller.domain.policies import Backoff
from poller.domain.records import SHARD_END, MappingId, Monotonic, ShardId, WorkerId
from poller.domain.telemetry.observers import Observer
from poller.ports import Clock, Destination, Store, StreamSource
from poller.rules.backoff import wait_s
from poller.rules.operations import lifecycle
from poller.rules.replays.asking import planned, range_of, stops_at_failure
from poller.rules.replays.counting import COUNT_S, ReplayCounts, all_read, counted, counts_of, outcome, turn_s
from poller.rules.replays.troubles import trouble
from poller.runtime.operations.open_operations import OpenOperations, OperationChange, answered
from poller.runtime.operations.operable_mappings import Peers
from poller.runtime.replays.bounded_source import BoundedSource, ReplayPace
from poller.runtime.replays.halting import HaltingDestination
from poller.runtime.replays.own_destination import OwnDestination
from poller.runtime.replays.replay_host import ReplayHost, ReplayMapping, ReplayParts
from poller.runtime.replays.replay_observer import ReplayObserver
from poller.runtime.stopping import Reason, Stop, wait_until

LOOK_S = 2.0
"""The interval at which it is looked whether everything is read."""
IDLE_STATES = frozenset({"elsewhere", "waiting", "ended"})


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayContext:
    """What the replays of one worker work with."""

    worker: WorkerId
    operations: OpenOperations
    host: ReplayHost
    store: Store
    peers: Peers
    clock: Clock
    rng: Random
    observer: Observer
    port_backoff: Backoff


class ReplayRun:
    """One run of a replay. `plan` is that of the hidden mapping. `counts` go on from one run to the next. Raises ValueError."""

    def __init__(
        self, operation: Operation, plan: MappingPlan, context: ReplayContext, counts: Counter[str]
    ) -> None:
        self.plan = plan
        self.current = context.host.current(plan)
        """What it runs with; when that has changed, it must be restarted."""
        self._id: OperationId = operation.operation
        self._context = context
        self._counts = counts
        self._source: BoundedSource | None = None
        self._halted = ""
        self._woken = asyncio.Event()
        self._counted_at = context.clock.monotonic()
        self._left: int | None = None
        """Shards that were not read to the end when they were counted last."""
        self._read_since: Monotonic | None = None
        """Since when all leases have ended."""
        self._stops = stops_at_failure(operation)
        self._range = range_of(operation.request.members, created=operation.created)
        self._rate = operation.request.members.get("records_per_s")
        observer = ReplayObserver(
            context.observer, self._id, operation.mapping, counts=counts, left=self._leave
        )
        parts = ReplayParts(
            wrap=self._wrap,
            destined=partial(self._destined, operation.mapping),
            observer=observer,
        )
        self.mapping: ReplayMapping = context.host.make(plan, parts)

    @property
    def stop(self) -> Stop:
        """Ends this run on this worker."""
        return self.mapping.stop

    def halt(self, text: str) -> None:
        """A batch was given up that ends the replay. Nothing more of it begins here."""
        self._halted = self._halted or text
        self.stop.request(Reason.REQUESTED)
        self._woken.set()

    async def watch(self, daemon: Stop) -> None:
        """Counts, and ends the operation when it is done, until the run is stopped. After a failed batch it waits until that is stored."""
        tries = 0
        with self.stop.waking(self._woken), daemon.waking(self._woken):
            while not daemon.requested and (self._halted or not self.stop.requested):
                self._woken.clear()
                delay_s = LOOK_S
                try:
                    if self._halted:
                        await self._end_halted()
                        return
                    await self._look()
                    tries = 0
                except PortError:
                    delay_s = max(LOOK_S, wait_s(self._context.port_backoff, tries, self._context.rng))
                    tries += 1
                await wait_until(self._woken, delay_s)

    def _wrap(self, source: StreamSource) -> StreamSource:
        clock = self._context.clock
        self._source = BoundedSource(
            source,
            until=self._range.until,
            pace=ReplayPace(self._rate, self._share, clock),
            clock=clock,
            is_open=self._is_open,
            counts=self._counts,
        )
        return self._source

    def _destined(self, mapping: MappingId, destination: Destination | None) -> Destination | None:
        if self._stops:
            return HaltingDestination(self.halt)
        return None if destination is None else OwnDestination(destination, mapping)

    def _leave(self, shard: ShardId) -> None:
        if self._source is not None:
            self._source.leave(shard)

    def _share(self) -> float:
        """This worker's share of the rate: its shards among those that are not read to the end yet.

        Before these were counted once, each worker of the replay has the same share.
        """
        shards = self.mapping.shards()
        here = max(1, sum(each.state not in IDLE_STATES for each in shards))
        if self._left is None:
            return 1.0 / max(1, len(self._context.peers.workers_of(self.plan.mapping)))
        elsewhere = sum(each.state == "elsewhere" for each in shards)
        return here / max(here + elsewhere, self._left)

    async def _is_open(self) -> bool:
        await self._context.operations.read()
        return self._context.operations.get(self._id) is not None

    async def _look(self) -> None:
        """Stores the counts if that is due, and ends the operation if everything is read. Raises PortError."""
        context, now = self._context, self._context.clock.monotonic()
        count = now - self._counted_at >= COUNT_S
        alive = context.peers.workers_of(self.plan.mapping) | {context.worker}
        idle = all(each.state in IDLE_STATES for each in self.mapping.shards())
        # The others look when they count. So they ask the store no more often than without a look.
        if not (count or (idle and context.worker == min(alive))):
            return
        async with answered():
            leases = await context.store.leases(self.plan.mapping, memos=False)
        ended = sum(each.checkpoint.position == SHARD_END for each in leases)
        self._left = len(leases) - ended if leases else None
        if count:
            await self._count(len(leases), ended, alive)
        if not (idle and leases and ended == len(leases) and self._source is not None):
            self._read_since = None
            return
        self._read_since = now if self._read_since is None else self._read_since
        if now - self._read_since < turn_s(context.worker, alive):
            return
        async with answered():
            shards = await self._source.shards()
        if all_read(shards, leases):
            await self._count(len(leases), ended, alive)
            operation = context.operations.get(self._id)
            if operation is not None:
                failed, text = outcome(operation, kept_s=self._source.kept_s)
                await self._finish(failed=failed, text=text)

    async def _count(self, shards: int, ended: int, alive: frozenset[WorkerId]) -> None:
        found = ReplayCounts(
            counts=dict(self._counts),
            at=None if self._source is None else self._source.at,
            trouble=self.mapping.reason or trouble(self.mapping.shards()),
        )
        rule = partial(
            counted, worker=self._context.worker, found=found, shards=shards, ended=ended, alive=alive
        )
        await self._change(rule)
        self._counted_at = self._context.clock.monotonic()

    async def _end_halted(self) -> None:
        operation = self._context.operations.get(self._id)
        if operation is not None:
            shards, ended = (operation.progress.get(name, 0) for name in ("shards", "ended"))
            await self._count(shards, ended, frozenset())
        await self._finish(failed=True, text=self._halted)

    async def _finish(self, *, failed: bool, text: str) -> None:
        now = self._context.clock.now()
        await self._change(partial(lifecycle.finish, failed=failed, text=text, now=now))

    async def _change(self, rule: OperationChange) -> None:
        operation = self._context.operations.get(self._id)
        if operation is not None:
            await self._context.operations.change(operation, rule)


def begun(operation: Operation, plan: MappingPlan, context: ReplayContext, counts: Counter[str]) -> ReplayRun:
    """A run of a replay beside the mapping with this plan. Raises ValueError if its own plan cannot be read."""
    if not counts:
        counts.update(counts_of(operation, context.worker))
    return ReplayRun(operation, planned(operation, source_settings=plan.source_settings), context, counts)
