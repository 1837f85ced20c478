"""Owns calm weather: a world of many workers in which nothing fails but what a test says, and what was seen in it."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from adapters.stores.memory import MemoryStore
from poller.domain.plan import FunctionPlan, MappingPlan, SourceKind, Tuning
from poller.domain.policies import BatchPolicy
from poller.domain.records import MappingId, ShardId, WorkerId
from poller.domain.rows import Lease, WorkerRow
from poller.domain.telemetry.mapping_events import InvocationFinished, LeaseMoved, ShardStarted, ShardStopped
from tests.simulation.services.contents import Content, Kind
from tests.simulation.services.faults import FaultPlan, History, Line, Marks, Port
from tests.simulation.services.functions import Period, Script
from tests.simulation.worlds.replicas import ReplicaWorld, now
from tests.simulation.worlds.scenario import Action, Put, Scenario, Setup
from tests.simulation.worlds.world import Worker, run_world
from tests.virtual import EPOCH_BASE

type Taken = tuple[float, str, ShardId]


class CountingStore(MemoryStore):
    """A store that counts calls by name."""

    def __init__(self, calls: Counter[str]) -> None:
        super().__init__()
        self._calls = calls

    async def beat(self, worker: WorkerId, counter: int, *, facts: Mapping[str, Any]) -> None:
        self._calls["beat"] += 1
        await super().beat(worker, counter, facts=facts)

    async def workers(self) -> Sequence[WorkerRow]:
        self._calls["workers"] += 1
        return await super().workers()

    async def leases(self, mapping: MappingId, *, memos: bool = True) -> Sequence[Lease]:
        self._calls["leases"] += 1
        return await super().leases(mapping, memos=memos)


@dataclass
class Watched(ReplicaWorld):
    """A world that writes down who took and gave what, and what was delivered."""

    moves: list[tuple[float, str, ShardId, bool]] = field(default_factory=list)
    turns: list[tuple[float, ShardId, bool]] = field(default_factory=list)
    ended: list[tuple[float, ShardId]] = field(default_factory=list)
    reads: list[tuple[float, str, ShardId]] = field(default_factory=list)
    """When a shard was read, and by whom."""
    crashes: list[tuple[float, str]] = field(default_factory=list)
    first_stays: bool = False
    """Whether nothing happens to the worker that started first."""
    delivered: int = 0
    calls: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        ReplicaWorld.__post_init__(self)
        hear = self.court.hears
        self.store = CountingStore(self.calls)

        def listen(line: object, event: object) -> None:
            hear(line, event)  # type: ignore[arg-type] # passed on as it came
            match event:
                case LeaseMoved():
                    self.moves.append((now(), line.name, event.shard, event.held))  # type: ignore[attr-defined] # a line
                case ShardStarted():
                    self.turns.append((now(), event.shard, True))
                case ShardStopped(ended=ended):
                    self.turns.append((now(), event.shard, False))
                    self.ended += [(now(), event.shard)] if ended else []
                case InvocationFinished():
                    self.delivered += event.records

        see = self.court.reads

        def watch(line: Line, source_arn: str, shard: ShardId) -> None:
            self.reads.append((now(), line.name, shard))
            see(line, source_arn, shard)

        self.court.hears = listen  # type: ignore[method-assign] # a wire tap
        self.court.reads = watch  # type: ignore[method-assign] # another one

    def _take_out(self, pick: float) -> Worker | None:
        if not self.first_stays:
            return ReplicaWorld._take_out(self, pick)
        first, self._workers[:] = self._workers[:1], self._workers[1:]
        try:
            return ReplicaWorld._take_out(self, pick)
        finally:
            self._workers[:0] = first

    def _kill(self, worker: Worker) -> None:
        self.crashes.append((now(), worker.line.name))
        ReplicaWorld._kill(self, worker)

    def takes(self, *, after: float = 0.0, before: float = 1e9, worker: str | None = None) -> list[Taken]:
        """What was taken between two moments: when, by whom, which."""
        return [
            (at, name, shard)
            for at, name, shard, held in self.moves
            if held and after < at < before and worker in (None, name)
        ]

    def held_at(self, moment: float) -> dict[ShardId, str]:
        """Who took each shard last before a moment, of those that had not ended."""
        done = {shard for at, shard in self.ended if at <= moment}
        return {shard: name for _, name, shard in self.takes(before=moment) if shard not in done}

    def gaps(self, *, after: float) -> list[float]:
        """How long shards stood still between two owners."""
        stopped: dict[ShardId, float] = {}
        found = []
        for at, shard, held in sorted(self.turns):
            if not held:
                stopped[shard] = at
            elif shard in stopped and stopped[shard] > after:
                found.append(at - stopped.pop(shard))
        return found


ARN = "arn:aws:kinesis:eu-west-1:111122223333:stream/readings"
MAPPING = MappingId("00000000-0000-4000-8000-000000000000")
RECORDS = 400
WRITTEN_S = 60.0
HEALED_S = 75.0


def calm(
    *actions: Action,
    workers: int = 4,
    shards: int = 16,
    idle: bool = False,
    first_stays: bool = False,
    store_down: Period | None = None,
) -> Watched:
    """Runs a world in which nothing fails but what is told here; records come all the time, and calls take their time."""
    plan = MappingPlan(
        mapping=MAPPING,
        kind=SourceKind.KINESIS,
        source_arn=ARN,
        function="reader",
        function_arn="arn:aws:lambda:eu-west-1:111122223333:function:reader",
        batch=BatchPolicy(4),
    )
    function = FunctionPlan(name="reader", invoker="sim", timeout_s=10.0)
    setup = Setup(plan, function, Script(slow_s=(0.3, 1.5)), shards=shards)
    count = 1 if idle else RECORDS
    puts = [
        Put(WRITTEN_S * number / count, ARN, f"key-{number % 97}", Content(number, Kind.SLOW))
        for number in range(count)
    ]
    ordered = tuple(sorted([*puts, *actions], key=lambda each: each.at))
    outages = {Port.STORE: (store_down,)} if store_down is not None else {}
    faults = FaultPlan(heals_at=EPOCH_BASE + HEALED_S, outages=outages)
    scenario = Scenario(1, (setup,), faults, ordered, Tuning(), workers)
    worlds: list[Watched] = []

    def make(marks: Marks, history: History) -> Watched:
        worlds.append(Watched(scenario, marks, history, first_stays=first_stays))
        return worlds[0]

    run_world(make, scenario.seed)
    return worlds[0]
