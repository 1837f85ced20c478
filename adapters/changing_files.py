"""Owns how files are read that somebody may replace while the daemon runs, such as certificates and secrets.

Reading does not wait, whatever stands at the path. A change is seen by the file's stamp, and by its content where a stamp may
not have changed yet.
"""

import errno
import hashlib
import os
import stat
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

FRESH_NS = 2_000_000_000
"""A file that changed less than this before it was read may change again without a new time stamp, so it is read again."""


@dataclass(frozen=True, slots=True)
class Stamp:
    """What distinguishes the versions of a file. Links are followed, so a link to another file is another version."""

    device: int
    inode: int
    changed_ns: int
    size: int

    @classmethod
    def of(cls, facts: os.stat_result) -> "Stamp":
        """The stamp of a file."""
        return cls(facts.st_dev, facts.st_ino, facts.st_mtime_ns, facts.st_size)

    def is_fresh(self) -> bool:
        """Whether the file may change again without another stamp."""
        return time.time_ns() - self.changed_ns < FRESH_NS


def content_of(path: Path, *, bytes_max: int) -> tuple[bytes, os.stat_result]:
    """The content of a file, one byte more than `bytes_max` at most, and what it is.

    Raises OSError, also for a FIFO or a device: reading could wait for ever, with the daemon.
    """
    with open(path, "rb", opener=_without_waiting) as file:
        facts = os.fstat(file.fileno())
        if not stat.S_ISREG(facts.st_mode):
            raise OSError(errno.EINVAL, "is no regular file")
        return file.read(bytes_max + 1), facts


def remedy_of(error: OSError) -> str:
    """What to do about a file that `content_of` cannot read."""
    return "write the path of a file" if error.errno == errno.EINVAL else "let this user read a file there"


class ChangingFiles:
    """Files that are used together, such as a certificate and its key."""

    def __init__(self, paths: Sequence[Path], *, bytes_max: int) -> None:
        self._paths = paths
        self._bytes_max = bytes_max
        self._stamps: list[Stamp | None] = []
        self._fresh = False
        self._digest = b""

    def changed(self) -> bool:
        """Whether the files have other contents than when this was asked last, or never was asked. A missing file is a content."""
        if not self._paths:
            return False
        stamps = [_stamp(path) for path in self._paths]
        if stamps == self._stamps and not self._fresh:
            return False
        self._stamps = stamps
        self._fresh = any(each is not None and each.is_fresh() for each in stamps)
        before, self._digest = self._digest, self._digested()
        return before != self._digest

    def _digested(self) -> bytes:
        found = hashlib.sha256()
        for path in self._paths:
            try:
                found.update(hashlib.sha256(content_of(path, bytes_max=self._bytes_max)[0]).digest())
            except (OSError, ValueError):
                found.update(b"missing")
        return found.digest()


def _stamp(path: Path) -> Stamp | None:
    try:
        return Stamp.of(path.stat())
    except (OSError, ValueError):
        return None


def _without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)
