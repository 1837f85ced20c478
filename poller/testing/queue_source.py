"""Owns the contract of every QueueSource: scenarios on a `QueueWorld`. The name of each states the fact that it checks.

The tuples at the end group them: EVERY is for standard and FIFO queues, FIFO for FIFO queues, FAILING for worlds that can make
calls fail. MOVING and MOVING_FIFO are for queues that offer MessageMover.
"""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Protocol

import pytest
from msgspec import structs

from poller.domain.errors import (
    AccessDenied,
    PortError,
    RecordUnreadable,
    ResourceMissing,
    ServiceThrottled,
    ServiceUnavailable,
)
from poller.domain.records import Message, Undone
from poller.operator_ports import MessageMover
from poller.ports import QueueSource

RECEIVES_MAX = 20
"""Receives after which a scenario stops waiting for what it sent."""
WAIT_S = 5.0
"""The wait of a long poll for an expected message."""


class QueueWorld(Protocol):
    """An empty queue, standard or FIFO, with a way to send to it and a source that reads it."""

    @property
    def source(self) -> QueueSource:
        """The source under test."""
        ...

    @property
    def fifo(self) -> bool:
        """Whether the queue is a FIFO queue."""
        ...

    @property
    def visibility_s(self) -> int:
        """The queue's visibility timeout."""
        ...

    def stranger(self) -> QueueSource:
        """A source of a queue that does not exist."""
        ...

    async def send(self, body: str, *, group: str = "g", tenant: str | None = None) -> None:
        """Sends one message; its MessageGroupId is `group` on a FIFO queue, `tenant` on a standard one."""
        ...

    async def lapse(self) -> None:
        """Lets the visibility timeout of all messages in flight run out."""
        ...


class FailingQueueWorld(QueueWorld, Protocol):
    """A world whose calls can be made to fail."""

    async def fail(self, error: type[PortError]) -> None:
        """Makes every call on the source fail from now on, in a way for which the port raises `error`."""
        ...

    async def heal(self) -> None:
        """Makes calls succeed again."""
        ...


class DeadLetterWorld(QueueWorld, Protocol):
    """An empty queue with a dead-letter queue that is empty too."""

    @property
    def letters(self) -> MessageMover:
        """The port under test. It belongs to the queue of `source`."""
        ...

    def without_dead_letters(self) -> MessageMover:
        """The same for a queue that has no dead-letter queue."""
        ...

    async def dead(self, count: int) -> Sequence[Message]:
        """So many messages of the dead-letter queue; fewer if there are not so many."""
        ...


type QueueScenario = Callable[[Any], Coroutine[Any, Any, None]]


async def send_all(world: QueueWorld, bodies: Sequence[str], *, group: str = "g") -> None:
    """Sends one message for each body, one after the other."""
    for body in bodies:
        await world.send(body, group=group)


async def receive_all(world: QueueWorld, count: int) -> list[Message]:
    """Receives until it has `count` messages."""
    messages: list[Message] = []
    for _ in range(RECEIVES_MAX):
        if len(messages) >= count:
            break
        messages += await world.source.receive(messages_max=10, wait_s=WAIT_S)
    assert len(messages) == count
    return messages


async def nothing_comes(world: QueueWorld) -> bool:
    """Whether a receive that does not wait gets nothing."""
    return list(await world.source.receive(messages_max=10, wait_s=0)) == []


def bodies_of(messages: Sequence[Message]) -> list[str | None]:
    """The bodies of messages, in order."""
    return [message.body for message in messages]


def receipts_of(messages: Sequence[Message]) -> list[str]:
    """The receipts of messages, in order."""
    return [message.receipt for message in messages]


async def the_queue_says_what_it_is(world: QueueWorld) -> None:
    facts = await world.source.describe()
    assert facts.visibility_timeout_s == world.visibility_s
    assert facts.fifo is world.fifo
    assert facts.redrive_receives_max is None


async def an_empty_queue_gives_nothing(world: QueueWorld) -> None:
    assert await nothing_comes(world)


async def a_message_has_what_functions_see(world: QueueWorld) -> None:
    await world.send("hello")
    (message,) = await receive_all(world, 1)
    assert message.body == "hello"
    assert message.md5_of_body == "5d41402abc4b2a76b9719d911017c592"
    assert message.md5_of_message_attributes is None
    assert message.message_attributes == {}
    assert message.group == ("g" if world.fifo else None)
    given = ["ApproximateReceiveCount", "SentTimestamp", "SenderId", "ApproximateFirstReceiveTimestamp"]
    if world.fifo:
        given[2:2] = ["SequenceNumber", "MessageGroupId"]
        given[5:5] = ["MessageDeduplicationId"]
    assert sorted(message.attributes) == sorted(given)
    assert message.attributes["ApproximateReceiveCount"] == "1"


async def a_message_group_is_one_on_fifo_queues_only(world: QueueWorld) -> None:
    await world.send("a", group="shared", tenant="shared")
    (message,) = await receive_all(world, 1)
    assert message.attributes["MessageGroupId"] == "shared"
    assert message.group == ("shared" if world.fifo else None)


async def a_message_may_have_a_mebibyte(world: QueueWorld) -> None:
    body = "x" * (1024 * 1024 - 200)
    await world.send(body)
    (message,) = await receive_all(world, 1)
    assert message.body == body


async def a_received_message_is_hidden(world: QueueWorld) -> None:
    await world.send("a")
    await receive_all(world, 1)
    assert await nothing_comes(world)


async def a_message_comes_back_when_its_visibility_lapses(world: QueueWorld) -> None:
    await world.send("a")
    (first,) = await receive_all(world, 1)
    await world.lapse()
    (second,) = await receive_all(world, 1)
    assert (second.message_id, second.body) == (first.message_id, "a")
    assert second.receipt != first.receipt
    assert second.attributes["ApproximateReceiveCount"] == "2"


async def a_deleted_message_does_not_come_back(world: QueueWorld) -> None:
    await send_all(world, ["a", "b"])
    messages = await receive_all(world, 2)
    assert list(await world.source.delete([messages[0].receipt])) == []
    await world.lapse()
    assert bodies_of(await receive_all(world, 1)) == ["b"]


async def many_messages_are_deleted_in_one_go(world: QueueWorld) -> None:
    names = [f"m{number}" for number in range(25)]
    for name in names:
        await world.send(name, group=name)
    messages = await receive_all(world, 25)
    assert sorted(message.body or "" for message in messages) == sorted(names)
    assert list(await world.source.delete(receipts_of(messages))) == []
    await world.lapse()
    assert await nothing_comes(world)


async def to_delete_or_extend_nothing_is_nothing(world: QueueWorld) -> None:
    assert list(await world.source.delete([])) == []
    assert list(await world.source.extend([], visibility_s=10)) == []


async def a_receive_gives_no_more_than_it_was_asked_for(world: QueueWorld) -> None:
    await send_all(world, ["a", "b", "c"])
    messages = await world.source.receive(messages_max=2, wait_s=WAIT_S)
    assert 1 <= len(messages) <= 2


async def a_long_poll_ends_when_a_message_comes(world: QueueWorld) -> None:
    loop = asyncio.get_running_loop()
    begun = loop.time()
    async with asyncio.TaskGroup() as group:
        poll = group.create_task(world.source.receive(messages_max=10, wait_s=20), name="poll")
        await world.send("a")
    assert bodies_of(poll.result()) == ["a"]
    assert loop.time() - begun < 10


async def a_message_says_when_its_receive_was_sent(world: QueueWorld) -> None:
    loop = asyncio.get_running_loop()
    await world.send("a")
    before = loop.time()
    messages = await world.source.receive(messages_max=10, wait_s=0)
    for message in messages or await receive_all(world, 1):
        assert before <= message.received <= loop.time()


async def an_extended_message_stays_hidden(world: QueueWorld) -> None:
    await world.send("a")
    (message,) = await receive_all(world, 1)
    assert list(await world.source.extend([message.receipt], visibility_s=600)) == []
    await world.lapse()
    assert await nothing_comes(world)
    assert list(await world.source.delete([message.receipt])) == []


async def a_message_extended_by_nothing_is_visible_at_once(world: QueueWorld) -> None:
    await world.send("a")
    (message,) = await receive_all(world, 1)
    assert list(await world.source.extend([message.receipt], visibility_s=0)) == []
    (again,) = await receive_all(world, 1)
    assert again.message_id == message.message_id


async def each_message_may_have_a_time_of_its_own(world: QueueWorld) -> None:
    await world.send("a", group="a")
    await world.send("b", group="b")
    by_body = {message.body: message for message in await receive_all(world, 2)}
    receipts = [by_body["a"].receipt, by_body["b"].receipt]
    assert list(await world.source.extend(receipts, visibility_s=(0, 600))) == []
    assert bodies_of(await receive_all(world, 1)) == ["a"]
    assert await nothing_comes(world)


async def a_deleted_message_cannot_be_extended(world: QueueWorld) -> None:
    await send_all(world, ["a", "b"])
    gone, here = await receive_all(world, 2)
    await world.source.delete([gone.receipt])
    (undone,) = await world.source.extend([here.receipt, gone.receipt], visibility_s=600)
    assert isinstance(undone, Undone)
    assert (undone.receipt, undone.lapsed) == (gone.receipt, True)
    assert undone.reason


async def a_queue_that_is_not_there_is_missing(world: QueueWorld) -> None:
    stranger = world.stranger()
    with pytest.raises(ResourceMissing):
        await stranger.receive(messages_max=1, wait_s=0)
    with pytest.raises(ResourceMissing):
        await stranger.describe()


async def a_group_comes_in_order(world: QueueWorld) -> None:
    await send_all(world, ["a", "b", "c"])
    assert bodies_of(await receive_all(world, 3)) == ["a", "b", "c"]


async def a_group_in_flight_is_held_back_and_others_are_not(world: QueueWorld) -> None:
    await world.send("a1", group="a")
    await receive_all(world, 1)
    await world.send("a2", group="a")
    await world.send("b1", group="b")
    assert bodies_of(await receive_all(world, 1)) == ["b1"]
    assert await nothing_comes(world)


async def a_group_goes_on_when_its_messages_are_deleted(world: QueueWorld) -> None:
    await world.send("a1", group="a")
    (first,) = await receive_all(world, 1)
    await world.send("a2", group="a")
    await world.source.delete([first.receipt])
    assert bodies_of(await receive_all(world, 1)) == ["a2"]


async def a_group_comes_again_in_order_when_its_visibility_lapses(world: QueueWorld) -> None:
    await send_all(world, ["a", "b", "c"])
    first, _, _ = await receive_all(world, 3)
    await world.source.delete([first.receipt])
    await world.lapse()
    assert bodies_of(await receive_all(world, 2)) == ["b", "c"]


async def each_queue_call_says_what_is_wrong_and_goes_through_when_healed(world: FailingQueueWorld) -> None:
    source = world.source
    await world.send("a")
    (message,) = await receive_all(world, 1)
    for error in (ServiceThrottled, ServiceUnavailable, AccessDenied):
        await world.fail(error)
        with pytest.raises(error):
            await source.receive(messages_max=1, wait_s=0)
        with pytest.raises(error):
            await source.delete([message.receipt])
        with pytest.raises(error):
            await source.extend([message.receipt], visibility_s=600)
        with pytest.raises(error):
            await source.describe()
        await world.heal()
        assert list(await source.extend([message.receipt], visibility_s=600)) == []


async def a_copy_is_in_the_dead_letter_queue_and_the_message_stays(world: DeadLetterWorld) -> None:
    await world.send("hello €", group="a")
    (message,) = await receive_all(world, 1)
    assert await world.letters.send_to_dead_letters(message)
    (copy,) = await world.dead(1)
    assert (copy.body, copy.group) == ("hello €", "a" if world.fifo else None)
    assert list(await world.source.extend([message.receipt], visibility_s=0)) == []
    assert [each.message_id for each in await receive_all(world, 1)] == [message.message_id]


async def copies_keep_the_order_of_their_group_and_one_sent_again_is_no_second_one(
    world: DeadLetterWorld,
) -> None:
    await send_all(world, ["a", "b", "c"])
    messages = await receive_all(world, 3)
    for message in (*messages, *messages[:2]):
        await world.letters.send_to_dead_letters(message)
    assert bodies_of(await world.dead(4)) == ["a", "b", "c"]


async def a_queue_without_dead_letters_says_so(world: DeadLetterWorld) -> None:
    await world.send("a")
    (message,) = await receive_all(world, 1)
    with pytest.raises(ResourceMissing):
        await world.without_dead_letters().send_to_dead_letters(message)


async def a_message_without_content_is_not_sent(world: DeadLetterWorld) -> None:
    await world.send("a")
    (message,) = await receive_all(world, 1)
    with pytest.raises(RecordUnreadable):
        await world.letters.send_to_dead_letters(structs.replace(message, body=None))
    assert list(await world.dead(1)) == []


EVERY: tuple[QueueScenario, ...] = (
    the_queue_says_what_it_is,
    an_empty_queue_gives_nothing,
    a_message_has_what_functions_see,
    a_message_group_is_one_on_fifo_queues_only,
    a_message_may_have_a_mebibyte,
    a_received_message_is_hidden,
    a_message_comes_back_when_its_visibility_lapses,
    a_deleted_message_does_not_come_back,
    many_messages_are_deleted_in_one_go,
    to_delete_or_extend_nothing_is_nothing,
    a_receive_gives_no_more_than_it_was_asked_for,
    a_long_poll_ends_when_a_message_comes,
    a_message_says_when_its_receive_was_sent,
    an_extended_message_stays_hidden,
    a_message_extended_by_nothing_is_visible_at_once,
    each_message_may_have_a_time_of_its_own,
    a_deleted_message_cannot_be_extended,
    a_queue_that_is_not_there_is_missing,
)
"""For every QueueWorld."""
FIFO: tuple[QueueScenario, ...] = (
    a_group_comes_in_order,
    a_group_in_flight_is_held_back_and_others_are_not,
    a_group_goes_on_when_its_messages_are_deleted,
    a_group_comes_again_in_order_when_its_visibility_lapses,
)
"""For a QueueWorld over a FIFO queue."""
FAILING: tuple[QueueScenario, ...] = (each_queue_call_says_what_is_wrong_and_goes_through_when_healed,)
"""For a FailingQueueWorld."""
MOVING: tuple[QueueScenario, ...] = (
    a_copy_is_in_the_dead_letter_queue_and_the_message_stays,
    a_queue_without_dead_letters_says_so,
    a_message_without_content_is_not_sent,
)
"""For a DeadLetterWorld."""
MOVING_FIFO: tuple[QueueScenario, ...] = (
    copies_keep_the_order_of_their_group_and_one_sent_again_is_no_second_one,
)
"""For a DeadLetterWorld over a FIFO queue."""
