"""Pauses reach every worker, survive all of them, and end when somebody resumes."""

import asyncio

import pytest

from poller.domain.mapping_api import ApiError
from poller.domain.operations import OperationState
from poller.domain.records import Position, ShardId
from poller.domain.rows import Checkpoint, Lease
from poller.domain.telemetry.operation_events import OperationOver, PausesChanged
from poller.rules.operations.lifecycle import PARTS_MAX
from poller.runtime.operations.follower import READ_S
from poller.runtime.stopping import Reason
from tests.runtime.operations.workers import (
    DONE,
    ONE,
    STREAM,
    TWO,
    FakeOperable,
    FakeWorker,
    begin,
    play,
    running,
    stream_of,
    two_shards,
)


def test_a_pause_holds_here_at_once_and_everywhere_within_two_seconds() -> None:
    async def script() -> None:
        site, a, b = await two_shards()
        async with running(a, b):
            await asyncio.sleep(0.5)
            pause = await b.ask("pause", reason="repair of the function")
            await asyncio.sleep(0.01)
            assert stream_of(b).paused == [pause.operation]
            await asyncio.sleep(READ_S)
            assert stream_of(a).paused == [pause.operation]
            (given,) = stream_of(a).pauses[-1] or ()
            assert (given.by, given.reason, given.since) == ("ann", "repair of the function", pause.created)
            found = await a.control.operation(pause.operation)
            assert found.state is OperationState.RUNNING
            assert {name: part.result for name, part in found.parts.items()} == {ONE: "paused", TWO: "paused"}
        (first, second) = site.seen.of(PausesChanged)
        assert first == second == PausesChanged(mapping=STREAM, pauses=1, since=pause.created)

    play(script)


def test_a_mapping_hears_of_its_pauses_only_when_they_change() -> None:
    async def script() -> None:
        _, a, b = await two_shards()
        async with running(a, b):
            await a.ask("pause", shard="1")
            await asyncio.sleep(30.0)
            await a.ask("retry", shard="1")
            await asyncio.sleep(30.0)
        # Not known, none, one.
        assert [None if each is None else len(each) for each in stream_of(a).pauses] == [None, 0, 1]

    play(script)


def test_a_resume_ends_the_pauses_that_it_covers() -> None:
    async def script() -> None:
        site, a, b = await two_shards()
        async with running(a, b):
            one = await a.ask("pause", shard="1")
            two = await a.ask("pause", shard="2", by="bob")
            await asyncio.sleep(READ_S)
            resume = await b.ask("resume", shard="1", by="carl")
            found = await b.is_over(resume)
            assert (found.state, found.result) == (DONE, "1 pause has ended")
            ended = await b.control.operation(one.operation)
            assert (ended.state, ended.result) == (DONE, "resumed by carl")
            await asyncio.sleep(READ_S)
            assert stream_of(a).paused == [two.operation]
            everything = await a.ask("resume")
            await a.is_over(everything)
            assert stream_of(a).paused == []
        over = [each.operation for each in site.seen.of(OperationOver)]
        assert sorted(over) == sorted(each.operation for each in (one, two, resume, everything))
        assert [each.pauses for each in site.seen.of(PausesChanged)][-1] == 0

    play(script)


def test_one_shard_of_a_paused_mapping_cannot_be_resumed() -> None:
    async def script() -> None:
        _, a, b = await two_shards()
        async with running(a, b):
            await a.ask("pause")
            with pytest.raises(ApiError) as refused:
                await b.ask("resume", shard="1")
            assert refused.value.text == (
                "action: the whole mapping is paused by ann; resume the whole mapping instead"
            )

    play(script)


def test_to_cancel_a_pause_is_to_resume() -> None:
    async def script() -> None:
        _, a, b = await two_shards()
        async with running(a, b):
            pause = await a.ask("pause")
            await asyncio.sleep(READ_S)
            ended = await b.control.cancel(pause.operation, by="bob")
            assert (ended.state, ended.result) == (DONE, "resumed by bob")
            await asyncio.sleep(0.01)
            assert stream_of(b).paused == []

    play(script)


def test_a_pause_survives_the_death_and_the_restart_of_every_worker() -> None:
    async def script() -> None:
        site, a, b = await two_shards()
        async with asyncio.TaskGroup() as scope:
            killed = [begin(scope, a), begin(scope, b)]
            pause = await a.ask("pause")
            await asyncio.sleep(READ_S)
            for task in killed:
                task.cancel()
            site.running.clear()
            await asyncio.sleep(3600.0)
            again = FakeWorker(site, "a", {STREAM: FakeOperable([ONE, TWO])})
            begin(scope, again)
            await asyncio.sleep(0.01)
            # It began with nothing known, and so with nothing called.
            assert stream_of(again).pauses[0] is None
            assert stream_of(again).paused == [pause.operation]
            again.stop.request(Reason.REQUESTED)

    play(script)


def test_a_mapping_that_starts_later_gets_its_pauses_before_it_begins() -> None:
    async def script() -> None:
        _, a, b = await two_shards()
        async with running(a, b):
            pause = await a.ask("pause")
            await asyncio.sleep(READ_S)
            updated = FakeOperable([ONE])
            a.mine[STREAM] = updated
            a.follower.introduce(STREAM, updated)
            # What was read last may be older than a pause that others have confirmed.
            assert updated.paused is None
            await asyncio.sleep(0.01)
            assert updated.paused == [pause.operation]

    play(script)


def test_what_is_read_again_is_newer_than_the_moment_at_which_that_was_asked_for() -> None:
    async def script() -> None:
        _, a, b = await two_shards()
        async with running(a, b):
            await asyncio.sleep(READ_S - 0.1)
            a.door.answer_s = 0.5
            await asyncio.sleep(0.2)
            # A read is on its way. It is older than the pause, and than the taking of the shard.
            pause = await b.ask("pause")
            stream_of(a).apply_pauses(None)
            a.follower.read_again(STREAM)
            await asyncio.sleep(0.45)
            assert stream_of(a).paused is None
            await asyncio.sleep(0.5)
            assert stream_of(a).paused == [pause.operation]

    play(script)


def test_while_the_store_is_in_trouble_a_mapping_starts_with_the_pauses_that_were_read_last() -> None:
    async def script() -> None:
        _, a, b = await two_shards()
        async with running(a, b):
            pause = await a.ask("pause")
            await asyncio.sleep(READ_S)
            a.door.closed = True
            await asyncio.sleep(READ_S + 0.1)
            updated = FakeOperable([ONE])
            a.mine[STREAM] = updated
            a.follower.introduce(STREAM, updated)
            assert updated.paused == [pause.operation]

    play(script)


def test_a_worker_confirms_no_pause_that_its_mapping_has_not_been_given() -> None:
    async def script() -> None:
        _, a, b = await two_shards()
        async with running(a, b):
            await asyncio.sleep(READ_S - 0.1)
            a.door.answer_s = 0.3
            await asyncio.sleep(0.2)
            a.follower.read_again(STREAM)
            pause = await b.ask("pause")
            confirmed = 0
            for _ in range(200):
                await asyncio.sleep(0.01)
                found = await b.control.operation(pause.operation)
                confirmed += ONE in found.parts
                assert not confirmed or stream_of(a).paused == [pause.operation]
            assert confirmed

    play(script)


def test_a_resume_is_finished_by_any_worker() -> None:
    async def script() -> None:
        site, a, b = await two_shards()
        async with asyncio.TaskGroup() as scope:
            killed = begin(scope, a)
            begin(scope, b)
            pause = await a.ask("pause")
            await asyncio.sleep(READ_S)
            killed.cancel()
            # The worker that is asked dies as soon as the resume is stored.
            resume = await a.ask("resume")
            found = await b.is_over(resume, within_s=READ_S + 0.1)
            assert found.result == "1 pause has ended"
            assert (await b.control.operation(pause.operation)).state is DONE
            b.stop.request(Reason.REQUESTED)
        assert site.seen.of(PausesChanged)[-1].pauses == 0

    play(script)


def test_a_mapping_with_more_shards_than_an_operation_has_parts_can_be_paused() -> None:
    async def script() -> None:
        site, a, b = await two_shards()
        more = [ShardId(f"shardId-{number:012}") for number in range(10, 10 + PARTS_MAX)]
        await site.store.seed(STREAM, [Lease(each, (), Checkpoint(Position.horizon())) for each in more])
        async with running(a, b):
            await asyncio.sleep(1.0)
            pause = await a.ask("pause")
            await asyncio.sleep(READ_S + 0.1)
            assert stream_of(a).paused == stream_of(b).paused == [pause.operation]
            await asyncio.sleep(700.0)
            assert await b.state(pause.operation) is OperationState.ACCEPTED
            await b.is_over(await b.ask("resume"), within_s=READ_S)
            assert await a.state(pause.operation) is DONE
            await asyncio.sleep(READ_S + 0.1)
            assert stream_of(a).paused == stream_of(b).paused == []

    play(script)
