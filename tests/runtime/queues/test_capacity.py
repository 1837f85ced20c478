"""Room before receive: nobody receives what cannot run, and nobody who is idle keeps others waiting."""

import asyncio
from collections.abc import Sequence
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from poller.domain.invocations import Outcome, Succeeded, Throttled
from poller.domain.plan import Tuning
from poller.domain.policies import BatchPolicy, QueuePolicy, ScalingPolicy
from poller.domain.records import MappingId
from poller.runtime.queues.capacity import LOST_AFTER_S, QueueCapacity, Reservation, WorkerShare
from poller.runtime.queues.queue_mapping import QueueMapping
from poller.runtime.slots import Slots
from poller.runtime.stopping import Reason, Stop
from tests.runtime.queues.queue_fakes import (
    Handler,
    Service,
    fifo,
    function_of,
    parts,
    plan,
    seconds,
    standard,
)
from tests.virtual import run_virtual, virtual_clock

LONG = Tuning(grace_s=1000.0)


async def together(mappings: Sequence[QueueMapping], stop: Stop, for_s: float) -> None:
    async with asyncio.TaskGroup() as scope:
        for number, mapping in enumerate(mappings):
            scope.create_task(mapping.run(), name=f"mapping {number}")
        await asyncio.sleep(for_s)
        stop.request(Reason.REQUESTED)


async def taken(capacity: QueueCapacity) -> Reservation:
    """Room, waiting for it; without a maximum of all workers there always is some at last."""
    reservation = await capacity.reserve()
    assert reservation is not None
    return reservation


def test_reservations_are_bounded_by_function_and_mapping() -> None:
    async def main() -> None:
        function = Slots(3)
        capacity = QueueCapacity(function, 2)
        first = await capacity.reserve_now()
        second = await capacity.reserve_now()
        assert first is not None
        assert second is not None
        assert await capacity.reserve_now() is None
        assert function.in_flight == 2
        first.free()
        first.free()
        assert function.in_flight == 1
        third = await capacity.reserve_now()
        assert third is not None
        await function.acquire()
        other = QueueCapacity(function, 10)
        assert await other.reserve_now() is None

    run_virtual(main())


def test_a_cancelled_wait_for_room_takes_none() -> None:
    async def main() -> None:
        function = Slots(1)
        capacity = QueueCapacity(function, 5)
        held = await taken(capacity)
        for _ in range(3):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(1.0):
                    await capacity.reserve()
        assert (capacity.queued, function.waiting, function.in_flight) == (0, 0, 1)
        held.free()
        (await taken(capacity)).free()
        assert function.in_flight == 0

    run_virtual(main())


def test_a_worker_that_has_lost_its_part_keeps_nobody_waiting_for_room() -> None:
    """All who stand in line get none when nothing was allowed for 30 s, and take room as before when there is a part again."""
    allowed = [2]

    async def main() -> None:
        function = Slots(5)
        capacity = QueueCapacity(function, 5, worker_share=WorkerShare(virtual_clock(), lambda: allowed[0]))
        held = [await taken(capacity), await taken(capacity)]
        assert await capacity.reserve_now() is None, "its part is in use"
        allowed[0] = 0
        with held[0].away():
            started = seconds()
            async with asyncio.TaskGroup() as scope:
                waiting = [
                    scope.create_task(capacity.reserve(), name=f"poller {number}") for number in range(6)
                ]
                await held[0].again()
                assert not held[0].held
                assert seconds() - started == pytest.approx(LOST_AFTER_S, abs=1.0)
            assert [task.result() for task in waiting] == [None] * 6
        assert (capacity.used, function.in_flight, capacity.queued) == (1, 1, 0)
        allowed[0] = 1
        with held[0].away():
            again = asyncio.create_task(held[0].again(), name="again")
            await asyncio.sleep(100.0)
            assert not again.done(), "its part is in use by the other one"
            held[1].free()
            await again
        assert (held[0].held, capacity.used, function.in_flight) == (True, 1, 1)

    run_virtual(main())


@settings(max_examples=40, deadline=None)
@given(
    turns=st.lists(
        st.tuples(st.floats(0.0, 60.0), st.floats(0.0, 90.0), st.booleans()), min_size=1, max_size=12
    ),
    parts_at=st.lists(st.integers(0, 3), min_size=1, max_size=8),
    limit=st.integers(1, 3),
)
def test_no_room_is_lost_and_none_is_taken_beyond_the_part_of_the_moment(
    turns: list[tuple[float, float, bool]], parts_at: list[int], limit: int
) -> None:
    """Batches begin, go away, come again and are given up, while the part changes every 25 s; at last there is a part for ever."""

    async def main() -> None:
        function = Slots(limit)

        def allowed() -> int:
            place = int(seconds() // 25.0)
            return parts_at[place] if place < len(parts_at) else 3

        capacity = QueueCapacity(function, 3, worker_share=WorkerShare(virtual_clock(), allowed))

        async def batch(begins_s: float, waits_s: float, given_up: bool) -> None:
            await asyncio.sleep(begins_s)
            reservation = await capacity.reserve()
            if reservation is None:
                return
            assert capacity.used <= min(allowed(), limit)
            await asyncio.sleep(1.0)
            with suppress(TimeoutError):
                async with asyncio.timeout(waits_s if given_up else None):
                    with reservation.away():
                        await asyncio.sleep(waits_s / 2)
                        await reservation.again()
                    if reservation.held:
                        assert capacity.used <= min(allowed(), limit)
                        await asyncio.sleep(2.0)
            reservation.free()

        async with asyncio.TaskGroup() as scope:
            for place, turn in enumerate(turns):
                scope.create_task(batch(*turn), name=f"batch {place}")
        assert (capacity.used, capacity.queued, capacity.away, function.in_flight) == (0, 0, 0, 0)
        await asyncio.sleep(300.0)
        assert None not in [await capacity.reserve_now() for _ in range(min(3, limit))]

    run_virtual(main())


def test_one_poller_of_a_mapping_stands_in_the_functions_line() -> None:
    async def main() -> None:
        function = Slots(1)
        greedy, modest = QueueCapacity(function, 50), QueueCapacity(function, 50)
        held = await taken(greedy)
        order: list[str] = []

        async def take(capacity: QueueCapacity, name: str) -> None:
            reservation = await taken(capacity)
            order.append(name)
            await asyncio.sleep(1.0)
            reservation.free()

        async with asyncio.TaskGroup() as scope:
            for _ in range(4):
                scope.create_task(take(greedy, "greedy"), name="greedy")
            await asyncio.sleep(0.1)
            assert function.waiting == 1
            scope.create_task(take(modest, "modest"), name="modest")
            await asyncio.sleep(0.1)
            held.free()
        assert order.index("modest") == 1

    run_virtual(main())


def idle_beside_busy(
    limit: int, *, idle_mappings: int, hour_s: float = 3600.0
) -> tuple[list[Service], Handler]:
    """Idle queues and a busy one share a function; returns the services, the busy one's last, and the handler."""
    handler = Handler(takes_s=4.0)
    services = [standard() for _ in range(idle_mappings + 1)]

    async def main() -> None:
        stop = Stop()
        function = function_of(handler, limit=limit)
        services[-1].send(*range(int(hour_s) // 4 * limit + 50))
        mappings = [
            QueueMapping(parts(each, function, plan(each, batch=BatchPolicy(1)), seed=number), stop)
            for number, each in enumerate(services)
        ]
        await together(mappings, stop, hour_s)

    run_virtual(main())
    return services, handler


@pytest.mark.parametrize(("limit", "idle_mappings"), [(1, 1), (2, 1), (4, 3)])
def test_idle_queues_leave_a_shared_function_to_the_busy_one(limit: int, idle_mappings: int) -> None:
    services, handler = idle_beside_busy(limit, idle_mappings=idle_mappings, hour_s=600.0)
    assert len(handler.calls) >= 0.9 * 600 / 4 * limit
    for service in services[:-1]:
        assert len(service.receives) <= 120 * 600 / 3600 * 6


def test_an_idle_queue_beside_a_busy_one_has_a_bounded_number_of_calls() -> None:
    services, _ = idle_beside_busy(2, idle_mappings=1)
    assert len(services[0].receives) <= 700


def test_two_idle_queues_that_share_a_function_poll_a_bounded_number_of_times() -> None:
    services = [standard(), standard()]

    async def main() -> None:
        stop = Stop()
        function = function_of(Handler(), limit=1)
        mappings = [QueueMapping(parts(each, function, plan(each)), stop) for each in services]
        await together(mappings, stop, 3600.0)

    run_virtual(main())
    for service in services:
        assert len(service.receives) <= 700


def test_a_message_on_a_shared_function_waits_no_longer_than_a_pause_and_a_poll() -> None:
    services, handler = [standard(), standard()], Handler()

    async def main() -> None:
        stop = Stop()
        function = function_of(handler, limit=1)
        mappings = [QueueMapping(parts(each, function, plan(each)), stop) for each in services]

        async def write() -> None:
            for number in range(20):
                await asyncio.sleep(37.3)
                services[number % 2].send(number)

        async with asyncio.TaskGroup() as scope:
            scope.create_task(write(), name="writer")
            await together(mappings, stop, 800.0)

    run_virtual(main())
    waits = [at - 37.3 * (numbers[0] + 1) for at, numbers in handler.timed]
    assert len(waits) == 20
    assert max(waits) <= 12.0


def test_a_batch_that_others_wait_for_does_not_sit_out_its_window() -> None:
    slow, other = standard(), standard()
    handler = Handler()

    async def main() -> None:
        stop = Stop()
        function = function_of(handler, limit=1)
        slow.send(1)
        mappings = [
            QueueMapping(parts(slow, function, plan(slow, batch=BatchPolicy(100, 300.0))), stop),
            QueueMapping(parts(other, function, plan(other)), stop),
        ]

        async def write() -> None:
            await asyncio.sleep(5.0)
            other.send(100)

        async with asyncio.TaskGroup() as scope:
            scope.create_task(write(), name="writer")
            await together(mappings, stop, 30.0)

    run_virtual(main())
    assert sorted(number for numbers in handler.calls for number in numbers) == [1, 100]
    assert max(handler.times) < 20.0


@settings(max_examples=30, deadline=None)
@given(
    limit=st.integers(1, 4),
    caps=st.lists(st.none() | st.integers(1, 3), min_size=1, max_size=3),
    batch=st.integers(1, 10),
    window_s=st.sampled_from([0.0, 2.0]),
    takes_s=st.sampled_from([0.1, 3.0, 25.0, 70.0]),
    kinds=st.lists(st.booleans(), min_size=3, max_size=3),
    visibility_s=st.sampled_from([10, 30, 120]),
    throttled=st.lists(st.floats(0.0, 200.0), max_size=3),
    one_group=st.booleans(),
)
def test_no_receive_count_is_ever_raised_by_our_own_capacity(
    limit: int,
    caps: list[int | None],
    batch: int,
    window_s: float,
    takes_s: float,
    kinds: list[bool],
    visibility_s: int,
    throttled: list[float],
    one_group: bool,
) -> None:
    """Mappings share a function that is too small and at times refuses; every message is received exactly once."""

    def answer(_: list[int]) -> Outcome:
        refused = any(start <= seconds() < start + 40.0 for start in throttled)
        return Throttled("no room") if refused else Succeeded(b"")

    handler = Handler(takes_s=takes_s, answer=answer)
    services = [
        fifo(visibility_s, redrive=1) if kinds[place] else standard(visibility_s, redrive=1)
        for place in range(len(caps))
    ]

    async def main() -> None:
        stop = Stop()
        function = function_of(handler, limit=limit, timeout_s=100.0)
        mappings = []
        for place, (service, cap) in enumerate(zip(services, caps, strict=True)):
            for number in range(16):
                if kinds[place]:
                    service.send(1000 * place + number, group=f"{place}-{number % 4}")
                else:
                    service.send(1000 * place + number)
            mapping = plan(
                service,
                mapping=MappingId(f"m{place}"),
                batch=BatchPolicy(batch, 0.0 if kinds[place] else window_s),
                scaling=ScalingPolicy(concurrency_max=cap),
                queue=QueuePolicy(one_group_per_batch=one_group),
            )
            mappings.append(QueueMapping(parts(service, function, mapping, tuning=LONG), stop))
        await together(mappings, stop, 48 * (takes_s + 1.0) + 600.0)

    run_virtual(main())
    assert handler.in_flight_max <= limit
    assert len(handler.done) == len(set(handler.done)) == 16 * len(services)
    for service in services:
        assert set(service.received.values()) <= {1}
        assert service.queue.dead == []
        assert service.left == []
