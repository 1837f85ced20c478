"""Owns the contract of stores about the rows of mappings and of workers."""

from dataclasses import replace
from typing import Any

import pytest

from poller.domain.errors import LeaseLost, ResourceMissing, RowChanged
from poller.domain.records import Epoch, Position, ShardId
from poller.domain.rows import DigestRow, DigestStore, MappingRow, WorkerRow
from poller.ports import Store
from poller.testing.stores.store_steps import (
    ANN,
    AUDIT,
    BOB,
    ONE,
    ORDERS,
    TWO,
    Opening,
    both,
    by_shard,
    lease,
    updated,
)


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


async def a_digest_replaces_the_one_before(opening: Opening) -> None:
    async with opening() as store, opening() as other:
        mine, others = digest_store(store), digest_store(other)
        assert list(await mine.digests()) == []
        await mine.put_digest(ANN, b"first")
        await others.put_digest(BOB, bytes(range(256)) * 64)
        await mine.put_digest(ANN, b"second")
        rows = sorted(await others.digests(), key=lambda row: row.worker)
        assert rows == [DigestRow(ANN, b"second"), DigestRow(BOB, bytes(range(256)) * 64)]


async def an_empty_digest_removes_the_one_before(opening: Opening) -> None:
    async with opening() as store, opening() as other:
        mine, others = digest_store(store), digest_store(other)
        await mine.put_digest(ANN, b"x")
        await others.put_digest(ANN, b"")
        await others.put_digest(ANN, b"")
        assert list(await mine.digests()) == []


async def digests_and_heartbeats_do_not_touch_each_other(opening: Opening) -> None:
    async with opening() as store:
        digests = digest_store(store)
        await store.beat(ANN, 1, facts={})
        await digests.put_digest(ANN, b"x")
        await digests.put_digest(BOB, b"y")
        await store.retire(ANN)
        assert await store.workers() == []
        assert [row.worker for row in await digests.digests()] == [ANN, BOB]


def digest_store(store: Store) -> DigestStore:
    """The store, which must take digests."""
    assert isinstance(store, DigestStore), "a store without digests need not pass these scenarios"
    return store
