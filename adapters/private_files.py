"""Owns how files are made that only the daemon's user may read, and how existing files are found that others may read.

The mode is part of the call that makes a file or directory, so that others cannot open it even for a moment. A file that
already exists keeps its mode, since an operator may have chosen it.
"""

import errno
import os
import stat
from pathlib import Path

FILE_MODE = 0o600
DIRECTORY_MODE = 0o700


def open_private(path: Path, flags: int, *, follow: bool = False) -> int:
    """Opens a regular file and returns its descriptor; makes it with mode 0600 if it does not exist.

    Raises OSError, also for a FIFO or a device, on which opening could wait for ever. Unless `follow` is set, it also raises
    OSError for a symbolic link at the end of the path, and for a file with a second name (a hard link). Links in the
    directories of the path are followed.
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
    """Opens a file that a user names, which may be a link or a device. For the argument `opener` of `open`."""
    return os.open(path, flags, FILE_MODE)


def make_private_directories(path: Path) -> None:
    """Makes a directory and its missing parents, all with mode 0700; raises OSError."""
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
    """Says who else may open a file, with the remedy; empty if nobody else may. Its group may, since groups are made on purpose."""
    if facts.st_mode & stat.S_IRWXO:
        return (
            f"every user of this machine may open it (mode {stat.S_IMODE(facts.st_mode):04o}); make it 0600"
        )
    if facts.st_uid not in {os.geteuid(), 0}:
        return f"it belongs to another user (uid {facts.st_uid}), who may read it; give it to the daemon's"
    return ""
