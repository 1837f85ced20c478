"""The invoker passes poller's suite."""

import asyncio
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import pytest
from poller_example.program import ProgramSettings, open_program

from poller.clock import LoopClock
from poller.domain.invocations import FunctionError, Unreachable
from poller.plugins import Environment
from poller.ports import Invoker
from poller.testing.invoker import SCENARIOS, InvokerScenario, call

FUNCTION = (sys.executable, "-m", "poller.testing.function")


@asynccontextmanager
async def running(*command: str) -> AsyncGenerator[Invoker]:
    given = ProgramSettings.model_validate({"function": "orders", "command": command or FUNCTION})
    async with open_program(given, Environment(LoopClock())) as invoker:
        yield invoker


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.__name__)
def test_a_program_is_an_invoker(scenario: InvokerScenario) -> None:
    asyncio.run(scenario(running))


def test_a_program_that_is_not_there_is_unreachable() -> None:
    async def run() -> None:
        async with running("/nowhere/at/all") as invoker:
            assert await call(invoker, "nothing") == Unreachable(
                "cannot start /nowhere/at/all: No such file or directory"
            )

    asyncio.run(run())


def test_the_last_line_of_stderr_is_the_message_of_a_program_that_fails() -> None:
    async def run() -> None:
        async with running("/bin/sh", "-c", "echo one >&2; echo two >&2; exit 3") as invoker:
            assert await call(invoker, "nothing") == FunctionError("Program.ExitStatus", "two")

    asyncio.run(run())
