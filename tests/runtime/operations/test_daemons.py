"""Operations through whole daemons that share a store: real mappings, leases and heartbeats."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

from poller.domain.invocations import Condition, FunctionError, Outcome, Succeeded
from poller.domain.operations import Operation, OperationId, OperationState
from poller.domain.plan import DaemonPlan, FunctionPlan
from poller.domain.policies import Backoff, RetryPolicy
from poller.domain.records import MappingId, ShardId
from poller.domain.rows import MappingState
from poller.domain.status import MappingStatus
from poller.runtime.daemon import Daemon
from poller.runtime.operations.follower import READ_S
from tests.runtime.daemons import FAILED, Site, daemon_plan, now, play, until
from tests.runtime.fakes import (
    SHARD,
    STREAM_ARN,
    FakeDestination,
    FakeFunction,
    FakeStream,
    mapping,
    poison,
    records,
)
from tests.runtime.mappings.controlled import STREAM_REQUEST, refusal

STREAM = mapping().mapping
OTHER = ShardId("shardId-000000000001")
SLOW = RetryPolicy(backoff=Backoff(base_s=600.0, cap_s=600.0))
"""A failed batch waits for ten minutes, unless an operator says otherwise."""


def site(answer: Callable[[list[int]], Outcome] | None = None) -> Site:
    stream = FakeStream(held={SHARD: [], OTHER: []})
    stream.put(*records(1, 2, 3))
    return Site(
        sources={STREAM_ARN: stream},
        functions={"reader": FakeFunction(answer)},
        destinations={FAILED: FakeDestination()},
    )


def plan(worker: str = "worker-1", **changes: Any) -> DaemonPlan:
    given = {"retry": SLOW, "destination": FAILED} | changes
    return daemon_plan(mapping(**given), worker=worker)


def status(daemon: Daemon) -> MappingStatus:
    return next(each for each in daemon.status().mappings if each.mapping == STREAM)


def held(daemon: Daemon) -> set[ShardId]:
    return {each.shard for each in status(daemon).shards if each.owner == daemon.status().worker}


async def ask(daemon: Daemon, action: str, **more: Any) -> Operation:
    return await daemon.operations.submit(STREAM, {"action": action, **more}, by="ann")


async def over(daemon: Daemon, operation: OperationId) -> Operation:
    async with asyncio.timeout(60.0):
        while True:
            found = await daemon.operations.operation(operation)
            if found.state.over:
                return found
            await asyncio.sleep(0.05)


def function_of(place: Site) -> FakeFunction:
    function = place.functions["reader"]
    assert isinstance(function, FakeFunction)
    return function


def played(place: Site, script: Callable[[Daemon, Daemon], Awaitable[None]]) -> None:
    """Plays a script with two daemons, each of which has a shard."""
    second = place.daemon(plan("worker-2"), seed=8)

    async def main(first: Daemon) -> None:
        await until(lambda: first.status().ready and second.status().ready)
        await until(lambda: len(held(first)) == len(held(second)) == 1)
        await script(first, second)

    play(lambda: place.daemon(plan()), main, lambda: second)


def owner_of(shard: ShardId, first: Daemon, second: Daemon) -> tuple[Daemon, Daemon]:
    """The daemon that has a shard, and the other one."""
    return (first, second) if shard in held(first) else (second, first)


def test_open_operations_are_known_without_a_read_until_the_daemon_drains() -> None:
    place = site()

    async def script(daemon: Daemon) -> None:
        assert daemon.operations.known_open() is None
        await until(lambda: daemon.status().ready)
        assert daemon.operations.known_open() == ()
        paused = await ask(daemon, "pause")
        began = now()
        assert [each.operation for each in daemon.operations.known_open() or ()] == [paused.operation]
        await daemon.operations.cancel(paused.operation, by="ann")
        assert daemon.operations.known_open() == ()
        assert now() == began
        daemon.stop()
        await until(lambda: daemon.operations.known_open() is None)

    play(lambda: place.daemon(plan()), script)


def test_a_skip_through_the_other_worker_frees_the_shard_within_five_seconds() -> None:
    place = site(poison(2))

    async def script(first: Daemon, second: Daemon) -> None:
        owner, other = owner_of(SHARD, first, second)
        await until(lambda: status(owner).blocked)
        began = now()
        operation = await ask(other, "skip", shard="0", records=["2"], reason="poison")
        found = await over(other, operation.operation)
        assert now() - began < 5.0
        assert (found.state, found.result) == (
            OperationState.DONE,
            "1 record skipped, the destination has the notice",
        )
        await until(lambda: not status(owner).blocked, within_s=1.0)

    played(place, script)
    (notice,) = place.destinations[FAILED].notices
    assert json.loads(notice.document)["requestContext"]["condition"] == Condition.SKIPPED
    assert function_of(place).calls[-1] == [1, 3]


def test_a_retry_on_the_owner_is_made_within_two_seconds() -> None:
    broken = [True]
    place = site(lambda _: FunctionError("ValueError", "no") if broken[0] else Succeeded(b""))

    async def script(first: Daemon, second: Daemon) -> None:
        owner, _ = owner_of(SHARD, first, second)
        await until(lambda: status(owner).blocked)
        broken[0] = False
        before = len(function_of(place).calls)
        await ask(owner, "retry")
        await until(lambda: len(function_of(place).calls) > before, within_s=2.0)
        assert function_of(place).calls[-1] == [1, 2, 3]

    played(place, script)


def test_a_pause_holds_on_all_workers_and_through_a_restart() -> None:
    place = site()
    stream = place.sources[STREAM_ARN]
    assert isinstance(stream, FakeStream)

    async def script(first: Daemon, second: Daemon) -> None:
        await until(lambda: len(function_of(place).calls) == 1)
        pause = await ask(second, "pause", reason="repair")
        await asyncio.sleep(READ_S + 0.5)
        assert (await second.operations.operation(pause.operation)).state is OperationState.RUNNING
        stream.put(*records(4, 5))
        stream.put(*records(6, 7), shard=OTHER)
        await asyncio.sleep(120.0)
        assert len(function_of(place).calls) == 1
        for daemon in (first, second):
            paused = status(daemon).paused
            assert paused is not None
            assert (paused.by, paused.reason, paused.since) == ("ann", "repair", pause.created)
        # A mapping that is started again begins paused.
        second.replan(plan("worker-2", batch=replace(mapping().batch, records_max=7)))
        await asyncio.sleep(60.0)
        assert len(function_of(place).calls) == 1
        began = now()
        await ask(first, "resume")
        await until(lambda: len(function_of(place).calls) == 3, within_s=5.0)
        assert now() - began < 5.0

    played(place, script)
    assert sorted(function_of(place).calls) == [[1, 2, 3], [4, 5], [6, 7]]


def test_the_owner_dies_with_the_operation_and_the_next_one_carries_it_out() -> None:
    place = site(poison(2))

    async def main(first: Daemon) -> None:
        async with asyncio.TaskGroup() as scope:
            second = place.daemon(plan("worker-2"), seed=8)
            dying = scope.create_task(second.run(), name="dying")
            await until(lambda: first.status().ready and second.status().ready)
            await until(lambda: len(held(first)) == len(held(second)) == 1)
            owner, other = owner_of(SHARD, first, second)
            await until(lambda: status(owner).blocked)
            if owner is first:
                # The other shard is as good: its owner is the one that dies.
                stream = place.sources[STREAM_ARN]
                assert isinstance(stream, FakeStream)
                stream.put(*records(2), shard=OTHER)
                await until(lambda: status(second).blocked)
            shard = next(iter(held(second)))
            dying.cancel()
            operation = await ask(first, "skip", shard=shard, records="batch", discard=True)
            found = await over(first, operation.operation)
            assert found.state is OperationState.DONE
            assert shard in held(first)
            assert other is not None

    play(lambda: place.daemon(plan()), main)


def test_pauses_stay_when_a_mapping_leaves_the_file_and_hold_when_it_comes_back() -> None:
    place = site()
    stream = place.sources[STREAM_ARN]
    assert isinstance(stream, FakeStream)

    async def script(first: Daemon, second: Daemon) -> None:
        pause = await ask(first, "pause")
        await asyncio.sleep(READ_S)
        daemons = {"worker-1": first, "worker-2": second}
        for name, daemon in daemons.items():
            daemon.replan(daemon_plan(worker=name))
        await asyncio.sleep(120.0)
        assert (await first.operations.operation(pause.operation)).state is OperationState.RUNNING
        stream.put(*records(4, 5))
        for name, daemon in daemons.items():
            daemon.replan(plan(name))
        await asyncio.sleep(120.0)
        assert function_of(place).calls == [[1, 2, 3]]

    played(place, script)


def test_operations_end_with_a_mapping_that_is_deleted_through_the_api() -> None:
    place = site()

    async def main(daemon: Daemon) -> None:
        await until(lambda: daemon.status().ready)
        made = (await daemon.control.create(STREAM_REQUEST)).mapping
        await until(lambda: [each.state for each in daemon.status().mappings] == [MappingState.ENABLED])
        pause = await daemon.operations.submit(made, {"action": "pause"}, by="ann")
        await asyncio.sleep(READ_S)
        await daemon.control.delete(made)
        found = await over(daemon, pause.operation)
        assert (found.state, found.result) == (OperationState.DONE, "the mapping was deleted")

    play(
        lambda: place.daemon(daemon_plan(functions={"reader": FunctionPlan(name="reader", invoker="fake")})),
        main,
    )


def test_a_mapping_that_nobody_knows_is_refused() -> None:
    place = site()

    async def script(first: Daemon, _second: Daemon) -> None:
        fault, text = await refusal(first.operations.submit(MappingId("x"), {"action": "pause"}, by=""))
        assert (fault.value, text) == (
            "ResourceNotFoundException",
            "no mapping has this id; /v1/mappings lists those that there are",
        )

    played(place, script)
