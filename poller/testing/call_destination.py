"""Owns the contract of every destination that takes asynchronous calls: scenarios on a `CallDestinationWorld`.

CALLS is for every such world, DEAD_LETTERS for destinations that take the payload of a failed call, and NO_DEAD_LETTERS for the others.
"""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Protocol

import pytest

from poller.call_queue_ports import CallDestination
from poller.domain.errors import ServiceUnavailable
from poller.domain.functions.call_notices import CallNotice
from poller.domain.records import JsonObject
from poller.domain.untrusted.json_values import json_value

FUNCTION = "arn:aws:lambda:eu-west-1:111122223333:function:orders:live"
TIMESTAMP = "2026-12-02T01:02:03.987Z"
PAYLOAD = b'{"order":1.5,"text":"quoted \xc3\xa4"}'
TOGETHER = 20
"""Calls that are sent at the same time."""


def call_notice(number: int = 1, *, payload: bytes = PAYLOAD) -> CallNotice:
    """A failed call with an id of its own for each `number`. Its documents are the whole one, and two without payloads."""
    call = f"5c1b2f0a-7d1e-4a57-9a55-{number:012d}"
    head = b'{"version":"1.0","requestContext":{"requestId":"%b"}' % call.encode()
    return CallNotice(
        call=call,
        function="orders",
        function_arn=FUNCTION,
        timestamp=TIMESTAMP,
        detail_type="Lambda Function Invocation Result - Failure",
        documents=(
            head + b',"requestPayload":%b,"responsePayload":{"ok":true}}' % payload,
            head + b',"requestPayload":%b,"responsePayload":null,"leftOut":["responsePayload"]}' % payload,
            head
            + b',"requestPayload":null,"responsePayload":null,"leftOut":["responsePayload","requestPayload"]}',
        ),
        payload=payload,
        error_code="200",
        error_message="ValueError: no field 'total'",
    )


class CallDestinationWorld(Protocol):
    """An empty destination, and a way to read what has arrived there."""

    @property
    def destination(self) -> CallDestination:
        """The destination under test."""
        ...

    async def calls(self, at_least: int) -> Sequence[JsonObject]:
        """All documents of calls that have arrived, in any order, copies included. It may wait until there are `at_least`."""
        ...


class CallDeadLetterWorld(CallDestinationWorld, Protocol):
    """A world whose destination takes dead letters."""

    async def dead_letters(self, at_least: int) -> Sequence[tuple[bytes, str, str, str]]:
        """The payload, `RequestID`, `ErrorCode` and `ErrorMessage` of all dead letters, in any order. It may wait until there are `at_least`."""
        ...


type CallDestinationScenario = Callable[[Any], Coroutine[Any, Any, None]]


def documents_of(notice: CallNotice) -> list[JsonObject]:
    """The forms of a call's document, of which one must arrive."""
    return [json_value(each) for each in notice.documents]


def lost(found: Sequence[JsonObject], sent: Sequence[CallNotice]) -> list[str]:
    """The ids of calls of whose documents no form has arrived as it was sent."""
    return [each.call for each in sent if not any(one in documents_of(each) for one in found)]


async def a_call_is_there_when_send_call_has_returned(world: CallDestinationWorld) -> None:
    await world.destination.send_call(call_notice(), dead_letter=False)
    found = await world.calls(1)
    assert len(found) == 1
    # It is small, so nothing of it may be missing.
    assert found[0] == documents_of(call_notice())[0]


async def the_same_call_may_be_sent_again(world: CallDestinationWorld) -> None:
    for number in (1, 1, 2):
        await world.destination.send_call(call_notice(number), dead_letter=False)
    found = await world.calls(2)
    assert lost(found, [call_notice(1), call_notice(2)]) == []
    assert len(found) <= 3


async def calls_that_are_sent_together_are_all_there(world: CallDestinationWorld) -> None:
    sent = [call_notice(number, payload=b'"' + b"y" * 10_000 + b'"') for number in range(TOGETHER)]
    async with asyncio.TaskGroup() as tasks:
        for each in sent:
            tasks.create_task(world.destination.send_call(each, dead_letter=False))
    assert lost(await world.calls(TOGETHER), sent) == []


async def a_payload_with_line_breaks_is_the_same_json(world: CallDestinationWorld) -> None:
    sent = call_notice(payload=b'{\n "order":\r\n 1\n}')
    await world.destination.send_call(sent, dead_letter=False)
    assert lost(await world.calls(1), [sent]) == []


async def a_dead_letter_is_the_payload_with_the_error_beside_it(world: CallDeadLetterWorld) -> None:
    sent = call_notice()
    await world.destination.send_call(sent, dead_letter=True)
    (found,) = await world.dead_letters(1)
    assert found == (sent.payload, sent.call, sent.error_code, sent.error_message)


async def a_dead_letter_is_refused_so_that_the_call_stays(world: CallDestinationWorld) -> None:
    with pytest.raises(ServiceUnavailable):
        await world.destination.send_call(call_notice(), dead_letter=True)
    await world.destination.send_call(call_notice(2), dead_letter=False)
    assert len(await world.calls(1)) == 1


CALLS: tuple[CallDestinationScenario, ...] = (
    a_call_is_there_when_send_call_has_returned,
    the_same_call_may_be_sent_again,
    calls_that_are_sent_together_are_all_there,
    a_payload_with_line_breaks_is_the_same_json,
)
"""For every CallDestinationWorld."""
DEAD_LETTERS: tuple[CallDestinationScenario, ...] = (a_dead_letter_is_the_payload_with_the_error_beside_it,)
"""For a CallDeadLetterWorld."""
NO_DEAD_LETTERS: tuple[CallDestinationScenario, ...] = (a_dead_letter_is_refused_so_that_the_call_stays,)
"""For a destination that takes no dead letters."""
