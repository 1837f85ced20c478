"""Owns a stream mapping: starts and ends the runs of its shards as leases come and go."""

import asyncio
from collections.abc import Collection
from dataclasses import dataclass
from itertools import batched

from poller.errors import PortError
from poller.plan import MappingPlan, SourceKind
from poller.records import DynamoRecord, KinesisRecord, Monotonic, Record, ShardId
from poller.rows import Lease
from poller.rules.events import DynamoEncoder, KinesisEncoder, RecordEncoder
from poller.rules.filtering import Filter
from poller.rules.flow import Matches, ShardFlow, Windowing
from poller.rules.rates import Meter, metered
from poller.runtime.leases import Held, Leases
from poller.runtime.parts import StreamParts
from poller.runtime.shard import ShardRun
from poller.runtime.stopping import Reason, Stop, wait_until
from poller.runtime.workers import Seat
from poller.status import LaneStatus, ShardStatus
from poller.telemetry import LeaseMoved, PortFailed

LOOK_PART = 0.5
"""Of the heartbeat: between two looks at the leases while some change hands."""
TAKES_AT_ONCE = 16
ABLE_TRIES_MAX = 3
"""Failed looks in a row after which this worker gets no more leases of the mapping."""


@dataclass(slots=True)
class Running:
    """A shard at work here."""

    lease: Lease
    run: ShardRun
    stop: Stop
    meter: Meter

    def rate(self, now: Monotonic) -> float:
        """Records a second."""
        self.meter = metered(self.meter, self.run.records, now)
        return self.meter.rate


class StreamMapping:
    """One stream mapping on this worker."""

    def __init__(self, parts: StreamParts, stop: Stop) -> None:
        self._parts = parts
        self._stop = stop
        self._wanted = asyncio.Event()
        self._running: dict[ShardId, Running] = {}
        self._leases: Leases | None = None
        self._settled = True
        self._matches = matcher(parts)
        self.opened = False
        self.reason = ""
        self.pollers: int | None = None

    async def run(self) -> None:
        """Runs the mapping's shards until the scope stops and they have drained."""
        seated = self._parts.crew.seat(self._parts.plan.mapping, wake=self._wanted.set, rates=self._rates)
        with self._parts.function.slots.used(), self._stop.waking(self._wanted), seated as seat:
            self._leases = leases = Leases(self._parts, seat)
            tries = 0
            async with asyncio.TaskGroup() as scope:
                while not self._stop.requested:
                    self._wanted.clear()
                    try:
                        await self._look(leases, seat, scope)
                        tries, wait_s = 0, self._wait_s(leases)
                    except PortError as error:
                        wait_s = self._failed(error, tries)
                        tries += 1
                    seat.able = tries < ABLE_TRIES_MAX
                    await wait_until(self._wanted, wait_s)

    def shards(self) -> tuple[ShardStatus, ...]:
        """What the shards are doing: those at work here, at work elsewhere, and those that wait for their parents."""
        running = tuple(each.run.status() for each in self._running.values())
        lineage = self._leases.lineage if self._leases is not None else None
        if lineage is None:
            return running
        elsewhere = tuple(
            ShardStatus(
                shard=lease.shard,
                state="elsewhere",
                position=lease.checkpoint.position.encode(),
                owner=lease.owner,
            )
            for lease in lineage.runnable
            if lease.owner is not None
            and lease.owner != self._parts.worker
            and lease.shard not in self._running
        )
        waiting = tuple(
            ShardStatus(shard=shard, state="waiting", position="", reason=f"for {', '.join(parents)}")
            for shard, parents in lineage.waiting.items()
        )
        return running + elsewhere + waiting

    def lanes(self) -> tuple[LaneStatus, ...]:
        """A stream's lanes stand under its shards."""
        return ()

    async def _look(self, leases: Leases, seat: Seat, scope: asyncio.TaskGroup) -> None:
        """One look at the leases, and what follows from it."""
        for each in tuple(self._running.values()):
            each.stop.check()
        look = await leases.look({shard: each.lease for shard, each in self._running.items()})
        self.opened, self.reason, self._settled = True, "", look.decision.settled
        seat.wish(look.decision.wish)
        self._stop_shards(sorted(look.stolen), Reason.LOST)
        self._stop_shards(sorted(look.decision.give), Reason.REQUESTED)
        for some in batched(look.decision.take, TAKES_AT_ONCE, strict=False):
            if self._stop.requested:
                return
            async with asyncio.TaskGroup() as group:
                taking = [
                    group.create_task(self._take(lease, leases, seat, scope), name="take") for lease in some
                ]
            for trouble in filter(None, (task.result() for task in taking)):
                raise trouble

    def _stop_shards(self, shards: Collection[ShardId], reason: Reason) -> None:
        for shard in shards:
            if shard in self._running:
                self._running[shard].stop.request(reason)

    async def _take(
        self, lease: Lease, leases: Leases, seat: Seat, scope: asyncio.TaskGroup
    ) -> PortError | None:
        """Takes a lease and starts its shard; returns what went wrong at the store."""
        try:
            held = await leases.take(lease)
        except PortError as error:
            return error
        if held is None:
            self._settled = False
            return None
        self._tell_moved(lease.shard, held=True)
        scope.create_task(self._run_shard(held, leases, seat), name=f"shard {lease.shard}")
        # The task takes its place among the running before the next look.
        await asyncio.sleep(0)
        return None

    async def _run_shard(self, held: Held, leases: Leases, seat: Seat) -> None:
        lease = held.lease

        def note_lost() -> None:
            if stop.reason is Reason.LOST:
                leases.lose(lease.shard)
                self._tell_moved(lease.shard, held=False)

        with self._stop.child(held.holds) as stop, stop.listening(note_lost):
            run = ShardRun(lease, self._flow(lease), self._parts, stop)
            self._running[lease.shard] = Running(lease, run, stop, Meter(self._parts.clock.monotonic()))
            seat.held = len(self._running)
            try:
                await run.run()
            finally:
                del self._running[lease.shard]
                seat.held = len(self._running)
                if run.ended:
                    leases.forget_listing()
                seat.tell()
                self._wanted.set()

    def _rates(self) -> dict[ShardId, float]:
        now = self._parts.clock.monotonic()
        return {shard: each.rate(now) for shard, each in self._running.items()}

    def _wait_s(self, leases: Leases) -> float:
        """Until the next look: when the source is to be listed again, or soon while leases change hands."""
        wait_s = max(0.0, leases.next_discovery - self._parts.clock.monotonic())
        return wait_s if self._settled else min(wait_s, self._parts.tuning.heartbeat_s * LOOK_PART)

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
    return DynamoEncoder(source_arn=plan.source_arn, region=plan.region)


def matcher(parts: StreamParts) -> Matches | None:
    """The mapping's filters as a predicate on records; None when it has none."""
    plan = parts.plan
    if plan.kind is SourceKind.KINESIS:
        return _kinesis_matcher(Filter.of(plan.filters, "kinesis"))
    encoder = DynamoEncoder(source_arn=plan.source_arn, region=plan.region)
    return _dynamo_matcher(Filter.of(plan.filters, "dynamodb"), encoder)


def _kinesis_matcher(criteria: Filter | None) -> Matches | None:
    if criteria is None:
        return None

    def matches(record: Record) -> bool:
        assert isinstance(record, KinesisRecord)
        return criteria.matches_kinesis(record.key, record.sequence_number, record.arrived, record.data)

    return matches


def _dynamo_matcher(criteria: Filter | None, encoder: DynamoEncoder) -> Matches | None:
    if criteria is None:
        return None

    def matches(record: Record) -> bool:
        assert isinstance(record, DynamoRecord)
        return criteria.matches_dynamodb(encoder.view(record))

    return matches
