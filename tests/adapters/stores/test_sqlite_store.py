"""Owns what only a file can show: durability, sharing, what is refused at opening, and what errors mean."""

import asyncio
import os
import random
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import asynccontextmanager, closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from adapters.stores.sqlite.connection import Database, connected, rows
from adapters.stores.sqlite.group_commit import BATCH_MAX, Writer
from adapters.stores.sqlite.lease_statements import Save, Take, list_leases, seed
from adapters.stores.sqlite.schema import APPLICATION_ID, QUICK_CHECK_BYTES_MAX, SCHEMA, mapped, prepare
from adapters.stores.sqlite.store import SqliteSettings, SqliteStore, plugin
from poller.clock import LoopClock
from poller.domain.errors import (
    AccessDenied,
    InvalidConfiguration,
    LeaseLost,
    ResourceMissing,
    ServiceThrottled,
    ServiceUnavailable,
)
from poller.domain.records import SHARD_END, Epoch, Position, ShardId, WorkerId
from poller.domain.rows import Checkpoint, Lease, MappingRow
from poller.plugins import Environment
from poller.testing.stores.store_steps import (
    ANN,
    AUDIT,
    BOB,
    LADDER,
    MEMO,
    ONE,
    ORDERS,
    lease,
    only,
    seeded,
    taken,
)

KILLS = 20
SHARDS = 4
RUN_S_MAX = 0.25
"""How long a child saves before it is killed."""


@asynccontextmanager
async def opened(path: Path, **options: Any) -> AsyncGenerator[SqliteStore]:
    """The store in `path`."""
    settings = SqliteSettings(url=f"sqlite://{path}", **options)
    async with plugin.open(settings, Environment(LoopClock())) as store:
        yield store


class Hops(Database):
    """Counts how often something is handed to the thread."""

    count = 0

    def run[T](self, work: Callable[[sqlite3.Connection], T]) -> asyncio.Future[T]:
        self.count += 1
        return super().run(work)


@asynccontextmanager
async def writing(path: Path) -> AsyncGenerator[tuple[Writer, Hops]]:
    """A writer on a file with tables, and its database."""
    database = Hops(path, busy_timeout_s=5)
    try:
        await prepare(database, full_sync=False, bytes_max=None)
        yield Writer(database), database
    finally:
        await database.close()


async def traced(database: Database) -> list[str]:
    """The statements that are run from now on."""
    statements: list[str] = []
    await database.run(lambda db: db.set_trace_callback(statements.append))
    return statements


def run(scenario: Coroutine[Any, Any, None]) -> None:
    """Runs one scenario on a loop of its own."""
    asyncio.run(scenario)


def child(*job: str) -> "subprocess.Popen[bytes]":
    """A process of `tests.adapters.stores.store_child`: its job, the file and a worker; without them one that starts others."""
    command = [sys.executable, "-m", "tests.adapters.stores.store_child", *job]
    return subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=Path(__file__).parents[3]
    )


def seed_shards(path: Path, shards: int) -> None:
    """Seeds that many free leases at the horizon."""

    async def scenario() -> None:
        async with opened(path) as store:
            await seeded(store, *(ShardId(f"s{number}") for number in range(shards)))

    run(scenario())


def killed_at_random(
    children: "subprocess.Popen[bytes]", path: Path, worker: str, dice: random.Random
) -> dict[str, int]:
    """Lets a child save, kills it, and returns the last number it acknowledged of each shard."""
    assert children.stdin is not None
    assert children.stdout is not None
    children.stdin.write(f"save {path} {worker}\n".encode())
    children.stdin.flush()
    word, pid = children.stdout.readline().split()
    assert word == b"pid"
    lines = [children.stdout.readline()]
    time.sleep(dice.uniform(0, RUN_S_MAX))
    os.kill(int(pid), signal.SIGKILL)
    while (line := children.stdout.readline()) != b"end\n":
        assert line, "the process that starts others goes on"
        lines.append(line)
    return {shard: int(number) for shard, number in (line.decode().split() for line in lines)}


def stored_numbers(path: Path) -> dict[str, int]:
    """The sequence number stored of each shard; position and memo have to be of one save."""
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        found = db.execute("SELECT shard, position, memo FROM leases").fetchall()
    numbers = {shard: Position.decode(position).sequence for shard, position, _ in found}
    assert all(memo == (b"%d" % numbers[shard] if numbers[shard] else b"") for shard, _, memo in found)
    return numbers


def test_nothing_acknowledged_is_lost_when_the_process_is_killed(tmp_path: Path) -> None:
    path, dice = tmp_path / "state.db", random.Random(7)
    seed_shards(path, SHARDS)
    before = dict.fromkeys((f"s{number}" for number in range(SHARDS)), 0)
    with child() as children:
        for kill in range(KILLS):
            acknowledged = killed_at_random(children, path, f"w{kill}", dice)
            after = stored_numbers(path)
            assert acknowledged
            for shard, number in after.items():
                told = acknowledged.get(shard, before[shard])
                assert before[shard] <= told <= number <= told + 1
            before = after
    assert min(before.values()) > KILLS


def test_of_several_processes_each_lease_goes_to_one(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    seed_shards(path, 60)
    children = [child("take", str(path), f"w{number}") for number in range(4)]
    got = {f"w{number}": process.communicate()[0].decode().split() for number, process in enumerate(children)}
    assert [process.returncode for process in children] == [0] * 4
    assert sorted(shard for shards in got.values() for shard in shards) == sorted(f"s{n}" for n in range(60))

    async def scenario() -> None:
        async with opened(path) as store:
            for each in await store.leases(ORDERS):
                assert each.epoch == 1
                assert each.shard in got[each.owner or ""]

    run(scenario())


def test_a_new_file_may_be_opened_by_many_at_once(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "down" / "state.db"

    async def one(number: int) -> None:
        async with opened(path) as store:
            await store.seed(ORDERS, [lease(ShardId(f"s{number}"))])

    async def scenario() -> None:
        async with asyncio.TaskGroup() as group:
            for number in range(6):
                group.create_task(one(number))
        async with opened(path) as store:
            assert len(await store.leases(ORDERS)) == 6

    run(scenario())


def test_a_file_has_its_mark_version_and_write_ahead_log(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    seed_shards(path, 1)
    with closing(sqlite3.connect(path)) as db:
        found = [
            db.execute(f"PRAGMA {name}").fetchone()[0]
            for name in ("application_id", "user_version", "journal_mode")
        ]
    assert found == [0x45534D50, 5, "wal"]


def test_a_file_of_before_there_were_revisions_is_read_and_updated_at_revision_0(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    with closing(sqlite3.connect(path)) as db:
        db.executescript(SCHEMA[0])
        db.execute(f"PRAGMA application_id={APPLICATION_ID}")
        db.execute("PRAGMA user_version=1")
        db.execute("INSERT INTO mappings VALUES (?, 1.5, 1, ?)", (ORDERS, '{"old": 1}'))
        db.commit()
    row = MappingRow(ORDERS, Epoch(1.5), seeded=True, document={"old": 1})

    async def scenario() -> None:
        async with opened(path) as store:
            assert await store.mappings() == [row]
            await store.update(replace(row, document={"new": 2}))
        async with opened(path) as store:
            assert await store.mappings() == [replace(row, document={"new": 2}, revision=1)]

    run(scenario())


@pytest.mark.parametrize(("synchronous", "level"), [("full", 2), ("normal", 1)])
def test_commits_are_synced_as_settings_say(tmp_path: Path, synchronous: str, level: int) -> None:
    async def scenario() -> None:
        path = tmp_path / "state.db"
        async with connected(path, busy_timeout_s=1) as database:
            await prepare(database, full_sync=synchronous == "full", bytes_max=None)
            assert await database.run(partial(rows, sql="PRAGMA synchronous")) == [(level,)]

    run(scenario())


def test_writes_that_wait_share_one_transaction_which_is_one_hop(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with writing(tmp_path / "state.db") as (writer, database):
            statements = await traced(database)
            database.count = 0
            async with asyncio.TaskGroup() as group:
                numbers = [group.create_task(writer.write(one)) for _ in range(1 + 2 * BATCH_MAX)]
            assert {task.result() for task in numbers} == {1}
            assert database.count == 3
            assert statements.count("BEGIN IMMEDIATE") == 3
            assert statements.count("COMMIT") == 3

    run(scenario())


def test_checkpoints_that_wait_share_one_statement(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with writing(tmp_path / "state.db") as (writer, database):
            held = await held_leases(writer, BATCH_MAX)
            statements = await traced(database)
            async with asyncio.TaskGroup() as group:
                group.create_task(writer.write(one))
                for each in held:
                    group.create_task(writer.join(Save(ORDERS, each, Checkpoint(LADDER[3], MEMO))))
            assert len([text for text in statements if "UPDATE" in text]) == 1
            stored = await database.run(partial(list_leases, mapping=ORDERS, memos=True))
            assert {each.checkpoint for each in stored} == {Checkpoint(LADDER[3], MEMO)}

    run(scenario())


def test_checkpoints_that_are_refused_leave_those_of_their_statement_alone(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with writing(tmp_path / "state.db") as (writer, database):
            held = await held_leases(writer, 100)
            zombies = {held[number].shard for number in (0, 41, 42, 99)}
            saves = [
                Save(ORDERS, replace(each, epoch=each.epoch - (each.shard in zombies)), Checkpoint(LADDER[3]))
                for each in held
            ]
            async with asyncio.TaskGroup() as group:
                group.create_task(writer.write(one))
                tasks = [group.create_task(trouble_of(writer.join(save))) for save in saves]
            assert [task.result() for task in tasks] == [
                LeaseLost if each.shard in zombies else None for each in held
            ]
            for each in await database.run(partial(list_leases, mapping=ORDERS, memos=True)):
                assert each.checkpoint.position == LADDER[0 if each.shard in zombies else 3]

    run(scenario())


def test_takes_that_wait_share_one_statement(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with writing(tmp_path / "state.db") as (writer, database):
            held = await held_leases(writer, 100)
            statements = await traced(database)
            # Every other call is one that was sent before and whose answer was lost.
            calls = [
                (Take(ORDERS, each, BOB), Take(ORDERS, replace(each, epoch=0), ANN))[number % 2]
                for number, each in enumerate(held)
            ]
            async with asyncio.TaskGroup() as group:
                group.create_task(writer.write(one))
                tasks = [group.create_task(writer.join(call)) for call in calls]
                lost = group.create_task(trouble_of(writer.join(Take(ORDERS, lease(ShardId("new")), ANN))))
                late = group.create_task(trouble_of(writer.join(Take(AUDIT, held[0], BOB))))
            for number, (task, before) in enumerate(zip(tasks, held, strict=True)):
                assert task.result() == (before if number % 2 else replace(before, owner=BOB, epoch=2))
            assert (lost.result(), late.result()) == (LeaseLost, LeaseLost)
            assert len([text for text in statements if "UPDATE" in text]) == 1
            stored = await database.run(partial(list_leases, mapping=ORDERS, memos=True))
            assert stored == [task.result() for task in tasks]

    run(scenario())


def test_checkpoints_of_one_shard_are_written_in_their_order(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with writing(tmp_path / "state.db") as (writer, _):
            (mine,) = await held_leases(writer, 1)
            async with asyncio.TaskGroup() as group:
                group.create_task(writer.write(one))
                tasks = [
                    group.create_task(trouble_of(writer.join(Save(ORDERS, mine, Checkpoint(LADDER[rung])))))
                    for rung in (1, 3, 2, 4)
                ]
            assert [task.result() for task in tasks] == [None, None, LeaseLost, None]

    run(scenario())


async def held_leases(writer: Writer, count: int) -> list[Lease]:
    """That many leases at the horizon, taken by ANN."""
    free = [lease(ShardId(f"s{number:04}")) for number in range(count)]
    await writer.write(partial(seed, mapping=ORDERS, leases=free))
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(writer.join(Take(ORDERS, each, ANN))) for each in free]
    return [task.result() for task in tasks]


def one(db: sqlite3.Connection) -> int:
    """A write that changes nothing."""
    ((number,),) = rows(db, "SELECT 1")
    return int(number)


def test_a_refused_write_leaves_its_neighbours_alone(tmp_path: Path) -> None:
    def refused(db: sqlite3.Connection) -> int:
        raise LeaseLost("no")

    async def scenario() -> None:
        async with writing(tmp_path / "state.db") as (writer, _), asyncio.TaskGroup() as group:
            tasks = [group.create_task(trouble_of(writer.write(each))) for each in (one, refused, one)]
        assert [task.result() for task in tasks] == [None, LeaseLost, None]

    run(scenario())


def test_a_bug_in_a_write_is_raised_and_leaves_no_transaction(tmp_path: Path) -> None:
    def broken(db: sqlite3.Connection) -> int:
        rows(db, "INSERT INTO workers VALUES ('broken', 1, '{}')")
        raise ZeroDivisionError

    async def scenario() -> None:
        async with writing(tmp_path / "state.db") as (writer, database):
            with pytest.raises(ZeroDivisionError):
                await writer.write(broken)
            assert await writer.write(one) == 1
            assert await database.run(partial(rows, sql="SELECT worker FROM workers")) == []

    run(scenario())


async def trouble_of(call: Coroutine[Any, Any, Any]) -> type[Exception] | None:
    """The type of what was raised, if it is a port's."""
    try:
        await call
    except (LeaseLost, ServiceUnavailable, ServiceThrottled, ResourceMissing) as trouble:
        return type(trouble)
    return None


def test_a_cancelled_writer_holds_up_nobody(tmp_path: Path) -> None:
    async def scenario() -> None:
        begun, go_on = threading.Event(), threading.Event()

        def slow(db: sqlite3.Connection) -> None:
            begun.set()
            assert go_on.wait(5)
            rows(db, "INSERT INTO workers VALUES ('slow', 1, '{}')")

        def late(db: sqlite3.Connection) -> None:
            rows(db, "INSERT INTO workers VALUES ('late', 1, '{}')")

        def beat(db: sqlite3.Connection) -> None:
            rows(db, "INSERT INTO workers VALUES ('next', 1, '{}')")

        async with writing(tmp_path / "state.db") as (writer, database), asyncio.TaskGroup() as group:
            first = group.create_task(writer.write(slow))
            await asyncio.to_thread(begun.wait, 5)
            unbegun, third = (group.create_task(writer.write(each)) for each in (late, beat))
            await asyncio.sleep(0)
            first.cancel()
            unbegun.cancel()
            await asyncio.sleep(0)
            go_on.set()
            await third
            written = await database.run(partial(rows, sql="SELECT worker FROM workers ORDER BY worker"))
            assert written == [("next",), ("slow",)]

    run(scenario())


def test_what_waits_is_written_before_the_store_closes(tmp_path: Path) -> None:
    path = tmp_path / "state.db"

    async def scenario() -> None:
        async with asyncio.TaskGroup() as group, opened(path) as store:
            for number in range(BATCH_MAX):
                group.create_task(store.beat(WorkerId(f"w{number:04}"), 1, facts={}))
            await asyncio.sleep(0)
        async with opened(path) as store:
            assert len(await store.workers()) == BATCH_MAX

    run(scenario())


def test_a_writer_cancelled_at_its_beginning_leaves_no_lock(tmp_path: Path) -> None:
    path = tmp_path / "state.db"

    async def scenario() -> None:
        async with writing(path) as (writer, _), opened(path, busy_timeout_s=0.05) as other:
            with closing(sqlite3.connect(path, isolation_level=None)) as blocker:
                blocker.execute("BEGIN IMMEDIATE")
                async with asyncio.TaskGroup() as group:
                    waiting = group.create_task(writer.write(one))
                    await asyncio.sleep(0.05)
                    waiting.cancel()
                    blocker.execute("ROLLBACK")
            await other.beat(ANN, 1, facts={})

    run(scenario())


def test_cancelled_calls_undo_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    dice = random.Random(11)

    async def scenario() -> None:
        async with opened(tmp_path / "state.db", synchronous="normal") as store:
            shards = [ShardId(f"s{number:02}") for number in range(40)]
            held = [await store.take(ORDERS, each, owner=ANN) for each in await seeded(store, *shards)]
            told = dict.fromkeys(shards, 0)

            async def keep_saving(mine: Lease) -> None:
                for number in range(1, 30):
                    await store.save(ORDERS, mine, Checkpoint(Position.after(str(number))))
                    told[mine.shard] = number

            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(keep_saving(each)) for each in held]
                for task in dice.sample(tasks, 30):
                    await asyncio.sleep(dice.uniform(0, 0.004))
                    task.cancel()
            stored = {each.shard: each.checkpoint.position.sequence for each in await store.leases(ORDERS)}
            assert all(told[shard] <= stored[shard] <= told[shard] + 1 for shard in shards)
            assert sorted(told.values())[-10:] == [29] * 10
            assert min(told.values()) < 29

    run(scenario())


def test_a_full_disk_loses_nothing_and_heals(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with opened(tmp_path / "state.db", bytes_max=1024 * 1024) as store:
            mine = await taken(store)
            await store.save(ORDERS, mine, Checkpoint(LADDER[3], MEMO))
            with pytest.raises(ServiceUnavailable, match="SQLITE_FULL"):
                await store.save(ORDERS, mine, Checkpoint(LADDER[4], bytes(2 * 1024 * 1024)))
            assert (await only(store)).checkpoint == Checkpoint(LADDER[3], MEMO)
            await store.save(ORDERS, mine, Checkpoint(LADDER[4], b"small"))
            assert (await only(store)).checkpoint == Checkpoint(LADDER[4], b"small")

    run(scenario())


def test_a_file_locked_by_others_is_a_reason_to_wait(tmp_path: Path) -> None:
    path = tmp_path / "state.db"

    async def scenario() -> None:
        async with opened(path, busy_timeout_s=0.05) as store:
            mine = await taken(store)
            with closing(sqlite3.connect(path, isolation_level=None)) as blocker:
                blocker.execute("BEGIN IMMEDIATE")
                with pytest.raises(ServiceThrottled, match="locked"):
                    await store.save(ORDERS, mine, Checkpoint(SHARD_END))
                with pytest.raises(ServiceThrottled, match="locked"):
                    async with opened(path, busy_timeout_s=0.05):
                        pass
                assert await only(store) == mine
            await store.save(ORDERS, mine, Checkpoint(SHARD_END))

    run(scenario())


def test_a_closed_store_refuses_everything(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with opened(tmp_path / "state.db") as store:
            mine = await taken(store)
        for call in (
            store.save(ORDERS, mine, mine.checkpoint),
            store.leases(ORDERS),
            store.create(MappingRow(ORDERS, Epoch(1))),
        ):
            with pytest.raises(ServiceUnavailable, match="closed"):
                await call

    run(scenario())


def test_a_file_that_was_moved_away_is_not_written(tmp_path: Path) -> None:
    path, aside = tmp_path / "state.db", tmp_path / "aside.db"

    async def scenario() -> None:
        async with opened(path) as store:
            mine = await taken(store)
            path.rename(aside)
            with pytest.raises(ResourceMissing, match="moved"):
                await store.save(ORDERS, mine, Checkpoint(SHARD_END))
            aside.rename(path)
            await store.save(ORDERS, mine, Checkpoint(SHARD_END))
            assert (await only(store)).checkpoint.position == SHARD_END

    run(scenario())


def a_text_file(path: Path) -> None:
    path.write_text("not a database, but long enough to look like one at first sight " * 100)


def a_directory(path: Path) -> None:
    path.mkdir()


def another_programs(path: Path) -> None:
    with closing(sqlite3.connect(path)) as db:
        db.execute("CREATE TABLE theirs (a)")


def of_a_newer_schema(path: Path) -> None:
    seed_shards(path, 1)
    with closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA user_version=99")


def only_for_reading(path: Path) -> None:
    """The header's write version says that this SQLite may only read the file."""
    seed_shards(path, 1)
    with path.open("r+b") as file:
        file.seek(18)
        file.write(b"\x03")


def with_damaged_pages(path: Path) -> None:
    seed_shards(path, 2000)
    with path.open("r+b") as file:
        file.seek(8 * 4096)
        file.write(b"\xa5" * 4096 * 6)


def cut_short(path: Path) -> None:
    seed_shards(path, 2000)
    os.truncate(path, 9 * 4096)


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (a_text_file, "no SQLite database"),
        (a_directory, "permissions"),
        (another_programs, "another program"),
        (of_a_newer_schema, "newer poller"),
        (only_for_reading, "for writing"),
        (with_damaged_pages, "damaged"),
        (cut_short, "damaged"),
    ],
)
def test_a_file_that_cannot_be_used_is_refused_and_left_alone(
    make: Callable[[Path], None], reason: str, tmp_path: Path
) -> None:
    path = tmp_path / "state.db"
    make(path)
    before = path.read_bytes() if path.is_file() else b""

    async def scenario() -> None:
        with pytest.raises(InvalidConfiguration, match=reason) as refused:
            async with opened(path):
                pass
        assert str(path) in refused.value.problems[0]

    run(scenario())
    assert (path.read_bytes() if path.is_file() else b"") == before


def test_a_directory_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    async def scenario() -> None:
        with pytest.raises(InvalidConfiguration, match="file/below cannot be made"):
            async with opened(tmp_path / "file" / "below" / "state.db"):
                pass

    run(scenario())


def test_a_very_large_file_is_opened_without_a_look_at_each_page(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    with_damaged_pages(path)
    os.truncate(path, QUICK_CHECK_BYTES_MAX + 4096)

    async def scenario() -> None:
        async with opened(path) as store:
            assert await store.mappings() == []

    run(scenario())


@pytest.mark.parametrize(
    ("code", "meaning"),
    [
        (sqlite3.SQLITE_BUSY, ServiceThrottled),
        (sqlite3.SQLITE_BUSY_SNAPSHOT, ServiceThrottled),
        (sqlite3.SQLITE_LOCKED, ServiceThrottled),
        (sqlite3.SQLITE_READONLY, AccessDenied),
        (sqlite3.SQLITE_READONLY_DBMOVED, AccessDenied),
        (sqlite3.SQLITE_PERM, AccessDenied),
        (sqlite3.SQLITE_CORRUPT, ServiceUnavailable),
        (sqlite3.SQLITE_NOTADB, ServiceUnavailable),
        (sqlite3.SQLITE_FULL, ServiceUnavailable),
        (sqlite3.SQLITE_IOERR_FSYNC, ServiceUnavailable),
        (None, ServiceUnavailable),
    ],
)
def test_an_error_of_the_database_says_what_to_do_next(code: int | None, meaning: type[Exception]) -> None:
    error = sqlite3.OperationalError("told by the database")
    if code is not None:
        error.sqlite_errorcode = code
    assert type(mapped(error, Path("state.db"))) is meaning


def test_a_fresh_lease_and_a_row_of_a_mapping_survive_reopening(tmp_path: Path) -> None:
    path, row = tmp_path / "state.db", MappingRow(ORDERS, Epoch(1.25), seeded=True, document={"a": [1]})

    async def scenario() -> None:
        async with opened(path) as store:
            await store.create(row)
            mine = await taken(store)
        async with opened(path) as store:
            assert await store.mappings() == [row]
            assert await store.leases(ORDERS) == [mine] == [Lease(ONE, (), Checkpoint(LADDER[0]), ANN, 1)]

    run(scenario())
