"""What requests and followers read of the store: one operation where one is enough, and one read for many who ask at the same time."""

import asyncio
from dataclasses import replace

import pytest

from poller.domain.errors import ServiceUnavailable
from poller.domain.mapping_api import ApiError, ApiErrorType
from poller.domain.operations import OperationState
from poller.runtime.operations.follower import PRUNE_FIRST_S
from poller.runtime.operations.open_operations import READS_MAX
from tests.runtime.operations.workers import DONE, ONE, STREAM, FakeWorker, play, running, two_shards


def quiet(worker: FakeWorker) -> list[str]:
    """The calls of a worker from now on."""
    worker.door.calls.clear()
    return worker.door.calls


def test_one_operation_is_read_by_its_id_whether_it_is_over_or_not() -> None:
    async def script() -> None:
        _, a, b = await two_shards()
        async with running(a, b):
            over = await a.is_over(await a.ask("retry", id="mine"))
            pause = await a.ask("pause", id="other")
            await asyncio.sleep(2.5)
            calls = quiet(a)
            assert await a.control.operation(over.operation) == over
            assert (await a.control.operation(pause.operation)).operation == "other"
            assert (await a.ask("retry", id="mine")).state is DONE
            assert calls == ["operation"] * 3
            with pytest.raises(ApiError) as unknown:
                await a.control.cancel(replace(pause, operation=over.operation).operation, by="ann")
            assert unknown.value.fault is ApiErrorType.CONFLICT
            assert calls == ["operation"] * 4

    play(script)


def test_requests_at_the_same_time_share_reads_and_each_sees_what_was_there_before() -> None:
    async def script() -> None:
        _, a, b = await two_shards()
        async with running(a, b):
            await asyncio.sleep(0.5)
            calls = quiet(a)
            a.door.answer_s = 0.1
            asked = [
                asyncio.ensure_future(a.control.operations(state=OperationState.RUNNING)) for _ in range(20)
            ]
            await asyncio.sleep(0.05)
            pause = await b.ask("pause")
            later = await a.control.operations()
            for each in asked:
                await each
            assert [each.operation for each in later] == [pause.operation]
            # Those that run, those that the others share, and those of the follower and of the last request.
            assert calls.count("operations") <= 2 * READS_MAX + 4

    play(script)


def test_all_who_share_a_read_that_fails_get_its_error_at_once() -> None:
    async def script() -> None:
        _, a, b = await two_shards()
        async with running(a, b):
            await asyncio.sleep(0.5)

            async def silent() -> None:
                await asyncio.sleep(60.0)

            a.door.store = type("Silent", (), {"operations": lambda _self: silent()})()
            loop = asyncio.get_running_loop()
            began = loop.time()
            found = await asyncio.gather(
                *(a.control.operations(state=OperationState.RUNNING) for _ in range(20)),
                return_exceptions=True,
            )
            assert all(isinstance(each, ApiError) for each in found)
            # One read that others had begun before, and one that all share.
            assert loop.time() - began <= 10.0

    play(script)


def test_what_workers_write_at_the_same_time_is_read_by_its_id() -> None:
    async def script() -> None:
        _, a, b = await two_shards()
        async with running(a, b):
            await asyncio.sleep(0.5)
            a.door.answer_s = b.door.answer_s = 0.01
            calls = quiet(a)
            pauses = [await a.ask("pause", reason=str(number)) for number in range(10)]
            await asyncio.sleep(4.0)
            for pause in pauses:
                parts = (await b.control.operation(pause.operation)).parts
                assert {part.state for part in parts.values()} == {DONE}
            assert calls.count("operations") < 2 * len(pauses) + 10

    play(script)


def test_an_operation_that_would_become_too_large_fails_and_says_so() -> None:
    async def script() -> None:
        _, a, b = await two_shards()
        async with running(a, b):
            asked = await a.ask("pause", id="mine", shard="1")
            # These cannot be compressed to less than half.
            noise = [number * 2654435761 % 2**32 for number in range(100_000)]
            changed = await a.follower._operations.change(
                asked, lambda each: replace(each, notes={"more": noise})
            )
            assert changed is not None
            assert changed.state is OperationState.FAILED
            assert "the limit of one operation" in changed.result
            assert await b.control.operation(asked.operation) == changed

    play(script)


def test_a_history_that_cannot_be_pruned_does_not_keep_operations_from_being_followed() -> None:
    async def script() -> None:
        _, a, b = await two_shards()

        async def failing() -> None:
            raise ServiceUnavailable("too slow")

        async with running(a, b):
            ended = a.site.store.ended
            a.site.store.ended = failing  # type: ignore[method-assign, assignment]
            await asyncio.sleep(PRUNE_FIRST_S + 3.0)
            for _ in range(3):
                assert (await a.is_over(await a.ask("retry", shard=ONE), within_s=4.0)).state is DONE
            await asyncio.sleep(15.0)
            assert a.follower.notes() == ()
            a.site.store.ended = ended  # type: ignore[method-assign]
            assert await a.control.operations(mapping=STREAM, state=DONE)

    play(script)
