"""Rows of event invoke configurations that are damaged, or not read yet: no call is tried or ended by another configuration than its own."""

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from adapters.stores.memory import MemoryStore
from poller.domain.functions.queued_calls import CallEnd, CallId, QueuedCall
from poller.domain.invocations import FunctionError
from poller.domain.records import Epoch, MappingId
from poller.domain.rows import FUNCTION_PREFIX, MappingRow
from poller.runtime.daemon import Daemon
from tests.runtime.daemons import FAILED, play, until
from tests.runtime.functions.test_invoke_configs import plan
from tests.runtime.functions.test_queued_calls import ARN, Called, Place, put, ready, stored
from tests.virtual import virtual_clock

ROW = MappingId(FUNCTION_PREFIX + "alone")


def document(parameters: object, modified: object = 1.0) -> dict[str, Any]:
    return {"event_invoke_configs": {"": {"parameters": parameters, "modified": modified}}}


GOOD = {"MaximumRetryAttempts": 0, "DestinationConfig": {"OnFailure": {"Destination": FAILED}}}
DAMAGED: list[dict[str, Any]] = [
    {"event_invoke_configs": 7},
    document("text"),
    document({"MaximumRetryAttempts": "x"}),
    document({"MaximumRetryAttempts": 3}),
    document({"MaximumEventAgeInSeconds": 10**40}),
    document({"DestinationConfig": "text"}),
    document({"DestinationConfig": {"OnFailure": "text"}}),
    document({"DestinationConfig": {"OnFailure": {"Destination": ["x"]}}}),
    document({"DestinationConfig": {"OnFailure": {"Destination": "nowhere"}}}),
    document({"MaximumRetryAttempts": 0}, float("nan")),
    document({"MaximumRetryAttempts": 0}, -1.0),
]


@pytest.mark.parametrize("damaged", DAMAGED)
def test_a_row_that_cannot_be_read_holds_the_calls_of_its_function_until_it_can(
    damaged: dict[str, Any],
) -> None:
    function = Called(lambda _: FunctionError("ValueError", "no"))
    place = Place(function)

    async def script(daemon: Daemon) -> None:
        row = await place.store.create(MappingRow(ROW, fixed=Epoch(1.0), document=damaged))
        await ready(daemon)
        call = await put(daemon, n=1)
        await asyncio.sleep(60)
        assert function.got == []
        assert [each.call for each in stored(place.store)] == [call]
        assert any("function alone are tried cannot be read" in each for each in daemon.status().notes)
        await place.store.update(MappingRow(ROW, row.fixed, document=document(GOOD), revision=row.revision))
        await until(lambda: place.ended() == [CallEnd.RETRIES], within_s=60)
        assert place.sent(FAILED) == [call]

    play(lambda: place.daemon(plan()), script)


class Slow(MemoryStore):
    """A store that takes its time to list its rows."""

    async def mappings(self) -> Any:
        await asyncio.sleep(4.0)
        return await super().mappings()


def test_no_call_of_an_earlier_run_is_made_before_the_rows_of_the_store_were_read() -> None:
    function = Called(lambda _: FunctionError("ValueError", "no"))
    store = Slow()
    place = Place(function, store)
    call = QueuedCall(
        call=CallId("left"),
        function="alone",
        arn=ARN,
        payload=b'{"n": 1}',
        accepted=Epoch(0.0),
        due=Epoch(0.0),
        attempts=2,
    )

    async def script(daemon: Daemon) -> None:
        await store.create(MappingRow(ROW, fixed=Epoch(1.0), document=document(GOOD)))
        await store.call_queue.put(replace(call, accepted=virtual_clock().now(), due=virtual_clock().now()))
        await asyncio.sleep(3.5)
        assert function.got == []
        await until(lambda: place.ended() == [CallEnd.RETRIES], within_s=20)
        assert place.sent(FAILED) == ["left"]

    play(lambda: place.daemon(plan()), script)
