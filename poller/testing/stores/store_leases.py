"""Owns the contract of stores about leases: they are seeded, taken, released and dropped, each by a fenced write."""

import asyncio
from dataclasses import replace

import pytest

from poller.domain.errors import LeaseLost
from poller.domain.records import SHARD_END, ShardId, WorkerId
from poller.domain.rows import Checkpoint, Lease
from poller.testing.stores.store_steps import (
    ANN,
    BOB,
    LADDER,
    LARGE_BYTES,
    MEMO,
    ONE,
    ORDERS,
    TWO,
    Opening,
    attempt,
    both,
    by_shard,
    lease,
    noise,
    only,
    saved,
    seeded,
    taken,
)


async def a_seeded_lease_keeps_parents_and_checkpoint(opening: Opening) -> None:
    leases = [
        Lease(ShardId(f"s{step}"), (ONE, TWO)[:step], Checkpoint(position, MEMO * step))
        for step, position in enumerate(LADDER)
    ]
    async with opening() as store:
        await store.seed(ORDERS, leases)
    async with opening() as store:
        assert by_shard(await store.leases(ORDERS)) == leases


async def seeding_leaves_what_is_there(opening: Opening) -> None:
    async with opening() as store, opening() as other:
        mine = await taken(store)
        await store.save(ORDERS, mine, Checkpoint(LADDER[4], b"memo"))
        await other.seed(ORDERS, [lease(ONE, LADDER[1]), lease(TWO, LADDER[1])])
        assert by_shard(await store.leases(ORDERS)) == [
            replace(mine, checkpoint=Checkpoint(LADDER[4], b"memo")),
            lease(TWO, LADDER[1]),
        ]


async def seeding_nothing_is_no_error(opening: Opening) -> None:
    async with opening() as store:
        await store.seed(ORDERS, [])
        assert await store.leases(ORDERS) == []


async def taking_sets_the_owner_and_the_next_epoch(opening: Opening) -> None:
    async with opening() as store, opening() as other:
        mine = await taken(store)
        assert (mine.owner, mine.epoch) == (ANN, 1)
        assert await only(other) == mine
        theirs = await other.take(ORDERS, mine, owner=BOB)
        assert (theirs.owner, theirs.epoch) == (BOB, 2)
        assert await only(store) == theirs


async def taking_returns_the_checkpoint_that_is_stored(opening: Opening) -> None:
    async with opening() as store, opening() as other:
        mine = await taken(store)
        await store.save(ORDERS, mine, Checkpoint(LADDER[4], MEMO))
        theirs = await other.take(ORDERS, mine, owner=BOB)
        assert theirs.checkpoint == Checkpoint(LADDER[4], MEMO)


async def taking_with_another_epoch_is_refused(opening: Opening) -> None:
    async with opening() as store, opening() as other:
        mine = await taken(store)
        for epoch in (0, 2, 7):
            with pytest.raises(LeaseLost, match="ann"):
                await other.take(ORDERS, replace(mine, epoch=epoch), owner=BOB)
        assert await only(store) == mine


async def taking_an_unknown_shard_is_refused(opening: Opening) -> None:
    async with opening() as store:
        with pytest.raises(LeaseLost, match=ONE):
            await store.take(ORDERS, lease(ONE), owner=ANN)
        assert await store.leases(ORDERS) == []


async def the_same_take_again_finds_its_work_done(opening: Opening) -> None:
    async with opening() as store:
        (free,) = await seeded(store, ONE)
        mine = await store.take(ORDERS, free, owner=ANN)
        assert await store.take(ORDERS, free, owner=ANN) == mine
        await store.release(ORDERS, mine)
        with pytest.raises(LeaseLost):
            await store.take(ORDERS, free, owner=ANN)


async def of_two_takers_exactly_one_wins(opening: Opening) -> None:
    async with opening() as store, opening() as other:
        current = (await seeded(store, ONE))[0]
        for epoch in range(1, 6):
            tries = await both(attempt(store, current, owner=ANN), attempt(other, current, owner=BOB))
            (won,) = [each for each in tries if each is not None]
            current = await only(store)
            assert current == won
            assert current.epoch == epoch


async def of_many_takers_exactly_one_wins(opening: Opening) -> None:
    async with opening() as store, opening() as other:
        (free,) = await seeded(store, ONE)
        async with asyncio.TaskGroup() as group:
            tries = [
                group.create_task(attempt((store, other)[number % 2], free, owner=WorkerId(f"w{number}")))
                for number in range(12)
            ]
        assert [task.result() for task in tries if task.result()] == [await only(store)]


async def releasing_keeps_the_checkpoint_and_clears_the_owner(opening: Opening) -> None:
    async with opening() as store, opening() as other:
        mine = await taken(store)
        await store.save(ORDERS, mine, Checkpoint(LADDER[4], MEMO))
        await store.release(ORDERS, mine)
        free = await only(other)
        assert free == Lease(ONE, (), Checkpoint(LADDER[4], MEMO), owner=None, epoch=1)
        assert (await other.take(ORDERS, free, owner=BOB)).epoch == 2


async def only_the_owner_at_its_epoch_can_release(opening: Opening) -> None:
    async with opening() as store, opening() as other:
        mine = await taken(store)
        theirs = await other.take(ORDERS, mine, owner=BOB)
        for stale in (
            mine,
            replace(theirs, owner=ANN),
            replace(theirs, epoch=1),
            replace(theirs, owner=None),
        ):
            with pytest.raises(LeaseLost, match="bob"):
                await store.release(ORDERS, stale)
        with pytest.raises(LeaseLost):
            await store.release(ORDERS, replace(mine, shard=TWO))
        assert await only(store) == theirs


async def the_same_release_again_finds_its_work_done(opening: Opening) -> None:
    async with opening() as store:
        mine = await taken(store)
        await store.release(ORDERS, mine)
        await store.release(ORDERS, mine)
        theirs = await store.take(ORDERS, await only(store), owner=BOB)
        with pytest.raises(LeaseLost):
            await store.release(ORDERS, mine)
        assert await only(store) == theirs


async def a_dropped_lease_is_gone_and_may_be_seeded_anew(opening: Opening) -> None:
    async with opening() as store, opening() as other:
        held = await taken(store)
        await store.save(ORDERS, held, Checkpoint(SHARD_END, MEMO))
        await seeded(store, TWO)
        await other.drop(ORDERS, held)
        await other.drop(ORDERS, held)
        assert [each.shard for each in await store.leases(ORDERS)] == [TWO]
        again = replace(lease(), epoch=held.epoch + 1)
        await store.seed(ORDERS, [again])
        assert again in await other.leases(ORDERS)


async def a_lease_that_is_put_back_has_no_memo_of_before(opening: Opening) -> None:
    async with opening() as store, opening() as other:
        held = await taken(store)
        for memo in (MEMO, noise(LARGE_BYTES)):
            await store.save(ORDERS, held, Checkpoint(LADDER[4], memo))
            await other.drop(ORDERS, held)
            back = replace(lease(position=LADDER[1]), epoch=held.epoch + 1)
            await other.seed(ORDERS, [back])
            assert list(await store.leases(ORDERS)) == [back]
            held = await store.take(ORDERS, back, owner=ANN)
            assert held.checkpoint == Checkpoint(LADDER[1])


async def a_lease_that_somebody_took_since_is_not_dropped(opening: Opening) -> None:
    async with opening() as store, opening() as other:
        held = await taken(store)
        stolen = await other.take(ORDERS, held, owner=BOB)
        with pytest.raises(LeaseLost, match="epoch 2"):
            await store.drop(ORDERS, held)
        assert await only(store) == stolen


async def nothing_is_saved_to_a_dropped_lease(opening: Opening) -> None:
    async with opening() as store, opening() as other:
        held = await taken(store)
        await other.drop(ORDERS, held)
        assert not await saved(store, held, Checkpoint(SHARD_END))
        with pytest.raises(LeaseLost):
            await store.release(ORDERS, held)
        assert await store.leases(ORDERS) == []
