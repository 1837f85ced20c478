"""Owns how it is seen that a file is another one than before."""

from hashlib import blake2b
from pathlib import Path

type Signature = tuple[object, ...] | None
"""Which file it is, when it was written and what it holds; None when there is none."""


def signature(path: Path) -> Signature:
    """What tells the file that `path` leads to from another one, so that a swapped link counts as a change.

    The content counts too: two writes within one tick of the file system's clock have the same time.
    """
    try:
        real = path.resolve(strict=True)
        found = real.stat()
        content = blake2b(real.read_bytes()).digest()
    except (OSError, RuntimeError):
        return None
    return str(real), found.st_ino, found.st_mtime_ns, content
