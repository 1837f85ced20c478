"""A function's slots bound its invocations, tell how many run, and a silent invoker counts as timed out."""

import asyncio

import pytest

from poller.invocations import EncodedEvent, Invocation, Outcome, Succeeded, TimedOut
from poller.plan import FunctionPlan
from poller.runtime.invoking import GUARD_S, Function, Slots
from poller.telemetry import Capacity
from tests.runtime.fakes import Seen
from tests.virtual import run_virtual, virtual_clock

CALL = Invocation(function_arn="arn", request_id="id", event=EncodedEvent(b"{}"), timeout_s=30.0)


class Silent:
    """An invoker that never answers."""

    async def invoke(self, invocation: Invocation) -> Outcome:
        await asyncio.sleep(1e6)
        return Succeeded(b"")


def _function(limit: int | None, seen: Seen) -> Function:
    plan = FunctionPlan(name="reader", invoker="fake", max_concurrency=limit)
    return Function(plan, Silent(), seen)


def test_an_invoker_that_never_answers_is_given_up_a_little_after_its_time() -> None:
    async def main() -> tuple[Outcome, float]:
        function = _function(1, Seen())
        await function.slots.acquire()
        outcome = await function.call(CALL)
        return outcome, virtual_clock().monotonic()

    assert run_virtual(main()) == (TimedOut(30.0), 30.0 + GUARD_S)


def test_each_move_of_the_slots_is_told() -> None:
    seen = Seen()

    async def main() -> None:
        function = _function(2, seen)
        await function.slots.acquire()
        await function.slots.acquire()
        function.slots.release()
        function.slots.release()

    run_virtual(main())
    assert [(event.in_flight, event.limit) for event in seen.of(Capacity)] == [(1, 2), (2, 2), (1, 2), (0, 2)]


def test_waiters_are_served_in_order_and_never_beyond_the_limit() -> None:
    served: list[int] = []

    async def worker(slots: Slots, number: int) -> None:
        await slots.acquire()
        served.append(number)
        assert slots.in_flight <= 2
        await asyncio.sleep(1)
        slots.release()

    async def main() -> float:
        slots = Slots(2)
        async with asyncio.TaskGroup() as scope:
            for number in range(6):
                scope.create_task(worker(slots, number))
        assert slots.free == 2
        return virtual_clock().monotonic()

    assert run_virtual(main()) == 3.0
    assert served == [0, 1, 2, 3, 4, 5]


def test_a_slot_given_back_twice_is_a_bug() -> None:
    async def main() -> None:
        slots = Slots(1)
        await slots.acquire()
        slots.release()
        with pytest.raises(AssertionError):
            slots.release()

    run_virtual(main())
