"""Owns the reading of notices from the files of the file destination.

A redrive first moves `MAPPING.jsonl` away, to `MAPPING.jsonl.redrive-NUMBER`, so that the daemon goes on in a new file. Beside it,
`MAPPING.jsonl.redrive-NUMBER.settled` has the places of the lines that are settled, each with a hash of its line. Both files are removed
when all lines are settled. Otherwise they stay, and the next redrive goes on with them.

The number is the time in nanoseconds, and no file gets it again. A worker may be stopped at any moment and go on when another one has
finished the redrive, and a later one has begun. What it moves then goes to a name that nobody has, and what it removes is what it has read.
"""

import asyncio
import errno
import fcntl
import hashlib
import os
import re
import stat
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from io import BufferedReader
from itertools import islice
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator

from adapters.notices.objects import Objects
from adapters.notices.settings import DOCUMENT_BYTES_MAX, PlaceSettings
from adapters.private_files import open_private
from poller.config.field_types import directory_of, directory_url
from poller.domain.errors import AccessDenied, ResourceMissing, ServiceUnavailable
from poller.domain.invocations import StoredNotice
from poller.plugins import Environment, Plugin

SETTLED = ".settled"
TOO_LONG = f"it has more than {DOCUMENT_BYTES_MAX} bytes"
HASH_CHARS = 32
PLACE_DIGITS_MAX = 19
"""A place in a file is no longer as a decimal number."""
NUMBER_DIGITS_MAX = 40
"""A time in nanoseconds has half as many."""


class DirectorySettings(PlaceSettings):
    """`place` is file:///path/of/directory, on the machine of the daemon."""

    place: Annotated[str, AfterValidator(directory_url)]

    @property
    def directory(self) -> Path:
        """The directory of the files."""
        return directory_of(self.place)


@dataclass(slots=True)
class NoticeFile:
    """A file that was moved away: the places and hashes of its lines that are settled, and how far it was read."""

    path: Path
    settled: set[tuple[int, str]] = field(default_factory=set)
    read_to: int = 0

    @property
    def beside(self) -> Path:
        """The file with the places of the settled lines."""
        return self.path.with_name(self.path.name + SETTLED)


class DirectoryNotices:
    """The notices of one mapping in one directory."""

    def __init__(self, files: Sequence[NoticeFile], objects: Objects) -> None:
        self._files = {str(number): each for number, each in enumerate(files)}
        self._objects = objects

    async def read(self, *, notices_max: int) -> Sequence[StoredNotice]:
        """The next lines."""
        return await asyncio.to_thread(self._next, notices_max)

    def _next(self, notices_max: int) -> list[StoredNotice]:
        found: list[StoredNotice] = []
        for number, each in self._files.items():
            with _port_errors(each.path):
                for place, line in islice(lines(each), notices_max - len(found)):
                    found.append(StoredNotice(f"{number}:{place}", line, "" if line else TOO_LONG))
        return found

    async def remove(self, notice: StoredNotice) -> None:
        """Notes on the disk that a line is settled."""
        await asyncio.to_thread(self._settle, notice)

    def _settle(self, notice: StoredNotice) -> None:
        number, _, offset = notice.place.partition(":")
        each, settled = self._files[number], (int(offset), _hash(notice.document))
        with _port_errors(each.beside):
            descriptor = open_private(each.beside, os.O_WRONLY | os.O_APPEND)
            try:
                # It begins on a line of its own, also behind one that was cut off.
                left = f"\n{settled[0]} {settled[1]}\n".encode()
                while left:
                    left = left[os.write(descriptor, left) :]
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        each.settled.add(settled)

    async def leave(self, notice: StoredNotice) -> None:
        """Does nothing: the line stays in its file."""

    async def payload(self, bucket: str, key: str) -> bytes:
        """The object that a notice names."""
        return await self._objects.read(bucket, key)

    def close(self) -> None:
        """Removes the files whose lines are all settled."""
        for each in self._files.values():
            each.read_to = 0
            with suppress(OSError):
                if next(lines(each), None) is None:
                    each.path.unlink()
                    each.beside.unlink(missing_ok=True)


def lines(file: NoticeFile) -> Iterator[tuple[int, bytes]]:
    """Yields the lines that are not settled and were not read, each with its place in the file. Raises OSError."""
    with _opened(file.path) as opened:
        opened.seek(file.read_to)
        while True:
            place = file.read_to
            line = opened.readline(DOCUMENT_BYTES_MAX + 1)
            if not line:
                return
            too_long = len(line) > DOCUMENT_BYTES_MAX
            rest = line
            while rest and not rest.endswith(b"\n"):
                rest = opened.readline(DOCUMENT_BYTES_MAX)
            file.read_to = opened.tell()
            document = b"" if too_long else line
            if line.strip() and (not file.settled or (place, _hash(document)) not in file.settled):
                yield place, document


def files_of(directory: Path, mapping: str) -> list[NoticeFile]:
    """The files of a mapping that were moved away, oldest first, then its present one if there is one. Raises OSError."""
    present = directory / f"{mapping}.jsonl"
    return [*_moved(present), *([_with_settled(present)] if present.exists() else [])]


def moved_away(directory: Path, mapping: str) -> list[NoticeFile]:
    """The files of a mapping, oldest first, after its present one was moved away. Raises OSError."""
    present = directory / f"{mapping}.jsonl"
    _remove_left_behind(present)
    if present.exists():
        last = max(_numbers(present), default=0)
        _rename(present, _moved_path(present, max(last + 1, time.time_ns())))
    return _moved(present)


def _opened(path: Path) -> BufferedReader:
    """Opens a regular file to read it. Raises OSError for anything else: on a FIFO, opening could wait for ever."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EPERM, "no regular file")
    return os.fdopen(descriptor, "rb")


def _moved(present: Path) -> list[NoticeFile]:
    return [_with_settled(_moved_path(present, number)) for number in _numbers(present)]


def _numbers(present: Path, more: str = "") -> list[int]:
    """The numbers of the files that were moved away, or with `more` of the files beside them."""
    # A redrive writes no zero in front. With one it is a file of somebody else, and not the one of that number.
    number = rf"0|[1-9][0-9]{{0,{NUMBER_DIGITS_MAX - 1}}}"
    named = re.compile(rf"{re.escape(present.name)}\.redrive-({number}){re.escape(more)}")
    return sorted(int(found[1]) for each in os.listdir(present.parent) if (found := named.fullmatch(each)))


def _remove_left_behind(present: Path) -> None:
    """Removes places of settled lines whose file is gone. A worker that was stopped may have written them after another one was done."""
    for number in set(_numbers(present, SETTLED)) - set(_numbers(present)):
        NoticeFile(_moved_path(present, number)).beside.unlink(missing_ok=True)


def _moved_path(present: Path, number: int) -> Path:
    return present.with_name(f"{present.name}.redrive-{number}")


def _with_settled(path: Path) -> NoticeFile:
    file = NoticeFile(path)
    # Another worker may remove it at any moment.
    with suppress(FileNotFoundError), _opened(file.beside) as opened:
        # A line that was cut off while it was written does not count.
        whole = opened.read().decode("ascii", "replace").rpartition("\n")[0]
        file.settled = {
            (int(place), found)
            for place, _, found in (line.partition(" ") for line in whole.split("\n"))
            if place.isascii() and place.isdecimal() and len(place) <= PLACE_DIGITS_MAX
        }
    return file


def _hash(document: bytes) -> str:
    return hashlib.sha256(document).hexdigest()[:HASH_CHARS]


def _rename(present: Path, to: Path) -> None:
    """Renames a file while nobody writes. Who writes holds the lock, and looks whether the file still has its name."""
    descriptor = open_private(present, os.O_RDWR)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        os.rename(present, to)
    finally:
        os.close(descriptor)


class _port_errors:  # noqa: N801 - it is used as a function is
    """Turns errors of files into port errors."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> None:
        """Nothing happens before."""

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        if isinstance(error, OSError):
            kinds = {
                FileNotFoundError: ResourceMissing,
                NotADirectoryError: ResourceMissing,
                PermissionError: AccessDenied,
            }
            raise kinds.get(type(error), ServiceUnavailable)(f"{self._path}: {error.strerror}") from error


@asynccontextmanager
async def open_directory(settings: DirectorySettings, env: Environment) -> AsyncIterator[DirectoryNotices]:
    """Yields the notices of the mapping's files."""
    with _port_errors(settings.directory):
        files = await asyncio.to_thread(moved_away, settings.directory, settings.mapping)
    notices = DirectoryNotices(files, Objects(env))
    try:
        yield notices
    finally:
        await asyncio.to_thread(notices.close)


@asynccontextmanager
async def look_directory(settings: DirectorySettings, env: Environment) -> AsyncIterator[DirectoryNotices]:
    """Yields the notices without moving the present file away. Nothing is removed."""
    with _port_errors(settings.directory):
        files = await asyncio.to_thread(files_of, settings.directory, settings.mapping)
    yield DirectoryNotices(files, Objects(env))


plugin = Plugin("file", DirectorySettings, open_directory, look_directory)
