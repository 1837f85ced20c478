"""What workers read and write at the same time: nothing older replaces what is newer, and one id is one operation."""

import asyncio
from random import Random
from typing import Any

import pytest

from poller.domain.mapping_api import ApiError, ApiErrorType
from poller.domain.operations import Action, Operation, OperationId, OperationRequest, PartResult
from poller.domain.records import Epoch
from poller.runtime.operations.open_operations import OpenOperations
from tests.runtime.operations.workers import (
    DONE,
    ONE,
    QUEUE,
    STREAM,
    FakeOperable,
    FakeWorker,
    Outcome,
    Site,
    known,
    play,
    queue_plan,
    running,
    stream_of,
    two_shards,
)
from tests.virtual import virtual_clock


def test_a_read_that_began_before_a_write_does_not_hide_it() -> None:
    async def script() -> None:
        _, a, b = await two_shards()
        async with running(a, b):
            await asyncio.sleep(0.5)
            a.door.answer_s = 1.0
            a.follower.wake()
            await asyncio.sleep(0.5)
            # The follower waits for the answer to a read that began before this pause.
            a.door.answer_s = 0.0
            pause = await a.ask("pause")
            await asyncio.sleep(0.6)
            assert stream_of(a).paused == [pause.operation]
            assert [len(each) for each in stream_of(a).pauses if each is not None] == [0, 1]

    play(script)


def test_a_slow_read_does_not_replace_a_newer_one() -> None:
    async def script() -> None:
        _, a, b = await two_shards()
        async with running(a, b):
            await asyncio.sleep(0.5)
            a.door.answer_s = 1.5
            a.follower.wake()
            await asyncio.sleep(0.1)
            a.door.answer_s = 0.0
            # Another worker takes the pause, and somebody reads it here before the slow answer arrives.
            pause = await b.ask("pause")
            assert [each.operation for each in await a.control.operations()] == [pause.operation]
            await asyncio.sleep(1.6)
            assert stream_of(a).paused == [pause.operation]

    play(script)


def test_two_requests_with_one_id_and_different_content_are_not_one_operation() -> None:
    async def script() -> None:
        _, a, b = await two_shards()
        async with running(a, b):
            for worker in (a, b):
                worker.door.answer_s = 0.1
            found = await asyncio.gather(
                a.ask("pause", shard="1", id="mine"),
                b.ask("pause", shard="2", id="mine"),
                return_exceptions=True,
            )
            (kept,) = [each for each in found if isinstance(each, Operation)]
            (refused,) = [each for each in found if isinstance(each, ApiError)]
            assert refused.fault is ApiErrorType.CONFLICT
            assert (await a.control.operation(kept.operation)).request == kept.request

    play(script)


def test_a_mapping_that_starts_carries_out_at_once_what_waits_for_it() -> None:
    async def script() -> None:
        _, a, b = await two_shards()
        mapping = a.mine.pop(STREAM)
        async with running(a, b):
            await asyncio.sleep(0.1)
            await b.ask("retry", shard="2")
            a.site.running[STREAM].add("a")
            operation = await b.ask("retry", shard="1")
            await asyncio.sleep(2.5)
            a.mine[STREAM] = mapping
            a.follower.introduce(STREAM, mapping)
            await a.is_over(operation, within_s=0.1)
        assert [action for _, _, action, _ in mapping.log] == [Action.RETRY]

    play(script)


def test_a_worker_does_not_close_its_own_part_while_its_mapping_restarts() -> None:
    async def once(_operable: FakeOperable, unit: str, _operation: Operation) -> Outcome:
        return PartResult(state=DONE, result=f"{unit} at last")

    async def script() -> None:
        site = Site(known={QUEUE: known(queue_plan())})
        a = FakeWorker(site, "a", {QUEUE: FakeOperable(["a"], script=once)})
        async with running(a):
            await asyncio.sleep(0.1)
            mapping = a.mine.pop(QUEUE)
            operation = await a.ask("retry", QUEUE)
            site.running.clear()
            await asyncio.sleep(30.0)
            assert not (await a.control.operation(operation.operation)).state.over
            a.mine[QUEUE] = mapping
            found = await a.is_over(operation, within_s=2.1)
            assert found.result == "a at last"
            # A mapping that is disabled does not restart.
            del a.mine[QUEUE]
            site.running[QUEUE] = {"a"}
            late = await a.ask("retry", QUEUE)
            site.running.clear()
            site.known[QUEUE] = known(queue_plan(), runs=False)
            ended = await a.is_over(late, within_s=10.0)
            assert ended.result == "the mapping is disabled; enable it, then ask again"

    play(script)


@pytest.mark.parametrize("workers", [3, 8])
def test_many_workers_write_the_results_of_one_operation(workers: int) -> None:
    async def script() -> None:
        site = Site(known={QUEUE: known(queue_plan())})
        names = [f"w{number}" for number in range(workers)]
        found = [FakeWorker(site, name, {QUEUE: FakeOperable([name])}) for name in names]
        for worker in found:
            worker.door.answer_s = 0.02
        async with running(*found):
            await asyncio.sleep(0.5)
            operation = await found[0].ask("retry", QUEUE)
            assert operation.wanted == tuple(names)
            done = await found[-1].is_over(operation, within_s=4.0)
            assert {part.state for part in done.parts.values()} == {DONE}
        assert all(len(worker.mine[QUEUE].log) == 1 for worker in found)
        assert ONE not in done.parts

    play(script)


def test_a_read_that_began_before_an_operation_was_added_is_made_again() -> None:
    async def script() -> None:
        site, a, _ = await two_shards()
        store: Any = a.door
        operations = OpenOperations(store, store, clock=virtual_clock(), observer=site.seen, rng=Random(1))
        await operations.read()
        a.door.answer_s = 1.0
        async with asyncio.TaskGroup() as scope:
            scope.create_task(operations.read(), name="read")
            await asyncio.sleep(0.1)
            a.door.answer_s = 0.0
            request = OperationRequest(action=Action.PAUSE)
            added = Operation(
                operation=OperationId("mine"), mapping=STREAM, request=request, created=Epoch(1.0)
            )
            await operations.add(added)
        assert operations.get(added.operation) == added

    play(script)


def test_a_worker_that_stops_waits_for_nothing_of_an_operation() -> None:
    async def never(_operable: FakeOperable, _unit: str, _operation: Operation) -> Outcome:
        return None

    async def script() -> None:
        _, a, b = await two_shards(script=never)
        async with asyncio.timeout(10.0):
            async with running(a, b):
                operation = await a.ask("retry")
                await asyncio.sleep(3.0)
            assert not (await a.control.operation(operation.operation)).state.over

    play(script)
