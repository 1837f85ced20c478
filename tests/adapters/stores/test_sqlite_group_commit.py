"""Writes that share a transaction share neither their faults nor, for ever, their memory."""

import asyncio
import os
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Coroutine
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from adapters.stores.sqlite.connection import Database, rows
from adapters.stores.sqlite.group_commit import BATCH_MAX, Writer
from adapters.stores.sqlite.lease_statements import JOINED_BYTES_MAX, Save, list_leases
from adapters.stores.sqlite.schema import prepare
from poller.domain.errors import ServiceThrottled, ServiceUnavailable
from poller.domain.records import Position, WorkerId
from poller.domain.rows import Checkpoint
from poller.testing.stores.store_steps import LADDER, ORDERS
from tests.adapters.stores.test_sqlite_store import Hops, held_leases, one, run, traced, writing

MEMO_BYTES = 128 * 1024
SHARDS = 40
GROWN_BYTES_MAX = 48 * 1024 * 1024
"""Each of the statements of that many rows would keep 2.5 MB on the average, 100 MB in all."""


async def fault_of(call: Coroutine[Any, Any, Any]) -> type[Exception] | None:
    """The type of what was raised."""
    try:
        await call
    except (ServiceUnavailable, ServiceThrottled, ArithmeticError, ValueError) as error:
        return type(error)
    return None


def resident_bytes() -> int:
    """Memory of this process that lies in the machine's."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


async def grown_bytes(path: Path) -> int:
    """How much memory the process takes more after saving any number of shards together."""
    async with writing(path) as (writer, _):
        held = await held_leases(writer, SHARDS)
        memo = os.urandom(MEMO_BYTES)
        before = resident_bytes()
        for count in range(1, SHARDS + 1):
            checkpoint = Checkpoint(Position.after(str(count)), memo)
            async with asyncio.TaskGroup() as group:
                group.create_task(writer.write(one))
                for each in held[:count]:
                    group.create_task(writer.join(Save(ORDERS, each, checkpoint)))
        return resident_bytes() - before


def test_groups_of_every_size_with_large_memos_leave_little_behind(tmp_path: Path) -> None:
    program = (
        "import asyncio, pathlib, sys; from tests.adapters.stores.test_sqlite_group_commit import grown_bytes; "
        "print(asyncio.run(grown_bytes(pathlib.Path(sys.argv[1]))))"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "state.db")]
    found = subprocess.run(command, cwd=Path(__file__).parents[3], check=True, capture_output=True)
    assert int(found.stdout) < GROWN_BYTES_MAX


@pytest.mark.parametrize(
    ("memo_bytes", "statements"),
    [(0, 1), (JOINED_BYTES_MAX // 10, 1), (JOINED_BYTES_MAX // 3, 4), (JOINED_BYTES_MAX + 1, 10)],
)
def test_no_statement_writes_more_than_its_limit_of_memos(
    memo_bytes: int, statements: int, tmp_path: Path
) -> None:
    async def scenario() -> None:
        async with writing(tmp_path / "state.db") as (writer, database):
            held = await held_leases(writer, 10)
            checkpoint = Checkpoint(LADDER[3], bytes(memo_bytes))
            texts = await traced(database)
            async with asyncio.TaskGroup() as group:
                group.create_task(writer.write(one))
                for each in held:
                    group.create_task(writer.join(Save(ORDERS, each, checkpoint)))
            assert len([text for text in texts if "UPDATE" in text]) == statements
            stored = await database.run(partial(list_leases, mapping=ORDERS, memos=True))
            assert [each.checkpoint for each in stored] == [checkpoint] * 10

    run(scenario())


def with_a_bug(db: sqlite3.Connection) -> None:
    """A write that breaks when it has changed something."""
    rows(db, "INSERT INTO workers VALUES ('broken', 1, '{}')")
    raise ZeroDivisionError


def against_the_table(db: sqlite3.Connection) -> None:
    """A write that the table does not take."""
    rows(db, "INSERT INTO workers VALUES ('broken', 1, '{}')")
    rows(db, "INSERT INTO workers VALUES ('broken', 1, NULL)")


def too_large_for_the_file(db: sqlite3.Connection) -> None:
    """A write for which there is no room."""
    rows(db, "INSERT INTO workers VALUES ('broken', 1, hex(zeroblob(1000000)))")


@pytest.mark.parametrize("place", [0, 7, 19])
@pytest.mark.parametrize(
    ("broken", "fault"),
    [
        (with_a_bug, ZeroDivisionError),
        (against_the_table, ServiceUnavailable),
        (too_large_for_the_file, ServiceUnavailable),
    ],
)
def test_a_write_that_breaks_its_transaction_alone_gets_the_error(
    broken: Callable[[sqlite3.Connection], None], fault: type[Exception], place: int, tmp_path: Path
) -> None:
    def numbered(db: sqlite3.Connection, *, number: int) -> int:
        rows(db, "INSERT INTO workers VALUES (?, ?, '{}')", (f"w{number:02}", number))
        return number

    async def scenario() -> None:
        async with writing(tmp_path / "state.db") as (writer, database):
            await database.run(partial(rows, sql="PRAGMA max_page_count=100"))
            texts = await traced(database)
            async with asyncio.TaskGroup() as group:
                group.create_task(writer.write(one))
                tasks = [
                    group.create_task(
                        fault_of(
                            writer.write(broken if number == place else partial(numbered, number=number))
                        )
                    )
                    for number in range(20)
                ]
            assert [task.result() for task in tasks] == [
                fault if number == place else None for number in range(20)
            ]
            stored = await database.run(partial(rows, sql="SELECT counter FROM workers ORDER BY rowid"))
            assert [number for (number,) in stored] == [number for number in range(20) if number != place]
            begun = texts.count("BEGIN IMMEDIATE")
            assert begun < 15, "a bug among many holds the others up for few transactions"

    run(scenario())


def test_a_checkpoint_that_cannot_be_written_leaves_those_of_its_statement_alone(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with writing(tmp_path / "state.db") as (writer, database):
            held = await held_leases(writer, 5)
            # A lone surrogate, which UTF-8 cannot carry.
            leases = [*held[:2], replace(held[2], owner=WorkerId("\ud800")), *held[3:]]
            async with asyncio.TaskGroup() as group:
                group.create_task(writer.write(one))
                tasks = [
                    group.create_task(fault_of(writer.join(Save(ORDERS, each, Checkpoint(LADDER[3])))))
                    for each in leases
                ]
            assert [task.result() for task in tasks] == [None, None, UnicodeEncodeError, None, None]
            stored = await database.run(partial(list_leases, mapping=ORDERS, memos=True))
            assert [each.checkpoint.position for each in stored] == [
                LADDER[0 if number == 2 else 3] for number in range(5)
            ]

    run(scenario())


def test_a_locked_file_is_waited_for_once_by_all_writes_of_a_transaction(tmp_path: Path) -> None:
    path = tmp_path / "state.db"

    async def scenario() -> None:
        database = Hops(path, busy_timeout_s=0.05)
        try:
            await prepare(database, full_sync=False, bytes_max=None)
            writer = Writer(database)
            with closing(sqlite3.connect(path, isolation_level=None)) as blocker:
                blocker.execute("BEGIN IMMEDIATE")
                database.count = 0
                async with asyncio.TaskGroup() as group:
                    tasks = [group.create_task(fault_of(writer.write(one))) for _ in range(20)]
            assert {task.result() for task in tasks} == {ServiceThrottled}
            assert database.count == 2
        finally:
            await database.close()

    run(scenario())


def test_writes_that_wait_are_refused_when_the_database_closes_before_their_turn(tmp_path: Path) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def slow(db: sqlite3.Connection) -> int:
        begun.set()
        assert go_on.wait(5)
        return one(db)

    async def scenario() -> None:
        database = Database(tmp_path / "state.db", busy_timeout_s=1)
        await prepare(database, full_sync=False, bytes_max=None)
        writer = Writer(database)
        async with asyncio.timeout(10), asyncio.TaskGroup() as group:
            first = group.create_task(writer.write(slow))
            await asyncio.to_thread(begun.wait, 5)
            waiting = [group.create_task(fault_of(writer.write(one))) for _ in range(BATCH_MAX + 1)]
            closing_writer = group.create_task(writer.close())
            await asyncio.sleep(0.01)
            closing_writer.cancel()
            closing_database = group.create_task(database.close())
            await asyncio.sleep(0.01)
            go_on.set()
            await closing_database
        assert first.result() == 1
        assert {task.result() for task in waiting} == {ServiceUnavailable}

    run(scenario())
