"""What an operation on a shard waits for, as it says while it takes long."""

import asyncio
from typing import Any

import pytest

from poller.domain.errors import ServiceUnavailable
from poller.domain.operations import Action, OperationState, PartResult
from poller.domain.policies import Backoff, RetryPolicy
from poller.runtime.streams.stream_mapping import StreamMapping
from tests.runtime.fakes import SHARD, FakeDestination, FakeFunction
from tests.runtime.streams.test_operations import DOWN, Place, carried_out, in_lanes, operation


def waiting(place: Place) -> list[str]:
    """What a skip of the first record says 5 s after it was asked for."""
    said: list[str] = []

    async def during(runner: StreamMapping) -> None:
        await asyncio.sleep(2.0)
        skip = operation(Action.SKIP, notes={"records": ["1"]})
        assert runner.waits_for(SHARD, skip) in {"", "waits until the running call of lane 0 ends"}
        async with asyncio.TaskGroup() as scope:
            task = scope.create_task(carried_out(runner, skip))
            await asyncio.sleep(5.0)
            assert not task.done()
            said.append(runner.waits_for(SHARD, skip))
            await task

    place.run(during)
    return said


def test_a_skip_that_waits_for_a_running_call_says_so() -> None:
    assert waiting(Place(function=FakeFunction(takes_s=20.0))) == [
        "waits until the running call of lane 0 ends"
    ]


def test_a_skip_that_waits_for_its_destination_says_so_with_the_error() -> None:
    retry = RetryPolicy(backoff=Backoff(base_s=1000.0, cap_s=1000.0))
    [said] = waiting(Place(destination=FakeDestination(*[DOWN] * 8), retry=retry))
    assert said.startswith("waits until the destination takes the notice of lane 0: ")
    assert "no such queue" in said


@pytest.mark.parametrize(("action", "members"), [(Action.RESET, {}), (Action.SKIP, {"records": "first"})])
def test_what_waits_for_a_batch_of_an_earlier_run_says_why_it_is_not_there(
    action: Action, members: dict[str, Any]
) -> None:
    place = Place()
    place.run(for_s=5.0)
    place.stream.trouble = [ServiceUnavailable("the stream does not answer")] * 1000

    async def during(runner: StreamMapping) -> None:
        await asyncio.sleep(5.0)
        asked = operation(action, **members)
        assert await runner.carry_out(SHARD, asked) is None
        assert runner.waits_for(SHARD, asked) == (
            "waits until the batch that had failed is read again: the stream does not answer"
        )
        assert runner.waits_for(SHARD, operation(Action.RETRY)) == ""

    place.run(during)


def test_a_skip_in_a_lane_that_has_ended_before_its_shard_says_so() -> None:
    place = Place(*in_lanes(0, 1, of=2), lanes=2)
    place.stream.ended = {SHARD}
    results: list[PartResult] = []

    async def during(runner: StreamMapping) -> None:
        await asyncio.sleep(5.0)
        results.append(await carried_out(runner, operation(Action.SKIP, lane=0, records="first")))

    place.run(during)
    said = "lane 0 has ended: all its records are settled"
    assert results == [PartResult(state=OperationState.FAILED, result=said)]
