"""Owns how many bytes the daemon may hold if no setting says so: half of what the process may have."""

from pathlib import Path

MEGABYTE = 1024 * 1024
MEMORY_MB = 512
"""Where the process has no limit."""
MEMORY_MB_MIN = 64
LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))
"""The memory limit of a container: cgroup v2, then v1."""
LIMIT_MB_MAX = 1024 * 1024
"""A limit beyond this is none: cgroup v1 writes a huge number."""
PART = 2
"""The part of the process' limit. The other half is for everything that is not records: code, connections, copies for a moment."""


def bytes_of(memory_mb: int | None) -> int:
    """The bytes of a setting; None: half of the process' memory limit, or 512 MB without one."""
    return (memory_mb or fitting_mb(LIMITS)) * MEGABYTE


def fitting_mb(files: tuple[Path, ...]) -> int:
    """Half of the first limit that one of these files has, in MB."""
    for each in files:
        try:
            limit_mb = int(each.read_text()) // MEGABYTE
        except (OSError, ValueError):
            continue
        if limit_mb <= LIMIT_MB_MAX:
            return max(MEMORY_MB_MIN, limit_mb // PART)
    return MEMORY_MB
