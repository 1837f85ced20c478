"""Owns worlds of many workers: some of them cut off from the store, with clocks that disagree, more shards than workers."""

import asyncio
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from random import Random

from poller.clock import LoopClock
from poller.domain.errors import ServiceUnavailable
from poller.domain.records import SHARD_END, MappingId, WorkerId
from poller.domain.rows import Lease
from poller.ports import Clock
from tests.simulation.checks.ledger import Violation
from tests.simulation.services.fake_plugins import at_once, seeded
from tests.simulation.services.faults import Line, Port, epoch
from tests.simulation.worlds.scenario import (
    HEALED_S,
    WRITING_S,
    Action,
    Crash,
    Join,
    Pause,
    Restart,
    Scenario,
    Setup,
)
from tests.simulation.worlds.variations import redriven
from tests.simulation.worlds.world import World
from tests.virtual import EPOCH_BASE

WORKERS = (2, 2, 3, 4, 5, 8)
SKEW_S_MAX = 3600.0
EVEN_S_MAX = 90.0
"""After everything healed and settled, this long until the leases are shared evenly."""
LOOK_S = 0.5


@dataclass(frozen=True, slots=True)
class Partition:
    """A worker is cut off from the store for a while, and from nothing else."""

    at: float
    for_s: float
    pick: float


class CutLine(Line):
    """A line that may be cut to one service."""

    cut: Port | None = None

    def _refuse(self, port: Port, what: str) -> None:
        if port is self.cut:
            self._saw(port, "partition", what)
            raise ServiceUnavailable("no route")
        super()._refuse(port, what)


@dataclass(slots=True)
class ReplicaWorld(World):
    """A world whose workers have wall clocks of their own, and partitions. `even` checks the sharing at the end."""

    partitions: tuple[Partition, ...] = ()
    skewed: bool = False
    even: bool = True
    lines: dict[str, CutLine] = field(default_factory=dict)

    async def _live(self, scope: asyncio.TaskGroup) -> None:
        for partition in self.partitions:
            self._act(scope, self._cut_off(partition))
        await World._live(self, scope)

    async def _all_settled(self) -> None:
        await World._all_settled(self)
        if self.even:
            await self._shared_evenly()

    async def _shared_evenly(self) -> None:
        """Every open shard is somebody's, and nobody has two more than another."""
        deadline = epoch() + EVEN_S_MAX
        while uneven := self._uneven():
            if epoch() > deadline:
                raise Violation("even", uneven)
            self._judge()
            await asyncio.sleep(LOOK_S)

    def _uneven(self) -> str:
        for mapping in self.court.streams:
            owners = Counter(lease.owner for lease in self.open_leases(mapping))
            counts = [owners.pop(WorkerId(each.line.name), 0) for each in self._workers]
            if owners or max(counts) - min(counts) > 1:
                return f"{mapping}: {counts}, and {dict(owners)}"
        return ""

    def open_leases(self, mapping: MappingId) -> list[Lease]:
        """Leases of shards that are not done."""
        return [each for each in at_once(self.store.leases(mapping)) if each.checkpoint.position != SHARD_END]

    async def _cut_off(self, partition: Partition) -> None:
        await asyncio.sleep(partition.at)
        if not self._workers:
            return
        line = self.lines[self._workers[int(partition.pick * len(self._workers))].line.name]
        self.marks.saw("partition")
        self.history.tell("world", lambda: f"{line.name} is cut off from the store")
        line.cut = Port.STORE
        await asyncio.sleep(partition.for_s)
        line.cut = None
        self.history.tell("world", lambda: f"{line.name} reaches the store again")

    def _line(self, name: str) -> Line:
        rng = seeded(self.scenario.seed, name, "line")
        self.lines[name] = CutLine(
            name, self.scenario.faults, rng=rng, marks=self.marks, history=self.history
        )
        return self.lines[name]

    def _clock(self, name: str) -> Clock:
        skew_s = seeded(self.scenario.seed, name, "clock").uniform(-SKEW_S_MAX, SKEW_S_MAX)
        # A wall clock that is wrong must not change who is alive; what depends on ages of records would differ rightly.
        return LoopClock(wall=lambda: epoch() + (skew_s if self.skewed else 0.0))


@dataclass(frozen=True, slots=True)
class Replicas:
    """A scenario for many workers."""

    scenario: Scenario
    partitions: tuple[Partition, ...]
    skewed: bool


def draw_replicas(seed: int) -> Replicas:
    """What a seed stands for with many workers: the mappings, records and faults of the same seed, and more going on."""
    rng = seeded(seed, "replicas")
    base = redriven(seed)
    setups = tuple(_widened(rng, each) for each in base.setups)
    kept = tuple(each for each in base.actions if not isinstance(each, Crash | Pause | Restart | Join))
    actions = sorted([*kept, *_troubles(rng)], key=lambda each: each.at)
    # Ages, windows and LATEST go by the wall clock; they need one that is right.
    skewed = rng.random() < 0.5 and not any(_by_the_clock(each) for each in setups)
    scenario = replace(base, setups=setups, actions=tuple(actions), workers=rng.choice(WORKERS))
    return Replicas(scenario, tuple(_partitions(rng)), skewed)


def _widened(rng: Random, setup: Setup) -> Setup:
    return setup if setup.facts is not None else replace(setup, shards=rng.choice((2, 4, 8, 16)))


def _by_the_clock(setup: Setup) -> bool:
    start, retry = setup.plan.stream.start, setup.plan.retry
    aged = retry.age_max_s is not None or setup.retention_s < 1000.0
    return start.latest or start.since is not None or aged or setup.plan.stream.tumbling_window_s > 0


def _troubles(rng: Random) -> Iterator[Action]:
    for _ in range(rng.choice((1, 2, 3, 5))):
        at, pick = rng.uniform(2, WRITING_S), rng.random()
        match rng.choice(("crash", "pause", "replace", "restart", "join")):
            case "crash":
                yield Crash(at, rng.choice((0.5, 5.0, 30.0)), pick)
            case "pause":
                yield Pause(at, rng.uniform(5, 30), None, pick)
            case "replace":
                pause_s = rng.uniform(8, 40)
                yield Pause(at, pause_s, rng.uniform(1, pause_s), pick)
            case "join":
                yield Join(at)
            case _:
                yield Restart(at, pick)


def _partitions(rng: Random) -> Iterator[Partition]:
    for _ in range(rng.choice((0, 1, 2))):
        at = rng.uniform(1, WRITING_S)
        yield Partition(at, min(rng.choice((3.0, 12.0, 25.0)), HEALED_S - at), rng.random())


def now() -> float:
    """Virtual seconds."""
    return epoch() - EPOCH_BASE
