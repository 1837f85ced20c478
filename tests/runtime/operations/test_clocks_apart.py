"""The clocks of workers may be hours apart. What becomes of an operation does not depend on which of them is asked."""

import asyncio

import pytest

from poller.domain.operations import Action, Operation, PartResult
from poller.runtime.operations.closing import CLOSE_AFTER_S, LOOK_S
from poller.runtime.operations.follower import READ_S
from tests.runtime.operations.workers import (
    DONE,
    ONE,
    FakeOperable,
    FakeWorker,
    Outcome,
    play,
    running,
    stream_of,
    two_shards,
)

HOUR_S = 3_600.0
APART_S = (-9 * HOUR_S, -HOUR_S, -700.0, 0.0, 700.0, HOUR_S, 9 * HOUR_S)
SLOW_S = 30.0


async def slowly(_operable: FakeOperable, unit: str, operation: Operation) -> Outcome:
    """Waits for a call that runs."""
    await asyncio.sleep(SLOW_S)
    return PartResult(state=DONE, result=f"{operation.request.action} of {unit}")


def asked(a: FakeWorker, b: FakeWorker, *, first: bool) -> FakeWorker:
    return a if first else b


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("apart_s", APART_S)
def test_what_takes_half_a_minute_is_done(apart_s: float, *, first: bool) -> None:
    async def script() -> None:
        _, a, b = await two_shards(script=slowly, clock_ahead_s=apart_s)
        async with running(a, b):
            operation = await asked(a, b, first=first).ask(Action.RETRY)
            found = await a.is_over(operation, within_s=SLOW_S + 3 * READ_S)
            assert found.state is DONE, found

    play(script)


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("apart_s", APART_S)
def test_a_shard_that_ends_closes_its_part_soon(apart_s: float, *, first: bool) -> None:
    """Also if the only worker that goes on takes the operation for one of the future."""

    async def script() -> None:
        site, a, b = await two_shards(script=slowly, clock_ahead_s=apart_s)
        async with running(a, b):
            operation = await asked(a, b, first=first).ask(Action.RESET, shard="1")
            stream_of(a).held.clear()
            asked(a, b, first=first).door.closed = True
            await site.hold(ONE, "a", ended=True)
            other = asked(a, b, first=not first)
            found = await other.is_over(operation, within_s=CLOSE_AFTER_S + LOOK_S + 3 * READ_S)
            assert found.result == "the shard has ended: all of its records are settled"

    play(script)
