"""Owns how many processors this process may use: those that it is bound to, and the quotas of its control groups."""

import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from poller.rules.supervision.counting import quota_of, usable_processors

GROUPS = Path("/sys/fs/cgroup")
OWN = Path("/proc/self/cgroup")
"""The control groups of this process, one in a line: `0::/path` (v2), and `4:cpu,cpuacct:/path` (v1)."""
CHARS_MAX = 64 * 1024


def processors(groups: Path = GROUPS, own: Path = OWN) -> int:
    """The number of processors, at least 1. A quota of 2.5 processors counts as 2."""
    return usable_processors(os.process_cpu_count() or 1, _quotas(groups, own))


def _quotas(groups: Path, own: Path) -> Iterator[tuple[int, int]]:
    """The quotas of the control groups of this process, and of those around them. In a container the own group is often the root."""
    for texts in _texts(groups, own):
        if len(texts) == len(("quota", "period")) and (found := quota_of(*texts)) is not None:
            yield found


def _texts(groups: Path, own: Path) -> Iterator[list[str]]:
    for line in (f"0::/\n0:cpu:/\n{_read(own)}").splitlines():
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if controllers and "cpu" not in controllers.split(","):
            continue
        group = PurePosixPath(path.lstrip("/"))
        for each in () if ".." in group.parts else (group, *group.parents):
            if controllers:
                folder = groups / "cpu" / each
                yield [
                    *_read(folder / "cpu.cfs_quota_us").split(),
                    *_read(folder / "cpu.cfs_period_us").split(),
                ]
            else:
                yield _read(groups / each / "cpu.max").split()


def _read(file: Path) -> str:
    try:
        with file.open(encoding="utf-8", errors="replace") as text:
            return text.read(CHARS_MAX)
    except (OSError, ValueError):
        return ""
