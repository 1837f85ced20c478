"""Owns the producers that put several user records into one record of a stream, which the source takes apart."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from random import Random

from poller.domain.plan import SourceKind
from tests.simulation.services.fake_plugins import seeded
from tests.simulation.worlds.scenario import Action, Put, Redrive, Scenario

AGGREGATED_CHANCE = 0.4
PARTS_MAX = 6


def aggregated(scenario: Scenario) -> Scenario:
    """A scenario whose Kinesis streams have aggregated records. The events of notices do not say which part a record is, so there are no redrives."""
    rng = seeded(scenario.seed, "aggregates")
    streams = {each.plan.source_arn for each in scenario.setups if each.plan.kind is SourceKind.KINESIS}
    redriven = any(isinstance(each, Redrive) for each in scenario.actions)
    if not streams or redriven or rng.random() > AGGREGATED_CHANCE:
        return scenario
    packed = sorted(_packed(rng, scenario.actions, streams), key=lambda each: each.at)
    return replace(scenario, actions=tuple(packed))


def _packed(rng: Random, actions: Sequence[Action], streams: set[str]) -> Iterator[Action]:
    """The actions, with some of those that put a record joined to the next ones of their stream. All others stay where they are."""
    open_: dict[str, list[Put]] = {}
    wanted: dict[str, int] = {}
    for each in actions:
        if not isinstance(each, Put) or each.source not in streams:
            yield each
            continue
        group = open_.setdefault(each.source, [])
        if not group:
            wanted[each.source] = rng.choice((1, 1, 2, 3, PARTS_MAX))
        if group and group[0].at < 0 <= each.at:
            # What is there before the workers stays there.
            yield _joined(group)
            group = open_[each.source] = []
        group.append(each)
        if len(group) >= wanted[each.source]:
            yield _joined(open_.pop(each.source))
    yield from (_joined(group) for group in open_.values() if group)


def _joined(group: Sequence[Put]) -> Put:
    """One put of all of them, when the last one was to be put."""
    first, *others = group
    return replace(first, at=group[-1].at, inside=tuple((each.key, each.content) for each in others))
