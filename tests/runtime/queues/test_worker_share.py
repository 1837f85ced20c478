"""A queue mapping's maximum holds over all workers that run it."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, replace

import pytest

from adapters.stores.memory import MemoryStore
from poller.domain.invocations import Invocation, Outcome, Throttled
from poller.domain.policies import BatchPolicy, ScalingPolicy
from poller.domain.records import WorkerId
from poller.rules.workers.assignment import tie_break
from poller.runtime.queues.capacity import LOST_AFTER_S
from poller.runtime.queues.context import QueueContext
from poller.runtime.queues.queue_mapping import QueueMapping
from poller.runtime.stopping import Reason, Stop
from poller.runtime.workers.heartbeat import Heartbeat
from tests.runtime.fakes import Seen
from tests.runtime.queues.queue_fakes import Handler, Service, fifo, function_of, parts, plan, standard
from tests.virtual import run_virtual, virtual_clock

MAXIMUM = 5
LOOK_S = 0.25


@dataclass
class Counting(Handler):
    """A function that says how many of its calls run now."""

    running: int = 0

    async def invoke(self, invocation: Invocation) -> Outcome:
        self.running += 1
        try:
            return await super().invoke(invocation)
        finally:
            self.running -= 1


async def work(name: str, given: QueueContext, handler: Handler, stop: Stop) -> None:
    """One daemon's part of the mapping, until it is stopped."""
    heartbeat = Heartbeat(
        given.store, WorkerId(name), clock=virtual_clock(), tuning=given.tuning, observer=Seen()
    )
    async with heartbeat.run(stop):
        await QueueMapping(replace(given, function=function_of(handler), workers=heartbeat), stop).run()


def test_all_workers_together_stay_within_the_maximum_as_they_come_and_go() -> None:
    handlers = [Counting(takes_s=1.0) for _ in range(3)]
    seen: list[tuple[int, ...]] = []

    async def watch(until_s: float) -> list[int]:
        """The most that each ran at once meanwhile."""
        first = len(seen)
        while asyncio.get_running_loop().time() < until_s:
            seen.append(tuple(handler.running for handler in handlers))
            await asyncio.sleep(LOOK_S)
        return [max(each) for each in zip(*seen[first:], strict=True)]

    async def main() -> None:
        service = standard()
        policy = ScalingPolicy(concurrency_max=MAXIMUM)
        mapping = plan(service, batch=BatchPolicy(1), scaling=policy)
        given = replace(parts(service, function_of(Handler()), mapping), store=MemoryStore())
        service.send(*range(500))
        stops = [Stop() for _ in handlers]
        async with asyncio.TaskGroup() as scope:
            scope.create_task(work("ann", given, handlers[0], stops[0]))
            assert await watch(5.0) == [MAXIMUM, 0, 0]
            scope.create_task(work("bob", given, handlers[1], stops[1]))
            scope.create_task(work("cat", given, handlers[2], stops[2]))
            await watch(10.0)
            assert sorted(await watch(20.0)) == [1, 2, 2]
            stops[0].request(Reason.REQUESTED)
            await watch(25.0)
            assert sorted(await watch(40.0)) == [0, 2, 3]
            for stop in stops:
                stop.request(Reason.REQUESTED)

    run_virtual(main())
    assert max(map(sum, seen)) <= MAXIMUM


@pytest.mark.parametrize("kind", [standard, fifo])
def test_what_a_worker_waits_with_goes_to_the_one_that_has_taken_its_part(
    kind: Callable[[int], Service],
) -> None:
    """A maximum of one: the second worker takes it while the first one's function refuses its batch."""
    service, first, second = kind(30), Handler(answer=lambda _: Throttled("429")), Handler()
    mapping = plan(service, batch=BatchPolicy(1), scaling=ScalingPolicy(concurrency_max=1))
    given = replace(parts(service, function_of(Handler()), mapping), store=MemoryStore())
    names = sorted(("ann", "bob"), key=lambda name: tie_break(mapping.mapping, WorkerId(name)))

    async def main() -> None:
        stop = Stop()
        service.send(0, group="g" if service.queue.facts.fifo else None)
        async with asyncio.TaskGroup() as scope:
            scope.create_task(work(names[1], given, first, stop), name="first")
            await asyncio.sleep(15.0)
            assert first.calls
            assert service.received == {0: 1}
            scope.create_task(work(names[0], given, second, stop), name="second")
            await asyncio.sleep(20.0)
            assert service.received == {0: 1}, "shorter times without a part are usual"
            await asyncio.sleep(40.0)
            stop.request(Reason.REQUESTED)

    run_virtual(main())
    assert second.done == [0]
    assert service.left == []
    assert 15.0 + LOST_AFTER_S <= second.times[0] <= 15.0 + LOST_AFTER_S + 15.0
