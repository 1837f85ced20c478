"""Owns the run of the invoker suite on every invoker, over real threads, sockets and processes."""

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

import pytest

from poller.domain.invocations import Succeeded, Throttled
from poller.ports import Invoker
from poller.testing.invoker import SCENARIOS, InvokerScenario, call, several
from tests.contracts.invokers import (
    behind_url,
    in_processes,
    on_lambda,
    python_in_processes,
    python_in_threads,
    python_on_loop,
)

type Opener = Callable[..., AbstractAsyncContextManager[Invoker]]

OPENERS: list[Opener] = [
    python_on_loop,
    python_in_threads,
    python_in_processes,
    behind_url,
    on_lambda,
    in_processes,
]


@pytest.fixture(autouse=True)
def credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    """Credentials that no service checks, and no margin beyond a call's time."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "111122223333")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "unused")
    monkeypatch.setattr("adapters.invokers.lambda_api.MARGIN_S", 0.0)


@pytest.mark.parametrize("opener", OPENERS, ids=lambda opener: opener.__name__)
@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.__name__)
def test_every_invoker(scenario: InvokerScenario, opener: Opener) -> None:
    asyncio.run(scenario(opener))


@pytest.mark.parametrize(
    ("opener", "settings"),
    [(python_in_threads, {"workers": 1}), (in_processes, {"processes": 1})],
    ids=["python", "process"],
)
def test_a_call_beyond_the_places_is_throttled(opener: Opener, settings: dict[str, int]) -> None:
    async def run() -> list[object]:
        async with opener(**settings) as invoker:
            return list(await several(invoker, {"do": "sleep", "s": 0.5}, calls=3))

    assert [type(outcome) for outcome in asyncio.run(run())] == [Succeeded, Throttled, Throttled]


def test_a_url_that_answers_429_is_throttled_for_as_long_as_it_says() -> None:
    async def run() -> object:
        async with behind_url() as invoker:
            return await call(invoker, "throttle")

    outcome = asyncio.run(run())
    assert isinstance(outcome, Throttled)
    assert outcome.retry_after_s == 7.0
