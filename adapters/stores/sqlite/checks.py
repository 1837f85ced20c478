"""Owns the checks of a SQLite store's file before a daemon opens it. No file is made."""

import asyncio
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from adapters.stores.sqlite.schema import APPLICATION_ID, exposure_at
from poller.domain.findings import Finding, Severity
from poller.domain.records import MappingId
from poller.domain.rows import Lease, MappingRow

SQLITE_MAGIC = b"SQLite format 3\0"
HEADER_BYTES = 100
_APPLICATION = slice(68, 72)
"""The place of the application id in SQLite's header, high byte first."""


class FileProbe:
    """A Probe, MappingList and LeaseList of the file of the SQLite store, which need not exist.

    `read_mappings` and `read_leases` read it.
    """

    def __init__(
        self,
        path: Path,
        read_mappings: Callable[[Path], list[MappingRow]],
        read_leases: Callable[[Path, MappingId], list[Lease]],
    ) -> None:
        self._path = path
        self._read_mappings = read_mappings
        self._read_leases = read_leases

    async def probe(self) -> list[Finding]:
        """Checks the directory and the file. Does not open the database, since that makes files."""
        return await asyncio.to_thread(lambda: list(_file(self._path)))

    async def mappings(self) -> list[MappingRow]:
        """Returns all rows; raises port errors."""
        return await asyncio.to_thread(self._read_mappings, self._path)

    async def leases(self, mapping: MappingId) -> list[Lease]:
        """Returns all leases of one mapping; raises port errors."""
        return await asyncio.to_thread(self._read_leases, self._path, mapping)


def _file(path: Path) -> Iterator[Finding]:
    yield _directory(path)
    if path.exists():
        yield _content(path)


def _directory(path: Path) -> Finding:
    """Checks that the directory is writable, or the nearest existing one above it, in which the daemon makes the others."""
    check = "directory"
    nearest = next(each for each in path.parents if each.exists())
    if not nearest.is_dir():
        return Finding(check, Severity.PROBLEM, f"{nearest} is no directory", "correct the path")
    if not os.access(nearest, os.W_OK | os.X_OK):
        text = f"{nearest} may not be written by this user"
        return Finding(check, Severity.PROBLEM, text, "correct its owner or mode, or put the store elsewhere")
    return Finding(check, Severity.OK)


def _content(path: Path) -> Finding:
    check = "file"
    if not path.is_file() or not os.access(path, os.R_OK | os.W_OK):
        text = f"{path} is no file that this user may read and write"
        return Finding(check, Severity.PROBLEM, text, "correct its owner or mode, or put the store elsewhere")
    with path.open("rb") as file:
        header = file.read(HEADER_BYTES)
    if header and not header.startswith(SQLITE_MAGIC):
        return Finding(check, Severity.PROBLEM, f"{path} is no SQLite database", "choose another file")
    if header and int.from_bytes(header[_APPLICATION]) not in {0, APPLICATION_ID}:
        return Finding(
            check, Severity.PROBLEM, f"{path} is a database of another program", "choose another file"
        )
    if exposed := exposure_at(path):
        return Finding(check, Severity.WARNING, f"{path}: {exposed}")
    return Finding(check, Severity.OK)
