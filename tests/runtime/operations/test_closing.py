"""What nobody can carry out any more ends with a result that says why."""

import asyncio
from dataclasses import replace

import pytest

from poller.domain.mapping_api import ApiError, ApiErrorType
from poller.domain.operations import (
    Action,
    Operation,
    OperationId,
    OperationRequest,
    OperationState,
    PartResult,
)
from poller.domain.records import Epoch
from poller.rules.operations.lifecycle import BEGIN_S_MAX, HISTORY_MAX, HISTORY_S_MAX
from poller.runtime.operations.closing import CLOSE_AFTER_S, LOOK_PAUSED_S, LOOK_S
from poller.runtime.operations.follower import PRUNE_FIRST_S, READ_S
from poller.runtime.operations.operable import SettledRecords
from tests.runtime.operations.workers import (
    DONE,
    FAILED,
    ONE,
    QUEUE,
    STREAM,
    TWO,
    FakeOperable,
    FakeWorker,
    Outcome,
    Site,
    known,
    now,
    play,
    queue_plan,
    running,
    stream_of,
    two_shards,
)
from tests.virtual import EPOCH_BASE

SOON_S = CLOSE_AFTER_S + LOOK_S + READ_S


async def never(_operable: FakeOperable, _unit: str, _operation: Operation) -> Outcome:
    return None


def test_a_part_that_cannot_be_carried_out_yet_says_why_and_has_a_day() -> None:
    """The worker that holds the shard is at it, so nobody else could do it sooner."""

    async def script() -> None:
        _, a, b = await two_shards(script=never)
        async with running(a, b):
            for each in (a, b):
                stream_of(each).waits = "waits until it is read again"
            operation = await a.ask("reset")
            await asyncio.sleep(BEGIN_S_MAX + SOON_S)
            found = await b.control.operation(operation.operation)
            begun = PartResult(state=OperationState.RUNNING, result="waits until it is read again")
            assert (found.state, found.parts) == (OperationState.RUNNING, {ONE: begun, TWO: begun})

    play(script)


def test_a_shard_that_ends_meanwhile_has_nothing_left_to_do() -> None:
    async def script() -> None:
        site, a, b = await two_shards(script=never)
        async with running(a, b):
            operation = await a.ask("retry")
            stream_of(a).held.clear()
            await site.hold(ONE, "a", ended=True)
            await asyncio.sleep(SOON_S)
            half = await b.control.operation(operation.operation)
            assert half.parts[ONE].result == "the shard has ended: all of its records are settled"
            assert TWO not in half.parts
            stream_of(b).held.clear()
            await site.hold(TWO, "b", ended=True)
            found = await a.is_over(operation, within_s=SOON_S)
        assert found.state is DONE

    play(script)


def test_the_pause_of_a_shard_ends_with_the_shard() -> None:
    async def script() -> None:
        site, a, b = await two_shards()
        async with running(a, b):
            pause = await a.ask("pause", shard="1")
            whole = await a.ask("pause")
            await asyncio.sleep(10.0)
            stream_of(a).held.clear()
            await site.hold(ONE, "a", ended=True)
            found = await b.is_over(pause, within_s=LOOK_PAUSED_S + READ_S)
            assert found.result == "the shard has ended: all of its records are settled"
            assert not (await b.control.operation(whole.operation)).state.over
            # The leases of a mapping that is only paused are read once a minute.
            a.door.calls.clear()
            await asyncio.sleep(600.0)
            assert a.door.calls.count("leases") <= 10

    play(script)


def test_a_shard_that_moves_is_retried_by_its_next_owner() -> None:
    async def script() -> None:
        site, a, b = await two_shards()
        async with running(a, b):
            stream_of(a).held.clear()
            operation = await a.ask("retry", shard="1")
            await asyncio.sleep(30.0)
            assert not (await a.control.operation(operation.operation)).state.over
            await site.hold(ONE, "b")
            stream_of(b).held.append(ONE)
            found = await a.is_over(operation, within_s=READ_S + 0.1)
        assert found.state is DONE
        assert [unit for _, unit, _, _ in stream_of(b).log] == [ONE]

    play(script)


def test_what_nobody_carries_out_within_ten_minutes_fails() -> None:
    async def script() -> None:
        _, a, b = await two_shards()
        async with running(a, b):
            stream_of(a).held.clear()
            operation = await a.ask("retry", shard="1")
            found = await b.is_over(operation, within_s=BEGIN_S_MAX + READ_S + 1.0)
        assert (found.state, found.result) == (
            FAILED,
            "no worker carried it out within 10 minutes; is the mapping running?",
        )
        assert now() >= BEGIN_S_MAX

    play(script)


def test_operations_end_with_a_mapping_that_is_deleted() -> None:
    async def script() -> None:
        site, a, b = await two_shards(script=never)
        async with running(a, b):
            retry, pause = await a.ask("retry"), await a.ask("pause")
            await asyncio.sleep(10.0)
            site.known[STREAM] = known(deleting=True)
            found = await b.is_over(retry, within_s=READ_S + 0.1)
            assert (found.state, found.result) == (FAILED, "the mapping was deleted")
            assert (await b.is_over(pause, within_s=READ_S + 0.1)).state is DONE
            with pytest.raises(ApiError) as refused:
                await a.ask("pause")
            assert (refused.value.fault, refused.value.text) == (
                ApiErrorType.CONFLICT,
                "the mapping is being deleted",
            )

    play(script)


def test_operations_of_a_mapping_that_was_forgotten_end() -> None:
    async def script() -> None:
        _, a, b = await two_shards(script=never)
        async with running(a, b):
            retry, pause = await a.ask("retry"), await a.ask("pause")
            await b.follower.delete(STREAM)
            assert [await a.state(each.operation) for each in (retry, pause)] == [FAILED, DONE]

    play(script)


def test_what_runs_no_more_cannot_be_retried_and_stays_paused() -> None:
    async def script() -> None:
        site, a, b = await two_shards(script=never)
        async with running(a, b):
            retry, pause = await a.ask("retry"), await a.ask("pause")
            site.known[STREAM] = known(runs=False)
            await asyncio.sleep(10.0)
            # As long as a worker runs it, it may come to it.
            assert not (await a.control.operation(retry.operation)).state.over
            site.running.clear()
            a.mine.clear()
            b.mine.clear()
            found = await a.is_over(retry, within_s=READ_S + 0.1)
            assert found.result == "the mapping is disabled; enable it, then ask again"
            assert not (await a.control.operation(pause.operation)).state.over
            with pytest.raises(ApiError) as refused:
                await a.ask("retry")
            assert refused.value.text.startswith("the mapping is disabled, so that nothing of it runs")

    play(script)


def queue_site(script: object) -> tuple[Site, FakeWorker, FakeWorker]:
    site = Site(known={QUEUE: known(queue_plan())})
    a, b = (FakeWorker(site, name, {QUEUE: FakeOperable([name], script=script)}) for name in "ab")  # type: ignore[arg-type]  # a script
    return site, a, b


def test_the_part_of_a_worker_that_is_gone_is_closed() -> None:
    async def half(_operable: FakeOperable, unit: str, _operation: Operation) -> Outcome:
        return PartResult(state=DONE, result="retried") if unit == "b" else None

    async def script() -> None:
        site, a, b = queue_site(half)
        async with running(a, b):
            operation = await b.ask("retry", QUEUE)
            assert operation.wanted == ("a", "b")
            await asyncio.sleep(20.0)
            assert not (await b.control.operation(operation.operation)).state.over
            site.running[QUEUE].discard("a")
            a.mine.clear()
            found = await b.is_over(operation, within_s=READ_S + 0.1)
        assert found.state is DONE
        assert "the worker is gone, so its messages come back to the queue" in found.result

    play(script)


def test_several_workers_of_a_queue_settle_one_skip_together() -> None:
    has = {"a": ["m-1"], "b": ["m-2", "m-3"]}

    async def some(_operable: FakeOperable, unit: str, operation: Operation) -> Outcome:
        settled = operation.notes.get("settled", [])
        if set(settled) >= {"m-1", "m-2", "m-3"}:
            return PartResult(state=DONE, result=f"all {len(settled)}")
        mine = [each for each in has[unit] if each not in settled]
        return SettledRecords((mine[0],), f"{mine[0]} moved") if mine else None

    async def script() -> None:
        _, a, b = queue_site(some)
        async with running(a, b):
            operation = await a.ask("skip", QUEUE, records=["m-1", "m-2", "m-3"])
            found = await b.is_over(operation)
        assert (found.state, found.result) == (DONE, "a: all 3; b: all 3")
        assert sorted(found.notes["settled"]) == ["m-1", "m-2", "m-3"]
        assert sorted(found.notes["results"]) == ["m-1 moved", "m-2 moved", "m-3 moved"]

    play(script)


def test_a_skip_goes_over_to_a_worker_that_its_acceptance_did_not_know() -> None:
    async def here(operable: FakeOperable, unit: str, _operation: Operation) -> Outcome:
        return PartResult(state=DONE, result="moved") if unit == "b" else None

    async def script() -> None:
        site, a, b = queue_site(here)
        async with running(a, b):
            site.running[QUEUE].discard("b")
            operation = await a.ask("skip", QUEUE, records=["m-1"])
            assert operation.wanted == ("a",)
            await asyncio.sleep(20.0)
            assert not (await b.control.operation(operation.operation)).state.over
            site.running[QUEUE].add("b")
            site.running[QUEUE].discard("a")
            a.mine.clear()
            found = await b.is_over(operation, within_s=2 * READ_S + 0.1)
        assert (found.state, found.result, found.wanted) == (DONE, "moved", ("b",))

    play(script)


def test_the_history_is_bounded() -> None:
    def over(number: int, ended: float) -> Operation:
        return Operation(
            operation=OperationId(f"op-{number:05}"),
            mapping=STREAM,
            request=OperationRequest(action=Action.RETRY),
            created=Epoch(ended),
            state=OperationState.DONE,
            ended=Epoch(ended),
        )

    async def script() -> None:
        site, a, _ = await two_shards()
        for number in range(HISTORY_MAX + 50):
            await site.store.add(over(number, EPOCH_BASE + number))
        await site.store.add(over(99_999, EPOCH_BASE - HISTORY_S_MAX))
        async with running(a):
            await asyncio.sleep(PRUNE_FIRST_S + READ_S)
            kept = await a.control.operations(state=DONE)
        assert len(kept) == HISTORY_MAX
        assert kept[-1].operation == "op-00050"

    play(script)


def test_a_worker_that_does_not_know_a_mapping_ends_nothing_of_it() -> None:
    async def script() -> None:
        site, a, b = await two_shards(script=never)
        stranger = FakeWorker(replace(site, known={}), "c", {})
        async with running(a, b, stranger):
            pause = await a.ask("pause")
            a.stop.request(a.stop.reason.__class__.REQUESTED)
            b.stop.request(b.stop.reason.__class__.REQUESTED)
            site.running.clear()
            await asyncio.sleep(7200.0)
            assert not (await stranger.control.operation(pause.operation)).state.over

    play(script)
