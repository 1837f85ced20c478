"""Owns the file destination: documents with the whole event or call in them, one JSON line each, in a directory.

Each mapping has one file, named by its id, and each function one for its asynchronous calls, `FUNCTION.async.jsonl`. When `send` returns, the line is flushed to the disk. A line always starts on a new
line, even if an earlier write was cut off. Nothing is ever removed or rotated. A new file is readable by this user only. A
link, a FIFO or a device in its place is refused.
"""

import asyncio
import errno
import fcntl
import logging
import os
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict

from adapters.destinations.checks import check_directory
from adapters.destinations.messages import no_dead_letter
from adapters.private_files import exposure, open_private
from poller.config.field_types import directory_of, directory_url
from poller.config_errors.error_messages import FieldError
from poller.domain.errors import AccessDenied, PortError, ResourceMissing, ServiceUnavailable
from poller.domain.findings import Finding, Severity
from poller.domain.functions.call_notices import CallNotice
from poller.domain.invocations import Notice, with_payload
from poller.output.log_fields import EVENT
from poller.plugins import Environment, Plugin

_KINDS: Mapping[int | None, type[PortError]] = MappingProxyType(
    {
        errno.ENOENT: ResourceMissing,
        errno.ENOTDIR: ResourceMissing,
        errno.EACCES: AccessDenied,
        errno.EPERM: AccessDenied,
        errno.EROFS: AccessDenied,
        errno.ELOOP: AccessDenied,
        errno.EMLINK: AccessDenied,
        errno.EISDIR: AccessDenied,
        errno.ENXIO: AccessDenied,
    }
)

log = logging.getLogger("poller.destinations")


class FileSettings(BaseModel):
    """`arn` is a URL here: file:///path/of/directory. The directory must exist when a notice is sent."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    arn: Annotated[str, AfterValidator(directory_url)]

    @property
    def directory(self) -> Path:
        """The directory of the files."""
        return directory_of(self.arn)


class FileDestination:
    """Appends notices to files in one directory."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._lock = asyncio.Lock()
        self._checked: set[Path] = set()

    async def send(self, notice: Notice) -> None:
        """Appends the document; raises ServiceUnavailable (a full disk), AccessDenied, ResourceMissing."""
        await self._append(f"{notice.mapping}.jsonl", with_payload(notice))

    async def send_call(self, notice: CallNotice, *, dead_letter: bool) -> None:
        """Appends the whole document of a call; raises as `send`."""
        if dead_letter:
            raise no_dead_letter(f"directory {self._directory}")
        await self._append(f"{notice.function}.async.jsonl", one_line(notice.documents[0]))

    async def _append(self, name: str, line: bytes) -> None:
        path = self._directory / name
        try:
            async with self._lock:
                exposed = await asyncio.to_thread(append, path, line)
        except OSError as error:
            kind = _KINDS.get(error.errno, ServiceUnavailable)
            raise kind(f"file append to {path}: {error.strerror or type(error).__name__}") from error
        if exposed and path not in self._checked:
            log.warning("%s: %s", path, exposed, extra={EVENT: "file_exposed", "file": str(path)})
        self._checked.add(path)

    async def probe(self) -> Sequence[Finding]:
        """Checks whether files can be made in the directory; makes none."""
        return [check_directory(self._directory)]


def one_line(document: bytes) -> bytes:
    """JSON without line breaks. A payload in it may have some between its members; in texts JSON escapes them."""
    return document.replace(b"\r", b" ").replace(b"\n", b" ")


def append(path: Path, line: bytes) -> str:
    """Appends `line` on a line of its own, and flushes the file and its name to the disk.

    Returns who else may read the file, empty if nobody else may; raises OSError.
    """
    descriptor = _locked(path)
    with os.fdopen(descriptor, "r+b", buffering=0) as file:
        size = file.seek(0, os.SEEK_END)
        torn = size > 0 and os.pread(descriptor, 1, size - 1) != b"\n"
        _write_all(descriptor, b"\n" * torn + line + b"\n")
        os.fsync(descriptor)
        exposed = exposure(os.fstat(descriptor))
    if size == 0:
        _flush_directory(path.parent)
    return exposed


def _locked(path: Path) -> int:
    """Opens the file, and locks it until it is closed. A redrive that moves the file away does so while nobody has the lock."""
    while True:
        descriptor = open_private(path, os.O_RDWR | os.O_APPEND)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            if _has_name(descriptor, path):
                return descriptor
        except OSError:
            os.close(descriptor)
            raise
        os.close(descriptor)


def _has_name(descriptor: int, path: Path) -> bool:
    """Whether the open file is still the one of this name."""
    try:
        there = os.stat(path, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return os.path.samestat(os.fstat(descriptor), there)


def _write_all(descriptor: int, text: bytes) -> None:
    left = memoryview(text)
    while left:
        left = left[os.write(descriptor, left) :]


def _flush_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@asynccontextmanager
async def open_file(settings: FileSettings, env: Environment) -> AsyncIterator[FileDestination]:
    """Yields the destination. The directory is not used before there is something to write."""
    del env
    yield FileDestination(settings.directory)


def setting_errors(settings: FileSettings) -> Iterator[FieldError]:
    """Returns what is wrong with the directory. Another machine may have it, so some errors hold for this one only."""
    found = check_directory(settings.directory)
    if found.grade in (Severity.PROBLEM, Severity.WARNING):
        yield FieldError(
            "arn",
            found.text,
            found.remedy,
            here=found.grade is Severity.PROBLEM,
            mild=found.grade is Severity.WARNING,
        )


plugin = Plugin("file", FileSettings, open_file, check=setting_errors)
