"""A shard that moves to another worker stays as operators left it, and what they ask for meanwhile is found there."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from random import Random
from typing import Any

import pytest

from adapters.stores.memory import MemoryStore
from poller.domain.errors import ServiceUnavailable
from poller.domain.mapping_api import ApiError
from poller.domain.operations import Operation, OperationState
from poller.domain.records import ShardId
from poller.runtime.daemon import Daemon
from tests.runtime.daemons import STEADY, Site, now, play, until
from tests.runtime.fakes import STREAM_ARN, FakeStream, poison, records
from tests.runtime.operations.test_daemons import (
    OTHER,
    ask,
    function_of,
    held,
    over,
    plan,
    site,
    status,
)

QUICK = replace(STEADY, heartbeat_s=0.4, lease_s=4.0)
"""Shards move faster than operations are read."""
MOMENTS = 24
RESULTS = {"reset": "lane 0: attempts and age count from now", "skip": "1 record skipped without a notice"}


class UnreadableOperations:
    """A store that others share. While it is `closed`, only its operations cannot be read, as with a row that is asked for too often."""

    def __init__(self, store: MemoryStore) -> None:
        self.store = store
        self.closed = False

    def __getattr__(self, name: str) -> Callable[..., Awaitable[Any]]:
        async def call(*given: Any, **more: Any) -> Any:
            if self.closed and name == "operations":
                raise ServiceUnavailable("operations cannot be read")
            return await getattr(self.store, name)(*given, **more)

        return call


def stream_of(place: Site) -> FakeStream:
    stream = place.sources[STREAM_ARN]
    assert isinstance(stream, FakeStream)
    return stream


async def confirmed(daemon: Daemon, operation: Operation) -> None:
    """Returns when all parts of a pause say that they are paused."""
    async with asyncio.timeout(60.0):
        while True:
            found = await daemon.operations.operation(operation.operation)
            if len(found.parts) == len(operation.wanted):
                return
            await asyncio.sleep(0.02)


async def asked_until_taken(daemon: Daemon, action: str, **more: Any) -> Operation:
    """Asks again while nobody holds the shard."""
    async with asyncio.timeout(60.0):
        while True:
            try:
                return await ask(daemon, action, **more)
            except ApiError as error:
                if "is not held by anybody" not in str(error):
                    raise
                await asyncio.sleep(0.01)


def pair(place: Site, script: Callable[[Daemon, Daemon], Awaitable[None]], *, store: Any = None) -> None:
    """Plays a script with two daemons. The second one, which has one shard, goes on when the first one stops."""

    def second() -> Daemon:
        return place.daemon(replace(plan("worker-2"), tuning=QUICK), store=store, seed=8)

    async def main(first: Daemon) -> None:
        other = second()
        async with asyncio.TaskGroup() as scope:
            scope.create_task(other.run(), name="second")
            await until(lambda: first.status().ready and other.status().ready)
            await until(lambda: len(held(first)) == len(held(other)) == 1)
            await script(first, other)
            other.stop()

    play(lambda: place.daemon(replace(plan(), tuning=QUICK)), main)


def test_a_confirmed_pause_holds_on_a_worker_that_takes_the_shard_and_could_not_read_of_it() -> None:
    place = site()
    store = UnreadableOperations(place.store)

    async def script(first: Daemon, second: Daemon) -> None:
        await until(lambda: len(function_of(place).calls) == 1)
        store.closed = True
        shard: ShardId = next(iter(held(first)))
        await confirmed(first, await ask(first, "pause", shard=shard))
        first.stop()
        await until(lambda: len(held(second)) == 2)
        stream_of(place).put(*records(4, 5), shard=shard)
        await asyncio.sleep(60.0)
        assert len(function_of(place).calls) == 1
        store.closed = False
        await asyncio.sleep(60.0)
        assert len(function_of(place).calls) == 1
        await ask(second, "resume", shard=shard)
        await until(lambda: function_of(place).calls[1:] == [[4, 5]])

    pair(place, script, store=store)


@pytest.mark.parametrize("seed", range(MOMENTS))
def test_nothing_begins_after_a_pause_was_confirmed_whenever_the_owner_leaves(seed: int) -> None:
    place, rng = site(), Random(seed)

    async def script(first: Daemon, second: Daemon) -> None:
        await asyncio.sleep(rng.uniform(10.0, 12.0))
        shard = next(iter(held(first)))
        await confirmed(first, await ask(first, "pause", shard=shard))
        calls = len(function_of(place).calls)
        stream_of(place).put(*records(4, 5), shard=shard)
        await asyncio.sleep(rng.uniform(0.0, 0.2))
        first.stop()
        await until(lambda: len(held(second)) == 2)
        await asyncio.sleep(10.0)
        assert len(function_of(place).calls) == calls, now()

    pair(place, script)


@pytest.mark.parametrize("seed", range(MOMENTS))
@pytest.mark.parametrize("action", ["reset", "skip"])
def test_what_is_asked_of_a_blocked_shard_whose_owner_is_dead_is_carried_out(action: str, seed: int) -> None:
    """The next owner looks for the batch as soon as it has the shard. It has not read the records of the batch by then."""
    place, rng = site(poison(2)), Random(seed)
    tuning = rng.choice((QUICK, STEADY))
    stream_of(place).put(*records(2), shard=OTHER)

    async def main(first: Daemon) -> None:
        second = place.daemon(replace(plan("worker-2"), tuning=tuning), seed=8)
        async with asyncio.TaskGroup() as scope:
            dying = scope.create_task(second.run(), name="dying")
            await until(lambda: first.status().ready and second.status().ready)
            await until(lambda: len(held(first)) == len(held(second)) == 1)
            await until(lambda: status(first).blocked and status(second).blocked)
            (shard,) = held(second)
            await asyncio.sleep(rng.choice((0.0, rng.uniform(0.0, 2.0))))
            dying.cancel()
            await asyncio.sleep(rng.choice((0.0, rng.uniform(0.0, tuning.lease_s))))
            more = {"records": "first", "discard": True} if action == "skip" else {}
            operation = await asked_until_taken(first, action, shard=shard, **more)
            found = await over(first, operation.operation)
            assert (found.state, found.result) == (OperationState.DONE, RESULTS[action])

    play(lambda: place.daemon(replace(plan(), tuning=tuning)), main)
