"""What every invoker does, whatever stands behind it; over real threads, sockets and processes."""

import asyncio
import json
import time
from collections.abc import Callable, Coroutine
from contextlib import AbstractAsyncContextManager
from typing import Any

import pytest

from poller.invocations import FunctionError, Succeeded, Throttled, TimedOut
from poller.ports import Invoker
from tests.contracts.invokers import (
    behind_url,
    cancelled_call,
    in_processes,
    invocation,
    on_lambda,
    python_in_threads,
    python_on_loop,
)

type Opener = Callable[..., AbstractAsyncContextManager[Invoker]]

OPENERS: list[Opener] = [python_on_loop, python_in_threads, behind_url, on_lambda, in_processes]


@pytest.fixture(autouse=True)
def credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    """Credentials that no service checks, and no margin beyond a call's time."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "111122223333")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "unused")
    monkeypatch.setattr("adapters.invokers.lambda_api.MARGIN_S", 0.0)


every_invoker = pytest.mark.parametrize("opener", OPENERS, ids=lambda opener: opener.__name__)


def with_invoker[T](opener: Opener, act: Callable[[Invoker], Coroutine[Any, Any, T]], **settings: Any) -> T:
    """What `act` gives with an open invoker."""

    async def run() -> T:
        async with opener(**settings) as invoker:
            return await act(invoker)

    return asyncio.run(run())


@every_invoker
def test_a_call_gets_the_event_and_gives_the_answer(opener: Opener) -> None:
    event = {"do": "echo", "Records": [{"body": "ä\u2028\U0001f600", "n": 12345678901234567890}]}
    outcome = with_invoker(opener, lambda invoker: invoker.invoke(invocation(event)))
    assert isinstance(outcome, Succeeded)
    assert json.loads(outcome.payload) == {"echo": event}
    assert outcome.executed_version == "$LATEST"


@every_invoker
def test_an_answer_of_nothing_is_a_success(opener: Opener) -> None:
    outcome = with_invoker(opener, lambda invoker: invoker.invoke(invocation({"do": "nothing"})))
    assert isinstance(outcome, Succeeded)
    assert outcome.payload in (b"", b"null")


@every_invoker
def test_an_exception_is_a_function_error_with_type_and_text(opener: Opener) -> None:
    outcome = with_invoker(opener, lambda invoker: invoker.invoke(invocation({"do": "fail", "text": "bang"})))
    assert outcome == FunctionError("ValueError", "boom bang")


@every_invoker
def test_a_long_error_text_is_cut(opener: Opener) -> None:
    event = {"do": "fail", "text": "x" * 100_000}
    outcome = with_invoker(opener, lambda invoker: invoker.invoke(invocation(event)))
    assert isinstance(outcome, FunctionError)
    assert len(outcome.message) == 1024


@every_invoker
def test_a_call_ends_at_its_time_limit_and_the_next_one_works(opener: Opener) -> None:
    async def act(invoker: Invoker) -> tuple[object, float, object]:
        await invoker.invoke(invocation({"do": "nothing"}))
        began = time.monotonic()
        late = await invoker.invoke(invocation({"do": "sleep", "s": 3}, timeout_s=0.3))
        return late, time.monotonic() - began, await invoker.invoke(invocation({"do": "nothing"}))

    late, took_s, after = with_invoker(opener, act)
    assert late == TimedOut(0.3)
    assert took_s < 2
    assert isinstance(after, Succeeded)


@every_invoker
def test_an_answer_beyond_the_limit_is_a_function_error(opener: Opener) -> None:
    async def act(invoker: Invoker) -> tuple[object, object]:
        large = await invoker.invoke(invocation({"do": "huge"}))
        return large, await invoker.invoke(invocation({"do": "nothing"}))

    large, after = with_invoker(opener, act)
    assert isinstance(large, FunctionError)
    assert large.error_type == "Function.ResponseSizeTooLarge"
    assert isinstance(after, Succeeded)


@every_invoker
def test_a_cancelled_call_is_cancelled_and_the_next_one_works(opener: Opener) -> None:
    async def act(invoker: Invoker) -> tuple[bool, object]:
        await invoker.invoke(invocation({"do": "nothing"}))
        cancelled = await cancelled_call(invoker, invocation({"do": "sleep", "s": 3}))
        return cancelled, await invoker.invoke(invocation({"do": "nothing"}))

    cancelled, after = with_invoker(opener, act)
    assert cancelled
    assert isinstance(after, Succeeded)


@every_invoker
def test_calls_run_at_the_same_time(opener: Opener) -> None:
    async def act(invoker: Invoker) -> tuple[list[object], float]:
        await several(invoker, {"do": "sleep", "s": 0.05}, calls=3)
        began = time.monotonic()
        outcomes = await several(invoker, {"do": "sleep", "s": 0.8}, calls=3)
        return outcomes, time.monotonic() - began

    outcomes, took_s = with_invoker(opener, act)
    assert outcomes == [Succeeded(b'"awake"')] * 3
    assert took_s < 2.0


async def several(invoker: Invoker, event: Any, *, calls: int) -> list[object]:
    """The outcomes of calls that start together."""
    async with asyncio.TaskGroup() as tasks:
        running = [tasks.create_task(invoker.invoke(invocation(event))) for _ in range(calls)]
    return [task.result() for task in running]


@pytest.mark.parametrize(
    ("opener", "settings"),
    [(python_in_threads, {"workers": 1}), (in_processes, {"processes": 1})],
    ids=["python", "process"],
)
def test_a_call_beyond_the_places_is_throttled(opener: Opener, settings: dict[str, int]) -> None:
    outcomes = with_invoker(
        opener, lambda invoker: several(invoker, {"do": "sleep", "s": 0.5}, calls=3), **settings
    )
    assert [type(outcome) for outcome in outcomes] == [Succeeded, Throttled, Throttled]


def test_a_url_that_answers_429_is_throttled_for_as_long_as_it_says() -> None:
    outcome = with_invoker(behind_url, lambda invoker: invoker.invoke(invocation({"do": "throttle"})))
    assert isinstance(outcome, Throttled)
    assert outcome.retry_after_s == 7.0
