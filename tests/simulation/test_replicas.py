"""Many workers on virtual time: storms of many seeds, and calm weather in which times are exact."""

from collections import Counter
from functools import partial

from poller.domain.plan import Tuning
from tests.simulation.services.faults import Marks
from tests.simulation.worlds.calm import ARN, HEALED_S, RECORDS, WRITTEN_S, calm
from tests.simulation.worlds.replicas import ReplicaWorld, draw_replicas
from tests.simulation.worlds.scenario import Crash, Join, Pause, Reshard, Restart
from tests.simulation.worlds.world import Report, run_world

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


def test_workers_that_start_together_share_and_then_nothing_moves() -> None:
    world = calm()
    assert sorted(Counter(world.held_at(WRITTEN_S).values()).values()) == [4, 4, 4, 4]
    # Each shard begins where it stays.
    assert len(world.takes(before=WRITTEN_S)) == 16
    assert world.delivered == RECORDS


def test_a_dead_workers_shards_are_taken_within_the_lease_time_and_two_seconds() -> None:
    world = calm(Crash(30.0, 100.0, 0.0))
    taken = world.takes(after=30.0, before=WRITTEN_S)
    print(f"taken {[round(at - 30.0, 2) for at, _, _ in taken]} s after the crash")
    first = {shard: at for at, _, shard in reversed(taken)}
    assert len(first) == 4
    assert min(first.values()) - 30.0 >= LEASE_S - HEARTBEAT_S
    assert max(first.values()) - 30.0 <= FAILOVER_S_MAX
    # Whoever waits for no late worker may get one more than its part, and hands it over when all is calm.
    assert len(taken) <= 5
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
