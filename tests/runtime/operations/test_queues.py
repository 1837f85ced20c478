"""Operations on a queue that two workers consume, through the workers' own followers: any worker takes the request, and both settle it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any, cast

import pytest

from poller.domain.operations import Operation, OperationState
from poller.domain.policies import QueuePolicy
from poller.domain.records import WorkerId
from poller.runtime.operations.follower import READ_S
from poller.runtime.queues.queue_mapping import QueueMapping
from poller.runtime.stopping import Reason, Stop
from tests.runtime.operations.workers import (
    QUEUE,
    FakeOperable,
    FakeWorker,
    Site,
    known,
    play,
    queue_plan,
    running,
)
from tests.runtime.queues.queue_fakes import Handler, Service, failing, fifo, function_of, parts, plan

GROUPS = 6


@dataclass
class Pair:
    """Two workers on one FIFO queue, and the function as each of them calls it."""

    service: Service
    handlers: tuple[Handler, Handler]
    workers: tuple[FakeWorker, FakeWorker]
    stop: Stop

    @property
    def done(self) -> list[int]:
        """Messages that the function took."""
        return sorted(number for handler in self.handlers for number in handler.done)

    async def over(self, worker: FakeWorker, action: str, **members: Any) -> Operation:
        """What came of an operation that this worker was asked for."""
        return await worker.is_over(await worker.ask(action, QUEUE, **members))


@asynccontextmanager
async def pair(*bad: int) -> AsyncIterator[Pair]:
    service, site = fifo(600), Site(known={QUEUE: known(queue_plan())})
    handlers = Handler(answer=failing(*bad)), Handler(answer=failing(*bad))
    stop = Stop()
    policy = QueuePolicy(one_group_per_batch=True)
    mappings = [
        QueueMapping(
            replace(
                parts(service, function_of(handler), plan(service, queue=policy)),
                worker=WorkerId(name),
                operated=True,
            ),
            stop,
        )
        for name, handler in zip("ab", handlers, strict=True)
    ]
    a, b = (
        FakeWorker(site, name, {QUEUE: cast("FakeOperable", mapping)})
        for name, mapping in zip("ab", mappings, strict=True)
    )
    async with asyncio.TaskGroup() as scope, running(a, b):
        for mapping in mappings:
            scope.create_task(mapping.run(), name="mapping")
        yield Pair(service, handlers, (a, b), stop)
        stop.request(Reason.REQUESTED)


def groups(service: Service) -> None:
    """Two messages in each of six groups, which both workers get."""
    for number in range(GROUPS):
        service.send(10 * number, 10 * number + 1, group=f"g{number}")


def test_a_skip_is_carried_out_by_the_worker_that_has_the_message_whoever_is_asked() -> None:
    async def script() -> None:
        async with pair(*(10 * number for number in range(GROUPS))) as both:
            await asyncio.sleep(5.0)
            groups(both.service)
            await asyncio.sleep(10.0)
            for number in range(GROUPS):
                for_all = both.workers[number % 2]
                over = await both.over(for_all, "skip", group=f"g{number}", records="first")
                assert over.state is OperationState.DONE, over
                assert over.notes["records"] == [f"message-{10 * number:06d}"]
            await asyncio.sleep(5.0)
            assert both.done == [10 * number + 1 for number in range(GROUPS)]
            assert sorted(both.service.moved) == [10 * number for number in range(GROUPS)]
            assert both.service.left == []

    play(script)


def test_a_skip_by_ids_is_settled_by_several_workers_together() -> None:
    async def script() -> None:
        async with pair(*(10 * number for number in range(GROUPS))) as both:
            groups(both.service)
            await asyncio.sleep(10.0)
            ids = [f"message-{10 * number:06d}" for number in range(GROUPS)]
            over = await both.over(both.workers[1], "skip", records=ids, discard=True, send=False)
            assert over.state is OperationState.DONE, over
            assert sorted(over.notes["settled"]) == ids
            await asyncio.sleep(5.0)
            assert (both.service.moved, both.service.left) == ([], [])

    play(script)


@pytest.mark.parametrize("cancelled_s", [0.1, 3.0, 5.5])
def test_a_skip_that_was_cancelled_deletes_nothing_that_comes_after_it(cancelled_s: float) -> None:
    """On no worker. Both have begun to look out for the messages, and have learned of the end."""

    async def script() -> None:
        async with pair() as both:
            await asyncio.sleep(5.0)
            ids = [f"message-{10 * number:06d}" for number in range(GROUPS)]
            operation = await both.workers[0].ask("skip", QUEUE, records=ids, discard=True)
            await asyncio.sleep(cancelled_s)
            await both.workers[1].control.cancel(operation.operation, by="ann")
            await asyncio.sleep(READ_S + 0.1)
            groups(both.service)
            await asyncio.sleep(20.0)
            assert both.done == [10 * number + each for number in range(GROUPS) for each in (0, 1)]
            assert both.service.left == []

    play(script)


def test_a_paused_group_runs_nowhere_until_it_is_resumed_through_the_other_worker() -> None:
    async def script() -> None:
        async with pair() as both:
            await asyncio.sleep(5.0)
            await both.workers[0].ask("pause", QUEUE, group="g1")
            await asyncio.sleep(5.0)
            groups(both.service)
            await asyncio.sleep(1000.0)
            assert both.done == sorted({10 * n + m for n in range(GROUPS) for m in (0, 1)} - {10, 11})
            await both.over(both.workers[1], "resume", group="g1")
            await asyncio.sleep(5.0)
            assert both.service.left == []
            order = [each for handler in both.handlers for each in handler.done if each in (10, 11)]
            assert order == [10, 11]

    play(script)


def test_a_paused_mapping_runs_nowhere_until_it_is_resumed() -> None:
    async def script() -> None:
        async with pair() as both:
            await both.workers[0].ask("pause", QUEUE)
            await asyncio.sleep(30.0)
            groups(both.service)
            await asyncio.sleep(1000.0)
            assert both.done == []
            await both.over(both.workers[1], "resume")
            await asyncio.sleep(10.0)
            assert both.service.left == []

    play(script)


def test_a_retry_reaches_what_each_worker_has() -> None:
    async def script() -> None:
        async with pair(*(10 * number for number in range(GROUPS))) as both:
            groups(both.service)
            await asyncio.sleep(10.0)
            for handler in both.handlers:
                handler.answer = failing()
            over = await both.over(both.workers[1], "retry")
            assert over.state is OperationState.DONE
            await asyncio.sleep(5.0)
            assert both.service.left == []

    play(script)
