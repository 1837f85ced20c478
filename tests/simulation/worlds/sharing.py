"""Owns the mappings that read the stream of another mapping, so that they share reads: quicker, slower, and with other batches."""

from collections.abc import Iterator
from dataclasses import replace
from random import Random

from poller.domain.plan import SourceKind
from poller.domain.records import MappingId
from tests.simulation.services.fake_plugins import seeded
from tests.simulation.worlds.scenario import Redrive, Scenario, Setup

SHARED_CHANCE = 0.4
FIRST = 100
"""The number of the first of these mappings. Others have smaller ones."""


def shared(scenario: Scenario) -> Scenario:
    """A scenario in which streams have several mappings. Each of them gets all that is put into the stream."""
    rng = seeded(scenario.seed, "shared reads")
    streams = [
        each for each in scenario.setups if each.plan.kind is not SourceKind.SQS and not each.script.own
    ]
    redriven = any(isinstance(each, Redrive) for each in scenario.actions)
    if not streams or redriven or rng.random() > SHARED_CHANCE:
        return scenario
    return replace(scenario, setups=(*scenario.setups, *_beside(rng, rng.choice(streams))))


def _beside(rng: Random, setup: Setup) -> Iterator[Setup]:
    """More mappings of a stream."""
    for number in range(FIRST, FIRST + rng.choice((1, 1, 2, 4))):
        plan, name = setup.plan, f"function-{number}"
        lanes = plan.stream.lanes if plan.stream.tumbling_window_s else rng.choice((1, 1, 2, 4))
        yield replace(
            setup,
            plan=replace(
                plan,
                mapping=MappingId(f"00000000-0000-4000-8000-{number:012d}"),
                function=name,
                function_arn=plan.function_arn.replace(plan.function, name),
                batch=replace(plan.batch, records_max=rng.choice((1, 3, 10, 100))),
                stream=replace(plan.stream, lanes=lanes, shared_reads=rng.random() < 0.9),
            ),
            function=replace(setup.function, name=name),
            script=replace(setup.script, slow_s=rng.choice(((0.1, 1.0), (2.0, 8.0), (10.0, 30.0)))),
        )
