"""A stream is deleted and made again under its name while several workers read it, of which some may not ask when it was created."""

from collections.abc import Iterator
from functools import cache
from random import Random

import pytest

from poller.domain.plan import FunctionPlan, MappingPlan, SourceKind, StreamPolicy, Tuning
from poller.domain.policies import BatchPolicy
from poller.domain.records import Epoch, MappingId
from poller.domain.rows import MappingRow
from poller.rules.streams.recreated_stream import with_created
from tests.simulation.histories.bench import MAPPING, STREAM_ARN, StreamBench
from tests.simulation.services.contents import Content
from tests.simulation.services.fake_plugins import seeded
from tests.simulation.services.faults import FaultPlan, History, Marks, Port
from tests.simulation.services.functions import Script
from tests.simulation.services.streams import FakeStream
from tests.simulation.worlds.scenario import (
    WRITING_S,
    Action,
    Crash,
    Join,
    Put,
    Remake,
    Reshard,
    Restart,
    Scenario,
    Setup,
)
from tests.simulation.worlds.world import World, run_world
from tests.virtual import EPOCH_BASE, run_virtual

ARN = "arn:aws:kinesis:eu-west-1:111122223333:stream/orders"
KNOWN_S = 12.0
"""By then the row of the mapping says when the stream was created, also where one of the first workers may not ask for it."""
HEALED_S = 60.0
MANY = 1000
"""Numbers from here on are those of records that are written right after the stream was made again."""
SEEDS = range(60)
SOMETIMES = (
    "stream made again",
    "new shards before the stream is known",
    "lost: stream_remade",
    "records of a stream that is gone",
    "row written by another worker",
    "lease taken over",
    "join",
    "crash",
    "store: lost reply",
)
"""What some of these worlds must show, or they are too kind."""


class RemadeWorld(World):
    """A world in which the workers of `undated` may not ask when the stream was created."""

    def see(self, undated: frozenset[str]) -> None:
        """Who may not ask."""
        for source in self.sources.values():
            assert isinstance(source, FakeStream)
            source.undated_for = undated


@cache
def run(seed: int) -> Marks:
    """Runs the world of a seed to its end; raises Failed."""
    rng = seeded(seed, "remade")
    workers = rng.choice((2, 2, 3, 4))
    names = [f"worker-{number + 1}" for number in range(workers)]
    undated = frozenset(rng.sample(names, rng.randint(0, workers - 1)))
    scenario = drawn(rng, seed, workers, known_s=KNOWN_S if undated else 0.0)
    seen = Marks()

    def make(marks: Marks, history: History) -> RemadeWorld:
        world = RemadeWorld(scenario, marks, history)
        world.see(undated)
        return world

    seen.update(run_world(make, seed).marks)
    return seen


def drawn(rng: Random, seed: int, workers: int, *, known_s: float) -> Scenario:
    """The scenario of a seed. The stream is not made again, and no worker comes or goes, before `known_s`."""
    plan = MappingPlan(
        mapping=MappingId("00000000-0000-4000-8000-000000000000"),
        kind=SourceKind.KINESIS,
        source_arn=ARN,
        function="reader",
        function_arn="arn:aws:lambda:eu-west-1:111122223333:function:reader",
        batch=BatchPolicy(rng.choice((1, 10))),
        stream=StreamPolicy(lanes=rng.choice((1, 1, 3))),
    )
    function = FunctionPlan(name="reader", invoker="sim", timeout_s=10.0)
    setup = Setup(plan, function, Script(error_chance=rng.choice((0.0, 0.1))), shards=rng.choice((1, 2, 3)))
    chance = rng.choice((0.0, 0.02))
    faults = FaultPlan(
        latency_s=rng.choice(((0.001, 0.03), (0.01, 0.5))),
        unavailable={Port.STORE: chance, Port.SOURCE: chance},
        lost_reply={Port.STORE: chance},
        heals_at=EPOCH_BASE + HEALED_S,
    )
    actions = tuple(sorted(happens(rng, known_s), key=lambda each: each.at))
    return Scenario(
        seed, (setup,), faults, actions, Tuning(discovery_s=rng.choice((0.5, 5.0, 30.0))), workers
    )


def happens(rng: Random, known_s: float) -> Iterator[Action]:
    """What is written, how the stream changes, and who comes and goes."""
    for number in range(rng.randint(20, 60)):
        at = rng.choice((-2.0, rng.uniform(0.0, WRITING_S)))
        yield Put(at, ARN, f"key-{rng.randrange(8)}", Content(number))
    for _ in range(rng.choice((0, 1, 3))):
        yield Reshard(rng.uniform(0.0, WRITING_S), ARN, rng.choice(("split", "merge", "roll")), rng.random())
    for _ in range(rng.choice((1, 1, 2))):
        yield from remade(rng, rng.uniform(known_s, WRITING_S))
    for _ in range(rng.choice((0, 1, 2))):
        at, pick = rng.uniform(known_s, WRITING_S), rng.random()
        yield rng.choice((Crash(at, rng.choice((0.5, 5.0)), pick), Restart(at, pick), Join(at)))


def remade(rng: Random, at: float) -> Iterator[Action]:
    """A stream is made again. It splits and merges short before, and again before anybody has noticed."""
    for before_s in rng.sample((3.0, 5.0, 7.0), rng.choice((0, 1, 2))):
        yield Reshard(at - before_s, ARN, rng.choice(("split", "roll", "roll")), rng.random())
    yield Remake(at, ARN, rng.choice((1, 1, 2, 3)))
    for after_s in rng.sample((0.0, 0.01, 0.3, 1.0, 3.0), rng.choice((0, 2, 3, 4))):
        yield Put(at + after_s, ARN, f"key-{rng.randrange(8)}", Content(MANY + int(1000 * (at + after_s))))
        yield Reshard(at + after_s, ARN, rng.choice(("split", "split", "merge", "roll")), rng.random())


@pytest.mark.parametrize("seed", SEEDS)
def test_a_stream_that_is_made_again_is_delivered_whole_whoever_reads_it(seed: int) -> None:
    assert run(seed)["stream made again"]


def test_some_of_these_worlds_show_all_that_they_are_for() -> None:
    seen = Marks()
    for seed in SEEDS:
        seen.update(run(seed))
    assert [mark for mark in SOMETIMES if not seen[mark]] == []


@pytest.mark.parametrize(
    ("noticed", "gone", "broken"),
    [(False, True, []), (True, True, []), (False, False, []), (True, False, ["order"])],
)
def test_order_is_checked_in_the_stream_that_the_mapping_knows(
    noticed: bool, gone: bool, broken: list[str]
) -> None:
    async def history() -> list[str]:
        bench = StreamBench()
        before = bench.put(2)
        bench.take(bench.ann)
        bench.stream.remake(EPOCH_BASE, 1)
        bench.court.remakes(STREAM_ARN)
        records = bench.put(2)
        if noticed:
            document = with_created({}, Epoch(bench.stream.created_at))
            bench.court.writes(MappingRow(MAPPING, fixed=Epoch(0.0), document=document))
            bench.take(bench.ann, epoch=2)
        bench.call((before if gone else records)[1:])
        return bench.broken

    assert run_virtual(history()) == broken
