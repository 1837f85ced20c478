"""How long the shards of a dead worker stand still while others come, go, stop and die."""

from collections.abc import Iterator
from random import Random

import pytest

from poller.domain.plan import Tuning
from poller.domain.records import ShardId
from tests.simulation.services.fake_plugins import seeded
from tests.simulation.services.functions import Period
from tests.simulation.worlds.calm import WRITTEN_S, Watched, calm
from tests.simulation.worlds.scenario import Action, Crash, Join, Pause, Restart
from tests.virtual import EPOCH_BASE

FAILOVER_S_MAX = Tuning().lease_s + 2.0
SEEDS = range(12)
FIRST, LAST = 0.0, 0.99
DIES_AT = 30.0


def read_again(world: Watched, *, since: float) -> dict[ShardId, float]:
    """For each shard that who died at `since` had at work: after how many seconds somebody read it again.

    If another worker had taken it by then and died before it read, the seconds count from that death.
    """
    (dead,) = {name for at, name in world.crashes if at == since}
    mine = [shard for shard, name in world.held_at(since).items() if name == dead]
    found = {}
    for shard in mine:
        read_at = min(at for at, name, read in world.reads if read == shard and at > since and name != dead)
        died_at = [
            at for at, name in world.crashes if since <= at < read_at and world.held_at(at).get(shard) == name
        ]
        found[shard] = read_at - max(died_at)
    return found


@pytest.mark.parametrize(
    "others",
    [
        (),
        (Join(32.0),),
        (Join(31.0), Join(34.0)),
        tuple(Join(30.5 + 1.5 * number) for number in range(6)),
        (Join(32.0), Restart(38.0, LAST)),
        (Join(32.0), Crash(39.0, 100.0, LAST)),
        (Join(32.0), Pause(38.0, 20.0, None, LAST)),
        (Restart(39.9, LAST),),
        (Crash(39.5, 100.0, LAST),),
        (Pause(35.0, 30.0, None, LAST),),
        (Pause(39.0, 5.0, None, LAST),),
    ],
    ids=[
        "nobody comes",
        "one joins",
        "two join",
        "six join in a row",
        "a joiner leaves",
        "a joiner dies",
        "a joiner is stopped",
        "another one leaves",
        "another one dies",
        "another one is stopped for long",
        "another one is stopped for a moment",
    ],
)
def test_shards_of_a_dead_worker_are_read_again_in_time_whoever_comes_and_goes(
    others: tuple[Action, ...],
) -> None:
    world = calm(Crash(DIES_AT, 100.0, FIRST), *others)
    found = read_again(world, since=DIES_AT)
    assert len(found) == 4
    assert max(found.values()) <= FAILOVER_S_MAX, sorted(found.values())


def test_shards_of_dead_workers_are_read_again_in_time_in_worlds_of_any_seed() -> None:
    """The first worker stays, since somebody must have seen the dead ones alive; anything happens to all the others."""
    late: dict[int, list[float]] = {}
    deaths = 0
    for seed in SEEDS:
        rng = seeded(seed, "failover")
        world = calm(
            *_events(rng), workers=rng.choice((2, 3, 4, 5)), shards=rng.choice((4, 8)), first_stays=True
        )
        for at, _ in [each for each in world.crashes if each[0] < WRITTEN_S - FAILOVER_S_MAX]:
            found = read_again(world, since=at)
            deaths += len(found)
            if too_long := [round(each, 2) for each in found.values() if each > FAILOVER_S_MAX]:
                late.setdefault(seed, []).extend(too_long)
    assert deaths > len(SEEDS)
    assert late == {}


def _events(rng: Random) -> Iterator[Action]:
    for _ in range(rng.randint(2, 8)):
        at, pick = rng.uniform(15.0, 45.0), rng.random()
        match rng.choice(("crash", "crash", "join", "join", "pause", "restart")):
            case "crash":
                yield Crash(at, rng.choice((0.5, 2.0, 3.0, 4.0, 30.0)), pick)
            case "join":
                yield Join(at)
            case "pause":
                yield Pause(at, rng.choice((0.5, 3.0, 9.0, 25.0)), None, pick)
            case _:
                yield Restart(at, pick)


BACK_S_MAX = 3.0
"""After an outage of the store, until every shard is read again."""


@pytest.mark.parametrize("seed", range(8))
def test_every_shard_is_read_again_soon_after_an_outage_of_the_store(seed: int) -> None:
    rng = seeded(seed, "outage")
    began, for_s = rng.uniform(14.0, 20.0), rng.choice((4.0, 9.5, 11.0, 15.0, 25.0, 35.0))
    ended = began + for_s
    down = Period(EPOCH_BASE + began, EPOCH_BASE + ended)
    # A worker that is asked to stop meanwhile cannot give its leases up: it is followed as a dead one is.
    stops = rng.random() < 0.5
    others = [Restart(rng.uniform(began, ended), rng.random())] if stops else []
    world = calm(*others, workers=rng.choice((1, 2, 3, 4)), shards=8, store_down=down)
    shards = {shard for _, _, shard in world.reads}
    assert len(shards) == 8
    after = {
        shard: round(min(at for at, _, read in world.reads if read == shard and at > ended) - ended, 2)
        for shard in shards
    }
    assert max(after.values()) <= (FAILOVER_S_MAX if stops else BACK_S_MAX), after
