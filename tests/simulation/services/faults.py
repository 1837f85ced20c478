"""Owns what goes wrong between a worker and the services: latency, faults drawn from one seed, crashes and pauses."""

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from random import Random

from poller.domain.errors import AccessDenied, PortError, ServiceThrottled, ServiceUnavailable
from poller.memory.answers import AnswerTooLarge, make_room
from tests.simulation.services.functions import Period
from tests.virtual import EPOCH_BASE


class Port(StrEnum):
    """Which service a call goes to."""

    SOURCE = "source"
    FUNCTION = "function"
    DESTINATION = "destination"
    STORE = "store"


@dataclass(frozen=True, slots=True)
class Denial:
    """The credentials have lost a permission for a while: `operations` by the first word of a call, none for all."""

    period: Period
    operations: frozenset[str] = frozenset()

    def covers(self, operation: str, now: float) -> bool:
        """Whether a call is refused now."""
        return self.period.holds(now) and (not self.operations or operation in self.operations)


@dataclass(frozen=True, slots=True, kw_only=True)
class FaultPlan:
    """What may go wrong until `heals_at` (epoch seconds). Chances are per call, between 0 and 1."""

    latency_s: tuple[float, float] = (0.001, 0.03)
    throttled: Mapping[Port, float] = field(default_factory=dict)
    unavailable: Mapping[Port, float] = field(default_factory=dict)
    lost_reply: Mapping[Port, float] = field(default_factory=dict)
    outages: Mapping[Port, tuple[Period, ...]] = field(default_factory=dict)
    denied: Mapping[Port, tuple[Denial, ...]] = field(default_factory=dict)
    expired_cursor: float = 0.0
    empty_page: float = 0.0
    lost_iterator: float = 0.0
    """A page comes without the cursor that follows, as if its shard had ended."""
    cut: float = 0.0
    """For each event that is pushed: the connection is cut before it, and again with it on its way."""
    silent: float = 0.0
    """For each of them: the connection is dead, and nobody says so."""
    answer_bytes: tuple[int, ...] = ()
    """What answers of sources claim to take in memory, one of these; nothing if it is empty."""
    heals_at: float = float("inf")


class Marks(Counter[str]):
    """What was seen at least once: a sweep that never saw something is too kind."""

    def saw(self, name: str) -> None:
        """Counts one sight."""
        self[name] += 1


class History:
    """A readable account of a run; kept only when somebody wants to read it."""

    def __init__(self, *, kept: bool) -> None:
        self.lines: list[str] = []
        self._kept = kept

    def tell(self, who: str, what: Callable[[], str]) -> None:
        """Adds one line; `what` is only called when the account is kept."""
        if self._kept:
            self.lines.append(f"{asyncio.get_running_loop().time():10.3f} {who:<10} {what()}")


class Line:
    """One incarnation of a worker's way to all services.

    `crash` shuts it for good: what was sent has its effect, no reply comes back.
    """

    def __init__(self, name: str, plan: FaultPlan, *, rng: Random, marks: Marks, history: History) -> None:
        self.name = name
        self.marks = marks
        self.history = history
        self.crashed = False
        self.stopped_at: float | None = None
        """Epoch seconds at which the worker was asked to stop; None as long as nobody has."""
        self.ends_at: float | None = None
        """When it is broken off, which is when its grace time is over."""
        self.stumbles = 0
        self.faults = 0
        self.source_faults = 0
        """Those that may have kept it from extending or deleting messages."""
        self.store_faults = 0
        """Those that may have made others take it for dead."""
        self.refusal: type[PortError] | None = None
        """What every call is refused with from now on."""
        self.forbidden: frozenset[str] = frozenset()
        """Calls that only this worker may not make, by their first words."""
        self._plan = plan
        self._denied: set[str] = set()
        """Calls that were refused and did not get through since."""
        self._rng = rng
        self._open = asyncio.Event()
        self._open.set()

    @property
    def stopping(self) -> bool:
        """Whether the worker was asked to stop."""
        return self.stopped_at is not None

    def stop(self, grace_s: float) -> None:
        """The worker is asked to stop, and has so much time for it."""
        self.stopped_at = epoch()
        self.ends_at = self.stopped_at + grace_s

    def crash(self) -> None:
        """Nothing goes through any more."""
        self.crashed = True
        self.stumble()
        self._open.clear()

    def chance(self, chance: float) -> bool:
        """Whether something with this chance happens now; never once the world is healed."""
        return chance > 0 and epoch() < self._plan.heals_at and self._rng.random() < chance

    def either(self) -> bool:
        """One of two things, by chance."""
        return self._rng.random() < 0.5

    def between(self, least: float, most: float) -> float:
        """A number between two, by chance."""
        return self._rng.uniform(least, most)

    def out(self, port: Port) -> bool:
        """Whether the service is down now."""
        return any(each.holds(epoch()) for each in self._plan.outages.get(port, ()))

    async def travels(self) -> None:
        """Returns when something that the service has sent has arrived."""
        await self._late()

    async def make_room(self) -> None:
        """Asks for room for an answer, as a source does before it reads it."""
        if self._plan.answer_bytes and epoch() < self._plan.heals_at:
            try:
                await make_room(self._rng.choice(self._plan.answer_bytes))
            except AnswerTooLarge:
                self.marks.saw("answer too large")
                raise

    @property
    def plan(self) -> FaultPlan:
        """What may go wrong."""
        return self._plan

    async def ready(self) -> None:
        """Returns when the worker may send or hear something."""
        await self._open.wait()

    async def call[T](
        self, port: Port, what: str, effect: Callable[[], T], *, lost: Callable[[], None] | None = None
    ) -> T:
        """One call of a service: latency, maybe a fault before or a lost reply after the effect.

        Raises ServiceThrottled, ServiceUnavailable and AccessDenied, and what `effect` raises. `lost` is told of a lost
        reply.
        """
        await self.ready()
        await asyncio.sleep(self._rng.uniform(*self._plan.latency_s))
        await self.ready()
        self._refuse(port, what)
        self._note_allowed(port, what)
        result = self._performed(what, effect)
        if self.chance(self._plan.lost_reply.get(port, 0.0)):
            self._saw(port, "lost reply", what)
            if lost is not None:
                lost()
            await self._late()
            raise ServiceUnavailable("connection reset before the reply")
        if self.chance(0.2):
            await self._late()
        return result

    def _performed[T](self, what: str, effect: Callable[[], T]) -> T:
        try:
            result = effect()
        except Exception as error:
            reason = f"{type(error).__name__}: {error}"
            self.history.tell(self.name, lambda: f"{what} -> {reason}")
            raise
        self.history.tell(self.name, lambda: f"{what} -> {_short(result)}")
        return result

    def _refuse(self, port: Port, what: str) -> None:
        if self.refusal is not None:
            raise self.refusal("refused for a test")
        if self.out(port):
            self._saw(port, "outage", what)
            raise ServiceUnavailable("the service is down")
        if self._denies(port, what):
            self._denied.add(_call_name(port, what))
            self._saw(port, "denied", what)
            raise AccessDenied("not authorized to perform this operation")
        if self.chance(self._plan.throttled.get(port, 0.0)):
            self._saw(port, "throttled", what)
            raise ServiceThrottled("slow down")
        if self.chance(self._plan.unavailable.get(port, 0.0)):
            self._saw(port, "unavailable", what)
            raise ServiceUnavailable("internal error")

    def _denies(self, port: Port, what: str) -> bool:
        denials, operation = self._plan.denied.get(port, ()), what.partition(" ")[0]
        return operation in self.forbidden or any(each.covers(operation, epoch()) for each in denials)

    def _note_allowed(self, port: Port, what: str) -> None:
        if self._denied and (name := _call_name(port, what)) in self._denied:
            self._denied.remove(name)
            self.marks.saw(f"{port}: allowed again")

    async def _late(self) -> None:
        await asyncio.sleep(self._rng.uniform(*self._plan.latency_s))
        await self.ready()

    def stumble(self) -> None:
        """The worker itself was stopped for a while."""
        self.stumbles += 1
        self.faults += 1
        self.source_faults += 1
        self.store_faults += 1

    def _saw(self, port: Port, fault: str, what: str) -> None:
        self.faults += 1
        self.source_faults += port is Port.SOURCE
        self.store_faults += port is Port.STORE
        mark = f"{port}: {fault}"
        self.marks.saw(mark)
        self.history.tell(self.name, lambda: f"{what} -> {mark}")


def epoch() -> float:
    """Epoch seconds of the running virtual loop."""
    return EPOCH_BASE + asyncio.get_running_loop().time()


def _call_name(port: Port, what: str) -> str:
    """What makes two calls the same one: the operation and the first thing that it is about."""
    return " ".join((port, *what.split(" ", 2)[:2]))


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 160 else f"{text[:160]}..."
