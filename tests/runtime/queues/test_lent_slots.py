"""A poll of a queue lends its slot to calls: an idle queue refuses no call of its function, and loses no message by it."""

import asyncio

import pytest

from poller.domain.plan import FunctionPlan
from poller.domain.policies import BatchPolicy, BreakerPolicy
from poller.runtime.flow_control.flow_control import FlowControl
from poller.runtime.functions.taken_slots import taken_slot
from poller.runtime.invoking import Function
from poller.runtime.queues.queue_mapping import QueueMapping
from poller.runtime.stopping import Reason, Stop
from tests.runtime.fakes import Seen
from tests.runtime.queues.queue_fakes import (
    Handler,
    Service,
    function_of,
    parts,
    plan,
    play,
    seconds,
    standard,
)
from tests.virtual import run_virtual, virtual_clock

WINDOW = BatchPolicy(records_max=100, window_s=30.0)


async def called_for(takes_s: float, function: Function, service: Service, *sent: int) -> float:
    """A call during which messages are sent. Returns how long it waited for its slot."""
    began = seconds()
    async with taken_slot(function, Stop()) as slot:
        assert slot is not None
        waited = seconds() - began
        service.send(*sent)
        for _ in range(int(takes_s)):
            await asyncio.sleep(1.0)
            assert function.slots.in_flight == 1, (
                "never one slot for the call and one for the poll or its batch"
            )
    return waited


@pytest.mark.parametrize("batch", [BatchPolicy(), WINDOW])
def test_a_call_takes_the_slot_of_an_idle_poll_and_the_messages_wait_for_it(batch: BatchPolicy) -> None:
    service, handler = standard(visibility_s=60), Handler()
    function = function_of(handler, limit=1)

    async def script(_mapping: QueueMapping, _stop: Stop) -> None:
        await asyncio.sleep(5.0)
        assert function.slots.free == 0
        assert await called_for(8.0, function, service, 1, 2) == 0.0
        await asyncio.sleep(60.0)

    play(parts(service, function, plan(service, batch=batch)), script)
    assert sorted(handler.done) == [1, 2]
    assert min(handler.times) >= 13.0
    assert set(service.received.values()) == {1}
    assert function.slots.in_flight == 0


def test_with_a_breaker_a_call_takes_slot_and_permit_and_the_batch_gets_both_again() -> None:
    service, handler = standard(visibility_s=60), Handler()
    entry = FunctionPlan(
        name="reader", invoker="fake", timeout_s=30.0, max_concurrency=1, breaker=BreakerPolicy(failures=0.5)
    )

    async def main() -> None:
        flow = FlowControl(entry, pacer=None, share=lambda: 1.0, clock=virtual_clock(), observer=Seen())
        function = Function(entry, handler, Seen(), flow=flow)
        stop = Stop()
        mapping = QueueMapping(parts(service, function, plan(service)), stop)
        async with asyncio.TaskGroup() as scope:
            scope.create_task(mapping.run(), name="mapping")
            await asyncio.sleep(5.5)
            assert await called_for(8.0, function, service, 1) <= 1.0
            await asyncio.sleep(30.0)
            stop.request(Reason.REQUESTED)
        assert function.slots.in_flight == 0

    run_virtual(main())
    assert handler.done == [1]
    assert set(service.received.values()) == {1}


def test_a_call_takes_the_slot_of_a_batch_that_gathers() -> None:
    service, handler = standard(visibility_s=60), Handler()
    function = function_of(handler, limit=1)

    async def script(_mapping: QueueMapping, _stop: Stop) -> None:
        service.send(1)
        await asyncio.sleep(10.0)
        assert await called_for(3.0, function, service, 2) == 0.0
        await asyncio.sleep(60.0)

    play(parts(service, function, plan(service, batch=WINDOW)), script)
    assert handler.timed == [(30.0, [1, 2])]
    assert function.slots.in_flight == 0


def test_a_poll_that_brings_nothing_gives_its_slot_back_only_once() -> None:
    service, handler = standard(), Handler()
    function = function_of(handler, limit=1)

    async def script(_mapping: QueueMapping, _stop: Stop) -> None:
        for _ in range(5):
            await asyncio.sleep(7.0)
            assert await called_for(25.0, function, service) <= 1.0
        service.send(1)
        await asyncio.sleep(30.0)

    play(parts(service, function, plan(service)), script)
    assert handler.done == [1]
    assert function.slots.in_flight == 0
