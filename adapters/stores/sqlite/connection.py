"""Owns a connection to a database file in a thread of its own, which does one piece of work after the other.

A piece of work is a function that gets the connection. It may run many statements, and still costs only one change to the
thread and back.
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
    """Decodes a text of the file. Bytes that are not UTF-8 become lone surrogates, so that they do not break a whole query."""
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
        """Returns a future of what `work` returns; raises ServiceUnavailable if the database is closed.

        Work that has begun always runs to its end, even if its caller was cancelled.
        """
        if self._closed:
            raise ServiceUnavailable(f"{self.path} is closed")
        return asyncio.get_running_loop().run_in_executor(self._thread, self._work, work)

    async def close(self) -> None:
        """Closes the connection when all begun work has ended. Everything was committed before, so an error here loses nothing."""
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
    """Yields a database. Its file is opened or made by the first work, which raises the errors of that."""
    database = Database(path, busy_timeout_s=busy_timeout_s)
    try:
        yield database
    finally:
        await database.close()
