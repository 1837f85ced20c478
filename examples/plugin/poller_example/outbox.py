"""Owns the `outbox` destination: notices as rows of an SQLite table, for another program to fetch and remove.

A notice that is sent again replaces its row, since its id stays the same.
"""

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, closing
from pathlib import Path
from types import MappingProxyType
from typing import Annotated
from urllib.parse import unquote, urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict

from poller.domain.errors import (
    AccessDenied,
    PortError,
    ResourceMissing,
    ServiceThrottled,
    ServiceUnavailable,
)
from poller.domain.invocations import Notice, with_payload
from poller.plugins import Environment, Plugin

BUSY_S_MAX = 1.0
"""How long a send waits for another program's write."""
ERRORS: Mapping[int, type[PortError]] = MappingProxyType(
    {
        sqlite3.SQLITE_BUSY: ServiceThrottled,
        sqlite3.SQLITE_CANTOPEN: ResourceMissing,
        sqlite3.SQLITE_PERM: AccessDenied,
        sqlite3.SQLITE_READONLY: AccessDenied,
    }
)
"""What SQLite's result codes mean to the engine; all others are ServiceUnavailable."""


def _file_url(text: str) -> str:
    parts = urlsplit(text)
    if parts.netloc or not parts.path.startswith("/"):
        raise ValueError("names no file; write outbox:///path/of/file.db")
    return text


class OutboxSettings(BaseModel):
    """`arn` is the mapping's destination as it is written: outbox:///path/of/file.db. Its scheme names the plug-in."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    arn: Annotated[str, AfterValidator(_file_url)]


class OutboxDestination:
    """Writes notices into one file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = asyncio.Lock()

    async def send(self, notice: Notice) -> None:
        """Returns when the row is committed; raises what `ERRORS` says."""
        async with self._lock:
            try:
                await asyncio.to_thread(self._write, notice)
            except sqlite3.Error as error:
                kind = ERRORS.get(getattr(error, "sqlite_errorcode", 0) & 0xFF, ServiceUnavailable)
                raise kind(f"outbox {self._path}: {error}") from error

    def _write(self, notice: Notice) -> None:
        with closing(sqlite3.connect(self._path, timeout=BUSY_S_MAX)) as connection, connection:
            connection.execute(
                "CREATE TABLE IF NOT EXISTS notices (id TEXT PRIMARY KEY, document BLOB NOT NULL)"
            )
            row = notice.notice_id, with_payload(notice)
            connection.execute("INSERT OR REPLACE INTO notices VALUES (?, ?)", row)


@asynccontextmanager
async def open_outbox(settings: OutboxSettings, env: Environment) -> AsyncIterator[OutboxDestination]:
    """Yields the destination; the file is made by the first notice, its directory must exist."""
    del env
    yield OutboxDestination(Path(unquote(urlsplit(settings.arn).path)))


plugin = Plugin("outbox", OutboxSettings, open_outbox)
