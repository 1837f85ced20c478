"""Owns what the scenarios of stores share: the type of an opening, ids, positions, and common steps."""

import asyncio
import random
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any

from poller.domain.errors import LeaseLost, RowChanged
from poller.domain.records import SHARD_END, Epoch, MappingId, Position, ShardId, WorkerId
from poller.domain.rows import Checkpoint, Lease, MappingRow
from poller.ports import Store

type Opening = Callable[[], AbstractAsyncContextManager[Store]]
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
"""Positions of every kind, several of some kinds, in ascending order."""

MEMO = bytes(range(256))
LARGE_BYTES = 1_300_000
"""A size above the limit for a window's state, at which a function's answer ends the window."""
LARGEST_BYTES = 7 * 1024 * 1024
"""A size above the largest answer of a function."""


def noise(size: int, seed: int = 1) -> bytes:
    """Random bytes, which cannot be compressed."""
    return random.Random(seed).randbytes(size)


def lease(shard: ShardId = ONE, position: Position = LADDER[0], *parents: ShardId) -> Lease:
    """A lease for `seed`: without an owner, at epoch 0."""
    return Lease(shard, parents, Checkpoint(position))


async def seeded(store: Store, *shards: ShardId) -> list[Lease]:
    """Seeds these shards of ORDERS at the horizon; returns their leases."""
    leases = [lease(shard) for shard in shards]
    await store.seed(ORDERS, leases)
    return leases


async def taken(store: Store, owner: WorkerId = ANN) -> Lease:
    """The only lease of ORDERS, taken by `owner`."""
    (free,) = await seeded(store, ONE)
    return await store.take(ORDERS, free, owner=owner)


async def only(store: Store) -> Lease:
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


async def attempt(store: Store, wanted: Lease, *, owner: WorkerId) -> Lease | None:
    """Takes a lease of ORDERS. Returns it as taken, or None if LeaseLost was raised."""
    try:
        return await store.take(ORDERS, wanted, owner=owner)
    except LeaseLost:
        return None


async def updated(store: Store, row: MappingRow) -> bool:
    """Updates a row; returns whether it was written."""
    try:
        await store.update(row)
    except RowChanged:
        return False
    return True


async def saved(store: Store, held: Lease, checkpoint: Checkpoint) -> bool:
    """Saves a checkpoint; returns whether it was accepted."""
    try:
        await store.save(ORDERS, held, checkpoint)
    except LeaseLost:
        return False
    return True


def by_shard(leases: Sequence[Lease]) -> list[Lease]:
    """Leases in the order of their shard ids."""
    return sorted(leases, key=lambda each: each.shard)
