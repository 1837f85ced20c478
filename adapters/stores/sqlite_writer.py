"""Owns the only writing connection: what waits while a transaction runs is written together in the next one.

Who gets the lock writes for all that wait, itself included, so that no background task is needed. A writer that is
cancelled in the middle rolls back and leaves the others' work to the next one; every write may be repeated.
"""

import asyncio
import sqlite3
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import aiosqlite

from adapters.stores.sqlite_file import mapped, rows
from poller.errors import PortError, ResourceMissing, ServiceUnavailable

BATCH_MAX = 128
"""Writes in one transaction."""

type Work[T] = Callable[[aiosqlite.Connection], Awaitable[T]]
"""Statements of one write. Raises a PortError only before it has changed anything."""


@dataclass(slots=True, eq=False)
class _Write[T]:
    work: Work[T]
    settled: tuple[T] | PortError | None = None


class Writer:
    """Runs writes on `db` in transactions; a write returns when its own transaction is on the disk."""

    def __init__(self, db: aiosqlite.Connection, path: Path) -> None:
        self._db = db
        self._path = path
        self._file = _identity(path)
        self._lock = asyncio.Lock()
        self._waiting: dict[_Write[Any], None] = {}
        self._closed = False

    async def write[T](self, work: Work[T]) -> T:
        """What `work` returns, once it is committed; raises its PortError, or what the database's error means."""
        entry = _Write[T](work)
        self._waiting[entry] = None
        try:
            async with self._lock:
                while entry.settled is None:
                    await self._settle(list(islice(self._waiting, BATCH_MAX)))
        finally:
            self._waiting.pop(entry, None)
        return _result(entry)

    async def close(self) -> None:
        """Lets what waits be written, then refuses everything."""
        async with self._lock:
            self._closed = True

    async def _settle(self, batch: list[_Write[Any]]) -> None:
        """Writes the batch in one transaction, or fails all of it, and takes it off the waiting list."""
        try:
            self._check_open()
            outcomes = await self._transact(batch)
        except sqlite3.Error as error:
            outcomes = [mapped(error, self._path) for _ in batch]
        except PortError as refused:
            outcomes = [type(refused)(refused.reason) for _ in batch]
        for entry, outcome in zip(batch, outcomes, strict=True):
            entry.settled = outcome
            self._waiting.pop(entry, None)

    def _check_open(self) -> None:
        if self._closed:
            raise ServiceUnavailable(f"{self._path} is closed")
        if _identity(self._path) != self._file:
            raise ResourceMissing(
                f"{self._path} was moved or replaced while it was open; put it back or restart"
            )

    async def _transact(self, batch: list[_Write[Any]]) -> list[tuple[Any] | PortError]:
        if self._db.in_transaction:
            await self._roll_back()
        committed = False
        try:
            await rows(self._db, "BEGIN IMMEDIATE")
            outcomes = [await self._attempt(entry.work) for entry in batch]
            await rows(self._db, "COMMIT")
            committed = True
        finally:
            if not committed:
                await self._roll_back()
        return outcomes

    async def _attempt(self, work: Work[Any]) -> tuple[Any] | PortError:
        try:
            return (await work(self._db),)
        except PortError as refused:
            return refused

    async def _roll_back(self) -> None:
        """Ends the transaction if there is one: a cancelled BEGIN may still be under way in the database's thread."""
        with suppress(sqlite3.Error):
            await rows(self._db, "ROLLBACK")


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _result[T](entry: _Write[T]) -> T:
    match entry.settled:
        case None:
            raise AssertionError("a write came back unsettled")
        case PortError() as refused:
            raise refused
        case (value,):
            return value
