"""Owns the operators that seek: they move shards to any place, at any moment, and some cancel it before it is over."""

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import Any

from poller.domain import operations
from poller.domain.plan import SourceKind
from poller.domain.records import ShardId
from tests.simulation.checks.stream_checks import StreamChecks
from tests.simulation.services.fake_plugins import seeded
from tests.simulation.services.faults import epoch
from tests.simulation.worlds.operating import Operators
from tests.simulation.worlds.scenario import (
    HEALED_S,
    Action,
    Crash,
    Join,
    Operate,
    Remake,
    Reshard,
    Restart,
    Scenario,
    Seek,
)

SOUGHT_CHANCE = 0.35
BESIDE_CHANCE = 0.6
SETTLE_S = 25.0
"""How long before the services heal the last seek is asked for."""


def seeks(scenario: Scenario) -> Scenario:
    """A scenario whose operators seek, too. Worlds with queues and streams with windows are for `seeks_beside`."""
    rng = seeded(scenario.seed, "seeks")
    queues = any(each.plan.kind is SourceKind.SQS for each in scenario.setups)
    sought = [place for place, each in enumerate(scenario.setups) if not each.plan.stream.tumbling_window_s]
    remade = any(isinstance(each, Remake) for each in scenario.actions)
    if not sought or queues or remade or rng.random() > SOUGHT_CHANCE:
        return scenario
    moments = [each.at for each in scenario.actions if isinstance(each, Crash | Restart | Join | Reshard)]
    asked = tuple(_seeks(rng, sought, moments))
    actions = tuple(sorted((*scenario.actions, *asked), key=lambda each: each.at))
    return replace(scenario, actions=actions)


def seeks_beside(scenario: Scenario) -> Scenario:
    """A scenario whose operators seek in streams with windows, or beside queues, on 1 to 8 workers."""
    rng = seeded(scenario.seed, "seeks beside")
    streams = [place for place, each in enumerate(scenario.setups) if each.plan.kind is not SourceKind.SQS]
    windowed = [place for place in streams if scenario.setups[place].plan.stream.tumbling_window_s]
    sought = windowed if len(streams) == len(scenario.setups) else streams
    remade = any(isinstance(each, Remake) for each in scenario.actions)
    if not sought or remade or rng.random() > BESIDE_CHANCE:
        return scenario
    moments = [each.at for each in scenario.actions if isinstance(each, Crash | Restart | Join | Reshard)]
    asked: tuple[Action, ...] = (*_seeks(rng, sought, moments), *_anywhere(rng, moments))
    actions = tuple(sorted((*scenario.actions, *asked), key=lambda each: each.at))
    workers = rng.randint(2, 8) if rng.random() < 0.4 else scenario.workers
    return replace(scenario, actions=actions, workers=workers)


def _anywhere(rng: Random, moments: Sequence[float]) -> Iterator[Operate]:
    """What else is asked for meanwhile, of shards that may move or have ended."""
    for _ in range(rng.choice((0, 2, 8))):
        at = rng.uniform(0.2, HEALED_S - 1.0)
        if moments and rng.random() < 0.6:
            at = min(max(0.2, rng.choice(moments) + rng.uniform(-1.0, 3.0)), HEALED_S - 1.0)
        action = rng.choice(
            (
                operations.Action.RETRY,
                operations.Action.RESET,
                operations.Action.SKIP,
                operations.Action.PAUSE,
            )
        )
        yield Operate(at, action, one_lane=False, lasts_s=rng.choice((0.5, 5.0)), anywhere=True)


def _seeks(rng: Random, sought: Sequence[int], moments: Sequence[float]) -> Iterator[Seek]:
    for _ in range(rng.choice((1, 1, 2, 4))):
        at = rng.uniform(0.2, HEALED_S - SETTLE_S)
        if moments and rng.random() < 0.5:
            at = min(max(0.2, rng.choice(moments) - rng.uniform(0.0, 3.0)), HEALED_S - SETTLE_S)
        yield Seek(
            at=at,
            setup=rng.choice(sought),
            to=rng.choice(("TRIM_HORIZON", "LATEST", "time", "time", "sequence")),
            ago_s=rng.uniform(0.0, 30.0),
            pick=rng.random(),
            some_shards=rng.random() < 0.4,
            skip=rng.random() < 0.6,
            dry_run=rng.random() < 0.1,
            cancelled_s=rng.choice((None, None, None, 0.0, 1.0, 4.0)),
        )


@dataclass(slots=True)
class Seekers:
    """The operators of a world that seek."""

    operators: Operators
    scenario: Scenario

    async def ask(self, action: Seek) -> None:
        """Somebody asks for a seek, and cancels it after its time."""
        mapping = self.scenario.setups[action.setup].plan.mapping
        document = _document(action, self.operators.streams[mapping])
        self.operators.look(operations.Action.SEEK, mapping, document.get("shards", ()))
        operation = await self.operators.submit(mapping, document)
        if operation is None or action.cancelled_s is None:
            return
        await asyncio.sleep(action.cancelled_s)
        await self.operators.cancel(operation)


def _document(action: Seek, checks: StreamChecks) -> dict[str, Any]:
    shards = list(checks.stream.shards)
    to: str | float = action.to
    chosen: list[ShardId] = []
    if action.some_shards or to == "sequence":
        chosen = [shards[int(action.pick * len(shards))]]
    if to == "time":
        to = max(0.0, epoch() - action.ago_s)
    elif to == "sequence":
        there = checks.stream.shards[chosen[0]].records
        to = str(there[int(action.pick * len(there))].outer) if there else "TRIM_HORIZON"
    given: dict[str, Any] = {"action": "seek", "to": to, "skip": action.skip, "dry_run": action.dry_run}
    return {**given, "shards": chosen} if chosen else given
