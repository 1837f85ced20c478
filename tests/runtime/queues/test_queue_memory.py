"""Pollers receive what has room, and a poller without room does not keep the capacity that held batches wait for."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

import pytest

from poller.domain.errors import ServiceUnavailable
from poller.domain.invocations import Invocation, Outcome
from poller.domain.policies import BatchPolicy, ScalingPolicy
from poller.domain.records import Message, Monotonic
from poller.memory.answers import make_room
from poller.rules.memory.byte_budget import HOLDING_PATIENCE_S, IDLE_PATIENCE_S
from poller.rules.queues.polling import MESSAGES_MAX
from poller.rules.queues.visibility import MESSAGE_FACTOR
from poller.runtime.memory.pool import MemoryPool
from poller.runtime.queues.bounded.queue_memory import ANSWER_S_MAX, FIRST_BYTES, PollerRoom, QueueMemory
from tests.runtime.queues.queue_fakes import (
    Handler,
    Service,
    fifo,
    function_of,
    parts,
    plan,
    play,
    seconds,
    standard,
    throttled_until,
)
from tests.simulation.services.contents import Content
from tests.virtual import run_virtual

MB = 1024 * 1024
FIRST = int(FIRST_BYTES * MESSAGE_FACTOR)


def played(main: Callable[[MemoryPool, QueueMemory], Awaitable[None]], *, memory_mb: int = 64) -> None:
    """Runs it with a queue mapping of a daemon that may hold so much."""

    async def run() -> None:
        pool = MemoryPool()
        pool.follow(memory_mb)
        memory = QueueMemory(pool)
        await main(pool, memory)
        memory.close()
        assert (pool.budget.used, pool.budget.waiting) == (0, 0)

    run_virtual(run())


async def nothing(_: int) -> Sequence[Message]:
    """A receive that brings nothing."""
    return ()


def test_the_largest_messages_are_expected_until_others_were_seen() -> None:
    async def main(pool: MemoryPool, memory: QueueMemory) -> None:
        rooms = []
        while (room := memory.room_now(MESSAGES_MAX)) is not None:
            rooms.append(room)
        assert sum(each.messages_max for each in rooms) <= 64 * MB // FIRST
        assert len(rooms) < 20, "the others begin when these have answers"
        for each in rooms:
            each.close()
        assert pool.budget.used == 0

    played(main)


def test_a_queue_without_messages_reserves_little_after_a_while() -> None:
    async def main(pool: MemoryPool, memory: QueueMemory) -> None:
        for _ in range(40):
            room = memory.room_now(MESSAGES_MAX)
            assert room is not None
            with room:
                await room.receive(nothing, room.messages_max)
        room = memory.room_now(MESSAGES_MAX)
        assert room is not None
        assert pool.budget.used <= 20_480
        assert room.messages_max == MESSAGES_MAX
        room.close()

    played(main)


def test_an_answer_that_finds_no_room_in_time_has_failed_and_fewer_messages_are_asked_for() -> None:
    async def large(asked: int) -> Sequence[Message]:
        await make_room(asked * MB)
        return ()

    async def main(pool: MemoryPool, memory: QueueMemory) -> None:
        for _ in range(40):
            room = memory.room_now(MESSAGES_MAX)
            assert room is not None
            with room:
                await room.receive(nothing, 1)
        others = pool.account()
        others.hold(60 * MB)
        memory.hold(1)
        room = memory.room_now(MESSAGES_MAX)
        assert room is not None
        with room, pytest.raises(ServiceUnavailable):
            await room.receive(large, room.messages_max)
        assert seconds() == pytest.approx(ANSWER_S_MAX)
        room = memory.room_now(MESSAGES_MAX)
        assert room is not None
        assert room.messages_max == 1
        room.close()
        others.close()

    played(main)


def test_a_poller_without_room_waits_for_it_and_has_it_then() -> None:
    async def main(pool: MemoryPool, memory: QueueMemory) -> None:
        others, mine = pool.account(), PollerRoom(memory)
        async with mine.waited_for():
            assert seconds() == 0.0, "nothing is lacking"
        memory.hold(1)
        others.hold(64 * MB)
        assert mine.take(MESSAGES_MAX) is None
        assert mine.lacking
        asyncio.get_running_loop().call_later(3, others.hold, 10 * MB)
        async with mine.waited_for():
            assert seconds() == pytest.approx(3)
        others.hold(64 * MB)
        room = mine.take(MESSAGES_MAX)
        assert room is not None
        room.close()
        others.hold(0)
        mine.lacking = True
        async with mine.waited_for():
            mine.close()
        assert pool.budget.used == 1
        others.close()

    played(main)


@dataclass
class Stated(Service):
    """A queue that says how long its answers are before it gives them."""

    asked: list[int] = field(default_factory=list)

    async def receive(self, *, messages_max: int, wait_s: float) -> Sequence[Message]:
        """As the fake."""
        self.asked.append(messages_max)
        found = await super().receive(messages_max=messages_max, wait_s=wait_s)
        await make_room(sum(len(each.body or "") for each in found))
        return found


def stated(service: Service) -> Stated:
    """The same queue."""
    return Stated(service.queue)


def test_a_batch_that_is_held_is_tried_again_although_a_poller_waits_for_room() -> None:
    """A FIFO queue whose held batch has all the room there is, and a function with one call at once."""
    service = stated(fifo())
    for number in (1, 2, 3):
        service.queue.send(0, Content(number, pad=900_000), group=f"group-{number}")
    handler = Handler(answer=throttled_until(60))
    mapping = plan(service, scaling=ScalingPolicy(concurrency_max=1), batch=BatchPolicy(records_max=1))

    context = parts(service, function_of(handler, limit=1), mapping)
    context.memory.follow(1)
    play(context, 200)
    assert sorted(handler.done) == [1, 2, 3]
    assert service.left == []
    assert (context.memory.budget.used, context.memory.budget.waiting) == (0, 0)


def test_many_pollers_of_large_messages_stay_within_the_memory() -> None:
    service = stated(standard(visibility_s=600))
    for number in range(400):
        service.queue.send(0, Content(number, pad=1_000_000))
    handler = Handler(takes_s=0.2)
    provisioned = ScalingPolicy(provisioned_min=20, provisioned_max=20)
    context = parts(service, function_of(handler), plan(service, scaling=provisioned))
    context.memory.follow(64)
    most: list[int] = []

    async def watch(*unused: object) -> None:
        while len(handler.done) < 400:
            most.append(context.memory.budget.used)
            await asyncio.sleep(0.05)

    play(context, watch)
    assert sorted(handler.done) == list(range(400))
    assert max(service.received.values()) == 1, "no answer was abandoned"
    assert 32 * MB < max(most) <= 64 * MB
    assert context.memory.budget.used == 0


def test_pollers_that_wait_for_capacity_keep_room_for_one_receive() -> None:
    """All found no room once. When there is some again, calls of another mapping have all slots of the function for long."""
    service = stated(standard(visibility_s=1_000))
    pollers = 10
    scaling = ScalingPolicy(provisioned_min=1, provisioned_max=1)
    function = function_of(Handler(), limit=pollers)
    context = parts(service, function, plan(service, scaling=scaling))
    context.memory.follow(64)
    budget, blocked = context.memory.budget, context.memory.account()
    blocked.hold(64 * MB)

    async def watch(*unused: object) -> None:
        await asyncio.sleep(IDLE_PATIENCE_S / 2)
        for _ in range(pollers):
            assert await function.slots.acquire_now()
        blocked.hold(32 * MB)
        await asyncio.sleep(60)
        reserved.append(budget.used - 32 * MB)
        blocked.close()
        for _ in range(pollers):
            function.slots.release()

    reserved: list[int] = []
    play(context, watch, within_s=5)
    assert FIRST <= reserved[0] < 16 * MB, "the others have the rest"
    assert budget.used == 0


@dataclass
class LongCall(Handler):
    """A function whose call with message 0 takes long."""

    long_s: float = 800.0

    async def invoke(self, invocation: Invocation) -> Outcome:
        """As the handler."""
        self.takes_s = 0.0 if self.calls else self.long_s
        return await super().invoke(invocation)


def test_a_queue_whose_call_takes_long_goes_on_beside_shards_that_hold_everything() -> None:
    service = stated(standard(visibility_s=1_000))
    for number in range(10):
        service.queue.send(0, Content(number, pad=1_000_000))
    handler = LongCall()
    context = parts(
        service, function_of(handler, timeout_s=900), plan(service, batch=BatchPolicy(records_max=1))
    )
    context.memory.follow(64)
    blocked = context.memory.account()
    blocked.hold(64 * MB)
    most: list[int] = []

    async def watch(*unused: object) -> None:
        for _ in range(int(10 * 2 * HOLDING_PATIENCE_S)):
            await asyncio.sleep(1)
            most.append(context.memory.budget.used)
        done.append(len(handler.done))
        blocked.close()

    done: list[int] = []
    play(context, watch, within_s=5)
    assert done == [9]
    assert max(service.received.values()) == 1, "no answer was abandoned"
    assert max(most) <= 64 * MB + 3 * FIRST, "no more than a message at a time"


def test_a_body_with_one_wide_character_counts_for_what_it_takes() -> None:
    body = "x" * (MB - 4) + "\N{GRINNING FACE}"
    message = Message("message", "receipt", body, {}, {}, None, Monotonic(0.0))

    async def wide(_: int) -> Sequence[Message]:
        await make_room(len(body.encode()))
        return [message]

    async def main(pool: MemoryPool, memory: QueueMemory) -> None:
        room = memory.room_now(1)
        assert room is not None
        with room:
            await room.receive(wide, 1)
        room = memory.room_now(1)
        assert room is not None
        assert pool.budget.used >= MESSAGE_FACTOR * 4 * MB, "as much as the next one may take"
        room.close()

    played(main)
