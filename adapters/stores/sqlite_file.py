"""Owns the database file: how it is opened and checked, its tables, and what SQLite's errors mean to a caller."""

import asyncio
import os
import sqlite3
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, closing, suppress
from pathlib import Path
from typing import Any

import aiosqlite

from poller.errors import AccessDenied, InvalidConfiguration, PortError, ServiceThrottled, ServiceUnavailable

APPLICATION_ID = 0x45534D50
"""Marks our files in SQLite's header (ESMP)."""
SCHEMA = (
    """
    CREATE TABLE mappings (
        mapping TEXT NOT NULL PRIMARY KEY, fixed REAL NOT NULL, seeded INTEGER NOT NULL, document TEXT NOT NULL
    ) STRICT;
    CREATE TABLE leases (
        mapping TEXT NOT NULL, shard TEXT NOT NULL, parents TEXT NOT NULL, owner TEXT, epoch INTEGER NOT NULL,
        position TEXT NOT NULL, position_key TEXT NOT NULL, memo BLOB NOT NULL, PRIMARY KEY (mapping, shard)
    ) STRICT;
    CREATE TABLE workers (worker TEXT NOT NULL PRIMARY KEY, counter INTEGER NOT NULL, facts TEXT NOT NULL) STRICT
    """,
)
"""Statements that lead from each schema version to the next; the file's `user_version` counts those that were run."""
SQLITE_MIN = (3, 37, 0)
"""The first with STRICT tables and RETURNING."""
QUICK_CHECK_BYTES_MAX = 64 * 1024 * 1024
"""A larger file is opened without the check of all its pages, which takes about a second for this much."""
WAL_BYTES_KEPT_MAX = 16 * 1024 * 1024
WAL_ATTEMPTS_MAX = 40
WAL_WAIT_S = 0.05
"""SQLite does not wait for others while it switches a new file to WAL, so that openings at the same time try again."""
PAGE_BYTES = 4096
_PRIMARY_CODE = 0xFF

_BUSY = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}
_DENIED = {sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM, sqlite3.SQLITE_AUTH}
_BROKEN = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}


async def rows(db: aiosqlite.Connection, sql: str, parameters: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Runs one statement to its end and returns its rows."""
    return [tuple(row) for row in await db.execute_fetchall(sql, parameters)]


@asynccontextmanager
async def connected(path: Path, *, busy_timeout_s: float) -> AsyncGenerator[aiosqlite.Connection]:
    """A connection in autocommit mode to the file at `path`, made with its directory if there is none.

    Raises InvalidConfiguration when it cannot be made. Nothing is lost if closing fails: all was committed before.
    """
    _make_parent(path)
    try:
        # An aiosqlite connection that cannot be opened leaves its thread behind, so that it is tried without one first.
        await asyncio.to_thread(_open_once, path)
    except sqlite3.Error as error:
        raise unusable(error, path) from error
    db = await aiosqlite.connect(path, timeout=busy_timeout_s, isolation_level=None)
    try:
        yield db
    finally:
        with suppress(sqlite3.Error):
            await db.close()


async def prepare(db: aiosqlite.Connection, path: Path, *, full_sync: bool, bytes_max: int | None) -> None:
    """Checks the file, makes or migrates its tables, and sets how it is written.

    Raises InvalidConfiguration for a file that cannot be used as it is, ServiceThrottled when others keep it locked,
    ServiceUnavailable when the disk is full or fails.
    """
    if sqlite3.sqlite_version_info < SQLITE_MIN:
        raise InvalidConfiguration([f"SQLite is {sqlite3.sqlite_version}; this store needs 3.37 or newer"])
    try:
        await _check_ours(db, path)
        await _switch_to_wal(db, path)
        await _tune(db, full_sync=full_sync, bytes_max=bytes_max)
        await _check_pages(db, path)
        await _migrate(db, path)
    except sqlite3.Error as error:
        raise unusable(error, path) from error


def _open_once(path: Path) -> None:
    with closing(sqlite3.connect(path)):
        pass


def _make_parent(path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        problem = (
            f"store: the directory {path.parent} cannot be made ({error.strerror}); make it or choose another"
        )
        raise InvalidConfiguration([problem]) from error


async def _tune(db: aiosqlite.Connection, *, full_sync: bool, bytes_max: int | None) -> None:
    await rows(db, f"PRAGMA synchronous={'FULL' if full_sync else 'NORMAL'}")
    await rows(db, f"PRAGMA journal_size_limit={WAL_BYTES_KEPT_MAX}")
    if bytes_max is not None:
        await rows(db, f"PRAGMA max_page_count={bytes_max // PAGE_BYTES}")


async def _switch_to_wal(db: aiosqlite.Connection, path: Path) -> None:
    for _ in range(WAL_ATTEMPTS_MAX):
        try:
            ((mode,),) = await rows(db, "PRAGMA journal_mode=WAL")
        except sqlite3.OperationalError as error:
            if _primary(error) not in _BUSY:
                raise
            await asyncio.sleep(WAL_WAIT_S)
            continue
        if mode != "wal":
            problem = f"store: {path} cannot use a write-ahead log; put it on a local, writable file system"
            raise InvalidConfiguration([problem])
        return
    raise ServiceThrottled(f"{path} stays locked by another process")


async def _check_pages(db: aiosqlite.Connection, path: Path) -> None:
    if os.stat(path).st_size > QUICK_CHECK_BYTES_MAX:
        return
    found = await rows(db, "PRAGMA quick_check(1)")
    if found != [("ok",)]:
        raise InvalidConfiguration([_broken(path, str(found[0][0]))])


async def _migrate(db: aiosqlite.Connection, path: Path) -> None:
    """Brings the tables to the newest version in one transaction, which also shows that the file can be written."""
    await rows(db, "BEGIN IMMEDIATE")
    version = await _check_ours(db, path)
    for script in SCHEMA[version:]:
        for statement in script.split(";"):
            await rows(db, statement)
    await rows(db, f"PRAGMA application_id={APPLICATION_ID}")
    await rows(db, f"PRAGMA user_version={len(SCHEMA)}")
    await rows(db, "COMMIT")


async def _check_ours(db: aiosqlite.Connection, path: Path) -> int:
    """The file's schema version, 0 for an empty file; refuses other programs' files before they are changed."""
    ((version,),) = await rows(db, "PRAGMA user_version")
    ((owner,),) = await rows(db, "PRAGMA application_id")
    ((tables,),) = await rows(db, "SELECT count(*) FROM sqlite_master")
    if owner != APPLICATION_ID and tables:
        raise InvalidConfiguration([f"store: {path} is a database of another program; choose another file"])
    if version > len(SCHEMA):
        known = f"{path} has schema {version}, this poller knows {len(SCHEMA)}"
        raise InvalidConfiguration([f"store: {known}; run the newer poller or use another file"])
    return int(version)


def _broken(path: Path, what: str) -> str:
    return (
        f"store: {path} is damaged or no SQLite database ({what}); restore a backup, or move it away to begin "
        "again at the mappings' starting positions"
    )


def _primary(error: sqlite3.Error) -> int | None:
    code: int | None = getattr(error, "sqlite_errorcode", None)
    return None if code is None else code & _PRIMARY_CODE


def unusable(error: sqlite3.Error, path: Path) -> PortError | InvalidConfiguration:
    """What an error while the file is opened means; what will not heal by itself is a wrong configuration."""
    match _primary(error):
        case code if code in _BROKEN:
            return InvalidConfiguration([_broken(path, str(error))])
        case code if code in _DENIED or code == sqlite3.SQLITE_CANTOPEN:
            problem = f"store: {path} cannot be opened for writing ({error}); correct its path or permissions"
            return InvalidConfiguration([problem])
        case _:
            return mapped(error, path)


def mapped(error: sqlite3.Error, path: Path) -> PortError:
    """What an error on the open file means; the transaction that had it was rolled back."""
    code = _primary(error)
    name = getattr(error, "sqlite_errorname", type(error).__name__)
    if code in _BUSY:
        return ServiceThrottled(f"{path} stays locked by another process ({name})")
    if code in _DENIED:
        return AccessDenied(f"{path} may not be written ({name})")
    if code in _BROKEN:
        return ServiceUnavailable(f"{path} is damaged ({name}); stop and restore a backup")
    return ServiceUnavailable(f"{path} cannot be used ({name}): {error}")
