"""The loop of a function's process: whatever a module or a handler does to asyncio's loops, later calls run."""

from random import Random

import pytest

from poller.domain.invocations import FunctionError, Succeeded
from tests.adapters.invokers.handlers.test_child_processes import answer, importable, ran

__all__ = ["importable"]

LOOPS = "tests.adapters.invokers.functions.loops"
CLOSED = "tests.adapters.invokers.functions.closed_loops:act"
SECRET = Succeeded(b'"secret"')
HARMLESS = ["stop", "stop often", "stop last", "close soon", "forget", "install", "install closed"]
ERRORS = {"close": "RuntimeError", "exit in a callback": "SystemExit", "cancel all": "CancelledError"}


@pytest.mark.parametrize("handler", ["act_on_loop", "leaves_it_to_us"])
def test_a_module_may_run_a_loop_of_its_own_at_import_in_both_modes(handler: str) -> None:
    events = [{"do": "nothing"}] * 2
    assert ran(f"{LOOPS}:{handler}", *events) == [SECRET, SECRET]
    assert ran(f"{LOOPS}:{handler}", *events, isolation=None, processes=None) == [SECRET, SECRET]


def test_a_call_ends_as_its_handler_does_whatever_it_does_to_its_loop() -> None:
    outcomes = ran(f"{LOOPS}:act_on_loop", *({"do": do} for do in [*HARMLESS, *ERRORS]))
    found = dict(zip([*HARMLESS, *ERRORS], outcomes, strict=True))
    assert {do: found[do] for do in HARMLESS} == dict.fromkeys(HARMLESS, SECRET)
    for do, error_type in ERRORS.items():
        outcome = found[do]
        assert isinstance(outcome, FunctionError), do
        assert outcome.error_type == error_type


@pytest.mark.parametrize("handler", ["act_on_loop", "leaves_it_to_us"])
def test_no_sequence_of_calls_that_meddle_with_the_loop_breaks_the_call_after_them(handler: str) -> None:
    rng = Random(14)
    events = [rng.choice([*HARMLESS, *ERRORS]) for _ in range(40)]
    found = ran(f"{LOOPS}:{handler}", *({"do": do} for each in events for do in (each, "nothing")))
    assert found[1::2] == [SECRET] * len(events)


def test_a_thread_s_loop_that_a_handler_has_closed_is_replaced() -> None:
    events = ["run", "close", "run", "await", "close", "await", "run"]
    found = [answer(each) for each in ran(CLOSED, *({"do": do} for do in events))]
    assert found == ["closed" if do == "close" else "ran" for do in events]
