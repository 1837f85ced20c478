"""Owns how many bytes the daemon may hold if no setting says so: half of what the process may have."""

from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from poller.domain.untrusted import numbers

MEGABYTE = 1024 * 1024
MEMORY_MB = 512
"""Where the process has no limit."""
MEMORY_MB_MIN = 64
GROUPS = Path("/sys/fs/cgroup")
OWN = Path("/proc/self/cgroup")
"""The control groups of this process, one in a line: `0::/path` (v2), and `4:memory:/path` (v1)."""
OWN_CHARS_MAX = 64 * 1024
LIMIT_MB_MAX = 1024 * 1024
"""A limit beyond this is none: cgroup v1 writes a huge number."""
PART = 2
"""The part of the process' limit. The other half is for everything that is not records: code, connections, copies for a moment."""


def bytes_of(memory_mb: int | None) -> int:
    """The bytes of a setting; None: half of the process' memory limit, or 512 MB without one."""
    return (memory_mb or fitting_mb()) * MEGABYTE


def fitting_mb(groups: Path = GROUPS, own: Path = OWN) -> int:
    """Half of the smallest limit of the process' control groups and those around them, in MB."""
    limits = [limit for each in _files(groups, own) if (limit := _limit_mb(each)) is not None]
    return max(MEMORY_MB_MIN, min(limits) // PART) if limits else MEMORY_MB


def _files(groups: Path, own: Path) -> Iterator[Path]:
    """The files that may have a limit. In a container the group of the process is often the root that it sees."""
    yield groups / "memory.max"
    yield groups / "memory" / "memory.limit_in_bytes"
    for line in (_read(own) or "").splitlines():
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if controllers and "memory" not in controllers.split(","):
            continue
        group = PurePosixPath(path.lstrip("/"))
        for each in () if ".." in group.parts else (group, *group.parents):
            yield (
                groups / "memory" / each / "memory.limit_in_bytes"
                if controllers
                else groups / each / "memory.max"
            )


def _limit_mb(file: Path) -> int | None:
    size: int | None = numbers.whole(_read(file), most=LIMIT_MB_MAX * MEGABYTE, default=None)
    return None if size is None else size // MEGABYTE


def _read(file: Path) -> str | None:
    try:
        with file.open(encoding="utf-8", errors="replace") as text:
            return text.read(OWN_CHARS_MAX)
    except (OSError, ValueError):
        return None
