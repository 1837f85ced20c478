"""Owns this worker's heartbeat: it writes this worker's row, lists the others' rows, and carries out what `GroupMember` decides.

It writes one row and makes one listing per heartbeat, whatever the number of mappings and shards.
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
    OwnChange,
    SeatLeft,
    SeatReport,
    WorkerLeaves,
    WorkerListing,
)
from poller.rules.workers.worker_report import WISHES_MAX
from poller.runtime.stopping import Stop, wait_until
from poller.runtime.watched_tasks import WatchedTasks
from poller.runtime.workers.membership import Maximum, Membership, Rates

CALLS_PER_LEASE = 3
"""A call of the store may take a third of the lease time."""
GAP_PART = 0.05
"""Part of the heartbeat that passes between two heartbeats even when there is news."""
RETIRE_S_MAX = 2.0
"""Limit for the last call of a worker that leaves."""


class Heartbeat:
    """The heartbeat of one worker. `beating` runs it. Mappings may take seats at any time."""

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
        self._seats: dict[MappingId, HeartbeatSeat] = {}
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

    @asynccontextmanager
    async def beating(self, stop: Stop) -> AsyncIterator[None]:
        """Beats until the block ends, then removes this worker's own row. When `stop` is requested, others learn that it leaves."""
        try:
            async with WatchedTasks(self._observer) as scope:
                task = scope.kept(TaskKind.HEARTBEAT, self._beat_on, fatal=(InvalidConfiguration,))
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
    def seat(
        self, mapping: MappingId, *, wake: Callable[[], None], rates: Rates, maximum: Maximum | None = None
    ) -> Iterator[Membership]:
        """The mapping's place among the workers, for as long as it runs here."""
        assert mapping not in self._seats, "a mapping runs once in a daemon"
        seat = HeartbeatSeat(self, mapping, wake=wake, rates=rates, maximum=maximum)
        self._seats[mapping] = seat
        self.update(seat.report)
        try:
            yield seat
        finally:
            del self._seats[mapping]
            self.update(SeatLeft(mapping))

    @property
    def accompanied(self) -> bool:
        """Whether there are other workers."""
        return self._member.accompanied

    def update(self, change: OwnChange) -> None:
        """Takes in a change here that heartbeats report."""
        self._carry_out(self._member.update(change))

    def allowed(self, mapping: MappingId) -> int:
        """How much of the mapping's maximum may be in use here."""
        return self._member.allowed(mapping, self._clock.monotonic())

    def holding(self) -> Callable[[], bool]:
        """Returns a function that says whether a lease that is asked for now still holds: no heartbeat was late since."""
        term = self._member.lease_term(self._clock.monotonic())
        return lambda: self._member.holds(term, self._clock.monotonic())

    async def group(self, mapping: MappingId, *, anew: bool) -> WorkerGroup:
        """The workers of a mapping, as soon as all of them can know of it here. Raises PortError."""
        asked = self._clock.monotonic()
        while not self._member.ready(mapping, self._clock.monotonic(), after=asked if anew else None):
            if anew:
                self._changed.set()
            round_over = self._round_over
            await round_over.wait()
            if self._trouble is not None:
                raise type(self._trouble)(self._trouble.reason)
        return self._member.group(mapping, self._clock.monotonic())

    def at_work(self, mapping: MappingId) -> frozenset[WorkerId]:
        """Live workers that run a mapping, as far as this one knows."""
        return self._member.at_work(mapping)

    async def _beat_on(self) -> None:
        gap_s = self._tuning.heartbeat_s * GAP_PART
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
        """Raises InvalidConfiguration when another process beats under this worker's name.

        Reads our row before we overwrite it: if another process uses this worker's name, its heartbeat is in there now.
        """
        mine = dict(self._process.facts())
        beating = self._member.term.beaten is not None
        if not name_check.due(self._member.counter, mine=mine, beating=beating):
            return
        rows = await self._rows()
        if beating:
            self._name_check = self._name_check.after(rows, self._worker, mine=mine)
            taken = self._name_check.taken
        else:
            taken = name_check.held_by_neighbour(rows, self._worker, mine=mine, runs=self._process.runs)
        self._name_taken = taken
        if taken:
            problem = (
                f"worker: {self._worker!r} is the name of another process, too; give each worker its own"
            )
            raise InvalidConfiguration([problem])

    async def _beat(self) -> None:
        rates = {mapping: seat.rates() for mapping, seat in self._seats.items()}
        report = self._member.report(rates=rates, used=self._used(), process=self._process.facts())
        began = self._clock.monotonic()
        async with self._call_limit():
            await self._store.beat(self._worker, self._member.counter, facts=worker_report.written(report))
        self._carry_out(self._member.beaten(report, began=began, now=self._clock.monotonic()))
        self._watch_term()

    async def _list_others(self) -> None:
        """Takes in what the others report, and removes rows of workers that are gone."""
        asked = self._clock.monotonic()
        rows = [row for row in await self._rows() if row.worker != self._worker]
        answered = self._clock.monotonic()
        reports = {row.worker: worker_report.read(row.facts) for row in rows}
        ended = frozenset(each for each, report in reports.items() if self._process.gone(report.process))
        listing = WorkerListing(rows, reports, ended, asked, answered)
        effects = self._member.listed(listing, used=self._used())
        self._carry_out(effects)
        for worker in effects.retire:
            async with self._call_limit():
                await self._store.retire(worker)

    async def _rows(self) -> Sequence[WorkerRow]:
        async with self._call_limit():
            return await self._store.workers()

    def _call_limit(self) -> asyncio.Timeout:
        return asyncio.timeout(self._tuning.lease_s / CALLS_PER_LEASE)

    def _used(self) -> dict[MappingId, int]:
        """How much of each maximum is in use here."""
        seats = self._seats.items()
        return {each: seat.maximum.used() for each, seat in seats if seat.maximum is not None}

    def _watch_term(self) -> None:
        """Wakes mappings at the moment at which the term is over, since a store that hangs says nothing."""
        if self._expiry is not None:
            self._expiry.cancel()
        ends = self._member.term.ends
        assert ends is not None, "a heartbeat has just got through"
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
        """Wakes mappings that wait for their next try at the store: it answers again."""
        if self._trouble is not None:
            self._trouble = None
            self._wake(tuple(self._seats))

    def _carry_out(self, effects: HeartbeatEffects) -> None:
        """Does what needs no call of the store."""
        if effects.beat_soon:
            self._changed.set()
        self._wake(effects.wake)

    def _wake(self, mappings: Sequence[MappingId]) -> None:
        for mapping in mappings:
            self._seats[mapping].wake()

    async def _retire(self) -> None:
        if self._name_taken:
            # The row is the other process's. Without it the others would take that one for gone.
            return
        try:
            async with asyncio.timeout(RETIRE_S_MAX):
                await self._store.retire(self._worker)
        except (TimeoutError, PortError):
            # The other workers will notice by themselves that this one is gone.
            return


class HeartbeatSeat:
    """One mapping's place among the workers. Its report is replaced as a whole whenever something changes."""

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
        self.report = SeatReport(mapping=mapping, maximum=None if maximum is None else maximum.value)
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
        """Leases of the mapping that are held here."""
        return self.report.held

    @held.setter
    def held(self, held: int) -> None:
        self._update(replace(self.report, held=held))

    async def team(self, *, anew: bool = False) -> WorkerGroup:
        """The workers of the mapping, once the others know that it runs here."""
        return await self._heartbeat.group(self._mapping, anew=anew)

    async def elsewhere(self, mapping: MappingId) -> frozenset[WorkerId]:
        """Live workers, this one included, that run another mapping."""
        await self.team(anew=True)
        return self._heartbeat.at_work(mapping)

    def wish(self, moves: Sequence[Move]) -> None:
        """Asks for these leases instead of those before."""
        self._update(replace(self.report, requests=tuple(moves[:WISHES_MAX])))

    def tell(self) -> None:
        """Makes the other workers look at the mapping's leases."""
        self._update(replace(self.report, changes=self.report.changes + 1))

    def holding(self) -> Callable[[], bool]:
        """Returns a function that says whether a lease that is asked for now still holds."""
        return self._heartbeat.holding()

    def allowed(self) -> int:
        """How much of the mapping's maximum may be in use here."""
        return self._heartbeat.allowed(self._mapping)

    def _update(self, report: SeatReport) -> None:
        self.report = report
        self._heartbeat.update(report)
