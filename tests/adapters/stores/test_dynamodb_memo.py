"""Owns what becomes of a memo in several items when its writer crashes, stalls or is late, and of what it leaves."""

import asyncio
import json
from collections.abc import AsyncGenerator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from typing import Any

import pytest

from adapters.stores.dynamodb.memo_parts import MEMO_BYTES_MAX
from adapters.stores.dynamodb.store import DynamoStore
from adapters.stores.dynamodb.table import ROOM_BYTES
from poller.domain.errors import LeaseLost, ServiceUnavailable
from poller.domain.records import Epoch
from poller.domain.rows import Checkpoint, Lease, MappingRow
from poller.testing.stores.store_steps import (
    ANN,
    BOB,
    LADDER,
    LARGE_BYTES,
    ONE,
    ORDERS,
    noise,
    only,
    saved,
    seeded,
    taken,
)
from tests.adapters.stores.dynamo import lost_answer, meddled
from tests.emulators import Emulator

ROOM = 8
"""Bytes of a part here."""
CALLS = range(16)
"""More than a save or a removal needs here."""
SMALL, LARGE = b"small", noise(15)
CHANGES = [
    pytest.param([SMALL, LARGE], id="grows"),
    pytest.param([LARGE, noise(15, 2)], id="is large again"),
    pytest.param([LARGE, noise(15, 2), noise(12, 3)], id="is large for long"),
    pytest.param([LARGE, SMALL], id="shrinks"),
    pytest.param([LARGE, noise(15, 2), SMALL], id="shrinks after long"),
]
"""Memos, one after the other; the last one is where something happens."""

type Act = Callable[[], Coroutine[Any, Any, None]]


class Stage:
    """A client that does something of the test's own once before its call number `at`."""

    def __init__(self, client: Any, at: int, act: Act) -> None:
        self.client = client
        self.at = at
        self.act = act
        self.calls = 0
        self.reached = False

    def __getattr__(self, operation: str) -> Callable[..., Coroutine[Any, Any, Any]]:
        async def call(**arguments: Any) -> Any:
            now, self.calls = self.calls == self.at, self.calls + 1
            if now:
                self.reached = True
                await self.act()
            return await getattr(self.client, operation)(**arguments)

        return call


class Crashed(Stage):
    """A client of a process that dies before its call number `at`: no later call is sent."""

    def __init__(self, client: Any, at: int) -> None:
        async def nothing() -> None: ...

        super().__init__(client, at, nothing)

    def __getattr__(self, operation: str) -> Callable[..., Coroutine[Any, Any, Any]]:
        sent = super().__getattr__(operation)

        async def call(**arguments: Any) -> Any:
            if self.calls >= self.at:
                self.reached = True
                raise lost_answer()
            return await sent(**arguments)

        return call


class Ground:
    """One table, its store, and what a test looks at."""

    def __init__(self, store: DynamoStore, client: Any) -> None:
        self.store = store
        self.client = client

    def over(self, client: Any) -> DynamoStore:
        """The store as a worker sees it through another client."""
        return DynamoStore(client, self.store.table, call_timeout_s=5, room=ROOM)

    async def held(self, memos: Sequence[bytes]) -> Lease:
        """The only lease, taken by ANN, after saves of these memos."""
        mine = await taken(self.store)
        for memo in memos:
            await self.store.save(ORDERS, mine, Checkpoint(LADDER[3], memo))
        return mine

    async def generations(self) -> list[str]:
        """The generations of which there are parts, each once, oldest first."""
        answer = await self.client.scan(TableName=self.store.table, ConsistentRead=True)
        parts = [item["sk"]["S"] for item in answer["Items"] if item["pk"]["S"] == f"memos#{ORDERS}"]
        return sorted({part.split("#")[1] for part in parts})

    async def items(self) -> int:
        """How many items the table has."""
        answer = await self.client.scan(TableName=self.store.table, ConsistentRead=True)
        return len(answer["Items"])

    async def leave(self, epoch: int) -> None:
        """A part that some writer of this epoch did not come to name."""
        item = {
            "pk": {"S": f"memos#{ORDERS}"},
            "sk": {"S": f"{ONE}#{epoch:020}-{5:020}#0000"},
            "part": {"B": b"x"},
        }
        await self.client.put_item(TableName=self.store.table, Item=item)


@asynccontextmanager
async def ground(url: str) -> AsyncGenerator[Ground]:
    """A table of its own, where an item takes ROOM bytes of a memo."""
    async with meddled(url, room=ROOM) as (store, meddler):
        yield Ground(store, meddler.client)


async def checked_and_cleaned(there: Ground, memos: Sequence[bytes]) -> None:
    """Another worker finds one of `memos` whole; after its own saves nothing of earlier ones is left."""
    before = await only(there.store)
    assert before.checkpoint.memo in memos
    theirs = await there.store.take(ORDERS, before, owner=BOB)
    assert theirs.checkpoint == before.checkpoint
    for memo in (noise(20, 5), noise(20, 6)):
        await there.store.save(ORDERS, theirs, Checkpoint(LADDER[4], memo))
        assert (await only(there.store)).checkpoint.memo == memo
    assert len(await there.generations()) == 2
    await there.store.save(ORDERS, theirs, Checkpoint(LADDER[5], b""))
    assert await there.generations() == []
    await there.store.drop(ORDERS, theirs)
    assert await there.items() == 0


@pytest.mark.parametrize("memos", CHANGES)
def test_a_writer_that_crashes_anywhere_leaves_one_whole_memo_and_nothing_for_long(
    memos: list[bytes], ministack: Emulator, account: str
) -> None:
    async def scenario() -> None:
        async with ground(ministack.url) as there:
            for at in CALLS:
                mine = await there.held(memos[:-1])
                crashed = Crashed(there.client, at)
                with suppress(ServiceUnavailable):
                    await there.over(crashed).save(ORDERS, mine, Checkpoint(LADDER[3], memos[-1]))
                await checked_and_cleaned(there, memos[-2:] if crashed.reached else memos[-1:])
                if not crashed.reached:
                    break
        assert 4 < at < CALLS[-1]

    asyncio.run(scenario())


@pytest.mark.parametrize("memos", CHANGES)
@pytest.mark.parametrize("theirs", [SMALL, noise(10, 9)], ids=["small", "large"])
def test_a_writer_that_stalls_anywhere_damages_nothing_of_the_next_owner(
    theirs: bytes, memos: list[bytes], ministack: Emulator, account: str
) -> None:
    async def scenario() -> None:
        async with ground(ministack.url) as there:

            async def steal() -> None:
                stolen = await there.store.take(ORDERS, await only(there.store), owner=BOB)
                await there.store.save(ORDERS, stolen, Checkpoint(LADDER[4], theirs))

            for at in CALLS:
                mine = await there.held(memos[:-1])
                stage = Stage(there.client, at, steal)
                await saved(there.over(stage), mine, Checkpoint(LADDER[4], memos[-1]))
                if stage.reached:
                    after = await only(there.store)
                    assert after == Lease(ONE, (), Checkpoint(LADDER[4], theirs), BOB, 2)
                    assert len(await there.generations()) <= (0 if theirs == SMALL else 2)
                await checked_and_cleaned(there, [theirs] if stage.reached else memos[-1:])
                if not stage.reached:
                    break
        assert 4 < at < CALLS[-1]

    asyncio.run(scenario())


def test_a_stalled_writer_of_a_large_memo_learns_that_its_lease_is_lost(
    ministack: Emulator, account: str
) -> None:
    async def scenario() -> None:
        async with ground(ministack.url) as there:
            mine = await there.held([SMALL])

            async def steal() -> None:
                await there.store.take(ORDERS, mine, owner=BOB)

            with pytest.raises(LeaseLost, match="bob"):
                await there.over(Stage(there.client, 3, steal)).save(
                    ORDERS, mine, Checkpoint(LADDER[4], LARGE)
                )
            assert await there.generations() == []
            assert (await only(there.store)).checkpoint == Checkpoint(LADDER[3], SMALL)

    asyncio.run(scenario())


def test_a_row_that_comes_late_never_names_parts_that_are_gone(ministack: Emulator, account: str) -> None:
    class Held:
        """A client whose writes of a row that names parts stay in the network."""

        def __init__(self, client: Any) -> None:
            self.client = client
            self.late: list[dict[str, Any]] = []

        def __getattr__(self, operation: str) -> Callable[..., Coroutine[Any, Any, Any]]:
            async def call(**arguments: Any) -> Any:
                if ":memo_parts" in arguments.get("ExpressionAttributeValues", {}):
                    self.late.append(arguments)
                    raise lost_answer()
                return await getattr(self.client, operation)(**arguments)

            return call

    async def scenario() -> None:
        async with ground(ministack.url) as there:
            mine = await there.held([LARGE])
            network = Held(there.client)
            with pytest.raises(ServiceUnavailable):
                await there.over(network).save(ORDERS, mine, Checkpoint(LADDER[3], noise(15, 2)))
            dying = Crashed(there.client, 4)
            with pytest.raises(ServiceUnavailable):
                await there.over(dying).save(ORDERS, mine, Checkpoint(LADDER[3], noise(15, 3)))
            with pytest.raises(there.client.exceptions.ConditionalCheckFailedException):
                await there.client.update_item(**network.late[0])
            assert (await only(there.store)).checkpoint.memo == LARGE

    asyncio.run(scenario())


@pytest.mark.parametrize(
    "memos", [[SMALL], [LARGE], [LARGE, noise(15, 2)]], ids=["small", "large", "large for long"]
)
@pytest.mark.parametrize("removal", ["drop", "forget"])
def test_what_a_crash_leaves_of_a_removal_goes_when_it_is_repeated(
    removal: str, memos: list[bytes], ministack: Emulator, account: str
) -> None:
    async def scenario() -> None:
        async with ground(ministack.url) as there:
            for at in CALLS:
                mine = await there.held(memos)
                await there.store.create(MappingRow(ORDERS, Epoch(1)))
                crashed = Crashed(there.client, at)
                with suppress(ServiceUnavailable):
                    await remove(there.over(crashed), removal, mine)
                for each in await there.store.leases(ORDERS):
                    assert each.checkpoint.memo == memos[-1]
                await remove(there.store, removal, mine)
                assert await there.items() == (1 if removal == "drop" else 0)
                if not crashed.reached:
                    break
        assert at < CALLS[-1]

    asyncio.run(scenario())


async def remove(store: DynamoStore, removal: str, mine: Lease) -> None:
    """Removes the lease alone, or the whole mapping."""
    await (store.drop(ORDERS, mine) if removal == "drop" else store.forget(ORDERS))


@pytest.mark.parametrize("way", ["a large memo", "a smaller memo", "drop", "forget"])
def test_parts_that_no_row_names_are_ignored_and_removed(way: str, ministack: Emulator, account: str) -> None:
    async def scenario() -> None:
        async with ground(ministack.url) as there:
            mine = await there.held([LARGE if way == "a smaller memo" else SMALL])
            await there.leave(epoch=0)
            assert (await only(there.store)).checkpoint.memo in (SMALL, LARGE)
            if way in ("drop", "forget"):
                await remove(there.store, way, mine)
            else:
                memo = LARGE if way == "a large memo" else SMALL
                await there.store.save(ORDERS, mine, Checkpoint(LADDER[4], memo))
            assert not any(generation.startswith("0" * 20) for generation in await there.generations())

    asyncio.run(scenario())


def test_a_reader_that_is_overtaken_reads_the_later_memo(ministack: Emulator, account: str) -> None:
    async def scenario() -> None:
        async with ground(ministack.url) as there:
            mine = await there.held([LARGE])

            async def save_thrice() -> None:
                for seed in (2, 3, 4):
                    await there.store.save(ORDERS, mine, Checkpoint(LADDER[4], noise(15, seed)))

            async def shrink() -> None:
                await there.store.save(ORDERS, mine, Checkpoint(LADDER[5], SMALL))

            async def forget() -> None:
                await there.store.forget(ORDERS)

            for act, found in ((save_thrice, [noise(15, 4)]), (shrink, [SMALL])):
                leases = await there.over(Stage(there.client, 1, act)).leases(ORDERS)
                assert [each.checkpoint.memo for each in leases] == found
            await there.store.save(ORDERS, mine, Checkpoint(LADDER[5], LARGE))
            assert await there.over(Stage(there.client, 1, forget)).leases(ORDERS) == []

    asyncio.run(scenario())


def test_a_memo_that_lacks_a_part_is_reported_with_the_remedy(ministack: Emulator, account: str) -> None:
    async def scenario() -> None:
        async with ground(ministack.url) as there:
            await there.held([LARGE])
            (generation,) = await there.generations()
            part = {"pk": {"S": f"memos#{ORDERS}"}, "sk": {"S": f"{ONE}#{generation}#0001"}}
            await there.client.delete_item(TableName=there.store.table, Key=part)
            with pytest.raises(ServiceUnavailable, match=r"parts of .* are missing; remove memo, memo_form"):
                await there.store.leases(ORDERS)
            (bare,) = await there.store.leases(ORDERS, memos=False)
            with pytest.raises(ServiceUnavailable, match=r"parts of .* are missing; remove memo, memo_form"):
                await there.store.take(ORDERS, bare, owner=BOB)
            await there.client.update_item(
                TableName=there.store.table,
                Key={"pk": {"S": f"leases#{ORDERS}"}, "sk": {"S": ONE}},
                UpdateExpression="REMOVE memo, memo_form, memo_generation, memo_parts",
            )
            assert (await only(there.store)).checkpoint == Checkpoint(LADDER[3])

    asyncio.run(scenario())


def test_a_listing_without_memos_reads_no_parts(ministack: Emulator, account: str) -> None:
    async def scenario() -> None:
        async with meddled(ministack.url, room=ROOM) as (store, meddler):
            mine = await taken(store)
            await store.save(ORDERS, mine, Checkpoint(LADDER[3], LARGE))
            meddler.calls.clear()
            assert await store.leases(ORDERS, memos=False) == [
                replace(mine, checkpoint=Checkpoint(LADDER[3]))
            ]
            assert meddler.calls == ["query"]

    asyncio.run(scenario())


@pytest.mark.parametrize("content", [b"no zlib", b"x\x9cK"], ids=["damaged", "cut"])
def test_a_memo_that_cannot_be_unpacked_is_reported(
    content: bytes, ministack: Emulator, account: str
) -> None:
    async def scenario() -> None:
        async with ground(ministack.url) as there:
            await there.held([SMALL])
            await there.client.update_item(
                TableName=there.store.table,
                Key={"pk": {"S": f"leases#{ORDERS}"}, "sk": {"S": ONE}},
                UpdateExpression="SET memo = :memo, memo_form = :form",
                ExpressionAttributeValues={":memo": {"B": content}, ":form": {"S": "zlib"}},
            )
            with pytest.raises(ServiceUnavailable, match=f"memo of shard {ONE} cannot be read"):
                await there.store.leases(ORDERS)

    asyncio.run(scenario())


def test_a_windows_state_of_ordinary_json_is_one_write(ministack: Emulator, account: str) -> None:
    counts = {
        f"product-{number}": {"count": number * 7 % 90, "sum": number * 1.5} for number in range(26_000)
    }
    state = json.dumps(counts).encode()

    async def scenario() -> None:
        async with meddled(ministack.url) as (store, meddler):
            mine = await taken(store)
            meddler.calls.clear()
            await store.save(ORDERS, mine, Checkpoint(LADDER[4], state))
            assert meddler.calls == ["update_item"]
            assert (await only(store)).checkpoint.memo == state

    assert len(state) > 1024 * 1024
    asyncio.run(scenario())


def test_the_largest_memo_of_one_item_fits_and_one_byte_more_is_in_parts(
    ministack: Emulator, account: str
) -> None:
    async def scenario() -> None:
        async with meddled(ministack.url) as (store, meddler):
            mine = await taken(store)
            for size, parts in ((ROOM_BYTES, 0), (ROOM_BYTES + 1, 2)):
                meddler.calls.clear()
                await store.save(ORDERS, mine, Checkpoint(LADDER[4], noise(size)))
                assert meddler.calls.count("put_item") == parts
                assert (await only(store)).checkpoint.memo == noise(size)

    asyncio.run(scenario())


def test_a_memo_above_the_limit_is_not_sent(ministack: Emulator, account: str) -> None:
    endless = bytes(MEMO_BYTES_MAX + 1)

    async def scenario() -> None:
        async with meddled(ministack.url) as (store, meddler):
            mine = await taken(store)
            meddler.calls.clear()
            with pytest.raises(ServiceUnavailable, match="8388609 bytes; DynamoDB keeps 8388608 at most"):
                await store.save(ORDERS, mine, Checkpoint(LADDER[4], endless))
            assert meddler.calls == []
            await store.save(ORDERS, mine, Checkpoint(LADDER[4], endless[:-1]))
            assert (await only(store)).checkpoint.memo == endless[:-1]

    asyncio.run(scenario())


def test_a_large_memo_is_read_page_by_page(ministack: Emulator, account: str) -> None:
    memo = noise(3 * LARGE_BYTES)

    async def scenario() -> None:
        async with meddled(ministack.url) as (store, meddler):
            (free,) = await seeded(store, ONE)
            mine = await store.take(ORDERS, free, owner=ANN)
            await store.save(ORDERS, mine, Checkpoint(LADDER[4], memo))
            meddler.calls.clear()
            assert (await only(store)).checkpoint.memo == memo
            assert meddler.calls.count("query") >= 4

    asyncio.run(scenario())


def test_a_row_of_an_earlier_version_is_read_as_it_is(ministack: Emulator, account: str) -> None:
    async def scenario() -> None:
        async with meddled(ministack.url) as (store, meddler):
            await store.seed(ORDERS, [Lease(ONE, (), Checkpoint(LADDER[3], b"old"))])
            await meddler.update_item(
                TableName=store.table,
                Key={"pk": {"S": f"leases#{ORDERS}"}, "sk": {"S": ONE}},
                UpdateExpression="REMOVE memo_form",
            )
            assert await only(store) == Lease(ONE, (), Checkpoint(LADDER[3], b"old"))

    asyncio.run(scenario())
