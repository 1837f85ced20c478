"""Owns a stream mapping: discovers shards, takes leases, starts and ends the runs of its shards."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, replace

from poller.errors import LeaseLost, PortError
from poller.plan import MappingPlan, SourceKind
from poller.records import DynamoRecord, KinesisRecord, Lease, MappingRow, Monotonic, Record, ShardId
from poller.rules.events import DynamoEncoder, KinesisEncoder, RecordEncoder, dynamo_view
from poller.rules.filtering import Filter
from poller.rules.flow import Matches, ShardFlow, Windowing
from poller.rules.leasing import stolen, takeable
from poller.rules.lineage import Lineage, trace
from poller.runtime.parts import StreamParts
from poller.runtime.shard import ShardRun
from poller.runtime.stopping import Reason, Stop, wait_until
from poller.status import LaneStatus, ShardStatus
from poller.telemetry import LeaseMoved, PortFailed

RETENTION_LOOK_S = 300.0
"""Between two looks at how long the source keeps records."""


@dataclass(frozen=True, slots=True)
class Running:
    """A shard at work here."""

    lease: Lease
    run: ShardRun
    stop: Stop


class StreamMapping:
    """One stream mapping on this worker."""

    def __init__(self, parts: StreamParts, stop: Stop) -> None:
        self._parts = parts
        self._stop = stop
        self._wanted = asyncio.Event()
        self._running: dict[ShardId, Running] = {}
        self._lost: set[ShardId] = set()
        self._row: MappingRow | None = None
        self._lineage: Lineage | None = None
        self._matches = matcher(parts)
        self._retention_due = Monotonic(0.0)
        self.opened = False
        self.reason = ""
        self.pollers: int | None = None

    async def run(self) -> None:
        """Runs the mapping's shards until the scope stops and they have drained."""
        tries = 0
        with self._stop.waking(self._wanted):
            async with asyncio.TaskGroup() as scope:
                while not self._stop.requested:
                    self._wanted.clear()
                    wait_s = self._parts.tuning.discovery_s
                    try:
                        await self._discover(scope)
                        self.opened, self.reason, tries = True, "", 0
                    except PortError as error:
                        wait_s = self._failed(error, tries)
                        tries += 1
                    await wait_until(self._wanted, wait_s)

    def shards(self) -> tuple[ShardStatus, ...]:
        """What the shards are doing: those at work here, and those that wait for their parents."""
        running = tuple(each.run.status() for each in self._running.values())
        waiting = self._lineage.waiting if self._lineage is not None else {}
        return running + tuple(
            ShardStatus(shard=shard, state="waiting", position="", reason=f"for {', '.join(parents)}")
            for shard, parents in waiting.items()
        )

    def lanes(self) -> tuple[LaneStatus, ...]:
        """A stream's lanes stand under its shards."""
        return ()

    async def _discover(self, scope: asyncio.TaskGroup) -> None:
        """One look at the source and the store, and what follows from it."""
        row = await self._registered()
        await self._look_at_retention()
        shards = await self._parts.source.shards()
        leases = await self._parts.store.leases(row.mapping)
        start = self._parts.plan.start.position(row.fixed)
        lineage = trace(shards, leases, start=start, seeded=row.seeded)
        await self._seed(row, lineage)
        self._lineage = lineage
        for shard in stolen(leases, [each.lease for each in self._running.values()]):
            self._lose(shard)
        for lease in takeable(
            lineage.runnable,
            worker=self._parts.worker,
            running=self._running.keys(),
            lost=self._lost,
        ):
            if self._stop.requested:
                return
            await self._take(lease, scope)

    async def _registered(self) -> MappingRow:
        """The mapping's row in the store; LATEST stands for the moment at which the first worker wrote it."""
        if self._row is None:
            wanted = MappingRow(self._parts.plan.mapping, fixed=self._parts.clock.now())
            self._row = await self._parts.store.create(wanted)
        return self._row

    async def _look_at_retention(self) -> None:
        """Asks how long the source keeps records, now and then: somebody may extend it to save a blocked shard."""
        now = self._parts.clock.monotonic()
        if now < self._retention_due:
            return
        self._parts.retention.seconds = await self._parts.source.retention_s()
        self._retention_due = Monotonic(now + RETENTION_LOOK_S)

    async def _seed(self, row: MappingRow, lineage: Lineage) -> None:
        if lineage.seeds:
            await self._parts.store.seed(row.mapping, lineage.seeds)
        if not row.seeded:
            self._row = replace(row, seeded=True)
            await self._parts.store.update(self._row)

    async def _take(self, lease: Lease, scope: asyncio.TaskGroup) -> None:
        try:
            held = await self._parts.store.take(self._parts.plan.mapping, lease, owner=self._parts.worker)
        except LeaseLost:
            return
        self._lost.discard(held.shard)
        self._tell_moved(held.shard, held=True)
        scope.create_task(self._run_shard(held), name=f"shard {held.shard}")

    async def _run_shard(self, lease: Lease) -> None:
        with self._stop.child() as stop:
            run = ShardRun(lease, self._flow(lease), self._parts, stop)
            self._running[lease.shard] = Running(lease, run, stop)
            try:
                await run.run()
            finally:
                del self._running[lease.shard]
                if stop.lost:
                    self._lost.add(lease.shard)
                self._wanted.set()

    def _flow(self, lease: Lease) -> ShardFlow:
        plan, tuning = self._parts.plan, self._parts.tuning
        return ShardFlow(
            lease.checkpoint,
            batch=plan.batch,
            lanes=plan.lanes,
            look_ahead_records_max=tuning.look_ahead_records_max,
            encoder=encoder(self._parts, lease.shard),
            matches=self._matches,
            windowing=windowing(plan, lease.shard),
        )

    def _lose(self, shard: ShardId) -> None:
        self._tell_moved(shard, held=False)
        self._running[shard].stop.request(Reason.LOST)

    def _failed(self, error: PortError, tries: int) -> float:
        wait_s = self._parts.port_wait_s(tries)
        self.reason = error.reason
        self._parts.observer.on(
            PortFailed(
                mapping=self._parts.plan.mapping,
                shard=None,
                port="discovery",
                error=type(error).__name__,
                reason=error.reason,
                wait_s=wait_s,
            )
        )
        return wait_s

    def _tell_moved(self, shard: ShardId, *, held: bool) -> None:
        self._parts.observer.on(LeaseMoved(mapping=self._parts.plan.mapping, shard=shard, held=held))


def windowing(plan: MappingPlan, shard: ShardId) -> Windowing | None:
    """A shard's tumbling windows; None without."""
    if not plan.tumbling_window_s:
        return None
    return Windowing(plan.tumbling_window_s, shard, plan.source_arn)


def encoder(parts: StreamParts, shard: ShardId) -> RecordEncoder:
    """The encoder for a shard's records."""
    plan = parts.plan
    if plan.kind is SourceKind.KINESIS:
        return KinesisEncoder(
            shard=shard, source_arn=plan.source_arn, region=plan.region, role_arn=plan.role_arn
        )
    return DynamoEncoder(source_arn=plan.source_arn)


def matcher(parts: StreamParts) -> Matches | None:
    """The mapping's filters as a predicate on records; None when it has none."""
    plan = parts.plan
    if plan.kind is SourceKind.KINESIS:
        return _kinesis_matcher(Filter.of(plan.filters, "kinesis"))
    return _dynamo_matcher(Filter.of(plan.filters, "dynamodb"), plan.source_arn)


def _kinesis_matcher(criteria: Filter | None) -> Matches | None:
    if criteria is None:
        return None

    def matches(record: Record) -> bool:
        assert isinstance(record, KinesisRecord)
        return criteria.matches_kinesis(record.key, record.sequence_number, record.arrived, record.data)

    return matches


def _dynamo_matcher(criteria: Filter | None, source_arn: str) -> Callable[[Record], bool] | None:
    if criteria is None:
        return None

    def matches(record: Record) -> bool:
        assert isinstance(record, DynamoRecord)
        return criteria.matches_dynamodb(dynamo_view(record, source_arn))

    return matches
