"""Owns the streams whose shards are found with fewer calls: what their services tell, and how old listings may be."""

from dataclasses import replace
from random import Random

from poller.domain.plan import SourceKind
from tests.simulation.finding.listings import Finding
from tests.simulation.services.fake_plugins import seeded
from tests.simulation.worlds.scenario import WRITING_S, Action, Reshard, Scenario

FOUND_CHANCE = 0.5
MORE_CHANCE = 0.5


def found(scenario: Scenario) -> Scenario:
    """A scenario in which the shards of streams are found as the real sources do, or as the ports allow it. Some have more shards that come and go."""
    rng = seeded(scenario.seed, "finding")
    sources = sorted(
        {each.plan.source_arn for each in scenario.setups if each.plan.kind is not SourceKind.SQS}
    )
    findings = {arn: _finding(rng, arn) for arn in sources if rng.random() < FOUND_CHANCE}
    if not findings:
        return scenario
    setups = tuple(replace(each, finding=findings.get(each.plan.source_arn)) for each in scenario.setups)
    more = [each for arn in findings if rng.random() < MORE_CHANCE for each in _reshards(rng, arn)]
    actions: tuple[Action, ...] = tuple(sorted((*scenario.actions, *more), key=lambda each: each.at))
    return replace(scenario, setups=setups, actions=actions)


def _finding(rng: Random, arn: str) -> Finding:
    drawn, table = rng.random() < 0.5, ":dynamodb:" in arn
    told = (
        rng.choice(("always", "always", "always", "at times", "at times", "never", "all"))
        if table or drawn
        else ""
    )
    if drawn and rng.random() < 0.3:
        told = ""
    return Finding(
        drawn=drawn,
        page_shards=rng.choice((1, 2, 5, 100)),
        told=told,
        throttled=rng.choice((0.0, 0.05, 0.3)),
    )


def _reshards(rng: Random, arn: str) -> list[Reshard]:
    hows = ("roll",) if ":dynamodb:" in arn else ("split", "split", "merge", "roll")
    return [
        Reshard(rng.uniform(0, WRITING_S), arn, rng.choice(hows), rng.random())
        for _ in range(rng.choice((2, 5)))
    ]
