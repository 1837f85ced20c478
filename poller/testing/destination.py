"""Owns the contract of every Destination: scenarios on a `DestinationWorld`. The name of each states the fact that it checks.

DELIVERING is for every world, FAILING for worlds that can make calls fail.
"""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Protocol

import pytest

from poller.domain.errors import (
    AccessDenied,
    PortError,
    ResourceMissing,
    ServiceThrottled,
    ServiceUnavailable,
)
from poller.domain.invocations import Notice
from poller.domain.records import JsonObject, MappingId, ShardId
from poller.domain.untrusted.json_values import json_value
from poller.ports import Destination

MAPPING = MappingId("11111111-2222-4333-8444-555555555555")
SHARD = ShardId("shardId-000000000000")
TIMESTAMP = "2026-01-01T00:00:09.314Z"
PAYLOAD = b'{"Records":[{"body":"\xc3\xa4 \\"quoted\\""}]}'
SECRET = "quoted"
"""A part of the payload. No error text may contain it."""
TOGETHER = 20
"""Notices that are sent at the same time."""


def document(number: int) -> bytes:
    """The document of notice `number` in the engine's form: compact JSON without the payload."""
    request = f'{{"requestId":"r{number}"}}'
    return f'{{"requestContext":{request},"version":"1.0","timestamp":"{TIMESTAMP}","x":"ä"}}'.encode()


def notice(number: int = 1, *, payload: bytes = PAYLOAD) -> Notice:
    """A notice with an id and a document of its own for each `number`."""
    return Notice(
        notice_id=f"9b8fa9f0-5a7f-4000-8000-{number:012d}",
        mapping=MAPPING,
        shard=SHARD,
        document=document(number),
        payload=payload,
        timestamp=TIMESTAMP,
    )


class DestinationWorld(Protocol):
    """An empty destination, and a way to read what has arrived there."""

    @property
    def destination(self) -> Destination:
        """The destination under test."""
        ...

    @property
    def with_payload(self) -> bool:
        """Whether the destination also stores the event, as the member `payload` of the document."""
        ...

    async def arrived(self, at_least: int) -> Sequence[JsonObject]:
        """All documents that have arrived, in any order, copies included. It may wait until there are `at_least`."""
        ...


class FailingDestinationWorld(DestinationWorld, Protocol):
    """A world whose calls can be made to fail."""

    @property
    def errors(self) -> Sequence[type[PortError]]:
        """The errors that the world can make the destination raise, some of `PORT_ERRORS`."""
        ...

    async def fail(self, error: type[PortError]) -> None:
        """Makes every call fail from now on, in a way for which the port raises `error`."""
        ...

    async def heal(self) -> None:
        """Makes calls succeed again."""
        ...


type DestinationScenario = Callable[[Any], Coroutine[Any, Any, None]]

PORT_ERRORS = (ServiceThrottled, ServiceUnavailable, AccessDenied, ResourceMissing)
"""All errors that a destination may raise."""


def missing(world: DestinationWorld, found: Sequence[JsonObject], sent: Sequence[Notice]) -> list[str]:
    """The ids of notices that have not arrived as they were sent."""
    return [each.notice_id for each in sent if not any(_is(world, one, each) for one in found)]


def _is(world: DestinationWorld, found: JsonObject, sent: Notice) -> bool:
    wanted: JsonObject = json_value(sent.document)
    if world.with_payload:
        wanted["payload"] = sent.payload.decode()
    return found == wanted


async def a_notice_is_there_when_send_has_returned(world: DestinationWorld) -> None:
    await world.destination.send(notice())
    found = await world.arrived(1)
    assert len(found) == 1
    assert missing(world, found, [notice()]) == []


async def the_same_notice_may_be_sent_again(world: DestinationWorld) -> None:
    for number in (1, 1, 2):
        await world.destination.send(notice(number))
    found = await world.arrived(2)
    assert missing(world, found, [notice(1), notice(2)]) == []
    assert len(found) <= 3


async def notices_that_are_sent_together_are_all_there(world: DestinationWorld) -> None:
    sent = [notice(number, payload=b'{"x":"' + b"y" * 100_000 + b'"}') for number in range(TOGETHER)]
    async with asyncio.TaskGroup() as tasks:
        for each in sent:
            tasks.create_task(world.destination.send(each))
    found = await world.arrived(TOGETHER)
    assert missing(world, found, sent) == []


async def each_refusal_says_what_to_do_and_the_next_send_goes_through(world: FailingDestinationWorld) -> None:
    assert world.errors
    for number, error in enumerate(world.errors, start=1):
        await world.fail(error)
        with pytest.raises(error) as raised:
            await world.destination.send(notice(number))
        assert raised.value.reason
        assert SECRET not in raised.value.reason
        await world.heal()
        await world.destination.send(notice(number))
        assert missing(world, await world.arrived(1), [notice(number)]) == []


DELIVERING: tuple[DestinationScenario, ...] = (
    a_notice_is_there_when_send_has_returned,
    the_same_notice_may_be_sent_again,
    notices_that_are_sent_together_are_all_there,
)
"""For every DestinationWorld."""
FAILING: tuple[DestinationScenario, ...] = (each_refusal_says_what_to_do_and_the_next_send_goes_through,)
"""For a FailingDestinationWorld."""
