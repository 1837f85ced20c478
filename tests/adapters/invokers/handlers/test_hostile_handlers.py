"""Handlers that break what they can: every call has one outcome, the caller is never cancelled, and the next call works."""

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from adapters.invokers.handlers.calling import MARSHAL_ERROR, NO_TEXT
from adapters.invokers.python import PythonSettings, open_python
from poller.domain.invocations import FunctionError, Outcome, Succeeded, Throttled, TimedOut
from poller.plugins import Environment
from poller.testing.invoker import invocation
from tests.adapters.invokers.functions.hostile import ENDINGS, STEPS, unseen
from tests.virtual import run_virtual, virtual_clock

HOSTILE = "tests.adapters.invokers.functions.hostile"
KINDS = ("ends", "acts", "hands_on")
TIMEOUT_S = 2.0

NO_JSON = {
    "raising",
    "lying",
    "no items",
    "odd keys",
    "ring",
    "deep",
    "huge number",
    "generator",
    "bytes",
    "set in list",
}
RAISED = {
    "raises": FunctionError("ValueError", "boom"),
    "exits": FunctionError("SystemExit", "3"),
    "interrupts": FunctionError("KeyboardInterrupt", ""),
    "generator exit": FunctionError("GeneratorExit", ""),
    "raises cancelled": FunctionError("CancelledError", ""),
    "raises a time-out": FunctionError("TimeoutError", "of its own"),
    "raises without text": FunctionError("NoText", NO_TEXT),
    "raises without name": FunctionError("NamelessError", "bang"),
    "raises half a character": FunctionError("ValueError", "\N{REPLACEMENT CHARACTER}"),
    "raises an odd text": FunctionError("ValueError", "odd"),
}


async def outcomes(handler: str, events: Sequence[Any], *, timeout_s: float = TIMEOUT_S) -> list[Outcome]:
    """The outcomes of calls, one after another; fails when a call cancels its caller."""
    asyncio.get_running_loop().set_exception_handler(unseen)
    env = Environment(virtual_clock())
    given = PythonSettings(function="orders", handler=f"{HOSTILE}:{handler}")

    async def call() -> list[Outcome]:
        async with open_python(given, env) as invoker:
            return [await invoker.invoke(invocation(event, timeout_s=timeout_s)) for event in events]

    # A task of the daemon's own, which a handler can find.
    async with asyncio.TaskGroup() as tasks:
        caller = tasks.create_task(call(), name="caller")
    assert not caller.cancelling()
    return caller.result()


def ran(handler: str, *events: Any) -> list[Outcome]:
    """The outcomes of calls, in real time where threads are needed."""
    if handler == "acts":
        return run_virtual(outcomes(handler, events))
    with asyncio.Runner() as runner:
        return runner.run(outcomes(handler, events, timeout_s=60.0))


@pytest.mark.parametrize("handler", KINDS)
@pytest.mark.parametrize("end", ENDINGS)
def test_whatever_a_handler_ends_with_is_an_outcome_and_the_next_call_works(handler: str, end: str) -> None:
    outcome, after = ran(handler, {"end": end}, {"end": "answers"})
    if end in RAISED:
        assert outcome == RAISED[end]
    elif end in NO_JSON:
        assert isinstance(outcome, FunctionError)
        assert outcome.error_type == MARSHAL_ERROR
    assert isinstance(outcome, Succeeded | FunctionError)
    if isinstance(outcome, FunctionError):
        f"{outcome.error_type}{outcome.message}".encode()
        assert type(outcome.message) is str
    assert after == Succeeded(b'{"ok": true}')


@pytest.mark.parametrize(
    ("steps", "outcome"),
    [
        (["cancels itself"], Succeeded(b'{"ok": true}')),
        (["cancels all"], Succeeded(b'{"ok": true}')),
        (["cancels itself", "waits"], FunctionError("CancelledError", "")),
        (["cancels itself soon", "waits", "waits"], FunctionError("CancelledError", "")),
        (["cancels all", "waits"], FunctionError("CancelledError", "")),
        (["cancels itself", "swallows"], Succeeded(b'{"ok": true}')),
        (["cancels all", "swallows"], Succeeded(b'{"ok": true}')),
        (["leaves an exit", "waits a moment"], Succeeded(b'{"ok": true}')),
        (["is late"], TimedOut(TIMEOUT_S)),
        (["refuses"], TimedOut(TIMEOUT_S)),
        (["is in a group"], FunctionError("CancelledError", "")),
    ],
    ids=lambda given: "-".join(given) if isinstance(given, list) else None,
)
def test_what_an_asynchronous_handler_does_to_its_task_is_its_own(steps: list[str], outcome: Outcome) -> None:
    first, after = ran("acts", {"steps": steps, "end": "answers"}, {"end": "answers"})
    assert first == outcome
    assert after == Succeeded(b'{"ok": true}')


def test_a_time_limit_that_goes_off_after_the_work_is_done_takes_nothing_back() -> None:
    # The third-party package async_timeout, before 5.0, may leave such a cancellation behind.
    steps = ["cancels itself soon"]
    assert ran("acts", {"steps": steps, "end": "answers"}) == [Succeeded(b'{"ok": true}')]


def test_a_handler_that_refuses_to_be_cancelled_times_out_at_the_limit_and_keeps_its_place() -> None:
    async def main() -> list[tuple[float, type[Outcome]]]:
        loop = asyncio.get_running_loop()
        given = PythonSettings(function="orders", handler=f"{HOSTILE}:acts", workers=1)
        found: list[tuple[float, type[Outcome]]] = []
        async with open_python(given, Environment(virtual_clock())) as invoker:
            for wait_s, event in [
                (0.0, {"steps": ["refuses"], "end": "answers"}),
                (2.5, {"end": "answers"}),
                (1.0, {"end": "answers"}),
            ]:
                await asyncio.sleep(wait_s)
                outcome = await invoker.invoke(invocation(event, timeout_s=TIMEOUT_S))
                found.append((loop.time(), type(outcome)))
        return found

    # It gives in after five seconds.
    assert run_virtual(main()) == [(2.0, TimedOut), (4.5, Throttled), (5.5, Succeeded)]


def test_a_refusing_handler_does_not_keep_its_function_from_being_closed() -> None:
    async def main() -> float:
        loop = asyncio.get_running_loop()
        await outcomes("acts", [{"steps": ["refuses"], "end": "answers"}])
        return loop.time()

    assert run_virtual(main()) == TIMEOUT_S + 1.0


HANDLERS = st.fixed_dictionaries(
    {
        "steps": st.lists(st.sampled_from(sorted(STEPS)), max_size=5),
        "end": st.sampled_from(sorted(set(ENDINGS) - {"raises a long text", "deep"})),
    }
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(events=st.lists(HANDLERS, min_size=1, max_size=3))
def test_every_call_of_any_handler_has_one_outcome_and_none_cancels_its_caller(
    events: list[dict[str, Any]],
) -> None:
    found = run_virtual(outcomes("acts", [*events, {"end": "answers"}]), limit_s=1000)
    assert len(found) == len(events) + 1
    assert all(isinstance(each, Succeeded | FunctionError | TimedOut) for each in found)
    assert found[-1] == Succeeded(b'{"ok": true}')
