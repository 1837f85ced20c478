"""Deletes go ten a call, soon, some calls at once, and none is forgotten, whenever they come."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from poller.domain.errors import ServiceUnavailable
from poller.domain.records import Message, Undone
from poller.rules.queues.in_flight import PendingDelete
from poller.runtime.queues.capacity import QueueCapacity
from poller.runtime.queues.deleter import DELETES_MAX, LINGER_S, TRIES_MAX, WORKERS_MAX, Deleter
from poller.runtime.queues.in_flight import InFlight, tracker_of
from poller.runtime.stopping import Stop
from tests.runtime.queues.queue_fakes import Handler, Service, function_of, parts, plan, seconds, standard
from tests.virtual import run_virtual


@dataclass
class Slow(Service):
    """A queue whose deletes take a second, and which notes when each began and how many ran at once."""

    begun: list[tuple[float, int]] = field(default_factory=list)
    running: int = 0
    running_max: int = 0

    async def delete(self, receipts: Sequence[str]) -> Sequence[Undone]:
        self.begun.append((seconds(), len(receipts)))
        self.running += 1
        self.running_max = max(self.running, self.running_max)
        try:
            await asyncio.sleep(1.0)
            return await super().delete(receipts)
        finally:
            self.running -= 1


@asynccontextmanager
async def deleting(
    count: int, kind: type[Deleter] = Deleter
) -> AsyncIterator[tuple[Slow, Deleter, list[PendingDelete]]]:
    """A running deleter, and parcels of `count` messages that were received; all is deleted when it ends."""
    service = Slow(standard(600).queue)
    service.send(*range(count))
    given_parts = parts(service, function_of(Handler()), plan(service))
    capacity = QueueCapacity(given_parts.function.slots, 10)
    tracker = tracker_of(given_parts, service.queue.facts)
    scope = InFlight(given_parts, Stop(), capacity, tracker)
    messages: list[Message] = []
    while len(messages) < count:
        messages += scope.received(await service.receive(messages_max=10, wait_s=0), asked=10)
    deleter = kind(scope)
    async with asyncio.TaskGroup() as group:
        group.create_task(deleter.run(), name="deleter")
        yield service, deleter, [PendingDelete(message, None) for message in messages]
        deleter.close()
    assert service.left == []
    assert len(scope.tracker) == 0


@pytest.mark.parametrize(
    ("count", "begun"),
    [
        (1, [(LINGER_S, 1)]),
        (9, [(LINGER_S, 9)]),
        (10, [(0.0, 10)]),
        (13, [(0.0, 10), (LINGER_S, 3)]),
        (30, [(0.0, 10)] * 3),
    ],
)
def test_ten_go_at_once_and_fewer_wait_a_moment_for_company(
    count: int, begun: list[tuple[float, int]]
) -> None:
    async def script() -> None:
        async with deleting(count) as (service, deleter, parcels):
            deleter.add(parcels)
            await asyncio.sleep(5.0)
            assert service.begun == begun

    run_virtual(script())


def test_who_waits_for_company_goes_as_soon_as_it_comes() -> None:
    async def script() -> None:
        async with deleting(11) as (service, deleter, parcels):
            deleter.add(parcels[:4])
            await asyncio.sleep(LINGER_S / 2)
            deleter.add(parcels[4:])
            await asyncio.sleep(5.0)
            assert service.begun == [(LINGER_S / 2, 10), (LINGER_S * 1.5, 1)]

    run_virtual(script())


def test_calls_on_the_way_at_once_are_limited() -> None:
    count = (WORKERS_MAX + 5) * DELETES_MAX

    async def script() -> None:
        async with deleting(count) as (service, deleter, parcels):
            deleter.add(parcels)
            await asyncio.sleep(1.5)
            assert service.begun == [(0.0, 10)] * WORKERS_MAX + [(1.0, 10)] * 5
            assert service.running_max == WORKERS_MAX

    run_virtual(script())


def test_what_came_while_all_calls_were_busy_is_not_looked_for_once_for_each_time_it_came() -> None:
    class Counting(Deleter):
        looks = 0

        def _take(self) -> list[PendingDelete]:
            self.looks += 1
            return super()._take()

    async def main() -> None:
        count = DELETES_MAX * WORKERS_MAX * 3
        async with deleting(count, Counting) as (service, deleter, parcels):
            for parcel in parcels:
                deleter.add([parcel])
                await asyncio.sleep(0.001)
            await asyncio.sleep(10.0)
            assert isinstance(deleter, Counting)
            assert deleter.looks <= 3 * len(service.begun)
            looked = deleter.looks
            await asyncio.sleep(1.0)
            assert deleter.looks == looked

    run_virtual(main())


def test_what_is_left_at_the_end_does_not_wait_for_company() -> None:
    async def script() -> None:
        async with deleting(3) as (service, deleter, parcels):
            deleter.add(parcels)
            await asyncio.sleep(LINGER_S / 2)
        assert service.begun == [(LINGER_S / 2, 3)]

    run_virtual(script())


def test_a_delete_is_given_up_at_its_last_try_and_not_after_another_wait() -> None:
    async def script() -> None:
        async with deleting(1) as (service, deleter, parcels):
            service.trouble["delete"] = [ServiceUnavailable("down")] * TRIES_MAX
            deleter.add(parcels)
            for _ in range(5_000):
                await asyncio.sleep(0.1)
                if len(service.begun) == TRIES_MAX:
                    break
            last = service.begun[-1][0]
            await asyncio.sleep(last + 1.2 - seconds())
            assert len(deleter._scope.tracker) == 0
            assert [size for _, size in service.begun] == [1] * TRIES_MAX
            service.queue.letters.clear()

    run_virtual(script())


@given(
    st.lists(
        st.tuples(st.integers(1, 25), st.sampled_from([0.0, LINGER_S / 2, LINGER_S, 0.5, 1.0])), max_size=10
    )
)
def test_whatever_comes_when_is_deleted_without_further_ado(steps: list[tuple[int, float]]) -> None:
    async def script() -> None:
        async with deleting(sum(count for count, _ in steps)) as (service, deleter, parcels):
            for count, wait_s in steps:
                deleter.add(parcels[:count])
                del parcels[:count]
                await asyncio.sleep(wait_s)
            # Calls enough for all of it are free: nothing waits longer than for company and its own call.
            await asyncio.sleep(LINGER_S + 1.0 + LINGER_S)
            assert service.left == []
            assert max((size for _, size in service.begun), default=0) <= DELETES_MAX

    run_virtual(script())
