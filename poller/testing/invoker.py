"""Owns the contract of every Invoker: scenarios on one `InvokerOpening`. The name of each states the fact that it checks.

The invoker calls `poller.testing.function`, or another function that does what its table says. The scenarios take a few seconds
of the event loop's time.
"""

import asyncio
import json
from collections.abc import Callable, Coroutine
from contextlib import AbstractAsyncContextManager
from typing import Any

from poller.domain.invocations import EncodedEvent, FunctionError, Invocation, Outcome, Succeeded, TimedOut
from poller.ports import Invoker

type InvokerOpening = Callable[[], AbstractAsyncContextManager[Invoker]]
type InvokerScenario = Callable[[InvokerOpening], Coroutine[Any, Any, None]]

ARN = "arn:aws:lambda:eu-west-1:111122223333:function:orders"
REQUEST_ID = "3e2f4c1a-0000-4000-8000-000000000001"
TIMEOUT_S = 20.0
"""The time limit of calls that should not time out. A process may start slowly on a busy machine."""
TOGETHER_S = 1.5
"""How long calls sleep that must run at the same time. It is long compared with the start of a process on a busy machine."""
ERROR_CHARS = 1024
"""Characters of an error's text that are kept."""


def invocation(event: Any, *, timeout_s: float = TIMEOUT_S, arn: str = ARN) -> Invocation:
    """A call with `event` as JSON."""
    return Invocation(arn, REQUEST_ID, EncodedEvent(json.dumps(event).encode()), timeout_s)


async def call(invoker: Invoker, do: str, *, timeout_s: float = TIMEOUT_S, **members: Any) -> Outcome:
    """The outcome of one call of the function."""
    return await invoker.invoke(invocation({"do": do, **members}, timeout_s=timeout_s))


async def several(invoker: Invoker, event: Any, *, calls: int) -> list[Outcome]:
    """The outcomes of several calls that start at the same time."""
    async with asyncio.TaskGroup() as tasks:
        running = [tasks.create_task(invoker.invoke(invocation(event))) for _ in range(calls)]
    return [task.result() for task in running]


async def cancelled_call(invoker: Invoker, given: Invocation) -> bool:
    """Cancels a call shortly after it began. Returns whether it ended as cancelled."""
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(invoker.invoke(given))
        await asyncio.sleep(0.2)
        task.cancel()
    return task.cancelled()


async def a_call_gets_the_event_and_gives_the_answer(opening: InvokerOpening) -> None:
    event = {"do": "echo", "Records": [{"body": "ä\u2028\U0001f600", "n": 12345678901234567890}]}
    async with opening() as invoker:
        outcome = await invoker.invoke(invocation(event))
    assert isinstance(outcome, Succeeded)
    assert json.loads(outcome.payload) == {"echo": event}
    assert outcome.executed_version == "$LATEST"


async def an_answer_of_nothing_is_a_success(opening: InvokerOpening) -> None:
    async with opening() as invoker:
        outcome = await call(invoker, "nothing")
    assert isinstance(outcome, Succeeded)
    assert outcome.payload in (b"", b"null")


async def an_exception_is_a_function_error_with_type_and_text(opening: InvokerOpening) -> None:
    async with opening() as invoker:
        outcome = await call(invoker, "fail", text="bang")
    assert outcome == FunctionError("ValueError", "boom bang")


async def a_long_error_text_is_cut(opening: InvokerOpening) -> None:
    async with opening() as invoker:
        outcome = await call(invoker, "fail", text="x" * 100_000)
    assert isinstance(outcome, FunctionError)
    assert len(outcome.message) == ERROR_CHARS


async def a_call_ends_at_its_time_limit_and_the_next_one_works(opening: InvokerOpening) -> None:
    loop = asyncio.get_running_loop()
    async with opening() as invoker:
        await call(invoker, "nothing")
        began = loop.time()
        late = await call(invoker, "sleep", s=3, timeout_s=0.3)
        took_s = loop.time() - began
        after = await call(invoker, "nothing")
    assert late == TimedOut(0.3)
    assert took_s < 2
    assert isinstance(after, Succeeded)


async def an_answer_beyond_the_limit_is_a_function_error(opening: InvokerOpening) -> None:
    async with opening() as invoker:
        large = await call(invoker, "huge")
        after = await call(invoker, "nothing")
    assert isinstance(large, FunctionError)
    assert large.error_type == "Function.ResponseSizeTooLarge"
    assert isinstance(after, Succeeded)


async def a_cancelled_call_is_cancelled_and_the_next_one_works(opening: InvokerOpening) -> None:
    async with opening() as invoker:
        await call(invoker, "nothing")
        cancelled = await cancelled_call(invoker, invocation({"do": "sleep", "s": 3}))
        after = await call(invoker, "nothing")
    assert cancelled
    assert isinstance(after, Succeeded)


async def calls_run_at_the_same_time(opening: InvokerOpening) -> None:
    loop = asyncio.get_running_loop()
    async with opening() as invoker:
        await several(invoker, {"do": "sleep", "s": 0.05}, calls=3)
        began = loop.time()
        outcomes = await several(invoker, {"do": "sleep", "s": TOGETHER_S}, calls=3)
        took_s = loop.time() - began
    assert outcomes == [Succeeded(b'"awake"')] * 3
    assert took_s < 2 * TOGETHER_S, "two of the calls ran one after the other"


SCENARIOS: tuple[InvokerScenario, ...] = (
    a_call_gets_the_event_and_gives_the_answer,
    an_answer_of_nothing_is_a_success,
    an_exception_is_a_function_error_with_type_and_text,
    a_long_error_text_is_cut,
    a_call_ends_at_its_time_limit_and_the_next_one_works,
    an_answer_beyond_the_limit_is_a_function_error,
    a_cancelled_call_is_cancelled_and_the_next_one_works,
    calls_run_at_the_same_time,
)
"""For every invoker that can run three calls at once."""
