"""Operations are carried out where their targets are held, whichever worker is asked, and their results are stored once."""

import asyncio
from typing import Any

import pytest

from poller.domain.errors import LeaseLost
from poller.domain.mapping_api import ApiError, ApiErrorType
from poller.domain.operations import Action, Operation, OperationState, PartResult
from poller.domain.records import MappingId, ShardId
from poller.domain.telemetry.daemon_events import TaskEnded
from poller.domain.telemetry.operation_events import OperationAccepted, OperationOver
from poller.runtime.operations.follower import READ_S
from poller.runtime.operations.operable import ResolvedRecords
from poller.runtime.stopping import Reason
from tests.runtime.operations.workers import (
    DONE,
    FAILED,
    ONE,
    STREAM,
    TWO,
    FakeOperable,
    FakeWorker,
    Outcome,
    at_once,
    begin,
    now,
    play,
    running,
    stream_of,
    two_shards,
)


def test_the_owner_that_is_asked_carries_out_at_once() -> None:
    async def script() -> None:
        _, a, b = await two_shards()
        async with running(a, b):
            await asyncio.sleep(0.7)
            operation = await a.ask("retry", shard="1")
            found = await a.is_over(operation)
        assert stream_of(a).log == [(0.7, ONE, Action.RETRY, ())]
        assert stream_of(b).log == []
        assert (found.state, found.result) == (DONE, f"retry of {ONE}")

    play(script)


def test_another_worker_reads_it_within_two_seconds() -> None:
    async def script() -> None:
        _, a, b = await two_shards()
        async with running(a, b):
            await asyncio.sleep(0.3)
            await b.ask("reset", shard="1")
            await asyncio.sleep(READ_S)
        ((moment, *what),) = stream_of(a).log
        assert moment <= 0.3 + READ_S
        assert what == [ONE, Action.RESET, ()]

    play(script)


def test_an_operation_on_all_shards_is_done_when_the_last_worker_is() -> None:
    async def script() -> None:
        site, a, b = await two_shards()
        async with running(a, b):
            await asyncio.sleep(0.3)
            operation = await a.ask("retry", reason="the function is repaired")
            assert operation.wanted == (ONE, TWO)
            await asyncio.sleep(0.1)
            half = await b.control.operation(operation.operation)
            assert (half.state, list(half.parts)) == (OperationState.RUNNING, [ONE])
            found = await b.is_over(operation)
        assert found.result == f"{ONE}: retry of {ONE}; {TWO}: retry of {TWO}"
        (accepted,), (over,) = site.seen.of(OperationAccepted), site.seen.of(OperationOver)
        assert (accepted.by, accepted.of, accepted.reason) == (
            "ann",
            "the whole mapping",
            "the function is repaired",
        )
        assert (over.operation, over.state, over.result) == (operation.operation, DONE, found.result)

    play(script)


def test_many_shards_of_one_worker_need_few_writes() -> None:
    async def slow(_operable: FakeOperable, unit: str, _operation: Operation) -> Outcome:
        await asyncio.sleep(0.5)
        return PartResult(state=DONE, result=unit)

    async def script() -> None:
        site, a, _ = await two_shards(script=slow)
        shards = [f"shardId-{number:012}" for number in range(10, 210)]
        for shard in shards:
            await site.hold(ShardId(shard), "a")
        stream_of(a).held += shards
        async with running(a):
            await asyncio.sleep(0.1)
            operation = await a.ask("retry")
            await asyncio.sleep(1.0)
            found = await a.control.operation(operation.operation)
        assert len(found.parts) == 201
        assert a.door.calls.count("change") < 10

    play(script)


def test_a_repeated_request_is_the_same_operation_also_when_it_is_over() -> None:
    async def script() -> None:
        _, a, b = await two_shards()
        async with running(a, b):
            first = await a.ask("retry", shard=ONE, id="mine")
            found = await a.is_over(first)
            assert await b.ask("retry", shard="1", id="mine") == found
            with pytest.raises(ApiError) as refused:
                await b.ask("reset", shard="1", id="mine")
            assert refused.value.fault is ApiErrorType.CONFLICT
            assert "id: mine is the id of another operation (retry of mapping" in refused.value.text
        assert len(stream_of(a).log) == 1

    play(script)


def test_two_workers_that_are_asked_at_once_for_one_id_make_one_operation() -> None:
    async def script() -> None:
        site, a, b = await two_shards()
        async with running(a, b):
            one, two = await asyncio.gather(
                a.ask("retry", shard="1", id="mine"), b.ask("retry", shard="1", id="mine")
            )
            assert one.operation == two.operation
            await a.is_over(one)
        assert len(stream_of(a).log) == 1
        assert len(site.seen.of(OperationAccepted)) == 1

    play(script)


def test_refused_targets_say_what_there_is() -> None:
    async def script() -> None:
        site, a, _ = await two_shards()
        await site.hold(TWO, None)
        async with running(a):
            with pytest.raises(ApiError) as refused:
                await a.ask("retry", shard="2")
            assert refused.value.fault is ApiErrorType.PARAMETER
            assert refused.value.text == (
                f"shard: shard {TWO} is not held by anybody; shards of this mapping: "
                f"{ONE} (a), {TWO} (held by nobody)"
            )
            with pytest.raises(ApiError) as unknown:
                await a.ask("retry", MappingId("none"))
            assert unknown.value.fault is ApiErrorType.MISSING

    play(script)


def test_a_lease_of_a_dead_worker_is_held_by_nobody() -> None:
    async def script() -> None:
        site, a, _ = await two_shards()
        async with running(a):
            with pytest.raises(ApiError, match="is not held by anybody"):
                await a.ask("retry", shard="2")
            site.running[STREAM].add("b")
            assert (await a.ask("retry", shard="2")).wanted == (TWO,)

    play(script)


def test_a_lost_lease_leaves_the_operation_to_the_next_holder() -> None:
    async def lost(operable: FakeOperable, unit: str, _operation: Operation) -> Outcome:
        if "lost" in operable.records:
            await asyncio.sleep(0.4)
            operable.held.remove(unit)
            raise LeaseLost("taken")
        return PartResult(state=DONE)

    async def script() -> None:
        site, a, b = await two_shards(script=lost)
        stream_of(a).records = {"lost": []}
        async with running(a, b):
            operation = await a.ask("retry", shard="1")
            await asyncio.sleep(1.0)
            assert not (await a.control.operation(operation.operation)).state.over
            await site.hold(ONE, "b")
            stream_of(b).held.append(ONE)
            await b.is_over(operation, within_s=READ_S)
        assert [unit for _, unit, _, _ in stream_of(b).log] == [ONE]

    play(script)


def test_a_skip_names_its_records_before_it_skips_them() -> None:
    noted: list[object] = []

    async def watched(operable: FakeOperable, unit: str, operation: Operation) -> Outcome:
        outcome = await at_once(operable, unit, operation)
        stored = await worker[0].site.store.operations()
        noted.append((type(outcome).__name__, [each.notes.get("records") for each in stored]))
        return outcome

    worker: list[FakeWorker] = []

    async def script() -> None:
        _, a, b = await two_shards(script=watched)
        worker.append(a)
        async with running(a, b):
            operation = await b.ask("skip", shard="1", records="first", discard=True)
            found = await b.is_over(operation)
        assert noted == [("ResolvedRecords", [None]), ("PartResult", [["11"]])]
        assert [records for *_, records in stream_of(a).log] == [("11",)]
        assert found.notes["records"] == ["11"]

    play(script)


def test_after_a_crash_the_next_owner_skips_the_same_records() -> None:
    async def hangs(operable: FakeOperable, unit: str, operation: Operation) -> Outcome:
        if "records" in operation.notes:
            await asyncio.sleep(3600.0)
        return await at_once(operable, unit, operation)

    async def script() -> None:
        site, a, b = await two_shards()
        stream_of(a).script = hangs
        async with asyncio.TaskGroup() as scope:
            killed = begin(scope, a)
            begin(scope, b)
            operation = await a.ask("skip", shard="1", records="first", discard=True)
            await asyncio.sleep(1.5)
            killed.cancel()
            site.running[STREAM].discard("a")
            # Meanwhile the batch has another first record.
            stream_of(b).records = {ONE: ["12"], TWO: ["21"]}
            await site.hold(ONE, "b")
            stream_of(b).held.append(ONE)
            await b.is_over(operation, within_s=READ_S)
            b.stop.request(Reason.REQUESTED)
        assert stream_of(a).log == []
        assert [(unit, records) for _, unit, _, records in stream_of(b).log] == [(ONE, ("11",))]

    play(script)


def test_a_part_that_takes_long_is_shown_as_begun() -> None:
    async def long(_operable: FakeOperable, _unit: str, _operation: Operation) -> Outcome:
        await asyncio.sleep(1200.0)
        return PartResult(state=DONE, result="at last")

    async def script() -> None:
        _, a, b = await two_shards(script=long)
        async with running(a, b):
            operation = await a.ask("retry", shard="1")
            await asyncio.sleep(0.5)
            assert await b.state(operation.operation) is OperationState.ACCEPTED
            await asyncio.sleep(0.6)
            assert await b.state(operation.operation) is OperationState.RUNNING
            # A part that was begun has a day.
            found = await b.is_over(operation, within_s=1300.0)
        assert (found.state, found.result) == (DONE, "at last")
        assert 1200.0 <= now() < 1201.0

    play(script)


def test_a_part_that_takes_long_says_what_it_waits_for_and_when_that_changes() -> None:
    async def long(operable: FakeOperable, _unit: str, _operation: Operation) -> Outcome:
        operable.waits = "waits for a call"
        await asyncio.sleep(10.0)
        operable.waits = "waits for the destination"
        await asyncio.sleep(10.0)
        return PartResult(state=DONE, result="at last")

    async def script() -> None:
        _, a, b = await two_shards(script=long)
        async with running(a, b):
            operation = await a.ask("retry", shard="1")
            said = []
            for _ in range(2):
                await asyncio.sleep(9.0)
                [found] = await b.site.store.operations()
                said += [each.result for each in found.parts.values()]
            await b.is_over(operation, within_s=30.0)
        assert said == ["waits for a call", "waits for the destination"]

    play(script)


def test_a_cancelled_operation_does_not_begin_any_more() -> None:
    async def waits(_operable: FakeOperable, _unit: str, _operation: Operation) -> Outcome:
        await asyncio.sleep(5.0)
        return PartResult(state=DONE)

    async def script() -> None:
        _, a, b = await two_shards(script=waits)
        async with running(a, b):
            operation = await a.ask("retry", shard="1")
            await asyncio.sleep(1.5)
            ended = await b.control.cancel(operation.operation, by="bob")
            assert (ended.state, ended.result) == (
                OperationState.CANCELLED,
                "cancelled by bob after 0 of 1 part",
            )
            with pytest.raises(ApiError) as refused:
                await a.control.cancel(operation.operation, by="bob")
            assert (refused.value.fault, refused.value.text) == (
                ApiErrorType.CONFLICT,
                "the operation is over: cancelled",
            )
            await asyncio.sleep(10.0)
        assert stream_of(a).log == []

    play(script)


def test_a_bug_fails_its_part_and_nothing_else() -> None:
    async def broken(_operable: FakeOperable, unit: str, operation: Operation) -> Outcome:
        if operation.request.reason == "bug":
            raise KeyError("oops")
        return PartResult(state=DONE, result=unit)

    async def script() -> None:
        site, a, b = await two_shards(script=broken)
        async with running(a, b):
            operation = await a.ask("retry", shard="1", reason="bug")
            found = await a.is_over(operation)
            assert found.state is FAILED
            assert found.result.startswith("a fault of the worker: KeyError: 'oops'")
            assert (await a.is_over(await a.ask("retry", shard="1"))).state is DONE
        (told,) = site.seen.of(TaskEnded)
        assert told.name == f"operation {operation.operation} {ONE}"

    play(script)


def test_operations_are_listed_newest_first_with_those_that_are_over() -> None:
    async def script() -> None:
        _, a, b = await two_shards()
        async with running(a, b):
            first = await a.ask("retry", shard="1")
            await a.is_over(first)
            await asyncio.sleep(1.0)
            pause = await a.ask("pause", shard="2")
            await asyncio.sleep(3.0)
            everything = await b.control.operations()
            assert [each.operation for each in everything] == [pause.operation, first.operation]
            done = await b.control.operations(state=DONE)
            assert [each.operation for each in done] == [first.operation]
            open_ones = await b.control.operations(mapping=STREAM, state=OperationState.RUNNING)
            assert [each.operation for each in open_ones] == [pause.operation]
            assert await b.control.operations(mapping=MappingId("other")) == []

    play(script)


def test_a_batch_that_got_on_meanwhile_is_not_replaced_by_the_next_one() -> None:
    async def batch(operable: FakeOperable, unit: str, operation: Operation) -> Outcome:
        if "records" not in operation.notes:
            return ResolvedRecords(tuple(operable.records[unit]))
        return await at_once(operable, unit, operation)

    async def script() -> None:
        _, a, b = await two_shards(script=batch)
        async with running(a, b):
            meant: dict[str, Any] = {"shard": "1", "records": "batch", "batch_first": "11", "discard": True}
            stream_of(a).records[ONE] = ["12", "13"]
            other = await b.is_over(await b.ask("skip", batch_count=2, **meant))
            assert (other.state, other.notes) == (FAILED, {})
            assert "another batch is at fault by now: 2 records from 12 on" in other.result
            assert stream_of(a).log == []
            stream_of(a).records[ONE] = ["11", "12"]
            same = await b.is_over(await b.ask("skip", batch_count=2, **meant))
            assert (same.state, same.notes["records"]) == (DONE, ["11", "12"])
            assert [records for *_, records in stream_of(a).log] == [("11", "12")]

    play(script)
