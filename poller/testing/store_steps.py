"""Owns what the scenarios of stores share: an opening, ids, positions, and the steps that many of them take."""

import asyncio
import random
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol

from poller.domain.errors import LeaseLost, RowChanged
from poller.domain.records import SHARD_END, Epoch, MappingId, Position, ShardId, WorkerId
from poller.domain.rows import Checkpoint, Lease, MappingRow
from poller.ports import Store, WorkerStore


class FullStore(Store, WorkerStore, Protocol):
    """All ports of a store at once."""


type Opening = Callable[[], AbstractAsyncContextManager[FullStore]]
type Scenario = Callable[[Opening], Coroutine[Any, Any, None]]

ORDERS = MappingId("0f6a8a3e-0000-4000-8000-000000000001")
AUDIT = MappingId("0f6a8a3e-0000-4000-8000-000000000002")
ANN, BOB = WorkerId("ann"), WorkerId("bob")
ONE, TWO = ShardId("shardId-000000000001"), ShardId("shardId-000000000002")

LADDER = (
    Position.horizon(),
    Position.at(Epoch(1_700_000_000.25)),
    Position.at(Epoch(1_700_000_000.5)),
    Position.after("9"),
    Position.after("10"),
    Position.after("49590338271490256608559692538361571095921575989136588898"),
    SHARD_END,
)
"""One position of every kind and several of some, lowest first."""

MEMO = bytes(range(256))
LARGE_BYTES = 1_300_000
"""More than a function may return as a window's state without ending the window."""
LARGEST_BYTES = 7 * 1024 * 1024
"""More than a function can answer."""


def noise(size: int, seed: int = 1) -> bytes:
    """Bytes that no compression makes shorter."""
    return random.Random(seed).randbytes(size)


def lease(shard: ShardId = ONE, position: Position = LADDER[0], *parents: ShardId) -> Lease:
    """A lease as it is seeded."""
    return Lease(shard, parents, Checkpoint(position))


async def seeded(store: FullStore, *shards: ShardId) -> list[Lease]:
    """The leases of ORDERS, free and at the horizon."""
    leases = [lease(shard) for shard in shards]
    await store.seed(ORDERS, leases)
    return leases


async def taken(store: FullStore, owner: WorkerId = ANN) -> Lease:
    """The only lease of ORDERS, taken by `owner`."""
    (free,) = await seeded(store, ONE)
    return await store.take(ORDERS, free, owner=owner)


async def only(store: FullStore) -> Lease:
    """The only lease of ORDERS."""
    (there,) = await store.leases(ORDERS)
    return there


async def both[T](first: Awaitable[T], second: Awaitable[T]) -> tuple[T, T]:
    """Both results, awaited at the same time."""
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(_awaited(each)) for each in (first, second)]
    return tasks[0].result(), tasks[1].result()


async def _awaited[T](wanted: Awaitable[T]) -> T:
    return await wanted


async def attempt(store: FullStore, wanted: Lease, *, owner: WorkerId) -> Lease | None:
    """The lease of ORDERS as taken, None when it was lost."""
    try:
        return await store.take(ORDERS, wanted, owner=owner)
    except LeaseLost:
        return None


async def updated(store: FullStore, row: MappingRow) -> bool:
    """Whether the row was written."""
    try:
        await store.update(row)
    except RowChanged:
        return False
    return True


async def saved(store: FullStore, held: Lease, checkpoint: Checkpoint) -> bool:
    """Whether the checkpoint was kept."""
    try:
        await store.save(ORDERS, held, checkpoint)
    except LeaseLost:
        return False
    return True


def by_shard(leases: Sequence[Lease]) -> list[Lease]:
    """Leases in the order of their shard ids."""
    return sorted(leases, key=lambda each: each.shard)
