"""Owns the database file: how it is opened, checked and migrated, its tables, and the port errors for SQLite's errors."""

import logging
import os
import sqlite3
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from adapters.private_files import exposure, make_private_directories, open_private
from adapters.stores.sqlite.connection import Database, rows
from poller.domain.errors import (
    AccessDenied,
    InvalidConfiguration,
    PortError,
    ServiceThrottled,
    ServiceUnavailable,
)
from poller.output.log_fields import EVENT

APPLICATION_ID = 0x45534D50
"""Identifies our files in SQLite's header (ESMP)."""
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
    "ALTER TABLE mappings ADD COLUMN revision INTEGER NOT NULL DEFAULT 0",
    """
    CREATE TABLE operations (
        operation TEXT NOT NULL PRIMARY KEY, over INTEGER NOT NULL, created REAL NOT NULL, revision INTEGER NOT NULL,
        content TEXT NOT NULL
    ) STRICT;
    CREATE INDEX open_operations ON operations (created, operation) WHERE over = 0
    """,
    "CREATE TABLE digests (worker TEXT NOT NULL PRIMARY KEY, content BLOB NOT NULL) STRICT",
    # Payloads and answers come last: SQLite then finds all other values without reading them.
    """
    CREATE TABLE calls (
        call TEXT NOT NULL PRIMARY KEY, function TEXT NOT NULL, accepted REAL NOT NULL, due REAL NOT NULL, owner TEXT,
        takeovers INTEGER NOT NULL, revision INTEGER NOT NULL, content TEXT NOT NULL, payload BLOB NOT NULL, answer BLOB NOT NULL
    ) STRICT;
    CREATE INDEX due_calls ON calls (function, due, call, owner, accepted)
    """,
)
"""The statements that lead from each schema version to the next. The file's `user_version` counts those that were run."""
READABLE_VERSION = 2
"""The first version whose mappings and leases can be read without migrating the file."""
SQLITE_MIN = (3, 37, 0)
"""The first version with STRICT tables and RETURNING."""
QUICK_CHECK_BYTES_MAX = 64 * 1024 * 1024
"""All pages of a file up to this size are checked when it is opened, which takes about a second."""
WAL_BYTES_KEPT_MAX = 16 * 1024 * 1024
WAL_ATTEMPTS_MAX = 40
WAL_WAIT_S = 0.05
"""The wait before another attempt to switch a new file to WAL. SQLite itself does not wait for other processes there."""
PAGE_BYTES = 4096
BESIDE = ("-wal", "-shm")
"""The suffixes of the files that SQLite keeps beside an open database."""
_PRIMARY_CODE = 0xFF

log = logging.getLogger("poller.stores")

_BUSY = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}
_DENIED = {sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM, sqlite3.SQLITE_AUTH}
_BROKEN = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}


async def prepare(database: Database, *, full_sync: bool, bytes_max: int | None) -> None:
    """Opens the file, making it and its directory if they are missing; makes or migrates its tables; sets how it is written.

    Raises InvalidConfiguration for a file that cannot be used as it is, ServiceThrottled if other processes keep it locked,
    ServiceUnavailable if the disk is full or fails.
    """
    if sqlite3.sqlite_version_info < SQLITE_MIN:
        raise InvalidConfiguration([f"SQLite is {sqlite3.sqlite_version}; this store needs 3.37 or newer"])
    path = database.path
    _make_parent(path)
    _make_file(path)

    def work(db: sqlite3.Connection) -> None:
        _check_ours(db, path)
        _switch_to_wal(db, path)
        _tune(db, full_sync=full_sync, bytes_max=bytes_max)
        _check_pages(db, path)
        _migrate(db, path)

    try:
        await database.run(work)
    except sqlite3.Error as error:
        raise unusable(error, path) from error


def obstacles(path: Path) -> Iterator[tuple[str, str]]:
    """Yields what would keep `prepare` from making or opening a file, and the remedy, as far as can be seen without opening it."""
    if path.is_dir():
        yield f"{path} is a directory", "write the path of a file"
        return
    nearest = next(each for each in path.parents if os.path.lexists(each))
    if not nearest.is_dir():
        yield f"the directory {path.parent} cannot be made ({nearest} is a file)", "choose another"
    elif not path.exists() and not os.access(nearest, os.W_OK | os.X_OK):
        yield f"{nearest} may not be written by this user", "correct its permissions, or choose another place"
    elif path.exists() and not os.access(path, os.R_OK | os.W_OK):
        yield f"{path} may not be written by this user", "correct its permissions"


async def only_read(database: Database) -> None:
    """Opens a prepared file for reading only; raises what `prepare` raises."""
    try:
        await database.run(partial(rows, sql="PRAGMA query_only=ON"))
    except sqlite3.Error as error:
        raise unusable(error, database.path) from error


def _make_parent(path: Path) -> None:
    try:
        make_private_directories(path.parent)
    except OSError as error:
        problem = (
            f"store: the directory {path.parent} cannot be made ({error.strerror}); make it or choose another"
        )
        raise InvalidConfiguration([problem]) from error


def _make_file(path: Path) -> None:
    """Makes an empty file for this user only, which SQLite takes for a new database. SQLite's other files get the same mode."""
    try:
        os.close(open_private(path, os.O_RDWR, follow=True))
    except OSError as error:
        problem = (
            f"store: {path} cannot be opened for writing ({error.strerror}); correct its path or permissions"
        )
        raise InvalidConfiguration([problem]) from error
    for each in (path, *(path.with_name(path.name + suffix) for suffix in BESIDE)):
        if exposed := exposure_at(each):
            log.warning("store: %s: %s", each, exposed, extra={EVENT: "file_exposed", "file": str(each)})


def exposure_at(path: Path) -> str:
    """Says who else may open a file; empty if nobody else may, or if it does not exist."""
    try:
        return exposure(path.stat())
    except OSError:
        return ""


def _tune(db: sqlite3.Connection, *, full_sync: bool, bytes_max: int | None) -> None:
    rows(db, f"PRAGMA synchronous={'FULL' if full_sync else 'NORMAL'}")
    rows(db, f"PRAGMA journal_size_limit={WAL_BYTES_KEPT_MAX}")
    if bytes_max is not None:
        rows(db, f"PRAGMA max_page_count={bytes_max // PAGE_BYTES}")


def _switch_to_wal(db: sqlite3.Connection, path: Path) -> None:
    for _ in range(WAL_ATTEMPTS_MAX):
        try:
            ((mode,),) = rows(db, "PRAGMA journal_mode=WAL")
        except sqlite3.OperationalError as error:
            if _primary(error) not in _BUSY:
                raise
            time.sleep(WAL_WAIT_S)
            continue
        if mode != "wal":
            problem = f"store: {path} cannot use a write-ahead log; put it on a local, writable file system"
            raise InvalidConfiguration([problem])
        return
    raise ServiceThrottled(f"{path} stays locked by another process")


def _check_pages(db: sqlite3.Connection, path: Path) -> None:
    if os.stat(path).st_size > QUICK_CHECK_BYTES_MAX:
        return
    found = rows(db, "PRAGMA quick_check(1)")
    if found != [("ok",)]:
        raise InvalidConfiguration([_broken(path, str(found[0][0]))])


def _migrate(db: sqlite3.Connection, path: Path) -> None:
    """Migrates the tables to the newest version in one transaction, which also shows that the file can be written."""
    rows(db, "BEGIN IMMEDIATE")
    version = _check_ours(db, path)
    for script in SCHEMA[version:]:
        for statement in script.split(";"):
            rows(db, statement)
    rows(db, f"PRAGMA application_id={APPLICATION_ID}")
    rows(db, f"PRAGMA user_version={len(SCHEMA)}")
    rows(db, "COMMIT")


def _check_ours(db: sqlite3.Connection, path: Path) -> int:
    """Returns the file's schema version, 0 for an empty file. Refuses files of other programs before they are changed."""
    # Another process may make the tables between these reads. Tables are counted first: if they exist, so does their mark.
    ((tables,),) = rows(db, "SELECT count(*) FROM sqlite_master")
    ((owner,),) = rows(db, "PRAGMA application_id")
    ((version,),) = rows(db, "PRAGMA user_version")
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
    """Returns the error for a failed opening. One that will not go away by itself is InvalidConfiguration."""
    match _primary(error):
        case code if code in _BROKEN:
            return InvalidConfiguration([_broken(path, str(error))])
        case code if code in _DENIED or code == sqlite3.SQLITE_CANTOPEN:
            problem = f"store: {path} cannot be opened for writing ({error}); correct its path or permissions"
            return InvalidConfiguration([problem])
        case _:
            return mapped(error, path)


def mapped(error: sqlite3.Error, path: Path) -> PortError:
    """Returns the port error for an error on the open file, whose transaction was rolled back."""
    code = _primary(error)
    name = getattr(error, "sqlite_errorname", type(error).__name__)
    if code in _BUSY:
        return ServiceThrottled(f"{path} stays locked by another process ({name})")
    if code in _DENIED:
        return AccessDenied(f"{path} may not be written ({name})")
    if code in _BROKEN:
        return ServiceUnavailable(f"{path} is damaged ({name}); stop and restore a backup")
    return ServiceUnavailable(f"{path} cannot be used ({name}): {error}")
