"""Owns a connection to a database file on a thread of its own, which does one piece of work after the other.

A piece of work is a function of the connection: the way to the thread and back is gone once, whatever it executes.
"""

import asyncio
import sqlite3
from collections.abc import AsyncGenerator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

from poller.domain.errors import ServiceUnavailable


def rows(db: sqlite3.Connection, sql: str, parameters: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Runs one statement to its end and returns its rows."""
    return db.execute(sql, parameters).fetchall()


def any_text(found: bytes) -> str:
    """A text of the file. One that is not UTF-8 comes with half surrogates in it: it must not spoil all other rows of a query."""
    return found.decode("utf-8", "surrogateescape")


class Database:
    """A connection in autocommit mode that only its own thread uses."""

    def __init__(self, path: Path, *, busy_timeout_s: float) -> None:
        self.path = path
        self._busy_timeout_s = busy_timeout_s
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="sqlite")
        self._db: sqlite3.Connection | None = None
        self._closed = False

    def run[T](self, work: Callable[[sqlite3.Connection], T]) -> asyncio.Future[T]:
        """What `work` returns, as a future; raises ServiceUnavailable when the database is closed.

        Work that has begun goes on to its end, though nobody may wait for it any more.
        """
        if self._closed:
            raise ServiceUnavailable(f"{self.path} is closed")
        return asyncio.get_running_loop().run_in_executor(self._thread, self._work, work)

    async def close(self) -> None:
        """Closes the connection when what was begun is done. All was committed before, so that errors lose nothing."""
        self._closed = True
        closed = self._thread.submit(self._close)
        self._thread.shutdown(wait=False)
        await asyncio.shield(asyncio.wrap_future(closed))

    def _work[T](self, work: Callable[[sqlite3.Connection], T]) -> T:
        if self._db is None:
            self._db = sqlite3.connect(self.path, timeout=self._busy_timeout_s, isolation_level=None)
            self._db.text_factory = any_text
        return work(self._db)

    def _close(self) -> None:
        if self._db is not None:
            with suppress(sqlite3.Error):
                self._db.close()


@asynccontextmanager
async def connected(path: Path, *, busy_timeout_s: float) -> AsyncGenerator[Database]:
    """The file at `path`, which the first work opens or makes; its errors are that work's."""
    database = Database(path, busy_timeout_s=busy_timeout_s)
    try:
        yield database
    finally:
        await database.close()
