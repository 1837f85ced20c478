"""Owns one queue mapping: opens the queue, keeps as many pollers as the rule wants, and shows how it goes."""

import asyncio

from poller.errors import AccessDenied, PortError, ResourceMissing
from poller.records import Epoch, Message, QueueFacts
from poller.rules import scaling
from poller.rules.scaling import PROVISIONED_CONCURRENCY, TICK_S, Scaling
from poller.rules.troubles import Trouble
from poller.rules.visibility import Holds
from poller.runtime.parts import QueueParts
from poller.runtime.queue_capacity import Capacity
from poller.runtime.queue_deleter import Deleter
from poller.runtime.queue_keeper import Keeper
from poller.runtime.queue_poller import SLOW_RETRY_S, Intake, QueuePoller
from poller.runtime.queue_scope import QueueScope, terms_of
from poller.runtime.stopping import Stop, interrupted_by
from poller.runtime.workers import Maximum, Seat
from poller.status import FaultyRecord, LaneStatus, ShardStatus
from poller.telemetry import Pollers, PortFailed

FACTS_S = 300.0
"""Between two looks at the queue's own settings."""
LAST_WORDS_S_MAX = 2.0
"""For the last deletes of a mapping that was cancelled."""
LANES_SHOWN_MAX = 200
FAULTY_RECORDS_MAX = 10
"""Messages of a failing group that a status names."""
KEY_CHARACTERS_MAX = 256


class QueueMapping:
    """One queue mapping from start to stop."""

    def __init__(self, parts: QueueParts, stop: Stop) -> None:
        self.opened = False
        self.reason = ""
        self.pollers: int | None = None
        self._parts = parts
        self._stop = stop
        self._maximum = scaling.maximum(parts.plan.scaling)
        self._bounds = scaling.bounds(parts.plan.scaling, parts.function.plan.max_concurrency)
        self._seat: Seat | None = None
        self._scope: QueueScope | None = None
        self._pollers: dict[int, QueuePoller] = {}
        self._scaling: Scaling | None = None
        self._started = 0

    def shards(self) -> tuple[ShardStatus, ...]:
        """None: a queue has no shards."""
        return ()

    def lanes(self) -> tuple[LaneStatus, ...]:
        """What fails, by message group or message, then the pollers at work."""
        if self._scope is None:
            return ()
        troubles = self._scope.troubles.current(self._parts.clock.now())
        failing = [_failing(key, each, fifo=self._parts.plan.fifo) for key, each in troubles.items()]
        working = [lane for poller in self._pollers.values() if (lane := poller.status()) is not None]
        return tuple([*failing, *working][:LANES_SHOWN_MAX])

    async def run(self) -> None:
        """Polls until a stop is requested and everything that was received is settled, left or given back."""
        maximum = None if self._maximum is None else Maximum(self._maximum, self._used)
        seated = self._parts.crew.seat(self._parts.plan.mapping, wake=_nothing, rates=dict, maximum=maximum)
        with self._parts.function.slots.used(), seated as seat:
            self._seat = seat
            facts = await self._open(seat)
            if facts is not None:
                await self._consume(facts)

    async def _open(self, seat: Seat) -> QueueFacts | None:
        """The queue's settings, as soon as it tells them; None when a stop came first.

        A maximum for all workers waits until they know of each other.
        """
        tries = 0
        while not self._stop.requested:
            try:
                async with interrupted_by(self._stop):
                    if self._maximum is not None:
                        await seat.team()
                    facts = await self._parts.source.describe()
                    self.opened, self.reason = True, ""
                    return facts
            except PortError as error:
                wait_s = self._wait_s(error, tries)
                tries += 1
                self.reason = error.reason
                self._tell_failed(error, wait_s)
                await self._stop.sleep(wait_s)
        return None

    async def _consume(self, facts: QueueFacts) -> None:
        parts = self._parts
        scope = QueueScope(
            parts=parts,
            stop=self._stop,
            capacity=Capacity(
                parts.function.slots, self._bounds.ceiling, may_add=lambda: self._within_share(1)
            ),
            holds=Holds(terms_of(parts, facts.visibility_timeout_s)),
        )
        self._scope = scope
        deleter, keeper = Deleter(scope), Keeper(scope)
        intake = Intake(scope, deleter)
        try:
            async with asyncio.TaskGroup() as around:
                around.create_task(keeper.run(), name="keeper")
                async with asyncio.TaskGroup() as behind:
                    behind.create_task(deleter.run(), name="deleter")
                    await self._poll(scope, deleter, intake)
                    deleter.close()
                keeper.close()
        except asyncio.CancelledError:
            await self._last_words(deleter)
            raise

    async def _poll(self, scope: QueueScope, deleter: Deleter, intake: Intake) -> None:
        """Runs pollers and what looks after them; returns when the last poller has left."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._watch(scope), name="queue facts")
            self._scaling = scaling.start(self._bounds, now=scope.now)
            while not self._stop.requested:
                self._fill(group, scope, deleter, intake)
                await self._stop.sleep(TICK_S)
                self._scale(scope)
                self.reason = scope.source.reason
        self._show_pollers()

    def _fill(self, group: asyncio.TaskGroup, scope: QueueScope, deleter: Deleter, intake: Intake) -> None:
        while self._wanted(joining=True):
            self._started += 1
            number = self._started
            self._pollers[number] = QueuePoller(number, scope, deleter, intake, self._wanted)
            group.create_task(self._run(number), name=f"poller {number}")
        self._show_pollers()

    async def _run(self, number: int) -> None:
        try:
            await self._pollers[number].run()
        finally:
            del self._pollers[number]

    def _wanted(self, *, joining: bool = False) -> bool:
        """Whether there should be as many pollers as there are, or one more."""
        if self._scaling is None:
            return False
        return len(self._pollers) + joining <= self._scaling.target and self._within_share(joining)

    def _within_share(self, more: int) -> bool:
        """Whether what runs here and `more` is within this worker's part of a maximum of all workers."""
        if self._maximum is None:
            return True
        return self._seat is not None and self._used() + more <= self._seat.allowed()

    def _used(self) -> int:
        """The most invocations that may run here now."""
        extra = self._scope.capacity.extra if self._scope is not None else 0
        return len(self._pollers) + extra

    def _scale(self, scope: QueueScope) -> None:
        assert self._scaling is not None
        long_ago = scope.now - TICK_S
        waiting = scope.capacity.queued + sum(
            poller.receiving_since is not None and poller.receiving_since <= long_ago
            for poller in self._pollers.values()
        )
        self._scaling = scaling.step(
            self._scaling,
            scope.tally.take(waiting=waiting),
            self._bounds,
            tolerant=self._parts.plan.retry.report_failures,
            now=scope.now,
        )

    async def _watch(self, scope: QueueScope) -> None:
        """Follows changes of the queue's visibility timeout."""
        while not await self._stop.sleep(FACTS_S):
            try:
                async with interrupted_by(self._stop):
                    facts = await self._parts.source.describe()
                    scope.holds.terms = terms_of(self._parts, facts.visibility_timeout_s)
            except PortError as error:
                self._tell_failed(error, FACTS_S)

    async def _last_words(self, deleter: Deleter) -> None:
        """The grace is over: one try at the deletes that are due."""
        try:
            async with asyncio.timeout(LAST_WORDS_S_MAX):
                await deleter.last_try()
        except TimeoutError:
            return

    def _wait_s(self, error: PortError, tries: int) -> float:
        wait_s = self._parts.port_wait_s(tries)
        slow = isinstance(error, (AccessDenied, ResourceMissing))
        return max(wait_s, SLOW_RETRY_S) if slow else wait_s

    def _show_pollers(self) -> None:
        """How many run; in provisioned mode as AWS counts them, ten of ours to one."""
        provisioned = self._parts.plan.scaling.provisioned_min is not None
        pollers = -(-len(self._pollers) // PROVISIONED_CONCURRENCY) if provisioned else len(self._pollers)
        if pollers != self.pollers:
            self.pollers = pollers
            self._parts.observer.on(Pollers(mapping=self._parts.plan.mapping, pollers=pollers))

    def _tell_failed(self, error: PortError, wait_s: float) -> None:
        self._parts.observer.on(
            PortFailed(
                mapping=self._parts.plan.mapping,
                shard=None,
                port="source",
                error=type(error).__name__,
                reason=error.reason,
                wait_s=wait_s,
            )
        )


def _nothing() -> None:
    """Nobody waits for news of a queue's leases: there are none."""


def _failing(key: str, trouble: Trouble, *, fifo: bool) -> LaneStatus:
    """A failing group blocks what is behind it; a failing message of a standard queue blocks nothing."""
    return LaneStatus(
        lane=key[:KEY_CHARACTERS_MAX],
        state="waiting",
        attempts=trouble.receives,
        blocked_since=trouble.since if fifo else None,
        next_try=trouble.next_try,
        last_error=trouble.error,
        records=tuple(_faulty(message) for message in trouble.messages[:FAULTY_RECORDS_MAX]),
        records_count=len(trouble.messages),
    )


def _faulty(message: Message) -> FaultyRecord:
    sent_ms = int(message.attributes.get("SentTimestamp", "0"))
    return FaultyRecord(
        identifier=message.message_id,
        key=(message.group or "")[:KEY_CHARACTERS_MAX],
        arrived=Epoch(sent_ms / 1000.0),
    )
