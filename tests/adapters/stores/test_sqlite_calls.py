"""Asynchronous calls in a SQLite file: how they are found, what cannot be read, older files, and killed processes."""

import asyncio
import logging
import sqlite3
import subprocess
import sys
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import asynccontextmanager, closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from adapters.stores.sqlite import call_queue
from adapters.stores.sqlite import store as sqlite
from adapters.stores.sqlite.call_queue import SqliteCallQueue
from adapters.stores.sqlite.schema import APPLICATION_ID, SCHEMA
from adapters.stores.stored_calls import CONTENT_BYTES_MAX, LOGGED_MAX, CallReader, UnreadableCall, content
from poller.clock import LoopClock
from poller.domain.errors import RowChanged, ServiceUnavailable
from poller.domain.functions.queued_calls import CallId, QueuedCall
from poller.domain.records import Epoch, WorkerId
from poller.plugins import Environment

ANN = WorkerId("ann")
ORDERS = "orders"
NOW = Epoch(1_700_000_000.25)
ROOT = Path(__file__).parents[3]


@asynccontextmanager
async def in_file(path: Path) -> AsyncGenerator[SqliteCallQueue]:
    """The queue of a store in a file."""
    settings = sqlite.SqliteSettings(url=f"sqlite://{path}", synchronous="normal")
    async with sqlite.plugin.open(settings, Environment(LoopClock())) as store:
        yield store.call_queue


def run(path: Path, scenario: Callable[[SqliteCallQueue], Coroutine[Any, Any, None]]) -> None:
    """Runs a scenario on a file."""

    async def whole() -> None:
        async with in_file(path) as queue:
            await scenario(queue)

    asyncio.run(whole())


def asked(name: str = "one", due: float = NOW) -> QueuedCall:
    """A new call."""
    arn = "arn:aws:lambda:eu-west-1:111122223333:function:orders"
    return QueuedCall(
        call=CallId(name), function=ORDERS, arn=arn, payload=b"{}", accepted=NOW, due=Epoch(due)
    )


async def claim(queue: SqliteCallQueue, *, held: tuple[str, ...] = (), calls_max: int = 10) -> list[str]:
    """The ids of what is claimed."""
    found = await queue.claim(
        ORDERS,
        now=NOW,
        owner=ANN,
        gone=(),
        held=[CallId(each) for each in held],
        calls_max=calls_max,
    )
    return [each.call for each in found]


@pytest.mark.parametrize(
    ("statement", "values", "wanted"),
    [
        (call_queue._DUE, (ORDERS, 1.0, ANN, "[]", "[]"), "USING INDEX due_calls (function=? AND due<?)"),
        (call_queue._BACKLOGS, (), "USING COVERING INDEX due_calls"),
        (call_queue._LIST, (ORDERS, 1.0, "one", 5), "USING INDEX due_calls (function=?"),
        (call_queue._CLAIM, (ANN, 1, 1, "one", 0), "sqlite_autoindex_calls_1 (call=?)"),
        (call_queue._REMOVE, ("one", ORDERS, 0), "sqlite_autoindex_calls_1 (call=?)"),
    ],
    ids=["due", "backlogs", "list", "claim", "remove"],
)
def test_calls_are_found_by_an_index(
    tmp_path: Path, statement: str, values: tuple[Any, ...], wanted: str
) -> None:
    path = tmp_path / "state.db"

    async def scenario(queue: SqliteCallQueue) -> None:
        await queue.put(asked())

    run(path, scenario)
    with closing(sqlite3.connect(path)) as db:
        plan = "\n".join(str(row) for row in db.execute(f"EXPLAIN QUERY PLAN {statement}", values))
    assert wanted in plan
    # Counting by owner sorts the few owners of one function; nothing else sorts.
    assert ("B-TREE" in plan) == (statement == call_queue._BACKLOGS)


def test_a_file_of_before_there_were_calls_gets_them_and_keeps_its_rows(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    with closing(sqlite3.connect(path)) as db:
        for script in SCHEMA[:4]:
            db.executescript(script)
        db.execute(f"PRAGMA application_id={APPLICATION_ID}")
        db.execute("PRAGMA user_version=4")
        db.execute("INSERT INTO digests VALUES ('ann', x'01')")
        db.commit()

    async def scenario(queue: SqliteCallQueue) -> None:
        await queue.put(asked())
        assert await claim(queue) == ["one"]

    run(path, scenario)
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("SELECT * FROM digests").fetchall() == [("ann", b"\x01")]
        assert db.execute("PRAGMA user_version").fetchone() == (len(SCHEMA),)


GOOD = content(asked())
DAMAGES: dict[str, tuple[str, Any]] = {
    "no json": ("content", "no json"),
    "no object": ("content", "[]"),
    "a member is missing": ("content", GOOD.replace('"arn"', '"other"')),
    "a member is no text": ("content", GOOD.replace('"trace_header":""', '"trace_header":5')),
    "a count is no number": ("content", GOOD.replace('"attempts":0', '"attempts":NaN')),
    "a count is negative": ("content", GOOD.replace('"deferrals":0', '"deferrals":-1')),
    "an unknown end": ("content", GOOD.replace('"ended":null', '"ended":{"end":"Newer"}')),
    "an end that is no object": ("content", GOOD.replace('"ended":null', '"ended":[1]')),
    "a long text": ("content", GOOD.replace('"trace_header":""', f'"trace_header":"{"x" * CONTENT_BYTES_MAX}"')),
    "deep": ("content", "[" * 100_000),
    "a time before all": ("due", -1.0),
    "no time": ("accepted", float("inf")),
    "takeovers": ("takeovers", -1),
    "revision": ("revision", 1 << 60),
    "owner": ("owner", ""),
    "no name": ("call", ""),
    "no UTF-8": ("content", b"\xff"),
    "a name that is no UTF-8": ("call", b"\xff\xfe"),
}  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_call_hides_only_itself_is_told_once_and_stays(
    damage: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "state.db"
    column, value = DAMAGES[damage]

    def rows() -> list[Any]:
        with closing(sqlite3.connect(path)) as db:
            db.text_factory = bytes
            return db.execute("SELECT * FROM calls WHERE CAST(payload AS TEXT) = 'bad'").fetchall()

    async def scenario(queue: SqliteCallQueue) -> None:
        bad = replace(asked("bad", due=NOW - 5), payload=b"bad", owner=None)
        await queue.put(bad)
        with closing(sqlite3.connect(path, isolation_level=None)) as db:
            new = "CAST(? AS TEXT)" if isinstance(value, bytes) else "?"
            db.execute(f"UPDATE calls SET {column} = {new}", (value,))
        before = rows()
        assert len(before) == 1
        await queue.put(asked("good"))
        for _ in range(3):
            assert await claim(queue, calls_max=1) == ["good"]
            assert [each.call for each in await queue.calls(ORDERS, calls_max=5)] == ["good"]
            (backlog,) = await queue.backlogs()
            assert (backlog.function, backlog.calls) == (ORDERS, 2)
        if column == "content":
            with pytest.raises(ServiceUnavailable, match="cannot be read"):
                await queue.replace(replace(bad, revision=7))
            with pytest.raises(RowChanged):
                await queue.remove(replace(bad, revision=7))
            await queue.put(bad)
        assert rows() == before

    with caplog.at_level(logging.WARNING, logger="poller.stores"):
        run(path, scenario)
    told = [record for record in caplog.records if record.name == "poller.stores"]
    assert len(told) == 1
    assert "cannot be read" in told[0].getMessage()
    assert len(told[0].getMessage()) < 1_000


def test_a_function_whose_name_cannot_be_read_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "state.db"

    async def scenario(queue: SqliteCallQueue) -> None:
        await queue.put(asked("bad"))
        with closing(sqlite3.connect(path, isolation_level=None)) as db:
            db.execute("UPDATE calls SET function = CAST(? AS TEXT)", (b"\xff",))
        await queue.put(asked("good"))
        assert [each.function for each in await queue.backlogs()] == [ORDERS]

    run(path, scenario)


def test_what_was_told_is_forgotten_when_it_is_too_much(caplog: pytest.LogCaptureFixture) -> None:
    reader = CallReader()
    with caplog.at_level(logging.WARNING, logger="poller.stores"):
        for number in (*range(LOGGED_MAX), 0, LOGGED_MAX, 0):
            reader.tell(UnreadableCall(f"call-{number}", "it is odd"))
    assert len(caplog.records) == LOGGED_MAX + 2


def test_an_acknowledged_call_survives_a_kill_and_comes_back_from_a_process_of_the_same_name(
    tmp_path: Path,
) -> None:
    path = tmp_path / "state.db"
    command = [sys.executable, "-m", "tests.adapters.stores.store_child", "put", str(path), "ann"]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT)
    assert child.stdout is not None
    said = [child.stdout.readline() for _ in range(30)]
    child.kill()
    said += child.communicate()[0].splitlines(keepends=True)
    # The last line may be cut.
    acknowledged = {line.decode().strip() for line in said if line.endswith(b"\n")}

    async def scenario(queue: SqliteCallQueue) -> None:
        stored = await queue.calls(ORDERS, calls_max=100_000)
        assert acknowledged <= {each.call for each in stored}
        claimed = {each.call for each in stored if each.owner == ANN}
        assert claimed
        again = await queue.claim(ORDERS, now=NOW, owner=ANN, gone=(), held=(), calls_max=100_000)
        assert {each.call for each in again} == {each.call for each in stored}
        assert {each.call for each in again if each.takeovers} == claimed

    run(path, scenario)
