"""Rows of a store that somebody has damaged: every stored value, in a real file and a real table, with everything it may be."""

import asyncio
import sqlite3
from collections.abc import AsyncGenerator, Awaitable, Iterator
from contextlib import asynccontextmanager, closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from adapters.aws import clients
from adapters.stores.dynamodb.store import DynamoStore
from adapters.stores.dynamodb.table import ready
from adapters.stores.sqlite import store as sqlite
from poller.clock import LoopClock
from poller.domain.errors import LeaseLost, PortError, ServiceUnavailable
from poller.domain.records import SHARD_END, Epoch, MappingId, Position, ShardId, WorkerId
from poller.domain.rows import Checkpoint, Lease, MappingRow
from poller.plugins import Environment
from poller.ports import Store
from poller.runtime.mappings.definitions import Definition, Definitions
from tests import emulators
from tests.adapters.stores.dynamo import TABLES, environment
from tests.conftest import REGION, give_credentials

DAMAGED, SOUND = MappingId("damaged"), MappingId("sound")
SHARD = ShardId("shardId-0")
ME = WorkerId("me")
ROWS = [
    MappingRow(each, Epoch(1_700_000_000.5), seeded=True, document={"a": {"b": [1]}})
    for each in (DAMAGED, SOUND)
]
FREE = Lease(SHARD, (ShardId("shardId-p"),), Checkpoint(Position.after("495"), b'{"lane_count":1}'))
FACTS = {"on": ["x"]}
TEXTS = (
    "",
    "null",
    "[]",
    "[1]",
    "{}",
    '{"a": NaN}',
    '{"a": 1e999}',
    "{",
    "[" * 100_000,
    '"text"',
    "\x00",
    "\N{ARABIC-INDIC DIGIT THREE}",
    "a" * 100_000,
    "9" * 5000,
    "[" + "9" * 5000 + "]",
    '{"a": ' + "9" * 5000 + "}",
    "AFTER:" + "9" * 200_000,
    "AT_TIMESTAMP:" + "9" * 5000,
    "AFTER:\N{ARABIC-INDIC DIGIT THREE}",
    "9" * 5000 + "-1",
    "AFTER:-5",
    "AFTER:4_9",
    "AFTER: 495",
    "AFTER:999",
    "AT_TIMESTAMP:x",
    "SHARD_END:1",
    "1" + "0" * 70,
    "z",
)
NUMBERS = (-1, 2**53, 2**63 - 1, 9e999, -1e308, 1.5, 0)


async def filled(store: Store) -> None:
    """Two mappings with a shard each that a worker has, and the worker."""
    for row in ROWS:
        await store.create(row)
        await store.seed(row.mapping, [FREE])
        await store.take(row.mapping, FREE, owner=ME)
    await store.beat(ME, 1, facts=FACTS)


def held(mapping: MappingId) -> Lease:
    return Lease(FREE.shard, FREE.parents, FREE.checkpoint, ME, 1)


async def told(call: Awaitable[Any]) -> Any:
    """What a call returns, or the error that a port may raise; nothing else is raised."""
    try:
        return await call
    except PortError as error:
        found = error
    # In the project's own words, none of the interpreter's.
    assert "set_int_max_str_digits" not in str(found)
    return found


async def check_others(store: Store) -> None:
    """The mapping whose rows are whole is listed, read, worked at."""
    listed = {row.mapping: row for row in await store.mappings()}
    assert listed[SOUND] == ROWS[1]
    assert await store.create(ROWS[1]) == ROWS[1]
    assert await store.leases(SOUND) == [held(SOUND)]
    await store.save(SOUND, held(SOUND), FREE.checkpoint)


async def check_damaged(store: Store) -> list[str]:
    """What is said of the damaged mapping, with the row's name and a remedy; it is never a wrong row."""
    row = next((each for each in await store.mappings() if each.mapping == DAMAGED), None)
    kept = await told(store.create(ROWS[0])) if row is not None else row
    problems = []
    if row is not None and row.damage:
        assert isinstance(kept, ServiceUnavailable)
        assert kept.reason == row.damage
        problems.append(row.damage)
    leases = await told(store.leases(DAMAGED))
    bare = await told(store.leases(DAMAGED, memos=False))
    problems += [each.reason for each in (leases, bare) if isinstance(each, PortError)]
    for problem in problems:
        assert "damaged" in problem or SHARD in problem
        assert "row" in problem
        assert "remove" in problem
        assert len(problem) < 600
        assert problem.isprintable()
    await told(store.update(ROWS[0]))
    await told(store.take(DAMAGED, FREE, owner=ME))
    await told(store.workers())
    await store.beat(ME, 2, facts=FACTS)
    assert [(each.counter, each.facts) for each in await store.workers() if each.worker == ME] == [(2, FACTS)]
    return problems


def sql_values(column: str) -> Iterator[Any]:
    yield from (None, *NUMBERS, *TEXTS)
    yield b"\xff\xfe"


@contextmanager
def file_rows(path: Path) -> Iterator[sqlite3.Connection]:
    """The file by another program's connection."""
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.text_factory = bytes
        yield db


COLUMNS = {
    "mappings": ("mapping", "fixed", "seeded", "document", "revision"),
    "leases": ("mapping", "shard", "parents", "owner", "epoch", "position", "position_key", "memo"),
    "workers": ("worker", "counter", "facts"),
}


@pytest.mark.parametrize("table", COLUMNS)
def test_each_value_of_a_file_may_be_damaged(table: str, tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    told_of: set[str] = set()

    async def run() -> None:
        settings = sqlite.SqliteSettings(url=f"sqlite://{path}", synchronous="normal")
        async with sqlite.plugin.open(settings, Environment(LoopClock())) as store:
            await filled(store)
            with file_rows(path) as db:
                db.execute("PRAGMA synchronous=OFF")
                whole = {each: db.execute(f"SELECT * FROM {each}").fetchall() for each in COLUMNS}
                for column in COLUMNS[table]:
                    for value in sql_values(column):
                        _fill(db, whole)
                        if _damage(db, table, column, value):
                            await check_others(store)
                            if await check_damaged(store):
                                told_of.add(column)

    asyncio.run(run())
    expected = {
        "mappings": {"fixed", "seeded", "document", "revision"},
        "leases": set(COLUMNS["leases"][1:7]),
        "workers": set(),
    }
    assert told_of == expected[table]


def _fill(db: sqlite3.Connection, whole: dict[str, list[Any]]) -> None:
    db.execute("BEGIN IMMEDIATE")
    for table, rows in whole.items():
        db.execute(f"DELETE FROM {table}")
        for row in rows:
            values = [
                each.decode() if isinstance(each, bytes) and not each.startswith(b'{"lane') else each
                for each in row
            ]
            db.execute(f"INSERT INTO {table} VALUES ({', '.join('?' * len(row))})", values)
    db.execute("COMMIT")


def _damage(db: sqlite3.Connection, table: str, column: str, value: Any) -> bool:
    """Whether SQLite takes the value, whose tables are strict."""
    where = "worker = 'me'" if table == "workers" else "mapping = 'damaged'"
    text = isinstance(value, bytes) and column != "memo"
    try:
        db.execute(
            f"UPDATE {table} SET {column} = {'CAST(? AS TEXT)' if text else '?'} WHERE {where}", (value,)
        )
    except (sqlite3.Error, OverflowError):
        return False
    return True


@pytest.fixture(autouse=True)
def credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of an account of its own on the emulator."""
    give_credentials(monkeypatch, "000000000777")


@pytest.fixture(scope="module")
def table() -> Iterator[emulators.Emulator]:
    with emulators.ministack() as emulator:
        yield emulator


ATTRIBUTES: dict[str, tuple[str, ...]] = {
    "mappings": ("fixed", "seeded", "document", "revision"),
    "leases#damaged": (
        "parents",
        "owner",
        "epoch",
        "position",
        "position_key",
        "turn",
        "memo",
        "memo_form",
        "memo_generation",
        "memo_parts",
        "parted",
    ),
    "workers": ("counter", "facts"),
}
ITEM_VALUES: tuple[dict[str, Any] | None, ...] = (
    None,
    {"NULL": True},
    {"N": "-1"},
    {"N": "9" * 38},
    {"B": b"\xff"},
    {"L": [{"N": "1"}, {"NULL": True}]},
    {"M": {"a": {"S": "b"}}},
    {"S": "x-y"},
)
MORE_VALUES: dict[str, tuple[dict[str, Any], ...]] = {
    "document": ({"S": "[1]"}, {"S": '{"a": NaN}'}),
    "facts": ({"S": "[1]"}, {"S": '{"a": NaN}'}),
    "epoch": ({"N": "1.5"}, {"S": "1"}),
    "position": ({"S": "AFTER:-5"}, {"S": "AFTER:999"}),
    "seeded": ({"BOOL": False},),
    "memo_form": ({"S": "zlib"},),
}


@asynccontextmanager
async def dynamo(url: str) -> AsyncGenerator[tuple[DynamoStore, Any, str]]:
    env, name = environment(url), f"damaged-{next(TABLES)}"
    try:
        client = await clients.client(env, "dynamodb", REGION)
        await ready(client, name, create=True)
        yield DynamoStore(client, name, call_timeout_s=5), client, name
    finally:
        await env.shared.close()


@pytest.mark.parametrize("partition", ATTRIBUTES)
def test_each_attribute_of_a_table_may_be_damaged(partition: str, table: emulators.Emulator) -> None:
    told_of: set[str] = set()

    async def run() -> None:
        async with dynamo(table.url) as (store, client, name):
            await filled(store)
            items = (await client.scan(TableName=name))["Items"]
            row = next(each for each in items if each["pk"]["S"] == partition and each["sk"]["S"] != SOUND)
            for attribute in ATTRIBUTES[partition]:
                for value in (*ITEM_VALUES, *MORE_VALUES.get(attribute, ())):
                    damaged = {key: each for key, each in row.items() if key != attribute}
                    item = {**damaged, **({attribute: value} if value is not None else {})}
                    await client.put_item(TableName=name, Item=item)
                    await check_others(store)
                    if await check_damaged(store):
                        told_of.add(attribute)

    asyncio.run(run())
    leases = set(ATTRIBUTES["leases#damaged"]) - {"turn", "parted", "memo_parts"}
    expected = {"mappings": set(ATTRIBUTES["mappings"]), "leases#damaged": leases, "workers": set()}
    assert told_of == expected[partition]


def test_a_damaged_checkpoint_is_not_written_over(tmp_path: Path) -> None:
    """Nor is the shard seeded anew, as one would be that is not there."""
    path = tmp_path / "state.db"

    async def run() -> list[Any]:
        settings = sqlite.SqliteSettings(url=f"sqlite://{path}", synchronous="normal")
        async with sqlite.plugin.open(settings, Environment(LoopClock())) as store:
            await filled(store)
            with file_rows(path) as db:
                db.execute("UPDATE leases SET position = 'AFTER:4_9' WHERE mapping = 'damaged'")
                await store.seed(DAMAGED, [FREE])
                other = Lease(FREE.shard, FREE.parents, FREE.checkpoint, WorkerId("other"), 1)
                end = Checkpoint(SHARD_END)
                for call in (
                    store.save(DAMAGED, other, end),
                    store.release(DAMAGED, other),
                    store.take(DAMAGED, held(DAMAGED), owner=ME),
                ):
                    with suppress(LeaseLost):
                        assert isinstance(await told(call), PortError)
                return list(db.execute("SELECT position FROM leases WHERE mapping = 'damaged'").fetchall())

    assert asyncio.run(run()) == [(b"AFTER:4_9",)]


def test_the_error_of_a_damaged_row_names_it_and_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "state.db"

    async def run() -> tuple[str, Any]:
        settings = sqlite.SqliteSettings(url=f"sqlite://{path}", synchronous="normal")
        async with sqlite.plugin.open(settings, Environment(LoopClock())) as store:
            await filled(store)
            with file_rows(path) as db:
                db.execute("UPDATE mappings SET document = '{' WHERE mapping = 'damaged'")
                db.execute("UPDATE leases SET position = 'x' WHERE mapping = 'damaged'")
            row = next(each for each in await store.mappings() if each.mapping == DAMAGED)
            return row.damage, await told(store.leases(DAMAGED))

    damage, error = asyncio.run(run())
    assert damage.startswith("the row of mapping damaged in the store is damaged: document: ")
    assert damage.endswith(
        "; restore it from a backup or correct it; removed, a mapping of the file begins anew at its starting position, "
        "and one made through the API is gone"
    )
    assert error.reason == (
        "the row of shard shardId-0 in the store is damaged: position: not a position: 'x'; "
        "restore it from a backup or correct it; removed, what the source has of the shard comes again"
    )


def test_a_definition_that_is_damaged_is_not_taken_for_deleted(tmp_path: Path) -> None:
    """What is taken for deleted is forgotten, with its positions."""
    path = tmp_path / "state.db"
    definition = Definition(mapping=DAMAGED, parameters={"a": 1}, created=Epoch(1.0), modified=Epoch(2.0))

    async def run() -> None:
        settings = sqlite.SqliteSettings(url=f"sqlite://{path}", synchronous="normal")
        async with sqlite.plugin.open(settings, Environment(LoopClock())) as store:
            definitions = Definitions(store)
            await definitions.add(definition)
            for document in ("{", '{"parameters": 1}', "[" * 100_000):
                with file_rows(path) as db:
                    db.execute("UPDATE mappings SET document = ? WHERE mapping = 'api:damaged'", (document,))
                assert await definitions.refresh()
                assert definitions.known() == (definition,)
                assert len(definitions.unread) == 1
                assert "damaged" in definitions.unread[0]
            late = Definitions(store)
            assert await late.refresh()
            assert (late.known(), len(late.unread)) == ((), 1)
            with pytest.raises(ServiceUnavailable, match="api:damaged"):
                await store.update(MappingRow(MappingId("api:damaged"), Epoch(1.0), revision=7, document={}))

    asyncio.run(run())
