"""Owns how a worker finds out that another process uses its name. Both would use the same leases, and neither would notice.

Two processes with one name overwrite each other's report in the same row. So a worker reads its row before it writes it: it should
find its own report there. Before the first heartbeat of a worker, a report of another process that runs on the same machine is
proof enough. Then the new worker ends, and the other one goes on.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from poller.domain.records import WorkerId
from poller.domain.rows import WorkerRow
from poller.rules.workers import worker_report

NAME_CHECK_BEATS = 10
"""Heartbeats between two checks."""
DOUBLES_MAX = 2
"""Checks in a row that must find another process. One is not enough: a predecessor may have written its last heartbeat late."""


@dataclass(frozen=True, slots=True)
class NameCheck:
    """How many checks in a row have found another process."""

    doubles: int = 0

    def after(self, rows: Iterable[WorkerRow], worker: WorkerId, *, mine: Mapping[str, Any]) -> "NameCheck":
        """The check after another listing. A row that does not identify its process proves nothing."""
        processes = [worker_report.decode(row.facts).process for row in rows if row.worker == worker]
        theirs = any(each not in ({}, mine) for each in processes)
        return NameCheck(self.doubles + 1 if theirs else 0)

    @property
    def taken(self) -> bool:
        """Whether another process surely uses the name."""
        return self.doubles >= DOUBLES_MAX


def due(counter: int, *, mine: Mapping[str, Any], in_term: bool) -> bool:
    """Whether to read the row before the heartbeat after `counter`.

    It is read before the first heartbeat, after a late heartbeat (`in_term` is false in both cases), and once in
    NAME_CHECK_BEATS heartbeats. It is never read if nothing identifies this process (`mine` is empty).
    """
    return bool(mine) and (not in_term or counter % NAME_CHECK_BEATS == 0)


def used_by_neighbour(
    rows: Iterable[WorkerRow],
    worker: WorkerId,
    *,
    mine: Mapping[str, Any],
    runs: Callable[[Mapping[str, Any]], bool],
) -> bool:
    """Whether another process wrote the worker's row and surely runs on this machine, as `runs` tells."""
    processes = [worker_report.decode(row.facts).process for row in rows if row.worker == worker]
    return any(each != mine and runs(each) for each in processes)
