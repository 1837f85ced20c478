"""Owns this worker's heartbeat, what it knows of the other workers, and until when its own leases hold.

One row a worker, written and listed once per heartbeat, whatever the number of mappings and shards.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager

import msgspec

from poller.errors import InvalidConfiguration, PortError, ServiceUnavailable
from poller.plan import Tuning
from poller.ports import Clock, WorkerStore
from poller.processes import Anonymous, Process
from poller.records import MappingId, Monotonic, WorkerId
from poller.rows import WorkerRow
from poller.rules import facts as rules
from poller.rules import liveness, sharing
from poller.rules.facts import WISHES_MAX, Facts
from poller.rules.leasing import Move, Team
from poller.runtime.stopping import Stop, wait_until
from poller.runtime.workers import Maximum, Rates, Seat
from poller.telemetry import Observer, StoreFailed

CALLS_PER_LEASE = 3
"""A call of the store may take a third of the lease time."""
GAP_PART = 0.05
"""Of the heartbeat: so much time passes between two heartbeats even when there is news."""
CALM_BEATS = 2
"""Nobody asks for others' leases until so many heartbeats after the last worker came or went."""
FORGOTTEN_LEASES = 30
"""After so many lease times the row of a dead worker is removed."""
RETIRED_MAX = 10
"""Rows removed in one round."""
NAME_CHECK_BEATS = 10
"""Between two looks at whether another process beats under this worker's name."""
DOUBLES_MAX = 2
"""Looks in a row that find one; the first may have seen the last word of a predecessor."""
RETIRE_S_MAX = 2.0
"""For the last call of a worker that leaves."""


class Heartbeat:
    """The heartbeat of one worker. `beating` runs it; seats may be taken at any time."""

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
        self._pulse = asyncio.Event()
        self._counter = int(clock.now())
        self._leaving = False
        self._beaten: Monotonic | None = None
        self._term = 0
        self._told = Facts()
        self._sightings: liveness.Sightings = {}
        self._alive: dict[WorkerId, Facts] = {}
        self._listed: Monotonic | None = None
        self._moved: Monotonic | None = None
        self._doubles = 0
        self.held = 0
        self.wishing: dict[MappingId, tuple[Move, ...]] = {}
        self.trouble: PortError | None = None

    @asynccontextmanager
    async def beating(self, stop: Stop) -> AsyncIterator[None]:
        """Beats until the block ends; from `stop` on others know that this worker leaves. Then its row is removed."""
        try:
            async with asyncio.TaskGroup() as scope:
                task = scope.create_task(self._beat_on(), name="heartbeat")
                try:
                    with stop.listening(self._leave):
                        yield
                finally:
                    task.cancel()
        finally:
            await self._retire()

    @contextmanager
    def seat(
        self, mapping: MappingId, *, wake: Callable[[], None], rates: Rates, maximum: Maximum | None = None
    ) -> Iterator[Seat]:
        """The mapping's seat, for as long as it runs here."""
        assert mapping not in self._seats, "a mapping runs once in a daemon"
        seat = HeartbeatSeat(self, mapping, wake=wake, rates=rates, maximum=maximum)
        self._seats[mapping] = seat
        self._changed.set()
        try:
            yield seat
        finally:
            seat.wish(())
            seat.held = 0
            del self._seats[mapping]
            self._changed.set()

    def allowed(self, seat: "HeartbeatSeat") -> int:
        """How much of the seat's maximum may be in use here: nothing while this worker's heartbeat does not get through."""
        assert seat.maximum is not None, "only a seat with a maximum is asked"
        if not self.fresh():
            return 0
        return sharing.allowed(
            seat.maximum.value,
            part=self._part(seat, seat.maximum),
            mine=seat.claimed,
            others=sharing.claimed(seat.mapping, seat.maximum.value, self._alive),
        )

    def fresh(self) -> bool:
        """Whether the others must take this worker for alive: its heartbeat is younger than the lease time."""
        return self._beaten is not None and self._clock.monotonic() - self._beaten < self._tuning.lease_s

    def holding(self) -> Callable[[], bool]:
        """Whether leases that are taken from now on are still held: no heartbeat was ever late since."""
        term = self._term
        return lambda: self._term == term and self.fresh()

    @property
    def accompanied(self) -> bool:
        """Whether there are other workers."""
        return bool(self._alive)

    def changed(self) -> None:
        """There is something to tell the others: does not wait for the next heartbeat."""
        self._changed.set()

    async def team(self, seat: "HeartbeatSeat", *, anew: bool) -> Team:
        """The seat's team, as soon as everybody may know of it."""
        asked = self._clock.monotonic()
        if anew:
            self._changed.set()
        while not self._ready(seat, after=asked if anew else None):
            pulse = self._pulse
            await pulse.wait()
            if self.trouble is not None:
                raise type(self.trouble)(self.trouble.reason)
        coming = Counter(
            move.source for other, moves in self.wishing.items() if other != seat.mapping for move in moves
        )
        return rules.team(
            seat.mapping, me=self._worker, alive=self._known(), coming=coming, calm=self._calm()
        )

    def _ready(self, seat: "HeartbeatSeat", *, after: Monotonic | None) -> bool:
        if seat.announced is None or self._listed is None or not self.fresh():
            return False
        return after is None or self._listed > after

    def _known(self) -> dict[WorkerId, Facts]:
        return {**self._alive, self._worker: msgspec.structs.replace(self._told, held=self.held)}

    def _calm(self) -> bool:
        quiet_s = CALM_BEATS * self._tuning.heartbeat_s
        return self._moved is None or self._clock.monotonic() - self._moved >= quiet_s

    def _leave(self) -> None:
        self._leaving = True
        self._changed.set()

    async def _beat_on(self) -> None:
        tuning = self._tuning
        await wait_until(self._changed, tuning.heartbeat_s * GAP_PART)
        while True:
            self._changed.clear()
            began = self._clock.monotonic()
            await self._round()
            await asyncio.sleep(tuning.heartbeat_s * GAP_PART)
            await wait_until(self._changed, self._pause_s(began))

    def _pause_s(self, began: Monotonic) -> float:
        """Until the next heartbeat, or the moment at which somebody has to be taken for dead."""
        due = began + self._tuning.heartbeat_s
        death = liveness.next_death(self._sightings, lease_s=self._tuning.lease_s)
        if death is not None:
            due = min(due, death)
        return max(0.0, due - self._clock.monotonic())

    async def _round(self) -> None:
        """One heartbeat and one look at the others'."""
        try:
            await self._check_name()
            await self._beat()
            await self._look()
        except TimeoutError:
            self._failed(ServiceUnavailable("the store does not answer heartbeats"))
        except PortError as error:
            self._failed(error)
        else:
            self.trouble = None
        pulse, self._pulse = self._pulse, asyncio.Event()
        pulse.set()

    async def _beat(self) -> None:
        facts = self._facts()
        self._counter += 1
        began = self._clock.monotonic()
        async with asyncio.timeout(self._tuning.lease_s / CALLS_PER_LEASE):
            await self._store.beat(self._worker, self._counter, facts=rules.written(facts))
        self._expire()
        self._beaten, self._told = began, facts
        for seat in self._seats.values():
            if seat.announced is None and seat.name in facts.on:
                seat.announced = self._clock.monotonic()

    def _expire(self) -> None:
        """A heartbeat was late: whatever was held before belongs to others now, if they want it."""
        if self._beaten is not None and not self.fresh():
            self._term += 1
            self._beaten = None
            self._wake_all()

    async def _look(self) -> None:
        asked, told = self._clock.monotonic(), self._told
        async with asyncio.timeout(self._tuning.lease_s / CALLS_PER_LEASE):
            listed = await self._store.workers()
        answered = self._clock.monotonic()
        rows = [row for row in listed if row.worker != self._worker]
        self._sightings = liveness.observed(self._sightings, rows, asked=asked, answered=answered)
        dead = liveness.dead(self._sightings, lease_s=self._tuning.lease_s)
        heard = {row.worker: rules.read(row.facts) for row in rows}
        ended = {worker for worker, facts in heard.items() if self._process.gone(facts.process)}
        alive = {worker: facts for worker, facts in heard.items() if worker not in dead | ended}
        self._learn(alive, asked)
        for seat in self._seats.values():
            seat.claimed = told.claims.get(seat.name, 0)
        if any(told.claims.get(name) != claim for name, claim in self._claims().items()):
            self._changed.set()
        await self._remove_rows(rows, ended)

    async def _check_name(self) -> None:
        """Raises InvalidConfiguration when another process beats under this worker's name: both would take each lease.

        Whoever beat last since this worker's last beat stands in the row, so that it must be looked at before the next one.
        """
        mine = dict(self._process.facts())
        if not mine or self._beaten is None or self._counter % NAME_CHECK_BEATS:
            return
        async with asyncio.timeout(self._tuning.lease_s / CALLS_PER_LEASE):
            own = [row for row in await self._store.workers() if row.worker == self._worker]
        theirs = [row for row in own if rules.read(row.facts).process not in ({}, mine)]
        self._doubles = self._doubles + 1 if theirs else 0
        if self._doubles >= DOUBLES_MAX:
            problem = (
                f"worker: {self._worker!r} is the name of another process, too; give each worker its own"
            )
            raise InvalidConfiguration([problem])

    def _learn(self, alive: dict[WorkerId, Facts], asked: Monotonic) -> None:
        before, self._alive = self._alive, alive
        first, self._listed = self._listed is None, asked
        if alive.keys() != before.keys():
            self._moved = None if first else self._clock.monotonic()
        if rules.membership(alive) != rules.membership(before):
            self._wake_all()
            return
        stirred = rules.stirred(before, alive)
        for seat in tuple(self._seats.values()):
            if seat.name in stirred:
                seat.wake()

    async def _remove_rows(self, rows: Sequence[WorkerRow], ended: set[WorkerId]) -> None:
        """Rows of processes that are gone at once, of others that were dead for long by whoever sees it first."""
        old = liveness.forgotten(self._sightings, lease_s=self._tuning.lease_s, times=FORGOTTEN_LEASES)
        for worker in sorted(ended.union(old))[:RETIRED_MAX]:
            async with asyncio.timeout(self._tuning.lease_s / CALLS_PER_LEASE):
                await self._store.retire(worker)

    async def _retire(self) -> None:
        try:
            async with asyncio.timeout(RETIRE_S_MAX):
                await self._store.retire(self._worker)
        except (TimeoutError, PortError):
            # The others find out by themselves.
            return

    def _failed(self, error: PortError) -> None:
        if self.trouble is None:
            wait_s = self._tuning.heartbeat_s
            self._observer.on(StoreFailed(error=type(error).__name__, reason=error.reason, wait_s=wait_s))
        self.trouble = error
        self._expire()

    def _wake_all(self) -> None:
        for seat in tuple(self._seats.values()):
            seat.wake()

    def _claims(self) -> dict[str, int]:
        """By the names of the mappings with a maximum."""
        return {
            seat.name: sharing.claim(self._part(seat, seat.maximum), seat.maximum.used())
            for seat in self._seats.values()
            if seat.maximum is not None
        }

    def _part(self, seat: "HeartbeatSeat", maximum: Maximum) -> int:
        """Nothing before the others have been looked at, and for a worker that leaves."""
        if self._listed is None or self._leaving:
            return 0
        return sharing.part(seat.mapping, maximum.value, worker=self._worker, others=self._alive)

    def _facts(self) -> Facts:
        rates = {seat: seat.rates() for seat in self._seats.values()}
        return Facts(
            on=tuple(sorted(seat.name for seat in rates)),
            unable=tuple(sorted(seat.name for seat in rates if not seat.able)),
            leaving=self._leaving,
            held=self.held,
            load=round(sum(sum(each.values()) for each in rates.values()), 1),
            wishes={rules.short(mapping): _named(moves) for mapping, moves in self.wishing.items()},
            rates={seat.name: named for seat, each in rates.items() if (named := rules.busiest(each))},
            news={seat.name: seat.news for seat in rates if seat.news},
            claims=self._claims(),
            process=dict(self._process.facts()),
        )


class HeartbeatSeat:
    """One mapping's place beside others."""

    def __init__(
        self,
        heart: Heartbeat,
        mapping: MappingId,
        *,
        wake: Callable[[], None],
        rates: Rates,
        maximum: Maximum | None,
    ) -> None:
        self.mapping = mapping
        self.name = rules.short(mapping)
        self.wake = wake
        self.rates = rates
        self.maximum = maximum
        self.news = 0
        self.claimed = 0
        """Of the maximum, as it stood in this worker's row when the others were last listed."""
        self.announced: Monotonic | None = None
        self._able = True
        self._held = 0
        self._heart = heart

    @property
    def able(self) -> bool:
        """Whether this worker can take leases of the mapping."""
        return self._able

    @able.setter
    def able(self, able: bool) -> None:
        if able is not self._able:
            self._able = able
            self._heart.changed()

    @property
    def held(self) -> int:
        """Leases of the mapping that are held here."""
        return self._held

    @held.setter
    def held(self, held: int) -> None:
        self._heart.held += held - self._held
        self._held = held

    async def team(self, *, anew: bool = False) -> Team:
        """The team, once the others know of this seat."""
        return await self._heart.team(self, anew=anew)

    def wish(self, moves: Sequence[Move]) -> None:
        """Asks for these leases instead of those before."""
        wishing, kept = self._heart.wishing, tuple(moves[:WISHES_MAX])
        before = wishing.pop(self.mapping, ())
        if kept:
            wishing[self.mapping] = kept
        if kept != before:
            self._heart.changed()

    def tell(self) -> None:
        """Lets the others look at the mapping's leases."""
        self.news += 1
        if self._heart.accompanied:
            self._heart.changed()

    def holding(self) -> Callable[[], bool]:
        """Whether leases that are taken from now on are still held."""
        return self._heart.holding()

    def allowed(self) -> int:
        """How much of the seat's maximum may be in use here."""
        return self._heart.allowed(self)


def _named(moves: Sequence[Move]) -> tuple[str, ...]:
    return tuple(sorted(move.shard for move in moves))
