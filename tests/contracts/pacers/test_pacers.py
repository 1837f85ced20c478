"""Owns what every CallPacer keeps to: the built-in one in real time, and the one of tests on virtual time."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from adapters.pacers.throttle import ThrottlePacerSettings, open_pacer
from adapters.pacers.throttle import plugin as throttle
from poller.clock import LoopClock
from poller.plugins import Environment, InstalledPlugins
from poller.ports import CallPacer
from tests.runtime.pacers import FakePacer
from tests.virtual import run_virtual

LATE_S = 0.1
"""How much later than exact a real pacer may be on a busy machine."""

type Use = Callable[[CallPacer], Awaitable[None]]


def on_virtual_time(use: Use) -> None:
    async def main() -> None:
        await use(FakePacer())

    run_virtual(main())


def in_real_time(use: Use) -> None:
    async def main() -> None:
        async with open_pacer(ThrottlePacerSettings(), Environment(clock=LoopClock())) as pacer:
            await use(pacer)

    asyncio.run(main())


both = pytest.mark.parametrize("play", [on_virtual_time, in_real_time], ids=["fake", "throttle"])


async def took_s(paced: Awaitable[None]) -> float:
    loop = asyncio.get_running_loop()
    began = loop.time()
    await paced
    return loop.time() - began


@both
def test_the_first_passes_at_once_and_the_next_after_the_period(play: Callable[[Use], None]) -> None:
    async def use(pacer: CallPacer) -> None:
        assert await took_s(pacer.pace("calls", 0.2)) < LATE_S
        assert 0.19 <= await took_s(pacer.pace("calls", 0.2)) < 0.2 + LATE_S

    play(use)


@both
def test_keys_do_not_wait_for_each_other(play: Callable[[Use], None]) -> None:
    async def use(pacer: CallPacer) -> None:
        await pacer.pace("calls", 30.0)
        assert await took_s(pacer.pace("records", 30.0)) < LATE_S

    play(use)


@both
def test_each_wait_is_as_long_as_the_period_that_was_asked_for_last(play: Callable[[Use], None]) -> None:
    async def use(pacer: CallPacer) -> None:
        await pacer.pace("calls", 30.0)
        assert 0.09 <= await took_s(pacer.pace("calls", 0.1)) < 0.1 + LATE_S

    play(use)


@both
def test_a_wait_that_is_given_up_changes_nothing(play: Callable[[Use], None]) -> None:
    async def use(pacer: CallPacer) -> None:
        await pacer.pace("calls", 0.3)
        loop = asyncio.get_running_loop()
        began = loop.time()
        for _ in range(3):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.05):
                    await pacer.pace("calls", 0.3)
        await pacer.pace("calls", 0.3)
        assert 0.29 <= loop.time() - began < 0.3 + LATE_S

    play(use)


def test_fast_calls_lose_little_of_their_rate() -> None:
    async def use(pacer: CallPacer) -> None:
        loop = asyncio.get_running_loop()
        began, passed = loop.time(), 0
        while loop.time() - began < 1.0:
            await pacer.pace("calls", 0.1)
            passed += 1
        assert 8 <= passed <= 11

    in_real_time(use)


def test_the_pacer_is_found_among_the_installed_plug_ins() -> None:
    assert InstalledPlugins().plugin("pacers", "throttle") is throttle
