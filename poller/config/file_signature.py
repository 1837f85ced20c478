"""Owns how a change of a file is noticed."""

from hashlib import blake2b
from pathlib import Path

type Signature = tuple[object, ...] | None
"""Identity, time of modification and content of a file; None if it does not exist."""


def signature(path: Path) -> Signature:
    """The signature of the file that `path` leads to. Symbolic links are followed, so a link to another file counts as a change.

    The content is part of it, because two writes within one tick of the file system's clock have the same time.
    """
    try:
        real = path.resolve(strict=True)
        found = real.stat()
        content = blake2b(real.read_bytes()).digest()
    except (OSError, RuntimeError):
        return None
    return str(real), found.st_ino, found.st_mtime_ns, content
