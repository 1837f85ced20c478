"""Operations in stores of files and tables: what an end in the middle leaves, what cannot be read, and what a look costs."""

import asyncio
import json
import logging
import sqlite3
import subprocess
import sys
import zlib
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from adapters.stores.dynamodb import operation_rows
from adapters.stores.dynamodb.calls import CALLS_MAX, Refused
from adapters.stores.dynamodb.operation_rows import (
    MARK_S_MAX,
    OPEN,
    OPERATIONS,
    READ_AGAIN_MAX,
    READ_AGAIN_S,
    OperationRows,
)
from adapters.stores.dynamodb.table import key
from adapters.stores.sqlite import store as sqlite
from adapters.stores.sqlite.schema import APPLICATION_ID, SCHEMA
from adapters.stores.stored_operations import content
from poller.clock import LoopClock
from poller.domain.errors import ServiceThrottled, ServiceUnavailable
from poller.domain.operations import Operation, OperationId, OperationState
from poller.domain.records import Epoch
from poller.domain.rows import MappingRow
from poller.plugins import Environment
from poller.ports import Store
from poller.testing.stores.store_operations import FULL, asked, ended
from poller.testing.stores.store_steps import ORDERS, noise
from tests import emulators
from tests.adapters.stores.dynamo import Meddler, lost_answer, meddled, refusal
from tests.emulators import Emulator


@pytest.fixture(scope="session")
def dynalite(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Emulator]:
    """One dynalite for this process of the test run."""
    with emulators.dynalite(tmp_path_factory.mktemp("dynalite")) as emulator:
        yield emulator


@pytest.fixture(params=["ministack", "dynalite"])
def endpoint(request: pytest.FixtureRequest, account: str) -> str:
    """The URL of each emulator in turn."""
    emulator: Emulator = request.getfixturevalue(request.param)
    return emulator.url


@asynccontextmanager
async def in_file(path: Path) -> AsyncGenerator[Store]:
    """A store in a file."""
    settings = sqlite.SqliteSettings(url=f"sqlite://{path}", synchronous="normal")
    async with sqlite.plugin.open(settings, Environment(LoopClock())) as store:
        yield store


def test_writes_of_operations_whose_answers_were_lost_may_be_sent_again(endpoint: str) -> None:
    async def scenario() -> None:
        async with meddled(endpoint) as (store, meddler):

            async def twice(call: Callable[[], Coroutine[Any, Any, Any]], *lost: tuple[str, int]) -> Any:
                """Loses the answer to one call after the other; the last try gets its answers."""
                for operation, before in lost:
                    meddler.after[operation] = [*[None] * before, lost_answer()]
                    with pytest.raises(ServiceUnavailable):
                        await call()
                return await call()

            first = await twice(lambda: store.add(FULL), ("update_item", 0), ("put_item", 0))
            assert first == FULL
            second = replace(first, progress={"records": 1})
            changed = await twice(lambda: store.change(second), ("update_item", 0), ("put_item", 0))
            assert changed == replace(second, revision=1)
            last = ended(replace(second, revision=1))
            over = await twice(
                lambda: store.change(last), ("update_item", 0), ("put_item", 0), ("delete_item", 0)
            )
            assert over == replace(last, revision=2)
            assert [await store.operations(), await store.operations(over=True)] == [[], [over]]
            await twice(lambda: store.prune([over.operation]), ("delete_item", 0))
            assert [await store.operations(), await store.operations(over=True)] == [[], []]

    asyncio.run(scenario())


@pytest.mark.parametrize("sent", ["update_item", "put_item"])
def test_an_operation_whose_process_ends_while_it_is_added_is_there_as_a_whole_or_not_at_all(
    sent: str, endpoint: str
) -> None:
    async def scenario() -> None:
        async with meddled(endpoint) as (store, meddler):
            meddler.before[sent] = [lost_answer()]
            with pytest.raises(ServiceUnavailable):
                await store.add(asked())
            assert [await store.operations(), await store.operations(over=True)] == [[], []]
            assert await marks(meddler, store.table, OPERATIONS) == []
            added = await store.add(asked())
            assert await store.operations() == [added]

    asyncio.run(scenario())


@pytest.mark.parametrize("stage", ["before", "after"])
def test_an_operation_whose_process_ends_while_it_ends_is_over_for_all_or_open_for_all(
    stage: str, endpoint: str
) -> None:
    async def scenario() -> None:
        async with meddled(endpoint) as (store, meddler):
            first = await store.add(asked())
            getattr(meddler, stage)["put_item"] = [lost_answer()]
            with pytest.raises(ServiceUnavailable):
                await store.change(ended(first))
            if stage == "before":
                assert [await store.operations(), await store.operations(over=True)] == [[first], []]
                return
            over = replace(ended(first), revision=1)
            assert len(await marks(meddler, store.table)) == 1
            # Whoever reads next removes the mark, or leaves it if it cannot.
            meddler.before["delete_item"] = [refusal("ThrottlingException")]
            assert [await store.operations(), await store.operations(over=True)] == [[], [over]]
            assert len(await marks(meddler, store.table)) == 1
            assert await store.operations() == []
            assert await marks(meddler, store.table) == []

    asyncio.run(scenario())


async def marks(meddler: Meddler, table: str, partition: str = OPEN) -> list[str]:
    """The ids that are marked as not over, or those of another partition."""
    items = (await meddler.client.scan(TableName=table))["Items"]
    return [each["sk"]["S"] for each in items if each["pk"]["S"] == partition]


def test_a_mark_without_an_operation_is_removed_after_a_day(endpoint: str) -> None:
    async def scenario() -> None:
        async with meddled(endpoint) as (store, meddler):
            clock = [1_700_000_000.0]
            rows = OperationRows(store._table, now=lambda: clock[0])
            meddler.before["put_item"] = [lost_answer()]
            with pytest.raises(ServiceUnavailable):
                await rows.add(asked())
            clock[0] += MARK_S_MAX - 1
            assert await rows.open_ones() == []
            assert await marks(meddler, store.table) == ["op-1"]
            clock[0] += 1
            assert await rows.open_ones() == []
            assert await marks(meddler, store.table) == []

    asyncio.run(scenario())


def test_an_old_mark_is_left_to_somebody_who_adds_the_operation_just_now(endpoint: str) -> None:
    async def scenario() -> None:
        async with meddled(endpoint) as (store, _):
            clock = [1_700_000_000.0]
            rows = OperationRows(store._table, now=lambda: clock[0])
            old = {**key(OPEN, "op-1"), "marked": {"N": "1"}}
            added = await rows.add(asked())
            with pytest.raises(Refused):
                await rows._remove_seen(old)
            assert await rows.open_ones() == [added]

    asyncio.run(scenario())


def test_a_look_at_open_operations_does_not_read_those_that_are_over(endpoint: str) -> None:
    async def scenario() -> None:
        async with meddled(endpoint) as (store, meddler):
            for number in range(30):
                await store.change(ended(await store.add(asked(f"over-{number}"))))
            await store.add(asked("open"))
            meddler.calls.clear()
            assert [each.operation for each in await store.operations()] == ["open"]
            assert meddler.calls == ["query", "get_item"]

    asyncio.run(scenario())


def test_a_row_is_read_again_when_it_has_changed_and_otherwise_once_a_minute(endpoint: str) -> None:
    async def scenario() -> None:
        async with meddled(endpoint) as (store, meddler):
            clock = [1_700_000_000.0]
            rows = OperationRows(store._table, now=lambda: clock[0])

            async def read() -> list[str]:
                """The operations, and in `meddler.calls` what was asked for."""
                meddler.calls.clear()
                return [each.operation for each in await rows.open_ones()]

            names = [f"op-{number:02}" for number in range(READ_AGAIN_MAX + 8)]
            there = {name: await store.add(asked(name)) for name in names}
            assert await read() == names
            assert meddler.calls.count("get_item") == len(names)
            assert (await read(), meddler.calls) == (names, ["query"])
            await store.change(replace(there["op-03"], result="x"))
            assert (await read(), meddler.calls) == (names, ["query", "get_item"])
            # Somebody removes a row by hand.
            await meddler.client.delete_item(TableName=store.table, Key=key(OPERATIONS, "op-00"))
            assert (await read(), meddler.calls) == (names, ["query"])
            clock[0] += READ_AGAIN_S
            assert await read() == names[1:]
            assert meddler.calls.count("get_item") == READ_AGAIN_MAX
            assert await read() == names[1:]
            # The mark without a row is looked at each time.
            assert meddler.calls.count("get_item") == len(names) - READ_AGAIN_MAX + 1

    asyncio.run(scenario())


def test_a_read_that_is_cut_off_goes_on_where_it_was(endpoint: str) -> None:
    async def scenario() -> None:
        async with meddled(endpoint) as (store, meddler):
            for number in range(2 * CALLS_MAX):
                await store.add(asked(f"op-{number}"))
            meddler.before["get_item"] = [*[None] * CALLS_MAX, lost_answer()]
            with pytest.raises(ServiceUnavailable):
                await store.operations()
            meddler.calls.clear()
            assert len(await store.operations()) == 2 * CALLS_MAX
            assert meddler.calls.count("get_item") == 1

    asyncio.run(scenario())


@pytest.mark.parametrize("end", [False, True])
def test_a_change_whose_process_ends_before_the_row_is_written_hides_no_later_one(
    end: bool, endpoint: str
) -> None:
    async def scenario() -> None:
        async with meddled(endpoint) as (store, meddler):
            other = OperationRows(store._table)
            first = await store.add(asked())
            assert [await store.operations(), await other.open_ones()] == [[first], [first]]
            meddler.before["put_item"] = [lost_answer()]
            with pytest.raises(ServiceUnavailable):
                await store.change(replace(first, result="lost"))
            assert [await store.operations(), await other.open_ones()] == [[first], [first]]
            wanted = ended(first) if end else replace(first, result="later")
            meddler.before["delete_item"] = [lost_answer()] if end else []
            if end:
                with pytest.raises(ServiceUnavailable):
                    await other.change(wanted)
            else:
                await other.change(wanted)
            left = [] if end else [replace(wanted, revision=1)]
            assert [await store.operations(), await other.open_ones()] == [left, left]

    asyncio.run(scenario())


def test_an_operation_that_was_pruned_meanwhile_is_added_again_later(endpoint: str) -> None:
    async def scenario() -> None:
        async with meddled(endpoint) as (store, meddler):
            over = await store.change(ended(await store.add(asked())))
            meddler.before["put_item"] = [refusal("ConditionalCheckFailedException")]
            await store.prune([over.operation])
            with pytest.raises(ServiceThrottled, match="removed just now"):
                await store.add(asked())

    asyncio.run(scenario())


def test_an_operation_that_does_not_fit_into_an_item_is_refused_and_the_stored_one_stays(
    endpoint: str,
) -> None:
    async def scenario() -> None:
        async with meddled(endpoint) as (store, _):
            first = await store.add(asked())
            with pytest.raises(ServiceUnavailable, match="a DynamoDB item has room for"):
                await store.change(replace(first, notes={"records": [noise(600_000).hex()]}))
            assert await store.operations() == [first]

    asyncio.run(scenario())


def of_newer_version(**changes: Any) -> str:
    """The content of an operation that this version does not know."""
    return json.dumps({**json.loads(content(asked("newer"))), **changes})


UNREADABLE = {
    "an action of a newer version": of_newer_version(action="rewind"),
    "a state of a newer version": of_newer_version(state="waiting"),
    "no JSON": "{",
    "another JSON": "[]",
    "a lane that is no number": of_newer_version(target={"shard": None, "lane": "1", "group": None}),
    "a time that is none": of_newer_version(created=-1),
    "a part without a result": of_newer_version(parts={"a": ["done"]}),
    "members that are none": of_newer_version(members=[]),
    "notes that are nested deep": of_newer_version(notes={"more": json.loads("[" * 200 + "]" * 200)}),
    "notes of another kind": of_newer_version(notes={"records": [["1"]]}),
    "nothing but an action": '{"action": "retry"}',
}


async def check_unreadable(store: Store, good: Operation, caplog: pytest.LogCaptureFixture) -> None:
    """The others are listed, and calls for the unreadable one alone are refused."""
    for _ in range(3):
        assert await store.operations() == [good]
    said = [each.getMessage() for each in caplog.records if each.name == "poller.stores"]
    assert len(said) == 1
    assert "operation newer in the store cannot be read: " in said[0]
    assert "run a version that knows it" in said[0]
    calls = store.add(asked("newer")), store.change(replace(asked("newer"), revision=9))
    for call in (*calls, store.operation(OperationId("newer"))):
        with pytest.raises(ServiceUnavailable, match="operation newer in the store cannot be read"):
            await call


@pytest.mark.parametrize("text", UNREADABLE.values(), ids=UNREADABLE)
def test_an_operation_in_a_file_that_cannot_be_read_is_left_out_and_logged_once(
    text: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "state.db"

    async def scenario() -> None:
        async with in_file(path) as store:
            good = await store.add(asked("good"))
            await store.add(asked("newer"))
            with closing(sqlite3.connect(path)) as db:
                db.execute("UPDATE operations SET content = ? WHERE operation = 'newer'", (text,))
                db.commit()
            await check_unreadable(store, good, caplog)

    with caplog.at_level(logging.WARNING, logger="poller.stores"):
        asyncio.run(scenario())


@pytest.mark.parametrize(
    "attributes",
    [
        *({"content": {"S": text}} for text in UNREADABLE.values()),
        {},
        {"content": {"N": "1"}},
        {"packed": {"B": b"no zlib"}},
        {"packed": {"S": "text"}},
        {"packed": {"B": zlib.compress(b" " * (operation_rows.CONTENT_BYTES_MAX + 1))}},
        {"content": {"S": content(asked("newer"))}, "revision": {"S": "x"}},
    ],
    ids=str,
)
def test_an_operation_in_a_table_that_cannot_be_read_is_left_out_and_logged_once(
    attributes: Any, ministack: Emulator, account: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        async with meddled(ministack.url) as (store, meddler):
            good = await store.add(asked("good"))
            await store.add(asked("newer"))
            row = {**key(OPERATIONS, "newer"), "over": {"BOOL": False}, "revision": {"N": "0"}, **attributes}
            await meddler.client.put_item(TableName=store.table, Item=row)
            await check_unreadable(store, good, caplog)

    with caplog.at_level(logging.WARNING, logger="poller.stores"):
        asyncio.run(scenario())


def test_a_file_of_before_there_were_operations_gets_them_and_keeps_its_rows(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    with closing(sqlite3.connect(path)) as db:
        for script in SCHEMA[:2]:
            db.executescript(script)
        db.execute(f"PRAGMA application_id={APPLICATION_ID}")
        db.execute("PRAGMA user_version=2")
        db.execute("INSERT INTO mappings VALUES (?, 1.5, 1, '{}', 4)", (ORDERS,))
        db.commit()
    row = MappingRow(ORDERS, Epoch(1.5), seeded=True, revision=4)
    assert sqlite.stored_mappings(path) == [row]

    async def scenario() -> None:
        async with in_file(path) as store:
            assert await store.mappings() == [row]
            await store.add(FULL)
        async with in_file(path) as store:
            assert await store.operations() == [FULL]

    asyncio.run(scenario())
    assert sqlite.stored_mappings(path) == [row]


def test_open_operations_in_a_file_are_found_by_an_index(tmp_path: Path) -> None:
    path = tmp_path / "state.db"

    async def scenario() -> None:
        async with in_file(path) as store:
            await store.add(FULL)

    asyncio.run(scenario())
    with closing(sqlite3.connect(path)) as db:
        query = "SELECT content FROM operations WHERE over = 0 ORDER BY created, operation"
        plan = " ".join(str(row) for row in db.execute(f"EXPLAIN QUERY PLAN {query}"))
    assert "USING INDEX open_operations" in plan
    assert "TEMP B-TREE" not in plan


def test_processes_that_share_an_operation_lose_no_result_when_one_is_killed(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    wanted = tuple(f"part-{number}" for number in range(60))

    async def scenario(work: Callable[[Store], Coroutine[Any, Any, Any]]) -> Any:
        async with in_file(path) as store:
            return await work(store)

    asyncio.run(scenario(lambda store: store.add(replace(asked(), wanted=wanted))))
    command = [sys.executable, "-m", "tests.adapters.stores.store_child", "finish", str(path)]
    root = Path(__file__).parents[3]
    children = [
        subprocess.Popen([*command, f"w{number}"], stdout=subprocess.PIPE, cwd=root) for number in range(3)
    ]
    killed = children[0]
    assert killed.stdout is not None
    first = killed.stdout.readline()
    killed.kill()
    said = [first + children[0].communicate()[0], *(each.communicate()[0] for each in children[1:])]
    assert [each.returncode for each in children[1:]] == [0, 0]
    (over,) = asyncio.run(scenario(lambda store: store.operations(over=True)))
    assert (over.state, over.revision, set(over.parts)) == (OperationState.DONE, 60, set(wanted))
    for number, lines in enumerate(said):
        assert {over.parts[part].result for part in lines.decode().split()} <= {f"w{number}"}
    assert len(b"".join(said).split()) >= len(wanted) - 1


def test_an_operation_in_a_file_survives_the_process(tmp_path: Path) -> None:
    path = tmp_path / "state.db"

    async def write() -> Operation:
        async with in_file(path) as store:
            return await store.change(ended(await store.add(FULL)))

    async def read() -> Any:
        async with in_file(path) as store:
            return await store.operations(over=True)

    written = asyncio.run(write())
    assert asyncio.run(read()) == [written]
    assert (written.state, written.operation) == (OperationState.DONE, OperationId("deploy-1:a.b_c"))
