"""The python invoker: handlers of every kind, what they raise, and threads that do not end."""

import asyncio
import json
import time
from dataclasses import replace
from typing import Any

import pytest

from adapters.invokers.handlers.calling import outcome_of_result
from adapters.invokers.python import PythonSettings, open_python
from poller.domain.errors import InvalidConfiguration
from poller.domain.invocations import (
    EncodedEvent,
    FunctionError,
    Invocation,
    Outcome,
    Succeeded,
    Throttled,
    TimedOut,
)
from poller.domain.records import JsonObject
from poller.ports import Invoker
from poller.testing.invoker import ARN, REQUEST_ID, invocation
from tests.contracts.invokers import environment

FUNCTIONS = "tests.adapters.invokers.functions.plain"


async def calls(handler: str, *invocations: Invocation, **settings: Any) -> list[Outcome]:
    """The outcomes of calls, one after another."""
    given = PythonSettings(function="orders", handler=handler, **settings)
    async with environment() as env, open_python(given, env) as invoker:
        return [await invoker.invoke(each) for each in invocations]


def called(handler: str, event: Any, *, timeout_s: float = 5.0) -> Outcome:
    """The outcome of one call."""
    return asyncio.run(calls(f"{FUNCTIONS}:{handler}", invocation(event, timeout_s=timeout_s)))[0]


@pytest.mark.parametrize("handler", ["act", "act_on_loop", "hands_on", "Holder.handler"])
def test_plain_asynchronous_and_mixed_handlers_and_attributes_are_called(handler: str) -> None:
    assert called(handler, {"do": "echo", "x": 1}) == Succeeded(b'{"echo": {"do": "echo", "x": 1}}')


@pytest.mark.parametrize("handler", ["act", "act_on_loop", "hands_on"])
@pytest.mark.parametrize(
    ("do", "error"),
    [
        ("quit", FunctionError("SystemExit", "enough")),
        ("interrupt", FunctionError("KeyboardInterrupt", "")),
        ("unprintable", FunctionError("Unprintable", "(its text could not be made)")),
    ],
)
def test_whatever_a_handler_raises_is_a_function_error(handler: str, do: str, error: FunctionError) -> None:
    assert called(handler, {"do": do}) == error


def test_a_cancellation_of_the_handlers_own_is_a_function_error() -> None:
    assert called("act_on_loop", {"do": "cancelled"}) == FunctionError("CancelledError", "")


def test_a_time_out_of_the_handlers_own_is_a_function_error() -> None:
    assert called("act_on_loop", {"do": "late"}) == FunctionError("TimeoutError", "of its own")


def test_a_handler_that_swallows_its_cancellation_has_timed_out() -> None:
    assert called("act_on_loop", {"do": "stubborn", "s": 3}, timeout_s=0.1) == TimedOut(0.1)


def test_a_handler_that_swallows_a_cancellation_from_outside_does_not_stop_it() -> None:
    async def run() -> bool:
        given = PythonSettings(function="orders", handler=f"{FUNCTIONS}:act_on_loop")
        async with environment() as env, open_python(given, env) as invoker, asyncio.TaskGroup() as tasks:
            task = tasks.create_task(invoker.invoke(invocation({"do": "stubborn", "s": 3})))
            await asyncio.sleep(0.05)
            task.cancel()
        return task.cancelled()

    assert asyncio.run(run())


def test_an_answer_without_json_is_a_marshal_error() -> None:
    outcome = called("act", {"do": "set"})
    assert isinstance(outcome, FunctionError)
    assert outcome.error_type == "Runtime.MarshalError"
    assert "set" in outcome.message


def test_an_answer_that_holds_itself_is_a_marshal_error() -> None:
    ring: list[Any] = []
    ring.append(ring)
    outcome = outcome_of_result(ring)
    assert isinstance(outcome, FunctionError)
    assert outcome.error_type == "Runtime.MarshalError"


def test_each_try_gets_a_fresh_event() -> None:
    event = invocation({"do": "mutate"})
    assert asyncio.run(calls(f"{FUNCTIONS}:act", event, event)) == [Succeeded(b"1"), Succeeded(b"1")]


class Unreadable(EncodedEvent):
    """An event whose reading has a bug."""

    def decoded(self) -> JsonObject:
        raise ZeroDivisionError


@pytest.mark.parametrize("handler", ["act", "act_on_loop", "hands_on"])
def test_an_event_that_cannot_be_read_is_not_the_handler_s_fault(handler: str) -> None:
    async def run() -> Outcome:
        given = PythonSettings(function="orders", handler=f"{FUNCTIONS}:{handler}", workers=1)
        async with environment() as env, open_python(given, env) as invoker:
            with pytest.raises(ZeroDivisionError):
                await invoker.invoke(replace(invocation({}), event=Unreadable(b"{}")))
            return await invoker.invoke(invocation({"do": "echo"}))

    assert asyncio.run(run()) == Succeeded(b'{"echo": {"do": "echo"}}')


def test_the_context_is_that_of_lambda() -> None:
    outcome = called("act", {"do": "context"}, timeout_s=5)
    assert isinstance(outcome, Succeeded)
    context = json.loads(outcome.payload)
    assert 4000 < context.pop("remaining_ms") <= 5000
    assert len(context.pop("log_stream_name")) == 32
    assert context == {
        "function_name": "orders",
        "function_version": "$LATEST",
        "invoked_function_arn": ARN,
        "memory_limit_in_mb": "128",
        "aws_request_id": REQUEST_ID,
        "log_group_name": "/aws/lambda/orders",
        "client_context": None,
    }


def test_a_thread_that_goes_on_keeps_its_place_until_it_ends() -> None:
    async def run() -> list[Outcome]:
        given = PythonSettings(function="orders", handler=f"{FUNCTIONS}:act", workers=1)
        async with environment() as env, open_python(given, env) as invoker:
            late = await invoker.invoke(invocation({"do": "sleep", "s": 0.5}, timeout_s=0.1))
            full = await invoker.invoke(invocation({"do": "nothing"}))
            return [late, full, await until_free(invoker)]

    late, full, after = asyncio.run(run())
    assert late == TimedOut(0.1)
    assert isinstance(full, Throttled)
    assert "workers" in full.reason
    assert after == Succeeded(b"null")


async def until_free(invoker: Invoker) -> Outcome:
    """The first outcome that is not Throttled, within five seconds."""
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        outcome = await invoker.invoke(invocation({"do": "nothing"}))
        if not isinstance(outcome, Throttled):
            return outcome
        await asyncio.sleep(0.02)
    raise AssertionError("still throttled")


def test_a_thread_that_never_ends_does_not_keep_the_loop_from_ending() -> None:
    began = time.monotonic()
    assert called("act", {"do": "sleep", "s": 4}, timeout_s=0.1) == TimedOut(0.1)
    assert time.monotonic() - began < 2


@pytest.mark.parametrize(
    ("handler", "words"),
    [
        ("tests.adapters.nowhere:act", ["no module 'tests.adapters.nowhere'", "install it"]),
        (
            "tests.adapters.invokers.functions.plain:nothing.here",
            ["tests.adapters.invokers.functions.plain", "no attribute 'nothing'"],
        ),
        ("tests.adapters.invokers.functions.plain:Holder.x", ["Holder", "no attribute 'x'"]),
        (
            "tests.adapters.invokers.functions.plain:NOT_CALLABLE",
            ["NOT_CALLABLE is a int", "name a function"],
        ),
        (
            "tests.adapters.invokers.functions.broken_module:x",
            ["importing", "raised RuntimeError: on purpose", "line 3, in <module>", "mend the module"],
        ),
    ],
)
def test_a_wrong_handler_is_refused_when_it_is_opened(handler: str, words: list[str]) -> None:
    with pytest.raises(InvalidConfiguration) as raised:
        asyncio.run(calls(handler))
    [problem] = raised.value.problems
    assert problem.startswith(f"functions.orders.handler: '{handler}': ")
    assert all(word in problem for word in words)
