"""Owns how files are made that only the daemon's own user may read, and how others that are open to more users are told.

The mode is part of the call that makes a file or directory, so that it is open to others at no moment. What is there already
keeps its mode: an operator may have chosen it.
"""

import errno
import os
import stat
from pathlib import Path

FILE_MODE = 0o600
DIRECTORY_MODE = 0o700


def open_private(path: Path, flags: int, *, follow: bool = False) -> int:
    """Opens a regular file, which is made with mode 0600 if it is not there; returns its descriptor.

    Raises OSError, also for what is no regular file, a FIFO or a device, instead of waiting for it; and, unless `follow`, for
    a symbolic link at the end of the path and for a file that has another name (a hard link). Links to directories above are
    followed.
    """
    more = os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK | (0 if follow else os.O_NOFOLLOW)
    try:
        descriptor = os.open(path, flags | more, FILE_MODE)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise OSError(errno.ELOOP, "a symbolic link, which is not followed") from error
        raise
    facts = os.fstat(descriptor)
    if not stat.S_ISREG(facts.st_mode):
        os.close(descriptor)
        raise OSError(errno.EPERM, "no regular file")
    if not follow and facts.st_nlink > 1:
        os.close(descriptor)
        raise OSError(
            errno.EMLINK, "a hard link: the file has another name, and is not written; move it away"
        )
    return descriptor


def private_opener(path: str, flags: int) -> int:
    """For the argument `opener` of `open`, where a user names the file: it may be a link or a device."""
    return os.open(path, flags, FILE_MODE)


def make_private_directories(path: Path) -> None:
    """Makes a directory and those above it that are missing, all with mode 0700; raises OSError."""
    missing = []
    for each in (path, *path.parents):
        if each.is_dir():
            break
        missing.append(each)
    for each in reversed(missing):
        try:
            os.mkdir(each, DIRECTORY_MODE)
        except FileExistsError:
            if not each.is_dir():
                raise


def exposure(facts: os.stat_result) -> str:
    """Who else has a hand in a file, with the remedy; empty if nobody has. Its group may: a group is made on purpose."""
    if facts.st_mode & stat.S_IRWXO:
        return (
            f"every user of this machine may open it (mode {stat.S_IMODE(facts.st_mode):04o}); make it 0600"
        )
    if facts.st_uid not in {os.geteuid(), 0}:
        return f"it belongs to another user (uid {facts.st_uid}), who may read it; give it to the daemon's"
    return ""
