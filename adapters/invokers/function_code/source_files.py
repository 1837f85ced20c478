"""Owns what source files hold, as digests, read again only when a file may have changed."""

import hashlib
import os
import time
from collections.abc import Collection, Mapping
from pathlib import Path
from stat import S_ISREG

RACY_S = 2.0
"""A file that was written so shortly before it was read may change again without another time or size. It is read again."""

type _Stat = tuple[int, int, int, int]


def digest(source: bytes) -> bytes:
    """Returns the digest of a file's content."""
    return hashlib.blake2b(source, digest_size=16).digest()


def digests(sources: Mapping[str, bytes]) -> dict[str, bytes | None]:
    """Returns the digests of contents, by path."""
    return {path: digest(source) for path, source in sources.items()}


class SourceFiles:
    """Looks at files. Used by one thread at a time."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[_Stat, bytes]] = {}

    def look(self, paths: Collection[str], *, with_folders: bool) -> dict[str, bytes | None]:
        """Returns the digests of files, None for those that are not there or no files, and of their folders' lists of names."""
        found = {path: self._digest(path) for path in sorted(paths)}
        self._known = {path: self._known[path] for path in found if path in self._known}
        if with_folders:
            found |= {
                folder: _listing(folder) for folder in sorted({os.path.dirname(path) for path in paths})
            }
        return found

    def _digest(self, path: str) -> bytes | None:
        try:
            # Links are followed, so that one that leads elsewhere shows as another file.
            status = os.stat(path)
            if not S_ISREG(status.st_mode):
                # Nobody imports it, and reading it might take for ever.
                return None
            stat = (status.st_mtime_ns, status.st_ctime_ns, status.st_size, status.st_ino)
            before = self._known.get(path)
            if before is not None and before[0] == stat:
                return before[1]
            found = digest(Path(path).read_bytes())
        except OSError:
            return None
        if time.time() - max(status.st_mtime, status.st_ctime) > RACY_S:
            self._known[path] = stat, found
        else:
            self._known.pop(path, None)
        return found


def _listing(folder: str) -> bytes | None:
    """Returns the digest of the names of modules and folders in a folder."""
    try:
        with os.scandir(folder) as entries:
            names = sorted(each.name for each in entries if each.name.endswith(".py") or each.is_dir())
    except OSError:
        return None
    return digest("\0".join(each for each in names if each != "__pycache__").encode(errors="surrogateescape"))
