"""Owns a stream mapping: starts and ends the runs of its shards as leases come and go."""

import asyncio
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import batched

from poller.domain.errors import LeaseLost, PortError
from poller.domain.operations import Operation, OperatorPause, PartResult
from poller.domain.plan import MappingPlan, SourceKind
from poller.domain.records import Monotonic, ShardId
from poller.domain.rows import Lease
from poller.domain.status import LaneStatus, ShardStatus
from poller.domain.telemetry.labels import TaskKind
from poller.domain.telemetry.mapping_events import LeaseMoved
from poller.ports import StreamStatus
from poller.rules.streams.failure_document import Context
from poller.rules.streams.flow import ShardFlow
from poller.rules.streams.windowed_batches import Windowing
from poller.rules.workers.load import Meter, measured
from poller.rules.workers.sizing.samples import StreamLoad
from poller.runtime.operations.operable import ResolvedRecords, WaitsFor
from poller.runtime.port_failures import report_failure
from poller.runtime.stopping import Reason, Stop, interrupted_by, wait_until
from poller.runtime.streams.context import StreamContext
from poller.runtime.streams.leases import HeldLease, Leases
from poller.runtime.streams.operations.long_operable import StreamLongOperable
from poller.runtime.streams.record_views import encoder, event_arn, matcher
from poller.runtime.streams.shard import ShardRun
from poller.runtime.streams.starting_place import NotYet
from poller.runtime.watched_tasks import WatchedTasks
from poller.runtime.workers.loads import use_of
from poller.runtime.workers.membership import Membership

REVIEW_FRACTION = 0.5
"""Fraction of the heartbeat time between two reviews of the leases while some of them move."""
WINDOW_RECHECK_S = 1.0
"""How often a window whose time is over is checked while its source may still have records for it."""
TAKES_AT_ONCE = 16
ABLE_TRIES_MAX = 3
"""Failed reviews in a row after which this worker gets no more leases of the mapping."""


@dataclass(slots=True)
class RunningShard:
    """A shard that this worker reads."""

    lease: Lease
    run: ShardRun
    stop: Stop
    meter: Meter
    role_arn: str
    """The role that the events of this run name."""
    source_arn: str
    """The ARN of the source that they name."""
    over: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when its task may end."""

    def rate(self, now: Monotonic) -> float:
        """Records a second."""
        self.meter = measured(self.meter, self.run.records, now)
        return self.meter.rate


class StreamMapping:
    """One stream mapping on this worker."""

    def __init__(self, parts: StreamContext, stop: Stop) -> None:
        self._parts = parts
        self._stop = stop
        self._wanted = asyncio.Event()
        self._running: dict[ShardId, RunningShard] = {}
        self.waits_for: WaitsFor = partial(_waits_for, self._running)
        self.load = partial(_load, parts, self._running)
        """Returns the load of the shards that this worker reads."""
        self._leases: Leases | None = None
        self._stable = True
        self._matches = matcher(parts)
        self._event_arn = parts.plan.source_arn
        self.long_operable = StreamLongOperable(parts, self._wanted.set)
        self._pauses: Sequence[OperatorPause] | None = None if parts.operated else ()
        self.opened = False
        self.reason = ""
        self.pollers: int | None = None

    async def run(self) -> None:
        """Runs the mapping's shards until the scope stops and they have drained."""
        joined = self._parts.workers_or_alone.join(
            self._parts.plan.mapping, wake=self._wake, rates=self._rates
        )
        function = self._parts.function
        with (
            function.slots.used(),
            function.listening(self._wanted.set),
            self._parts.places.listening(self._file_changed),
            self._stop.waking(self._wanted),
            joined as membership,
            self.long_operable.seekable.among(membership),
        ):
            self._leases = leases = Leases(self._parts, membership)
            tries = 0
            async with self.long_operable.use.until_left(self._stop), self._tasks() as scope:
                while not self._stop.requested:
                    self._wanted.clear()
                    try:
                        async with interrupted_by(self._stop):
                            await self._review_leases(leases, membership, scope)
                        tries, wait_s = 0, self._wait_s(leases)
                    except NotYet as waiting:
                        self.opened, self.reason = True, waiting.reason
                        wait_s = self._parts.tuning.heartbeat_s
                    except PortError as error:
                        wait_s = self._failed(error, tries)
                        tries += 1
                    membership.able = tries < ABLE_TRIES_MAX
                    await wait_until(self._wanted, wait_s)

    def units(self) -> Sequence[str]:
        """The shards that this worker reads."""
        return tuple(self._running)

    def apply_pauses(self, pauses: Sequence[OperatorPause] | None) -> None:
        """Takes all pauses of the mapping that are in force. None: they are not known, so nothing is called."""
        self._pauses = pauses
        for each in self._running.values():
            each.run.operations.apply_pauses(pauses)

    async def carry_out(self, unit: str, operation: Operation) -> PartResult | ResolvedRecords | None:
        """Carries out a retry, reset or skip on a shard. Raises LeaseLost if this worker does not read it, or stops before the end."""
        shard = self._running.get(ShardId(unit))
        if shard is None:
            raise LeaseLost(f"this worker does not read shard {unit}")
        return await shard.run.operations.carry_out(operation)

    def shards(self, *, troubled: bool = False) -> tuple[ShardStatus, ...]:
        """The status of the shards: those that this worker reads, other workers' and free ones, and those that wait for parents.

        With `troubled` only those here that are in trouble, or do not read yet or any more.
        """
        if troubled:
            return tuple(each.run.status() for each in self._running.values() if each.run.troubled)
        running = tuple(each.run.status() for each in self._running.values())
        lineage = self._leases.lineage if self._leases is not None else None
        if lineage is None:
            return running
        elsewhere = tuple(
            ShardStatus(
                shard=lease.shard,
                state="elsewhere" if lease.owner is not None else "free",
                position=lease.checkpoint.position.encode(),
                owner=lease.owner or "",
            )
            for lease in lineage.runnable
            if lease.owner != self._parts.worker and lease.shard not in self._running
        )
        waiting = tuple(
            ShardStatus(shard=shard, state="waiting", position="", reason=f"for {', '.join(parents)}")
            for shard, parents in lineage.waiting.items()
        )
        return running + elsewhere + waiting

    def lanes(self) -> tuple[LaneStatus, ...]:
        """Nothing: the lanes of a stream are in the status of its shards."""
        return ()

    def notes(self) -> tuple[str, ...]:
        """Notes for an operator that do not prevent progress, one line each."""
        source = self._parts.source
        over = source.over if isinstance(source, StreamStatus) else ""
        plan = self._parts.plan
        return (f"mapping {plan.mapping} ({plan.source_arn}): {over}",) if over else ()

    def _wake(self) -> None:
        """Checks the leases, because something changed among the workers. This worker's own heartbeat may be late."""
        self._check_leases()
        self._wanted.set()

    def _file_changed(self) -> None:
        if self._leases is not None and self._leases.file_changed:
            self._wanted.set()

    def _check_leases(self) -> None:
        """Stops shards whose leases do not hold any more."""
        for each in tuple(self._running.values()):
            each.stop.check()

    async def _review_leases(self, leases: Leases, membership: Membership, scope: WatchedTasks) -> None:
        """Reviews the leases once, and carries out what was decided."""
        self._check_leases()
        self._event_arn = await event_arn(self._parts)
        running = {shard: each.lease for shard, each in self._running.items()}
        review = await leases.review(running, lose_all=self._lose_all)
        source = self._parts.source
        self.opened, self._stable = True, review.decision.stable
        self.reason = source.over if isinstance(source, StreamStatus) else ""
        membership.request(review.decision.request)
        self._stop_shards(sorted(review.stolen), Reason.LOST)
        self._stop_shards(sorted(review.decision.give), Reason.REQUESTED)
        self._stop_shards(self._by_other_arns(), Reason.REQUESTED)
        held_back = leases.with_descendants(self.long_operable.seekable.held_back)
        self._stop_shards(held_back, Reason.REQUESTED)
        await leases.give_back(held_back - self._running.keys())
        # Others may be held back by now.
        held_back |= leases.with_descendants(self.long_operable.seekable.held_back)
        free = [lease for lease in review.decision.take if lease.shard not in held_back]
        for some in batched(free, TAKES_AT_ONCE, strict=False):
            if self._stop.requested:
                return
            async with self._tasks() as group:
                taking = [
                    group.start(TaskKind.TAKE, self._take(lease, leases, membership, scope), of=lease.shard)
                    for lease in some
                ]
            for trouble in (task.result() for task in taking):
                if isinstance(trouble, PortError):
                    raise trouble

    def _by_other_arns(self) -> list[ShardId]:
        """Shards that must be restarted, because the size of their records was measured with the ARN of another role or source."""
        if self._parts.plan.kind is not SourceKind.KINESIS:
            return []
        named = (self._parts.role_arn, self._event_arn)
        return [shard for shard, each in self._running.items() if (each.role_arn, each.source_arn) != named]

    def _stop_shards(self, shards: Collection[ShardId], reason: Reason) -> None:
        for shard in shards:
            if shard in self._running:
                self._running[shard].stop.request(reason)

    def _lose_all(self) -> None:
        self._stop_shards(tuple(self._running), Reason.LOST)

    async def _take(
        self, lease: Lease, leases: Leases, membership: Membership, scope: WatchedTasks
    ) -> PortError | bool:
        """Takes a lease and starts its shard. Returns whether it could, or the error of the store."""
        try:
            held = await leases.take(lease)
        except PortError as error:
            return error
        if held is None or scope.ending:
            self._stable = False
            return False
        self._emit_moved(lease.shard, held=True)
        # The shard is registered before its task begins, so that the next review does not take its lease again.
        shard = self._register(held)
        membership.held = len(self._running)
        run = self._run_shard(shard, leases, membership)
        scope.start(TaskKind.SHARD, run, of=lease.shard, over=shard.over.is_set)
        return True

    def _register(self, held: HeldLease) -> RunningShard:
        """Adds the lease's shard to the running ones."""
        lease, role_arn, source_arn = held.lease, self._parts.role_arn, self._event_arn
        stop = Stop(held.holds)
        flow = self._flow(lease, role_arn, source_arn)
        run = ShardRun(lease, flow, self._parts, stop, matches=self._matches, recreated=self._recreated)
        # Its last owner may have confirmed a pause that was not read here yet.
        run.operations.apply_pauses(None if self._parts.operated else self._pauses)
        self._parts.read_pauses()
        meter = Meter(self._parts.clock.monotonic())
        self._running[lease.shard] = shard = RunningShard(lease, run, stop, meter, role_arn, source_arn)
        return shard

    async def _run_shard(self, shard: RunningShard, leases: Leases, membership: Membership) -> None:
        run, stop, name = shard.run, shard.stop, shard.lease.shard

        def note_lost() -> None:
            if stop.reason is Reason.LOST:
                leases.lose(name)
                self._emit_moved(name, held=False)

        with self._stop.passing_to(stop), stop.listening(note_lost):
            try:
                await run.run()
            finally:
                del self._running[name]
                membership.held = len(self._running)
                if run.ended or stop.requested:
                    shard.over.set()
                if run.ended:
                    leases.forget_listing()
                membership.announce_change()
                self._wanted.set()

    def _tasks(self) -> WatchedTasks:
        return WatchedTasks(self._parts.observer, self._parts.plan.mapping)

    async def _recreated(self) -> bool:
        """Whether the stream was recreated. If so, the next review comes at once and restarts the mapping on it."""
        if self._leases is None or not await self._leases.recreated():
            return False
        self._wanted.set()
        return True

    def _rates(self) -> dict[ShardId, float]:
        now = self._parts.clock.monotonic()
        return {shard: each.rate(now) for shard, each in self._running.items()}

    def _wait_s(self, leases: Leases) -> float:
        """Seconds until the next review: until the source is to be listed again, or less while leases move."""
        now = self._parts.clock.monotonic()
        due: float = leases.next_discovery
        if not self._stable:
            due = min(due, now + self._parts.tuning.heartbeat_s * REVIEW_FRACTION)
            if leases.next_offer is not None:
                due = min(due, leases.next_offer)
        return max(0.0, due - now)

    def _flow(self, lease: Lease, role_arn: str, source_arn: str) -> ShardFlow:
        plan, tuning = self._parts.plan, self._parts.tuning
        return ShardFlow(
            lease.checkpoint,
            batch=plan.batch,
            retry=plan.retry,
            lanes=plan.stream.lanes,
            look_ahead_records_max=tuning.look_ahead_records_max,
            encoder=encoder(plan, lease.shard, role_arn=role_arn, source_arn=source_arn),
            new_id=self._parts.new_id,
            rng=self._parts.rng,
            windowing=windowing(plan, lease.shard, source_arn=source_arn, recheck_s=WINDOW_RECHECK_S),
            notices=None if self._parts.destination is None else notices(plan, lease.shard),
        )

    def _failed(self, error: PortError, tries: int) -> float:
        wait_s = self._parts.port_wait_s(tries)
        self.reason = error.reason
        report_failure(
            self._parts.observer, error, mapping=self._parts.plan.mapping, port="discovery", wait_s=wait_s
        )
        return wait_s

    def _emit_moved(self, shard: ShardId, *, held: bool) -> None:
        self._parts.observer.on(LeaseMoved(mapping=self._parts.plan.mapping, shard=shard, held=held))


def windowing(plan: MappingPlan, shard: ShardId, *, source_arn: str, recheck_s: float) -> Windowing | None:
    """The settings of a shard's tumbling windows, whose events name `source_arn`; None if the mapping has none."""
    if not plan.stream.tumbling_window_s:
        return None
    return Windowing(plan.stream.tumbling_window_s, shard, source_arn, recheck_s)


def notices(plan: MappingPlan, shard: ShardId) -> Context:
    """What the notices of a shard's discarded batches name. The source is named as the mapping does, so that a redrive finds it."""
    kinesis = plan.kind is SourceKind.KINESIS
    return Context(
        mapping=plan.mapping,
        shard=shard,
        source_arn=plan.source_arn,
        function_arn=plan.function_arn,
        batch_info="KinesisBatchInfo" if kinesis else "DDBStreamBatchInfo",
    )


def _waits_for(running: Mapping[ShardId, RunningShard], unit: str, operation: Operation) -> str:
    shard = running.get(ShardId(unit))
    return "" if shard is None else shard.run.operations.waits_for(operation)


def _load(parts: StreamContext, running: Mapping[ShardId, RunningShard]) -> StreamLoad:
    runs = (each.run for each in running.values())
    return StreamLoad(
        use=use_of(parts.function),
        lags_s=tuple(run.lag_s for run in runs if not run.ended and not run.stands),
        gather_s=parts.plan.batch.window_s + parts.plan.stream.tumbling_window_s + parts.tuning.idle_poll_s,
    )
