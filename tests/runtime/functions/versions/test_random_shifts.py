"""Shifts under whatever happens, by seed: operators, outages of the store, workers with other files, hooks of every mood, restarts.

However it went, no shift goes back a step, each ends, and all workers agree on where the calls go once the store answers.
"""

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from random import Random

import pytest

from poller.domain.functions.alias_control import AliasChange, AliasView
from poller.domain.functions.calls import FunctionCall
from poller.domain.functions.shift_strategies import own_strategy
from poller.domain.functions.shifts import ENDED, ShiftState
from poller.domain.functions.versions import AliasPlan
from poller.domain.invocations import FunctionError, Invocation, Outcome, Succeeded, Throttled, Unreachable
from poller.domain.mapping_api import ApiError
from poller.domain.plan import DaemonPlan, FunctionPlan
from poller.domain.rows import MappingRow
from poller.runtime.daemon import Daemon
from tests.runtime.daemons import until
from tests.runtime.functions.versions.test_shifting import CHECK, alias, request
from tests.runtime.functions.versions.test_troubled_aliases import Outages, plan
from tests.runtime.functions.versions.test_versions import Place, Version, function, ready
from tests.virtual import run_virtual

LIVE = {"live": AliasPlan(version="1")}
ORDER = [ShiftState.BEFORE, ShiftState.SHIFTING, ShiftState.AFTER]
ACTS = 60
ENDS_S_MAX = 4000.0
"""A hook has an hour."""


class Mood(Version):
    """A function that answers as chance has it; most answers are good."""

    def __init__(self, rng: Random, bad: float) -> None:
        super().__init__(self._said, takes_s=0.2)
        self._chance, self._bad = rng, bad

    def _said(self, _: Invocation) -> Outcome:
        if self._chance.random() >= self._bad:
            return Succeeded(b'"Succeeded"')
        answers = (Throttled("busy"), Unreachable("gone"), FunctionError("E", "no"), Succeeded(b"{}"))
        return self._chance.choice(answers)


class Watched(Outages):
    """The same store; it notes each state of each shift that is written."""

    def __init__(self, steps: dict[str, list[ShiftState]]) -> None:
        super().__init__()
        self._steps = steps

    async def _written(self, row: MappingRow) -> None:
        await super()._written(row)
        for found in row.document.get("aliases", {}).values():
            if (shift := found["shift"]) is not None:
                seen = self._steps.setdefault(shift["shift"], [])
                if seen[-1:] != [shift["state"]]:
                    seen.append(ShiftState(shift["state"]))


class World:
    """Two workers that come and go on one store, and what they have been seen to do."""

    def __init__(self, seed: int) -> None:
        self.rng = Random(seed)
        self.place = Place(v1=Mood(self.rng, 0.1), v2=Mood(self.rng, 0.3), v3=Mood(self.rng, 0.1))
        self.place.functions["check"] = Mood(self.rng, 0.2)
        self.steps: dict[str, list[ShiftState]] = {}
        self.store = self.place.store = Watched(self.steps)
        self.workers: dict[str, tuple[Daemon, asyncio.Task[None]]] = {}
        self.over = False

    def plan(self, worker: str, made: FunctionPlan) -> DaemonPlan:
        found = plan(made, worker=worker)
        return replace(found, functions={"reader": made, "check": CHECK}, mappings=())

    def file(self) -> FunctionPlan:
        """One of the files that a worker may have."""
        numbers = self.rng.choice([("1", "2", "3"), ("1", "2", "3"), ("1", "3"), ("1", "2")])
        aliases: Mapping[str, AliasPlan] = self.rng.choice([LIVE, LIVE, {}])
        return function(*numbers, aliases=dict(aliases))

    def start(self, worker: str, made: FunctionPlan) -> None:
        daemon = self.place.daemon(self.plan(worker, made), seed=self.rng.randrange(1000))
        self.workers[worker] = daemon, asyncio.create_task(daemon.run())

    async def stop(self, worker: str) -> None:
        daemon, task = self.workers.pop(worker)
        daemon.stop()
        await task

    async def load(self) -> None:
        while not self.over:
            for daemon, _ in list(self.workers.values()):
                with suppress(ApiError):
                    asked = FunctionCall(function="reader", qualifier="live", payload=b"{}")
                    await daemon.control.calls.call(asked)
            await asyncio.sleep(0.5)

    async def act(self) -> None:
        """One thing that happens."""
        rng, worker = self.rng, self.rng.choice(list(self.workers))
        daemon = self.workers[worker][0]
        with suppress(ApiError):
            aliases = daemon.control.calls.aliases
            match rng.randrange(10):
                case 0 | 1 | 2 | 3:
                    strategy = own_strategy(
                        rng.choice([10, 50, 100]), rng.choice([5, 30]), rng.random() < 0.5
                    )
                    hooks = {each: "check" for each in ("before", "after") if rng.random() < 0.5}
                    rate = rng.choice([None, 0.0, 0.2])
                    asked = request(to=rng.choice("123"), strategy=strategy, failure_rate=rate, **hooks)
                    await aliases.shift("reader", "live", asked)
                case 4:
                    await aliases.roll_back("reader", "live", by="me", reason="")
                case 5:
                    await aliases.update("reader", "live", AliasChange(version=rng.choice("123")))
                case 6:
                    daemon.replan(self.plan(worker, self.file()))
                case 7:
                    self.store.down, self.store.loses = rng.choice([(True, False), (False, True)])
                    await asyncio.sleep(rng.choice([1, 20]))
                    self.store.down = self.store.loses = False
                case 8:
                    await self.stop(worker)
                    self.start(worker, self.file())
                case _:
                    await asyncio.sleep(rng.choice([10, 40]))
        await asyncio.sleep(rng.random() * 5)

    async def run(self) -> None:
        made = function("1", "2", "3")
        for worker in ("worker-1", "worker-2"):
            self.start(worker, made)
            await ready(self.workers[worker][0])
        load = asyncio.create_task(self.load())
        for _ in range(ACTS):
            await self.act()
        for worker, (daemon, _) in self.workers.items():
            daemon.replan(self.plan(worker, made))
        await until(self.agreed, within_s=ENDS_S_MAX, step_s=1.0)
        self.over = True
        await load
        for worker in list(self.workers):
            await self.stop(worker)

    def agreed(self) -> bool:
        """Whether no shift runs, and both workers say the same."""
        said: list[AliasView] = []
        for daemon, _ in self.workers.values():
            with suppress(ApiError):
                said.append(replace(alias(daemon), calls={}))
        ended = all(each.shift is None or each.shift.state in ENDED for each in said)
        return ended and len(said) == 2 and said[0] == said[1]


@pytest.mark.parametrize("seed", range(4))
def test_no_shift_goes_back_each_ends_and_workers_agree(seed: int) -> None:
    world = World(seed)
    run_virtual(world.run())
    assert world.steps
    for seen in world.steps.values():
        going = [each for each in seen if each in ORDER]
        assert going == sorted(set(going), key=ORDER.index)
        assert all(each in ORDER for each in seen[:-1])
        assert seen[-1] in ENDED
