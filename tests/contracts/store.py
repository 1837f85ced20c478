"""Owns what every store must do: scenarios on one `Opening`, each a sentence of fact.

An opening may be entered several times at once: each entry is one more worker on the same state.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from typing import Any, Protocol

import pytest

from poller.errors import LeaseLost, ResourceMissing, RowChanged
from poller.ports import Store, WorkerStore
from poller.records import SHARD_END, Epoch, MappingId, Position, ShardId, WorkerId
from poller.rows import Checkpoint, Lease, MappingRow, WorkerRow


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


async def a_created_mapping_is_listed_with_every_field(opening: Opening) -> None:
    document = {
        "FunctionName": "größe",
        "Filters": [{"Pattern": '{"a": [null, 1.5]}'}],
        "On": None,
        "Many": 2**53,
    }
    rows = [
        MappingRow(ORDERS, Epoch(1_700_000_000.123456), seeded=True, document=document),
        MappingRow(AUDIT, Epoch(2)),
    ]
    async with opening() as store:
        assert [await store.create(row) for row in rows] == rows
    async with opening() as store:
        assert sorted(await store.mappings(), key=lambda row: row.mapping) == rows


async def a_known_mapping_is_kept_as_it_was(opening: Opening) -> None:
    first = MappingRow(ORDERS, Epoch(1.5), seeded=True)
    async with opening() as store, opening() as other:
        await store.create(first)
        assert await other.create(MappingRow(ORDERS, Epoch(9), document={"new": 1})) == first
        assert await store.mappings() == [first]


async def what_a_caller_changes_later_is_not_stored(opening: Opening) -> None:
    document: dict[str, Any] = {"nested": {"a": 1}}
    async with opening() as store:
        await store.create(MappingRow(ORDERS, Epoch(1), document=document))
        await store.beat(ANN, 1, facts=document)
        document["nested"]["a"] = 2
        (row,), (worker,) = await store.mappings(), await store.workers()
        assert row.document == worker.facts == {"nested": {"a": 1}}
        dict(row.document)["nested"]["a"] = 3
        dict(worker.facts)["nested"]["a"] = 3
        (row,), (worker,) = await store.mappings(), await store.workers()
        assert row.document == worker.facts == {"nested": {"a": 1}}


async def of_two_creators_both_see_one_row(opening: Opening) -> None:
    async with opening() as store, opening() as other:
        mine, theirs = await both(
            store.create(MappingRow(ORDERS, Epoch(1))), other.create(MappingRow(ORDERS, Epoch(2)))
        )
        assert mine == theirs
        assert await store.mappings() == [mine]


async def an_update_replaces_the_row(opening: Opening) -> None:
    async with opening() as store, opening() as other:
        await store.create(MappingRow(ORDERS, Epoch(1), document={"old": 1}))
        newer = MappingRow(ORDERS, Epoch(1), seeded=True, document={"new": 2})
        await other.update(newer)
        assert await store.mappings() == [replace(newer, revision=1)]
        newest = MappingRow(ORDERS, Epoch(1), document={"new": 3}, revision=1)
        await store.update(newest)
        assert await other.mappings() == [replace(newest, revision=2)]


async def an_update_at_another_revision_is_refused(opening: Opening) -> None:
    async with opening() as store, opening() as other:
        first = await store.create(MappingRow(ORDERS, Epoch(1), document={"old": 1}))
        await other.update(replace(first, document={"new": 2}))
        (there,) = await store.mappings()
        for revision in (0, 2, 7):
            with pytest.raises(RowChanged, match="revision 1"):
                await store.update(replace(first, document={"late": 3}, revision=revision))
        assert await store.mappings() == [there]


async def the_same_update_again_finds_its_work_done(opening: Opening) -> None:
    document = {"a": {"b": [1.5, None]}, "größe": "ü"}
    async with opening() as store:
        row = await store.create(MappingRow(ORDERS, Epoch(1_700_000_000.123456), document={}))
        await store.update(replace(row, document=document))
        await store.update(replace(row, document=document))
        assert await store.mappings() == [replace(row, document=document, revision=1)]


async def of_two_updates_of_one_revision_exactly_one_wins(opening: Opening) -> None:
    async with opening() as store, opening() as other:
        row = await store.create(MappingRow(ORDERS, Epoch(1)))
        wanted = [replace(row, document={"by": name}) for name in ("ann", "bob")]
        won = await both(updated(store, wanted[0]), updated(other, wanted[1]))
        assert sorted(won) == [False, True]
        assert await store.mappings() == [replace(wanted[won.index(True)], revision=1)]


async def a_forgotten_mapping_is_not_brought_back_by_an_update(opening: Opening) -> None:
    async with opening() as store, opening() as other:
        await store.create(MappingRow(ORDERS, Epoch(1)))
        await store.update(MappingRow(ORDERS, Epoch(1), seeded=True))
        (row,) = await store.mappings()
        await other.forget(ORDERS)
        for late in (row, replace(row, revision=0)):
            with pytest.raises(ResourceMissing):
                await store.update(late)
        assert await store.mappings() == []


async def an_update_of_an_unknown_mapping_is_refused(opening: Opening) -> None:
    async with opening() as store:
        with pytest.raises(ResourceMissing):
            await store.update(MappingRow(ORDERS, Epoch(1)))
        assert await store.mappings() == []


async def forgetting_removes_all_of_one_mapping_and_nothing_of_others(opening: Opening) -> None:
    async with opening() as store:
        for mapping in (ORDERS, AUDIT):
            await store.create(MappingRow(mapping, Epoch(1)))
            await store.seed(mapping, [lease(ONE), lease(TWO)])
        mine = await store.take(ORDERS, lease(ONE), owner=ANN)
        await store.forget(ORDERS)
        assert await store.mappings() == [MappingRow(AUDIT, Epoch(1))]
        assert await store.leases(ORDERS) == []
        assert len(await store.leases(AUDIT)) == 2
        for refused in (store.save(ORDERS, mine, mine.checkpoint), store.release(ORDERS, mine)):
            with pytest.raises(LeaseLost):
                await refused
        await store.forget(ORDERS)


async def many_shards_come_and_go(opening: Opening) -> None:
    many = [lease(ShardId(f"shardId-{number:012d}"), Position.after(str(number))) for number in range(230)]
    async with opening() as store:
        await store.create(MappingRow(ORDERS, Epoch(1)))
        await store.seed(ORDERS, many)
        assert by_shard(await store.leases(ORDERS)) == many
        await store.forget(ORDERS)
        assert await store.leases(ORDERS) == []


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


async def a_heartbeat_replaces_the_one_before(opening: Opening) -> None:
    async with opening() as store, opening() as other:
        await store.beat(ANN, 1, facts={"load": 0.25, "version": "1.0"})
        await other.beat(BOB, 7, facts={})
        await store.beat(ANN, 2, facts={"load": None, "shards": [ONE]})
        rows = sorted(await other.workers(), key=lambda row: row.worker)
        assert rows == [WorkerRow(ANN, 2, {"load": None, "shards": [ONE]}), WorkerRow(BOB, 7, {})]


async def a_retired_worker_is_not_listed_until_it_beats_again(opening: Opening) -> None:
    async with opening() as store, opening() as other:
        await store.beat(ANN, 1, facts={})
        await other.retire(ANN)
        await other.retire(ANN)
        assert await store.workers() == []
        await store.beat(ANN, 2, facts={})
        assert await store.workers() == [WorkerRow(ANN, 2)]


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


SCENARIOS: tuple[Scenario, ...] = (
    a_created_mapping_is_listed_with_every_field,
    a_known_mapping_is_kept_as_it_was,
    what_a_caller_changes_later_is_not_stored,
    of_two_creators_both_see_one_row,
    an_update_replaces_the_row,
    an_update_of_an_unknown_mapping_is_refused,
    an_update_at_another_revision_is_refused,
    the_same_update_again_finds_its_work_done,
    of_two_updates_of_one_revision_exactly_one_wins,
    a_forgotten_mapping_is_not_brought_back_by_an_update,
    forgetting_removes_all_of_one_mapping_and_nothing_of_others,
    many_shards_come_and_go,
    a_seeded_lease_keeps_parents_and_checkpoint,
    seeding_leaves_what_is_there,
    seeding_nothing_is_no_error,
    taking_sets_the_owner_and_the_next_epoch,
    taking_returns_the_checkpoint_that_is_stored,
    taking_with_another_epoch_is_refused,
    taking_an_unknown_shard_is_refused,
    the_same_take_again_finds_its_work_done,
    of_two_takers_exactly_one_wins,
    of_many_takers_exactly_one_wins,
    releasing_keeps_the_checkpoint_and_clears_the_owner,
    only_the_owner_at_its_epoch_can_release,
    the_same_release_again_finds_its_work_done,
    a_saved_checkpoint_is_seen_by_all_at_once,
    a_position_never_goes_back,
    a_memo_is_replaced_at_the_same_position,
    a_memo_may_grow_large_and_shrink_again,
    the_largest_memo_is_handed_over,
    a_listing_without_memos_has_everything_else,
    who_takes_from_a_listing_without_memos_gets_the_memo,
    a_large_memo_is_seeded_once,
    a_zombie_cannot_replace_a_large_memo,
    a_sequence_number_comes_back_as_it_was_written,
    a_zombie_cannot_checkpoint,
    nothing_is_saved_after_release,
    saves_of_many_shards_at_once_are_all_kept_but_the_refused,
    a_dropped_lease_is_gone_and_may_be_seeded_anew,
    a_lease_that_somebody_took_since_is_not_dropped,
    nothing_is_saved_to_a_dropped_lease,
    a_heartbeat_replaces_the_one_before,
    a_retired_worker_is_not_listed_until_it_beats_again,
)
