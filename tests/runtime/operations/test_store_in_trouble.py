"""While the store is in trouble nothing is guessed: pauses stay, nothing else is skipped, and what happened is written later."""

import asyncio

import pytest

from poller.domain.errors import ServiceUnavailable
from poller.domain.mapping_api import ApiError, ApiErrorType
from poller.domain.operations import Action, Operation, OperationId, PartResult
from poller.domain.records import Epoch
from poller.domain.telemetry.daemon_events import StoreFailed
from poller.domain.telemetry.operation_events import OperationAccepted, OperationOver
from poller.rules.operations import lifecycle
from poller.runtime.operations.follower import READ_S, READ_TROUBLED_S
from tests.runtime.operations.workers import (
    DONE,
    ONE,
    STREAM,
    FakeOperable,
    FakeWorker,
    Outcome,
    at_once,
    play,
    running,
    stream_of,
    two_shards,
)


def test_nothing_is_known_to_be_free_before_the_store_was_read_once() -> None:
    async def script() -> None:
        site, a, b = await two_shards()
        a.door.closed = True
        async with running(a, b):
            pause = await b.ask("pause", reason="repair")
            await asyncio.sleep(30.0)
            assert stream_of(a).pauses == [None]
            assert a.follower.notes() == (
                "operations cannot be read: the store does not answer; no pause is known yet, so nothing is called",
            )
            a.door.closed = False
            await asyncio.sleep(READ_TROUBLED_S)
            assert stream_of(a).paused == [pause.operation]
            assert a.follower.notes() == ()
        # It is told once, not at every try.
        assert len(site.seen.of(StoreFailed)) == 1

    play(script)


def test_pauses_stay_while_the_store_is_away() -> None:
    async def script() -> None:
        _, a, b = await two_shards()
        async with running(a, b):
            pause = await a.ask("pause")
            await asyncio.sleep(READ_S)
            b.door.closed = True
            await a.control.cancel(pause.operation, by="ann")
            await asyncio.sleep(60.0)
            assert stream_of(b).paused == [pause.operation]
            assert b.follower.notes() == (
                "operations cannot be read: the store does not answer; pauses stay as they are, other operations wait",
            )
            b.door.closed = False
            await asyncio.sleep(READ_TROUBLED_S)
            assert stream_of(b).paused == []

    play(script)


def test_a_skip_whose_records_cannot_be_stored_does_not_happen() -> None:
    async def closing(operable: FakeOperable, unit: str, operation: Operation) -> Outcome:
        if "records" not in operation.notes:
            worker[0].door.closed = True
        return await at_once(operable, unit, operation)

    worker: list[FakeWorker] = []

    async def script() -> None:
        _, a, b = await two_shards(script=closing)
        worker.append(a)
        async with running(a, b):
            operation = await a.ask("skip", shard="1", records="first", discard=True)
            await asyncio.sleep(30.0)
            # The batch goes on by itself meanwhile.
            stream_of(a).records[ONE] = ["12"]
            assert stream_of(a).log == []
            a.door.closed = False
            found = await b.is_over(operation)
        assert [records for *_, records in stream_of(a).log] == [("11",)]
        assert found.notes["records"] == ["11"]

    play(script)


def test_an_effect_whose_result_cannot_be_stored_happens_once_and_is_stored_later() -> None:
    async def closing(_operable: FakeOperable, unit: str, _operation: Operation) -> Outcome:
        worker[0].door.closed = True
        return PartResult(state=DONE, result=unit)

    worker: list[FakeWorker] = []

    async def script() -> None:
        site, a, b = await two_shards(script=closing)
        worker.append(a)
        async with running(a, b):
            operation = await a.ask("retry", shard="1")
            await asyncio.sleep(30.0)
            assert not (await b.control.operation(operation.operation)).state.over
            a.door.closed = False
            found = await b.is_over(operation)
        assert (found.state, found.result) == (DONE, ONE)
        assert [action for _, _, action, _ in stream_of(a).log] == [Action.RETRY]
        assert len(site.seen.of(OperationOver)) == 1

    play(script)


def test_lost_answers_repeat_the_write_and_not_the_effect() -> None:
    async def script() -> None:
        _, a, b = await two_shards()
        async with running(a, b):
            a.door.lost_answers = True
            with pytest.raises(ApiError) as refused:
                await a.ask("retry", shard="1", id="mine")
            assert refused.value.fault is ApiErrorType.SERVICE
            assert "look at what is there before you try again" in refused.value.text
            await asyncio.sleep(READ_S + 0.1)
            # It was stored, so the same request again is the same operation.
            a.door.lost_answers = False
            operation = await a.ask("retry", shard="1", id="mine")
            await a.is_over(operation)
            await asyncio.sleep(10.0)
        assert len(stream_of(a).log) == 1

    play(script)


def test_an_operation_is_said_to_be_accepted_and_over_once_although_the_answers_are_lost() -> None:
    async def script() -> None:
        site, a, b = await two_shards()
        async with running(a, b):
            a.door.lost_answers = True
            with pytest.raises(ApiError):
                await a.ask("retry", shard="1", id="mine")
            await asyncio.sleep(30.0)
            assert (await b.state(OperationId("mine"))) is DONE
            # Nobody repeats anything: the next read shows that it is over.
            assert [each.operation for each in site.seen.of(OperationAccepted)] == ["mine"]
            assert [each.operation for each in site.seen.of(OperationOver)] == ["mine"]
            a.door.lost_answers = False
            await asyncio.sleep(10.0)
        assert len(site.seen.of(OperationAccepted)) == len(site.seen.of(OperationOver)) == 1

    play(script)


def test_a_pause_whose_answer_was_lost_is_said_to_be_accepted_while_it_lasts() -> None:
    async def script() -> None:
        site, a, b = await two_shards()
        async with running(a, b):
            a.door.lost_answers = True
            with pytest.raises(ApiError):
                await a.ask("pause", id="mine")
            a.door.lost_answers = False
            await asyncio.sleep(READ_S + 0.1)
            assert [each.operation for each in site.seen.of(OperationAccepted)] == ["mine"]
            assert (await a.ask("pause", id="mine")).operation == "mine"
            a.door.lost_answers = True
            with pytest.raises(ApiError):
                await a.control.cancel(OperationId("mine"), by="ann")
            a.door.lost_answers = False
            await asyncio.sleep(READ_S + 0.1)
        assert len(site.seen.of(OperationAccepted)) == len(site.seen.of(OperationOver)) == 1

    play(script)


def test_what_another_worker_did_is_not_said_by_one_that_failed_at_it() -> None:
    async def script() -> None:
        site, a, b = await two_shards()
        async with running(a, b):
            await b.ask("pause", id="mine")
            await asyncio.sleep(READ_S + 0.1)
            a.door.closed = True
            cancelled = asyncio.ensure_future(a.follower._operations.change(
                (await site.store.operations())[0], lambda each: lifecycle.end_pause(each, by="ann", now=Epoch(1.0))
            ))  # fmt: skip
            with pytest.raises(ServiceUnavailable):
                await cancelled
            await b.control.cancel(OperationId("mine"), by="bob")
            a.door.closed = False
            await asyncio.sleep(15.0)
        assert len(site.seen.of(OperationAccepted)) == len(site.seen.of(OperationOver)) == 1
        assert site.seen.of(OperationOver)[0].result == "resumed by bob"

    play(script)


def test_requests_are_refused_while_the_store_is_away() -> None:
    async def script() -> None:
        _, a, b = await two_shards()
        async with running(a, b):
            a.door.closed = True
            with pytest.raises(ApiError) as refused:
                await a.ask("pause")
            assert refused.value.fault is ApiErrorType.SERVICE
            with pytest.raises(ApiError, match="the store is in trouble"):
                await a.control.operations()

    play(script)


def test_a_request_is_followed_at_once_when_the_store_is_back() -> None:
    async def script() -> None:
        _, a, b = await two_shards()
        async with running(a, b):
            a.door.closed = True
            await asyncio.sleep(60.0)
            a.door.closed = False
            await a.ask("pause", STREAM)
            await asyncio.sleep(0.01)
            assert stream_of(a).paused is not None
            assert len(stream_of(a).paused or []) == 1

    play(script)
