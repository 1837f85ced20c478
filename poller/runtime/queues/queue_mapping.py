"""Owns one queue mapping: it opens the queue, runs as many pollers as the scaling rule wants, and gives the status."""

import asyncio
from collections.abc import Sequence

from poller.domain.errors import AccessDenied, PortError, ResourceMissing
from poller.domain.operations import Operation, OperationId, OperatorPause, PartResult
from poller.domain.records import QueueFacts
from poller.domain.status import LaneStatus, ShardStatus
from poller.domain.telemetry.labels import TaskKind
from poller.domain.telemetry.mapping_events import Pollers
from poller.rules.queues import scaling
from poller.rules.queues.scaling import PROVISIONED_CONCURRENCY, TICK_S, Scaling
from poller.rules.workers.sizing.samples import QueueLoad
from poller.runtime.operations.operable import ResolvedRecords, SettledRecords
from poller.runtime.port_failures import report_failure
from poller.runtime.queues.capacity import QueueCapacity, WorkerShare, permits_of
from poller.runtime.queues.context import QueueContext
from poller.runtime.queues.deleter import Deleter
from poller.runtime.queues.in_flight import InFlight, tracker_of, visibility_policy
from poller.runtime.queues.message_batch import HeldRuns
from poller.runtime.queues.operations.carrying import QueueOperations
from poller.runtime.queues.operations.redriving import QueueLongOperable
from poller.runtime.queues.queue_poller import SLOW_RETRY_S, MessageIntake, QueuePoller
from poller.runtime.queues.queue_status import QueueStatus, VisibilityCheck
from poller.runtime.queues.retry_delayer import RetryDelayer
from poller.runtime.queues.visibility_extender import VisibilityExtender
from poller.runtime.stopping import Stop, interrupted_by
from poller.runtime.watched_tasks import WatchedTasks
from poller.runtime.workers.loads import use_of
from poller.runtime.workers.membership import Maximum, Membership

FACTS_S = 300.0
"""The interval at which the queue's own settings are read."""
LAST_DELETES_S_MAX = 2.0
"""How long the last deletes of a cancelled mapping may take."""


class QueueMapping:
    """One queue mapping from start to stop."""

    def __init__(self, parts: QueueContext, stop: Stop) -> None:
        self.opened = False
        self.reason = ""
        self.pollers: int | None = None
        self._parts = parts
        self._stop = stop
        self._maximum = scaling.maximum(parts.plan.scaling)
        self._bounds = scaling.bounds(parts.plan.scaling, parts.function.plan.max_concurrency)
        self._membership: Membership | None = None
        self._scope: InFlight | None = None
        self._visibility: VisibilityCheck | None = None
        self._pollers: dict[int, QueuePoller] = {}
        self._scaling: Scaling | None = None
        self._started = 0
        self._operations = QueueOperations(stop, QueueLongOperable(parts), operated=parts.operated)
        self._status = QueueStatus(parts, self._pollers)

    def units(self) -> Sequence[str]:
        """This worker, which is the part of every operation on the queue here."""
        return (self._parts.worker,)

    def apply_pauses(self, pauses: Sequence[OperatorPause] | None) -> None:
        """Takes all pauses that are in force; None: they are not known yet, so nothing is received."""
        controls = self._operations.controls
        was_stopped = controls.stopped
        controls.pause(pauses)
        if was_stopped and not controls.stopped and self._scaling is not None:
            self._scaling = scaling.resume(self._scaling, now=self._parts.clock.monotonic())

    async def carry_out(
        self, unit: str, operation: Operation
    ) -> PartResult | ResolvedRecords | SettledRecords | None:
        """As `Operable.carry_out`. A skip is carried out by the workers that have its messages, or receive them next."""
        assert unit == self._parts.worker, "the part of another worker"
        return await self._operations.carry_out(self._scope, operation)

    def withdraw(self, operation: OperationId) -> None:
        """As `RemembersOperations.withdraw`."""
        self._operations.withdraw(operation)

    @property
    def long_operable(self) -> QueueLongOperable:
        """What the mapping offers to operations that take long."""
        return self._operations.long_operable

    def shards(self, *, troubled: bool = False) -> tuple[ShardStatus, ...]:
        """None: a queue has no shards."""
        return ()

    def load(self) -> QueueLoad | None:
        """The load of this worker's pollers; None while the mapping is paused, or not open."""
        scope, state = self._scope, self._scaling
        if scope is None or state is None or scope.paused:
            return None
        return QueueLoad(
            use=use_of(self._parts.function),
            pollers=len(self._pollers),
            working=sum(poller.status() is not None for poller in self._pollers.values()),
            ceiling=self._bounds.ceiling,
            hungry=state.hungry,
            maximum=self._maximum,
            at_maximum=not self._within_share(1),
            held_back=scope.gate.everything_refused or not scope.gate.open,
        )

    def lanes(self) -> tuple[LaneStatus, ...]:
        """What fails, by message group or message, then paused groups and the working pollers."""
        return () if self._scope is None else self._status.lanes(self._scope, self._operations.facts)

    def notes(self) -> tuple[str, ...]:
        """Notes for people that do not prevent progress, one line each."""
        return () if self._visibility is None else self._visibility.notes

    async def run(self) -> None:
        """Polls until a stop is requested and all received messages are settled, left to their visibility timeout, or given back."""

        def used() -> int:
            return self._scope.capacity.used if self._scope is not None else 0

        maximum = None if self._maximum is None else Maximum(self._maximum, used)
        joined = self._parts.workers_or_alone.join(
            self._parts.plan.mapping, wake=_nothing, rates=dict, maximum=maximum
        )
        function = self._parts.function
        with function.slots.used(), joined as membership:
            self._membership = membership
            async with self.long_operable.use.until_left(self._stop):
                facts = await self._open(membership)
                if facts is not None:
                    self._visibility = VisibilityCheck(self._parts, facts.visibility_timeout_s)
                    try:
                        with function.listening(self._visibility.compare):
                            await self._consume(facts, membership)
                    finally:
                        self._status.end()

    async def _open(self, membership: Membership) -> QueueFacts | None:
        """Reads the queue's settings, and repeats it until it succeeds. Returns None if a stop came first.

        If the mapping has a maximum for all workers, it first waits until the workers know each other.
        """
        tries = 0
        while not self._stop.requested:
            try:
                async with interrupted_by(self._stop):
                    if self._maximum is not None:
                        await membership.group()
                    facts = await self._parts.source.describe()
                    self.opened, self.reason = True, ""
                    return facts
            except PortError as error:
                wait_s = self._wait_s(error, tries)
                tries += 1
                self.reason = error.reason
                self._report_failed(error, wait_s)
                await self._operations.controls.sleep(self._stop, wait_s)
        return None

    async def _consume(self, facts: QueueFacts, membership: Membership) -> None:
        parts = self._parts
        share = None if self._maximum is None else WorkerShare(parts.clock, membership.allowed)
        scope = InFlight(
            parts=parts,
            stop=self._stop,
            capacity=QueueCapacity(
                parts.function.slots, self._bounds.ceiling, worker_share=share, permits=permits_of(parts)
            ),
            tracker=tracker_of(parts, facts, self._operations.controls.asked),
            controls=self._operations.controls,
        )
        self._scope, self._operations.facts = scope, facts
        deleter, extender, delayer = Deleter(scope), VisibilityExtender(scope), RetryDelayer(scope)
        intake = MessageIntake(scope, deleter)
        try:
            async with scope.tasks() as around:
                around.start(TaskKind.VISIBILITY, extender.run(), over=extender.may_end)
                around.start(TaskKind.RETRY_DELAYS, delayer.run(), over=delayer.may_end)
                async with scope.tasks() as behind:
                    behind.start(TaskKind.DELETER, deleter.run(), over=deleter.may_end)
                    await self._poll(scope, deleter, intake)
                    deleter.close()
                extender.close()
                delayer.close()
        except BaseException:
            # The mapping was cancelled or failed. Messages that were processed but not deleted would run again.
            await self._last_deletes(deleter)
            raise
        finally:
            scope.polls.memory.close()

    async def _poll(self, scope: InFlight, deleter: Deleter, intake: MessageIntake) -> None:
        """Runs pollers and adapts their number; returns when the last poller has ended."""
        async with scope.tasks() as group:
            group.start(TaskKind.QUEUE_FACTS, self._watch(scope), over=lambda: self._stop.requested)
            self._scaling = scaling.start(self._bounds, now=scope.now)
            held = HeldRuns(scope, deleter, group)
            scope.resume_held = held.begin
            while not self._stop.requested:
                self._fill(group, scope, deleter, intake)
                await self._stop.sleep(TICK_S)
                self._scale(scope)
                if all(each.progress.waits_since is not None for each in self._pollers.values()):
                    scope.gate.stalled()
                self._status.show_blocked(scope, self._operations.facts)
                self.reason = scope.source.reason
            scope.resume_held = _nothing
            await held.give_up()
        self._show_pollers()

    def _fill(self, group: WatchedTasks, scope: InFlight, deleter: Deleter, intake: MessageIntake) -> None:
        while self._wanted(joining=True):
            self._started += 1
            number = self._started
            poller = QueuePoller(number, scope, deleter, intake, self._wanted, tasks=group)
            self._pollers[number] = poller
            group.start(TaskKind.POLLER, self._run(number), of=str(number), over=poller.may_end)
        self._show_pollers()

    async def _run(self, number: int) -> None:
        try:
            await self._pollers[number].run()
        finally:
            del self._pollers[number]

    def _wanted(self, *, joining: bool = False) -> bool:
        """Whether there should be as many pollers as there are, or one more."""
        if self._scaling is None or self._scope is None:
            return False
        count, target = len(self._pollers) + joining, self._scaling.target
        if count > target and count - self._replaceable() > target:
            return False
        return self._within_share(joining)

    def _replaceable(self) -> int:
        """The number of pollers whose batches have waited so long that other pollers may take their places."""
        if self._scope is None:
            return 0
        gate = self._scope.gate
        waits = [each.progress.waits_since for each in self._pollers.values()]
        return len([since for since in waits if gate.replaceable(since)])

    def _within_share(self, more: int) -> bool:
        """Whether the invocations here and `more` are within this worker's share of a maximum of all workers."""
        if self._maximum is None:
            return True
        if self._membership is None or self._scope is None:
            return False
        at_work = len(self._pollers) - self._replaceable()
        return at_work + self._scope.capacity.extra + more <= self._membership.allowed()

    def _scale(self, scope: InFlight) -> None:
        assert self._scaling is not None
        long_ago = scope.now - TICK_S
        closed = scope.gate.everything_refused or not scope.gate.open or scope.paused
        receives = [poller.receiving_since for poller in self._pollers.values()]
        late = [since for since in receives if since is not None and since <= long_ago]
        # What the gate or a pause holds back counts as one more that waits.
        waiting = scope.capacity.queued + len(late) + (1 if closed else 0)
        self._scaling = scaling.step(
            self._scaling,
            scope.tracker.tally.take(waiting=waiting),
            self._bounds,
            tolerant=self._parts.plan.retry.report_failures,
            now=scope.now,
        )

    async def _watch(self, scope: InFlight) -> None:
        """Follows changes of the queue's settings."""
        while not await self._stop.sleep(FACTS_S):
            try:
                async with interrupted_by(self._stop):
                    facts = await self._parts.source.describe()
                    scope.tracker.visibility.follow_queue(
                        visibility_policy(self._parts, facts.visibility_timeout_s)
                    )
                    self._operations.facts = facts
                    scope.tracker.delays.follow_queue(facts.redrive_receives_max)
                    if self._visibility is not None:
                        self._visibility.queue_changed(facts.visibility_timeout_s)
            except PortError as error:
                self._report_failed(error, FACTS_S)

    async def _last_deletes(self, deleter: Deleter) -> None:
        """Makes one delete call for the remaining messages, because the grace time is over."""
        try:
            async with asyncio.timeout(LAST_DELETES_S_MAX):
                await deleter.last_try()
        except TimeoutError:
            return

    def _wait_s(self, error: PortError, tries: int) -> float:
        wait_s = self._parts.port_wait_s(tries)
        slow = isinstance(error, (AccessDenied, ResourceMissing))
        return max(wait_s, SLOW_RETRY_S) if slow else wait_s

    def _show_pollers(self) -> None:
        """Reports how many pollers run. In provisioned mode they are counted as on AWS, where one poller has ten invocations."""
        provisioned = self._parts.plan.scaling.provisioned_min is not None
        pollers = -(-len(self._pollers) // PROVISIONED_CONCURRENCY) if provisioned else len(self._pollers)
        if pollers != self.pollers:
            self.pollers = pollers
            self._parts.observer.on(Pollers(mapping=self._parts.plan.mapping, pollers=pollers))

    def _report_failed(self, error: PortError, wait_s: float) -> None:
        mapping = self._parts.plan.mapping
        report_failure(self._parts.observer, error, mapping=mapping, port="source", wait_s=wait_s)


def _nothing() -> None:
    """Does nothing when the workers' leases change, because a queue has no leases, or when a pause ends after a stop."""
