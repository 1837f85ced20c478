"""Owns the streams whose records are pushed to consumers: who has one, how the service pushes, and what goes wrong with it.

Some of these worlds last longer than a subscription, so that it is renewed.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from random import Random

from poller.domain.plan import SourceKind
from tests.simulation.pushing.service import Pushes
from tests.simulation.pushing.source import GIVEN, OWN
from tests.simulation.services.contents import Content
from tests.simulation.services.fake_plugins import seeded
from tests.simulation.services.faults import Denial, FaultPlan, Port
from tests.simulation.services.functions import Period
from tests.simulation.worlds.scenario import (
    HEALED_S,
    WRITING_S,
    Action,
    Pause,
    Put,
    Redrive,
    RemoveConsumer,
    Reshard,
    Scenario,
    Setup,
)
from tests.virtual import EPOCH_BASE

PUSHED_CHANCE = 0.5
LONG_CHANCE = 0.2
"""Of the worlds with consumers."""
LATE_NUMBER = 8_000
"""Beyond the number of any other record of a mapping."""
LATE_S = (270.0, 330.0)
FAN_OUT = "fan_out"
"""The setting of a source, which says whose the consumer is."""


def pushed(scenario: Scenario) -> Scenario:
    """A scenario in which the records of Kinesis streams are pushed to some of their mappings."""
    rng = seeded(scenario.seed, "pushing")
    streams = [each for each in scenario.setups if each.plan.kind is SourceKind.KINESIS]
    if not streams or rng.random() > PUSHED_CHANCE:
        return scenario
    pushes = {each.plan.source_arn: _pushes(rng) for each in streams}
    setups = tuple(_with_consumer(rng, each, pushes) for each in scenario.setups)
    arns = sorted({each.plan.source_arn for each in setups if each.pushes is not None})
    actions = [_writable(each) for each in scenario.actions]
    actions += _removals(rng, arns)
    actions += _takeovers(rng)
    if rng.random() < LONG_CHANCE and not any(isinstance(each, Redrive) for each in actions):
        actions += [each for setup in streams for each in _late(rng, setup)]
    actions.sort(key=lambda each: each.at)
    return replace(scenario, setups=setups, actions=tuple(actions), faults=_faults(rng, scenario.faults))


def _pushes(rng: Random) -> Pushes:
    return Pushes(
        lasts_s=rng.choice((300.0, 300.0, 12.0, 40.0)),
        beat_s=rng.choice((1.0, 5.0, 12.0)),
        records_max=rng.choice((1, 5, 100)),
        changes_s=rng.choice((0.5, 10.0)),
    )


def _with_consumer(rng: Random, setup: Setup, pushes: Mapping[str, Pushes]) -> Setup:
    arn = setup.plan.source_arn
    if arn not in pushes:
        return setup
    setup = replace(setup, pushes=pushes[arn])
    if rng.random() < 0.2:
        return setup
    settings = {**setup.plan.source_settings, FAN_OUT: rng.choice((OWN, OWN, GIVEN))}
    return replace(setup, plan=replace(setup.plan, source_settings=settings))


def _faults(rng: Random, faults: FaultPlan) -> FaultPlan:
    """Connections that are cut and dead ones, and now and then a long time in which nobody may subscribe."""
    faults = replace(faults, cut=rng.choice((0.0, 0.05, 0.05, 0.3)), silent=rng.choice((0.0, 0.0, 0.02)))
    if rng.random() > 0.3:
        return faults
    start = EPOCH_BASE + rng.uniform(0, WRITING_S / 2)
    period = Period(start, min(start + rng.uniform(10, 50), EPOCH_BASE + HEALED_S))
    operation = rng.choice(("subscribe", "subscribe", "describe", "register"))
    denials = (*faults.denied.get(Port.SOURCE, ()), Denial(period, frozenset({operation})))
    return replace(faults, denied={**faults.denied, Port.SOURCE: denials})


def _removals(rng: Random, arns: list[str]) -> Iterator[RemoveConsumer]:
    """Now and then somebody removes a consumer. One of a mapping's own is made again."""
    for arn in arns:
        if rng.random() < 0.3:
            for _ in range(rng.choice((1, 1, 3))):
                yield RemoveConsumer(rng.uniform(1, WRITING_S), arn, rng.random())


def _takeovers(rng: Random) -> Iterator[Action]:
    """Now and then a worker stands still just long enough for another one to take its shards, and wakes while that one has them."""
    if rng.random() < 0.4:
        at, pick = rng.uniform(2, WRITING_S), rng.random()
        yield Pause(at, rng.uniform(15, 28), rng.uniform(0.5, 3), pick)


def _late(rng: Random, setup: Setup) -> Iterator[Action]:
    """Records and changes of shards around the time at which subscriptions are renewed."""
    arn, serial = setup.plan.source_arn, int(setup.plan.mapping[-3:]) * 10_000 + LATE_NUMBER
    for number in range(serial, serial + rng.choice((10, 40))):
        yield Put(rng.uniform(*LATE_S), arn, f"key-{rng.randrange(4)}", Content(number))
    for _ in range(rng.choice((0, 0, 1))):
        yield Reshard(rng.uniform(*LATE_S), arn, rng.choice(("split", "merge", "roll")), rng.random())


def _writable(action: Action) -> Action:
    """Aggregated records have keys in UTF-8, so those of producers have no halves of surrogate pairs."""
    if not isinstance(action, Put) or not action.inside:
        return action
    inside = tuple((_utf8(key), content) for key, content in action.inside)
    return replace(action, key=_utf8(action.key), inside=inside)


def _utf8(key: str) -> str:
    return key.encode(errors="replace").decode()
