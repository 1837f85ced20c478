"""Owns this worker's heartbeat: it writes this worker's row, lists the others' rows, and carries out what `GroupMember` decides.

It makes one write and one listing per heartbeat, whatever the number of mappings and shards.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from functools import partial

from poller.domain.errors import InvalidConfiguration, PortError, ServiceUnavailable
from poller.domain.plan import Tuning
from poller.domain.records import MappingId, WorkerId
from poller.domain.rows import WorkerRow
from poller.domain.telemetry.daemon_events import StoreFailed
from poller.domain.telemetry.labels import TaskKind
from poller.domain.telemetry.observers import Observer
from poller.ports import Clock, WorkerStore
from poller.process_identity import Anonymous, Process
from poller.rules.workers import name_check, worker_report
from poller.rules.workers.assignment import Move, WorkerGroup
from poller.rules.workers.name_check import NameCheck
from poller.rules.workers.worker_group import (
    GroupMember,
    HeartbeatEffects,
    KnownWorkers,
    MappingLeft,
    MappingReport,
    OwnChange,
    WorkerLeaves,
    WorkerListing,
)
from poller.rules.workers.worker_report import REQUESTS_MAX
from poller.runtime.stopping import Stop, wait_until
from poller.runtime.watched_tasks import WatchedTasks
from poller.runtime.workers.function_group import FunctionGroup
from poller.runtime.workers.membership import Maximum, Membership, Rates

CALLS_PER_LEASE = 3
"""One call of the store may take the lease time divided by this."""
GAP_FRACTION = 0.05
"""Fraction of the heartbeat time that passes between two rounds even when something has changed."""
RETIRE_S_MAX = 2.0
"""How long a worker that leaves may take to remove its row."""


class Heartbeat:
    """The heartbeat of one worker. Mappings may join at any time."""

    def __init__(
        self,
        store: WorkerStore,
        worker: WorkerId,
        *,
        clock: Clock,
        tuning: Tuning,
        observer: Observer,
        process: Process | None = None,
    ) -> None:
        self._store = store
        self._worker = worker
        self._clock = clock
        self._tuning = tuning
        self._observer = observer
        self._process = process or Anonymous()
        self._memberships: dict[MappingId, HeartbeatMembership] = {}
        self._changed = asyncio.Event()
        self._round_over = asyncio.Event()
        self._expiry: asyncio.TimerHandle | None = None
        self._name_check = NameCheck()
        self._name_taken = False
        self._trouble: PortError | None = None
        # A worker that starts again under its name must not begin with a counter that others have seen.
        self._member = GroupMember(
            worker, counter=int(clock.now()), lease_s=tuning.lease_s, heartbeat_s=tuning.heartbeat_s
        )
        self.functions = FunctionGroup(
            worker,
            clock=clock,
            fresh=lambda: self._member.term.fresh(clock.monotonic()),
            beat=self._changed.set,
        )

    @asynccontextmanager
    async def run(self, stop: Stop) -> AsyncIterator[None]:
        """Writes heartbeats until the block ends, then removes this worker's row.

        After `stop` is requested, the heartbeats say that this worker leaves.
        """
        try:
            async with WatchedTasks(self._observer) as scope:
                task = scope.kept(TaskKind.HEARTBEAT, self._beat_repeatedly, fatal=(InvalidConfiguration,))
                try:
                    with stop.listening(partial(self.update, WorkerLeaves())):
                        yield
                finally:
                    task.cancel()
                    if self._expiry is not None:
                        self._expiry.cancel()
        finally:
            await self._retire()

    @contextmanager
    def join(
        self, mapping: MappingId, *, wake: Callable[[], None], rates: Rates, maximum: Maximum | None = None
    ) -> Iterator[Membership]:
        """Makes the mapping one that this worker runs, until the block ends."""
        assert mapping not in self._memberships, "a mapping runs once in a daemon"
        membership = HeartbeatMembership(self, mapping, wake=wake, rates=rates, maximum=maximum)
        self._memberships[mapping] = membership
        self.update(membership.report)
        try:
            yield membership
        finally:
            del self._memberships[mapping]
            self.update(MappingLeft(mapping))

    def others(self) -> KnownWorkers:
        """What is known of the other workers, the dead ones included."""
        return self._member.others

    def update(self, change: OwnChange) -> None:
        """Takes in a change that the next heartbeat reports."""
        self._carry_out(self._member.update(change))

    def allowed(self, mapping: MappingId) -> int:
        """How much of the mapping's maximum this worker may have in use."""
        return self._member.allowed(mapping, self._clock.monotonic())

    def holding(self) -> Callable[[], bool]:
        """Returns a function that says whether a lease that is taken now still holds: no heartbeat was late since then."""
        term = self._member.lease_term(self._clock.monotonic())
        return lambda: self._member.holds(term, self._clock.monotonic())

    async def group(self, mapping: MappingId, *, new_listing: bool) -> WorkerGroup:
        """The workers of a mapping. Waits until a heartbeat has reported that this worker runs it. Raises PortError.

        With `new_listing` it also waits for a listing that begins after this call.
        """
        asked = self._clock.monotonic()
        while not self._member.ready(mapping, self._clock.monotonic(), after=asked if new_listing else None):
            if new_listing:
                self._changed.set()
            round_over = self._round_over
            await round_over.wait()
            if self._trouble is not None:
                raise type(self._trouble)(self._trouble.reason)
        return self._member.group(mapping, self._clock.monotonic())

    def workers_of(self, mapping: MappingId) -> frozenset[WorkerId]:
        """Live workers that run a mapping, as far as this worker knows."""
        return self._member.workers_of(mapping)

    async def listed(self) -> None:
        """Returns when the workers were listed once."""
        while self._member.others.listed is None:
            round_over = self._round_over
            await round_over.wait()

    async def _beat_repeatedly(self) -> None:
        gap_s = self._tuning.heartbeat_s * GAP_FRACTION
        await wait_until(self._changed, gap_s)
        while True:
            self._changed.clear()
            began = self._clock.monotonic()
            await self._round()
            await asyncio.sleep(gap_s)
            wait_s = self._member.next_beat(began) - self._clock.monotonic()
            await wait_until(self._changed, max(0.0, wait_s))

    async def _round(self) -> None:
        """One heartbeat and one listing of the other workers."""
        try:
            await self._check_name()
            await self._beat()
            await self._list_others()
        except TimeoutError:
            self._failed(ServiceUnavailable("the store does not answer heartbeats"))
        except PortError as error:
            self._failed(error)
        else:
            self._recovered()
        over, self._round_over = self._round_over, asyncio.Event()
        over.set()

    async def _check_name(self) -> None:
        """Raises InvalidConfiguration when another process writes heartbeats under this worker's name.

        This worker reads its row before it overwrites it: the heartbeat of the other process would be in there.
        """
        mine = dict(self._process.identity())
        in_term = self._member.term.last_began is not None
        if not name_check.due(self._member.counter, mine=mine, in_term=in_term):
            return
        rows = await self._rows()
        if in_term:
            self._name_check = self._name_check.after(rows, self._worker, mine=mine)
            taken = self._name_check.taken
        else:
            taken = name_check.used_by_neighbour(rows, self._worker, mine=mine, runs=self._process.runs)
        self._name_taken = taken
        if taken:
            problem = (
                f"worker: {self._worker!r} is the name of another process, too; give each worker its own"
            )
            raise InvalidConfiguration([problem])

    async def _beat(self) -> None:
        rates = {mapping: membership.rates() for mapping, membership in self._memberships.items()}
        report = self.functions.added_to(
            self._member.report(rates=rates, used=self._used(), process=self._process.identity())
        )
        began = self._clock.monotonic()
        async with self._call_limit():
            await self._store.beat(self._worker, self._member.counter, facts=worker_report.encode(report))
        self._carry_out(self._member.heartbeat_written(report, began=began, now=self._clock.monotonic()))
        self.functions.written(report)
        self._watch_term()

    async def _list_others(self) -> None:
        """Takes in the reports of the other workers, and removes the rows of workers that are gone."""
        asked = self._clock.monotonic()
        rows = [row for row in await self._rows() if row.worker != self._worker]
        answered = self._clock.monotonic()
        reports = {row.worker: worker_report.decode(row.facts) for row in rows}
        ended = frozenset(each for each, report in reports.items() if self._process.gone(report.process))
        listing = WorkerListing(rows, reports, ended, asked, answered)
        effects = self._member.workers_listed(listing, used=self._used())
        self._carry_out(effects)
        self.functions.listed(self._member.others.alive)
        for worker in effects.retire:
            async with self._call_limit():
                await self._store.retire(worker)

    async def _rows(self) -> Sequence[WorkerRow]:
        async with self._call_limit():
            return await self._store.workers()

    def _call_limit(self) -> asyncio.Timeout:
        return asyncio.timeout(self._tuning.lease_s / CALLS_PER_LEASE)

    def _used(self) -> dict[MappingId, int]:
        """How much of each mapping's maximum this worker has in use."""
        memberships = self._memberships.items()
        return {
            each: membership.maximum.used()
            for each, membership in memberships
            if membership.maximum is not None
        }

    def _watch_term(self) -> None:
        """Arranges that mappings are woken when the term is over, also while a call of the store hangs."""
        if self._expiry is not None:
            self._expiry.cancel()
        ends = self._member.term.ends
        assert ends is not None, "a heartbeat has just been written"
        delay_s = max(0.0, ends - self._clock.monotonic())
        self._expiry = asyncio.get_running_loop().call_later(delay_s, self._expire)

    def _expire(self) -> None:
        self._carry_out(self._member.expire(self._clock.monotonic()))

    def _failed(self, error: PortError) -> None:
        if self._trouble is None:
            wait_s = self._tuning.heartbeat_s
            self._observer.on(StoreFailed(error=type(error).__name__, reason=error.reason, wait_s=wait_s))
        self._trouble = error
        self._expire()

    def _recovered(self) -> None:
        """Wakes mappings that wait for their next try at the store, because it answers again."""
        if self._trouble is not None:
            self._trouble = None
            self._wake(tuple(self._memberships))

    def _carry_out(self, effects: HeartbeatEffects) -> None:
        """Carries out the effects that need no call of the store."""
        if effects.beat_soon:
            self._changed.set()
        self._wake(effects.wake)

    def _wake(self, mappings: Sequence[MappingId]) -> None:
        for mapping in mappings:
            self._memberships[mapping].wake()

    async def _retire(self) -> None:
        if self._name_taken:
            # The row belongs to the other process. If it were removed, the others would take that process for gone.
            return
        try:
            async with asyncio.timeout(RETIRE_S_MAX):
                await self._store.retire(self._worker)
        except (TimeoutError, PortError):
            # The other workers will notice that this worker's counter stands still.
            return


class HeartbeatMembership:
    """One mapping's membership. Its report is replaced as a whole whenever something changes."""

    def __init__(
        self,
        heartbeat: Heartbeat,
        mapping: MappingId,
        *,
        wake: Callable[[], None],
        rates: Rates,
        maximum: Maximum | None,
    ) -> None:
        self.wake = wake
        self.rates = rates
        self.maximum = maximum
        self.report = MappingReport(mapping=mapping, maximum=None if maximum is None else maximum.value)
        self._heartbeat = heartbeat
        self._mapping = mapping

    @property
    def able(self) -> bool:
        """Whether this worker can take leases of the mapping."""
        return self.report.able

    @able.setter
    def able(self, able: bool) -> None:
        self._update(replace(self.report, able=able))

    @property
    def held(self) -> int:
        """How many leases of the mapping this worker has."""
        return self.report.held

    @held.setter
    def held(self, held: int) -> None:
        self._update(replace(self.report, held=held))

    async def group(self, *, new_listing: bool = False) -> WorkerGroup:
        """The workers of the mapping. Waits until a heartbeat has reported that this worker runs it."""
        return await self._heartbeat.group(self._mapping, new_listing=new_listing)

    async def workers_of(self, mapping: MappingId) -> frozenset[WorkerId]:
        """Live workers that run another mapping; this worker is among them if it does."""
        await self.group(new_listing=True)
        return self._heartbeat.workers_of(mapping)

    def request(self, moves: Sequence[Move]) -> None:
        """Requests these moves from now on, instead of those of the call before."""
        self._update(replace(self.report, requests=tuple(moves[:REQUESTS_MAX])))

    def announce_change(self) -> None:
        """Moves the mapping's change counter, so that the other workers check its leases."""
        self._update(replace(self.report, change_counter=self.report.change_counter + 1))

    def holding(self) -> Callable[[], bool]:
        """Returns a function that says whether a lease that is taken now still holds."""
        return self._heartbeat.holding()

    def allowed(self) -> int:
        """How much of the mapping's maximum this worker may have in use."""
        return self._heartbeat.allowed(self._mapping)

    def _update(self, report: MappingReport) -> None:
        self.report = report
        self._heartbeat.update(report)
