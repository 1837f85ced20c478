"""Messages that cannot be read, on virtual time: they stay in their queue, are told, and stop nothing but their group."""

import asyncio

import pytest

from poller.domain.policies import BatchPolicy
from poller.domain.telemetry.mapping_events import PortFailed, Released
from poller.runtime.queues.queue_mapping import QueueMapping
from poller.runtime.stopping import Stop
from tests.runtime.fakes import Seen
from tests.runtime.queues.queue_fakes import Handler, fifo, function_of, parts, plan, play, standard

WHY = "message message-000001 cannot be read: Expected `str | null`, got `object` - at `$.Body`"


def test_a_message_that_cannot_be_read_is_left_and_reported_while_the_others_of_its_receive_run() -> None:
    service, handler, seen = standard(30, redrive=2), Handler(), Seen()
    service.send(0, 1, 2)
    service.queue.letters["message-000001"].unreadable = 10
    play(parts(service, function_of(handler), plan(service), seen=seen), 70.0)
    assert handler.timed == [(0.0, [0, 2])]
    told = [(each.port, each.error, each.reason) for each in seen.of(PortFailed)]
    assert told == [("source", "RecordUnreadable", WHY)] * 2
    assert [each.messages for each in seen.of(Released)] == [1, 1]
    assert [each.content.number for each in service.queue.dead] == [1]


def test_a_message_that_can_be_read_later_runs_then() -> None:
    service, handler = standard(30), Handler()
    service.send(0, 1)
    service.queue.letters["message-000001"].unreadable = 1
    play(parts(service, function_of(handler), plan(service)), 40.0)
    assert handler.calls == [[0], [1]]
    assert handler.times == pytest.approx([0.0, 30.0])
    assert service.left == []


def test_nothing_of_a_message_group_runs_before_a_message_that_cannot_be_read() -> None:
    service, handler = fifo(30), Handler()
    for number, group in enumerate("aabab"):
        service.send(number, group=group)
    service.queue.letters["message-000001"].unreadable = 1
    play(parts(service, function_of(handler), plan(service, batch=BatchPolicy(10))), 40.0)
    assert handler.calls == [[0, 2, 4], [1, 3]]
    assert service.left == []


def test_the_status_shows_what_cannot_be_read() -> None:
    service = standard(30)
    service.send(1)
    service.queue.letters["message-000001"].unreadable = 1

    async def script(mapping: QueueMapping, _: Stop) -> None:
        await asyncio.sleep(5.0)
        (lane,) = mapping.lanes()
        assert (lane.lane, lane.last_error) == ("message-000001", WHY)
        await asyncio.sleep(30.0)
        assert mapping.lanes() == ()

    play(parts(service, function_of(Handler()), plan(service)), script)
