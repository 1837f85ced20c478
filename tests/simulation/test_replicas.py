"""Many workers on virtual time: storms of many seeds, and calm weather in which times are exact."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from adapters.stores.memory import MemoryStore
from poller.plan import FunctionPlan, MappingPlan, SourceKind, Tuning
from poller.records import MappingId, ShardId, WorkerId
from poller.rows import Lease, WorkerRow
from poller.rules.policies import BatchPolicy
from poller.telemetry import InvocationFinished, LeaseMoved, ShardStarted, ShardStopped
from tests.simulation.contents import Content, Kind
from tests.simulation.faults import FaultPlan, History, Marks
from tests.simulation.functions import Script
from tests.simulation.replicas import ReplicaWorld, draw_replicas, now
from tests.simulation.scenario import Action, Crash, Join, Pause, Put, Reshard, Restart, Scenario, Setup
from tests.simulation.world import Report, run_world
from tests.virtual import EPOCH_BASE

SEEDS = range(40)
SOMETIMES = (
    "crash",
    "join",
    "lease lost",
    "lease released",
    "lease taken over",
    "merge child",
    "partition",
    "pause",
    "restart",
    "split child",
    "store: lost reply",
    "zombie write refused",
)
LEASE_S = Tuning().lease_s
HEARTBEAT_S = Tuning().heartbeat_s
FAILOVER_S_MAX = LEASE_S + 2.0
JOIN_S_MAX = 10.0


def stormy(seed: int) -> Report:
    """Runs one drawn world."""
    drawn = draw_replicas(seed)
    make = partial(ReplicaWorld, drawn.scenario, partitions=drawn.partitions, skewed=drawn.skewed)
    return run_world(make, seed)


def test_storms_break_no_promise_and_end_with_leases_shared_evenly() -> None:
    marks = Marks()
    for seed in SEEDS:
        marks.update(stormy(seed).marks)
    assert [mark for mark in SOMETIMES if not marks[mark]] == []


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

        self.court.hears = listen  # type: ignore[method-assign] # a wire tap

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


def calm(*actions: Action, workers: int = 4, shards: int = 16, idle: bool = False) -> Watched:
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
    scenario = Scenario(1, (setup,), FaultPlan(heals_at=EPOCH_BASE + HEALED_S), ordered, Tuning(), workers)
    worlds: list[Watched] = []

    def make(marks: Marks, history: History) -> Watched:
        worlds.append(Watched(scenario, marks, history))
        return worlds[0]

    run_world(make, scenario.seed)
    return worlds[0]


def test_workers_that_start_together_share_and_then_nothing_moves() -> None:
    world = calm()
    assert sorted(Counter(world.held_at(WRITTEN_S).values()).values()) == [4, 4, 4, 4]
    assert world.takes(after=JOIN_S_MAX, before=WRITTEN_S) == []
    assert world.delivered == RECORDS


def test_a_dead_workers_shards_are_taken_within_the_lease_time_and_two_seconds() -> None:
    world = calm(Crash(30.0, 100.0, 0.0))
    taken = world.takes(after=30.0, before=WRITTEN_S)
    print(f"taken {[round(at - 30.0, 2) for at, _, _ in taken]} s after the crash")
    assert len(taken) == 4
    assert taken[0][0] - 30.0 >= LEASE_S - HEARTBEAT_S
    assert taken[-1][0] - 30.0 <= FAILOVER_S_MAX
    assert sorted(Counter(world.held_at(WRITTEN_S).values()).values()) == [5, 5, 6]


def test_a_worker_that_comes_gets_work_soon_and_no_batch_runs_twice() -> None:
    world = calm(Join(20.0), Join(22.0))
    for name in ("worker-5", "worker-6"):
        mine = world.takes(after=20.0, worker=name)
        print(f"{name} got its first shard at {mine[0][0]:.1f} s, its last at {mine[-1][0]:.1f} s")
        assert mine[0][0] <= 22.0 + JOIN_S_MAX
    assert sorted(Counter(world.held_at(WRITTEN_S).values()).values()) == [2, 2, 3, 3, 3, 3]
    assert world.delivered == RECORDS


def test_a_shard_that_is_handed_over_stands_still_for_two_seconds_at_most() -> None:
    world = calm(Join(20.0))
    gaps = world.gaps(after=20.0)
    print(f"between two owners: {[round(gap, 2) for gap in gaps]} s")
    assert 0 < len(gaps) <= 4
    assert max(gaps) <= 2.0


def test_a_worker_that_leaves_gives_its_shards_to_the_others_and_no_batch_runs_twice() -> None:
    world = calm(Restart(30.0, 0.0))
    assert world.delivered == RECORDS
    gaps = world.gaps(after=30.0)
    assert len(gaps) >= 4
    assert max(gaps) <= 2.0


def test_children_of_a_shard_are_worked_on_soon_whoever_gets_them() -> None:
    world = calm(*(Reshard(20.0 + number, ARN, "split", number / 8) for number in range(8)))
    assert world.delivered == RECORDS
    assert sorted(Counter(world.held_at(WRITTEN_S).values()).values()) == [6, 6, 6, 6]
    born = [at for at, _, shard, held in world.moves if held and int(shard[-3:]) >= 16]
    assert len(born) >= 16
    assert max(born[:16]) <= 32.0


def test_a_worker_that_was_stopped_beyond_its_lease_does_nothing_with_its_leases_when_it_wakes() -> None:
    world = calm(Pause(20.0, 25.0, None, 0.0))
    lost = [(at, shard) for at, name, shard, held in world.moves if not held]
    assert {at for at, _ in lost} == {45.0}
    assert len(lost) == 4
    assert not world.marks["zombie call"]
    assert len(world.takes(after=20.0, before=20.0 + FAILOVER_S_MAX)) == 4


def test_a_pause_shorter_than_the_lease_costs_nothing() -> None:
    world = calm(Pause(20.0, 7.0, None, 0.0))
    assert world.takes(after=JOIN_S_MAX, before=WRITTEN_S) == []
    assert world.delivered == RECORDS


def test_idle_workers_write_one_row_a_heartbeat_and_read_no_leases_between_discoveries() -> None:
    few, many = calm(shards=4, idle=True), calm(shards=64, idle=True)
    for world in (few, many):
        beats, lists, looks = (world.calls[what] for what in ("beat", "workers", "leases"))
        print(
            f"{world.scenario.setups[0].shards} shards: {beats} beats, {lists} listings of workers, {looks} of leases"
        )
    assert few.calls["beat"] <= 4 * HEALED_S / HEARTBEAT_S * 1.1
    assert many.calls["beat"] <= few.calls["beat"] * 1.05
    # Sharing 64 shards takes some rounds more than sharing 4; nothing grows with the shards.
    assert many.calls["leases"] <= few.calls["leases"] + 20
