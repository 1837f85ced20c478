"""Owns the contract of stores about checkpoints and memos: only the owner writes them, and positions never go back."""

import asyncio
from dataclasses import replace

import pytest

from poller.domain.errors import LeaseLost
from poller.domain.records import SHARD_END, Epoch, Position, ShardId
from poller.domain.rows import Checkpoint, Lease, MappingRow
from poller.testing.stores.store_steps import (
    ANN,
    AUDIT,
    BOB,
    LADDER,
    LARGE_BYTES,
    LARGEST_BYTES,
    MEMO,
    ONE,
    ORDERS,
    TWO,
    Opening,
    by_shard,
    lease,
    noise,
    only,
    saved,
    seeded,
    taken,
)


async def a_saved_checkpoint_is_seen_by_all_at_once(opening: Opening) -> None:
    async with opening() as store, opening() as other:
        mine = await taken(store)
        for position in LADDER:
            checkpoint = Checkpoint(position, MEMO)
            await store.save(ORDERS, mine, checkpoint)
            assert await only(other) == replace(mine, checkpoint=checkpoint)


async def a_position_never_goes_back(opening: Opening) -> None:
    async with opening() as store:
        mine = await taken(store)
        for there in range(1, len(LADDER)):
            await store.save(ORDERS, mine, Checkpoint(LADDER[there]))
            for lower in LADDER[:there]:
                with pytest.raises(LeaseLost, match="back"):
                    await store.save(ORDERS, mine, Checkpoint(lower))
            assert (await only(store)).checkpoint.position == LADDER[there]


async def a_memo_is_replaced_at_the_same_position(opening: Opening) -> None:
    async with opening() as store:
        mine = await taken(store)
        for memo in (b"", b"one", MEMO, b"", b"\x00"):
            await store.save(ORDERS, mine, Checkpoint(LADDER[3], memo))
            assert (await only(store)).checkpoint == Checkpoint(LADDER[3], memo)


async def a_memo_may_grow_large_and_shrink_again(opening: Opening) -> None:
    sizes = (20, LARGE_BYTES, LARGE_BYTES, 300_000, 0, LARGE_BYTES, 100_000)
    async with opening() as store, opening() as other:
        mine = await taken(store)
        for position, size in zip(LADDER, sizes, strict=True):
            checkpoint = Checkpoint(position, noise(size))
            await store.save(ORDERS, mine, checkpoint)
            assert await only(other) == replace(mine, checkpoint=checkpoint)


async def the_largest_memo_is_handed_over(opening: Opening) -> None:
    states = noise(LARGEST_BYTES), b"{" + b'"order": 1,' * 400_000 + b"}"
    async with opening() as store, opening() as other:
        mine = await taken(store)
        for state in states:
            await store.save(ORDERS, mine, Checkpoint(LADDER[4], state))
            await store.release(ORDERS, mine)
            mine = await other.take(ORDERS, mine, owner=BOB)
            assert mine.checkpoint == Checkpoint(LADDER[4], state)


async def a_listing_without_memos_has_everything_else(opening: Opening) -> None:
    memos = (b"", MEMO, noise(100_000), noise(LARGE_BYTES))
    shards = [ShardId(f"shardId-{number:012}") for number in range(len(memos))]
    async with opening() as store, opening() as other:
        assert await store.leases(ORDERS, memos=False) == []
        await store.seed(
            ORDERS, [lease(shards[0]), *(lease(each, LADDER[0], shards[0], TWO) for each in shards[1:])]
        )
        for free, memo in zip((await store.leases(ORDERS))[1:], memos[1:], strict=True):
            mine = await store.take(ORDERS, free, owner=ANN)
            await store.save(ORDERS, mine, Checkpoint(LADDER[5], memo))
        whole = by_shard(await store.leases(ORDERS))
        assert [each.checkpoint.memo for each in whole] == [*memos]
        bare = [replace(each, checkpoint=Checkpoint(each.checkpoint.position)) for each in whole]
        assert by_shard(await other.leases(ORDERS, memos=False)) == bare
        assert by_shard(await other.leases(ORDERS)) == whole


async def who_takes_from_a_listing_without_memos_gets_the_memo(opening: Opening) -> None:
    async with opening() as store, opening() as other:
        for memo in (MEMO, noise(LARGE_BYTES)):
            mine = await taken(store)
            await store.save(ORDERS, mine, Checkpoint(LADDER[4], memo))
            (bare,) = await other.leases(ORDERS, memos=False)
            theirs = await other.take(ORDERS, bare, owner=BOB)
            assert theirs == replace(
                mine, owner=BOB, epoch=mine.epoch + 1, checkpoint=Checkpoint(LADDER[4], memo)
            )
            assert await other.take(ORDERS, bare, owner=BOB) == theirs
            with pytest.raises(LeaseLost):
                await store.take(ORDERS, bare, owner=ANN)
            (bare,) = await store.leases(ORDERS, memos=False)
            await store.drop(ORDERS, bare)


async def a_large_memo_is_seeded_once(opening: Opening) -> None:
    first, second = (
        replace(lease(), checkpoint=Checkpoint(LADDER[4], noise(LARGE_BYTES, seed))) for seed in (1, 2)
    )
    async with opening() as store, opening() as other:
        await store.seed(ORDERS, [first, lease(TWO)])
        await other.seed(ORDERS, [second])
        assert by_shard(await store.leases(ORDERS)) == [first, lease(TWO)]
        await other.drop(ORDERS, first)
        assert await store.leases(ORDERS) == [lease(TWO)]
        await other.seed(ORDERS, [second])
        assert by_shard(await store.leases(ORDERS)) == [second, lease(TWO)]
        await store.forget(ORDERS)
        assert await store.leases(ORDERS) == []


async def positions_move_to_another_mapping_with_their_memos(opening: Opening) -> None:
    """The leases are taken and copied, and the earlier mapping is removed. Late writes of its last owner are refused."""
    memos = {ONE: MEMO, TWO: noise(LARGE_BYTES)}
    async with opening() as store, opening() as other:
        row = await store.create(MappingRow(ORDERS, Epoch(1.5), seeded=True, document={"file": {"a": ["b"]}}))
        await store.seed(ORDERS, [lease(ONE, LADDER[0]), lease(TWO, LADDER[0], ONE)])
        held = [await store.take(ORDERS, each, owner=ANN) for each in await store.leases(ORDERS)]
        for each in held:
            await store.save(ORDERS, each, Checkpoint(LADDER[4], memos[each.shard]))
        bare = await other.leases(ORDERS, memos=False)
        fenced = [await other.take(ORDERS, each, owner=BOB) for each in bare]
        for _ in range(2):
            await other.seed(AUDIT, [Lease(each.shard, each.parents, each.checkpoint) for each in fenced])
        await other.create(replace(row, mapping=AUDIT))
        for each in held:
            with pytest.raises(LeaseLost):
                await store.save(ORDERS, each, Checkpoint(LADDER[5]))
        await other.forget(ORDERS)
        assert by_shard(await store.leases(AUDIT)) == [
            Lease(ONE, (), Checkpoint(LADDER[4], memos[ONE])),
            Lease(TWO, (ONE,), Checkpoint(LADDER[4], memos[TWO])),
        ]
        assert [(each.mapping, each.document) for each in await store.mappings()] == [(AUDIT, row.document)]
        with pytest.raises(LeaseLost):
            await store.save(ORDERS, held[0], Checkpoint(LADDER[5]))


async def a_zombie_cannot_replace_a_large_memo(opening: Opening) -> None:
    async with opening() as store, opening() as other:
        mine = await taken(store)
        await store.save(ORDERS, mine, Checkpoint(LADDER[3], noise(LARGE_BYTES)))
        theirs = await other.take(ORDERS, mine, owner=BOB)
        for memo in (noise(LARGE_BYTES, 2), b"small"):
            with pytest.raises(LeaseLost, match="bob"):
                await store.save(ORDERS, mine, Checkpoint(LADDER[4], memo))
            assert await only(store) == theirs
        assert theirs.checkpoint == Checkpoint(LADDER[3], noise(LARGE_BYTES))


async def a_sequence_number_comes_back_as_it_was_written(opening: Opening) -> None:
    async with opening() as store, opening() as other:
        mine = await taken(store)
        for written in ("007", "0000000000000000000000000008", "9", "0010"):
            await store.save(ORDERS, mine, Checkpoint(Position.after(written)))
            assert (await only(other)).checkpoint.position.sequence_number == written


async def a_zombie_cannot_checkpoint(opening: Opening) -> None:
    async with opening() as store, opening() as other:
        mine = await taken(store)
        theirs = await other.take(ORDERS, mine, owner=BOB)
        stale = (mine, replace(theirs, owner=ANN), replace(theirs, epoch=1), replace(theirs, owner=None))
        for zombie in stale:
            with pytest.raises(LeaseLost, match="bob"):
                await store.save(ORDERS, zombie, Checkpoint(SHARD_END))
        assert await only(store) == theirs


async def nothing_is_saved_after_release(opening: Opening) -> None:
    async with opening() as store:
        mine = await taken(store)
        await store.release(ORDERS, mine)
        with pytest.raises(LeaseLost):
            await store.save(ORDERS, mine, Checkpoint(LADDER[4]))
        assert (await only(store)).checkpoint.position == LADDER[0]


async def saves_of_many_shards_at_once_are_all_kept_but_the_refused(opening: Opening) -> None:
    shards = [ShardId(f"shardId-{number:012d}") for number in range(24)]
    async with opening() as store:
        held = [await store.take(ORDERS, free, owner=ANN) for free in await seeded(store, *shards)]
        lost = [await store.take(ORDERS, each, owner=BOB) for each in held[::3]]
        async with asyncio.TaskGroup() as group:
            saves = [group.create_task(saved(store, each, Checkpoint(LADDER[4], MEMO))) for each in held]
        assert [save.result() for save in saves] == [number % 3 != 0 for number in range(24)]
        after = by_shard(await store.leases(ORDERS))
        assert [each.checkpoint.memo for each in after] == [b"" if n % 3 == 0 else MEMO for n in range(24)]
        assert after[::3] == lost


async def a_moved_shard_has_the_next_epoch_and_neither_owner_nor_memo(opening: Opening) -> None:
    async with opening() as store, opening() as other:
        mine = await taken(store)
        for memo in (MEMO, noise(LARGE_BYTES)):
            await store.save(ORDERS, mine, Checkpoint(LADDER[5], memo))
            moved = await other.move(ORDERS, mine, LADDER[1])
            assert moved == Lease(ONE, (), Checkpoint(LADDER[1]), None, mine.epoch + 1)
            assert await only(store) == moved
            mine = await store.take(ORDERS, moved, owner=ANN)
            assert mine == replace(moved, owner=ANN, epoch=moved.epoch + 1)


async def a_shard_moves_back_from_its_end(opening: Opening) -> None:
    async with opening() as store:
        mine = await taken(store)
        await store.save(ORDERS, mine, Checkpoint(SHARD_END))
        await store.move(ORDERS, mine, LADDER[0])
        assert (await only(store)).checkpoint == Checkpoint(LADDER[0])


async def who_had_a_shard_before_its_move_saves_nothing_more(opening: Opening) -> None:
    async with opening() as store, opening() as other:
        mine = await taken(store)
        moved = await other.move(ORDERS, mine, LADDER[1])
        for checkpoint in (Checkpoint(LADDER[4]), Checkpoint(LADDER[4], noise(LARGE_BYTES))):
            with pytest.raises(LeaseLost):
                await store.save(ORDERS, mine, checkpoint)
        with pytest.raises(LeaseLost):
            await store.release(ORDERS, mine)
        assert await only(store) == moved


async def a_shard_that_somebody_took_since_is_not_moved(opening: Opening) -> None:
    async with opening() as store:
        (free,) = await seeded(store, ONE)
        mine = await store.take(ORDERS, free, owner=ANN)
        with pytest.raises(LeaseLost):
            await store.move(ORDERS, free, LADDER[1])
        with pytest.raises(LeaseLost):
            await store.move(ORDERS, lease(TWO), LADDER[1])
        assert await store.leases(ORDERS) == [mine]


async def the_same_move_again_finds_its_work_done(opening: Opening) -> None:
    async with opening() as store:
        mine = await taken(store)
        moved = await store.move(ORDERS, mine, LADDER[3])
        assert await store.move(ORDERS, mine, LADDER[3]) == moved
        with pytest.raises(LeaseLost):
            await store.move(ORDERS, mine, LADDER[4])
        await store.take(ORDERS, moved, owner=BOB)
        with pytest.raises(LeaseLost):
            await store.move(ORDERS, mine, LADDER[3])
