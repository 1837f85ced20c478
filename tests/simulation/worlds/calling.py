"""Owns the callers beside mappings: they call functions of mappings through the daemons, and take slots that polls of queues lend."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from random import Random

from poller.domain.functions.calls import FunctionCall, NoRoom
from poller.domain.mapping_api import ApiError
from poller.runtime.daemon import Daemon
from tests.simulation.checks.checker import Checker
from tests.simulation.services.fake_plugins import seeded
from tests.simulation.services.faults import Line, Marks
from tests.simulation.services.functions import call_payload
from tests.simulation.worlds.scenario import HEALED_S, CallFunction, Scenario, Setup

CALLED_CHANCE = 0.3
NARROW_CHANCE = 0.7
"""How often a called function runs one call at a time, so that an idle poll has its only slot."""
TAKES_S = (0.05, 0.5, 3.0, 8.0)


def called_beside(scenario: Scenario) -> Scenario:
    """A scenario in which functions of mappings are called, too. Functions of their own, whose runs nobody may end, are left alone."""
    rng = seeded(scenario.seed, "calls beside")
    setups = [each for each in scenario.setups if not each.script.own]
    if not setups or rng.random() > CALLED_CHANCE:
        return scenario
    names = {each.function.name for each in setups}
    narrowed = tuple(
        _narrowed(rng, each) if each.function.name in names else each for each in scenario.setups
    )
    asked = tuple(_calls(rng, sorted(names)))
    actions = tuple(sorted((*scenario.actions, *asked), key=lambda each: each.at))
    return replace(scenario, setups=narrowed, actions=actions)


def called(scenario: Scenario) -> frozenset[str]:
    """The functions that are called beside their mappings."""
    return frozenset(each.function for each in scenario.actions if isinstance(each, CallFunction))


async def call(action: CallFunction, daemon: Daemon, line: Line, court: Checker, marks: Marks) -> None:
    """Calls a function at a worker, as a client of the Invoke API does that does not try again."""
    if court.alone.all_slots_in_polls(line, action.function):
        marks.saw("call finds all slots in polls")
    line.history.tell(line.name, lambda: f"{action.function} is called for {action.takes_s:g} s")
    try:
        await daemon.control.calls.call(
            FunctionCall(function=action.function, payload=call_payload(action.takes_s))
        )
    except NoRoom:
        marks.saw("call without room")
    except ApiError:
        marks.saw("call refused")
    else:
        marks.saw("call beside a mapping")


def _narrowed(rng: Random, setup: Setup) -> Setup:
    if setup.function.max_concurrency is None or rng.random() > NARROW_CHANCE:
        return setup
    return replace(setup, function=replace(setup.function, max_concurrency=1))


def _calls(rng: Random, names: Sequence[str]) -> Iterator[CallFunction]:
    for _ in range(rng.choice((3, 10, 30))):
        takes_s = rng.choice(TAKES_S)
        yield CallFunction(rng.uniform(0.5, HEALED_S), rng.choice(names), takes_s, rng.random())
