"""Owns how many files and sockets the process of a daemon may have open at once."""

import resource
import sys

WANTED = 4096
"""So many descriptors the daemon asks for where it has fewer.

Enough for some thousand shards, function processes and clients. Higher limits are left alone, but none is asked for: processes of
functions inherit the limit, and some programs take time in proportion to it when they start another one.
"""
ENOUGH = 1024
"""With fewer descriptors the daemon's own work may lack some."""


def raise_limit() -> int:
    """Raises the limit towards the one that only root can exceed. Returns how many descriptors the process may have.

    macOS starts processes with 256, and Linux with 1,024.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return sys.maxsize
    wanted = WANTED if hard == resource.RLIM_INFINITY else min(WANTED, hard)
    if soft >= wanted:
        return soft
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    except (OSError, ValueError):
        # The system has a lower limit of its own.
        return soft
    return wanted


def few_descriptors(limit: int) -> list[str]:
    """One line if a process with this limit may lack descriptors."""
    if limit >= ENOUGH:
        return []
    return [
        f"this process may have {limit} files and sockets open at once, fewer than the {ENOUGH} that are enough for most "
        "configurations: calls, reads and the port may fail for want of them; raise the limit (ulimit -n, LimitNOFILE=)"
    ]
