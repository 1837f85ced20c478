"""Owns how a worker finds out that another process uses its name. Both would take each lease, and neither would notice.

Two processes of one name write to the same row, each over the other's report. So a worker reads its row before it writes it:
the last one to write there should have been itself. Before its first heartbeat, a row of a process that runs on the same machine
is proof enough: the worker that comes last ends, and the one that was there goes on.
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
"""Checks in a row that find another process. One is not enough: a predecessor may have written its last heartbeat late."""


@dataclass(frozen=True, slots=True)
class NameCheck:
    """How many checks in a row have found another process."""

    doubles: int = 0

    def after(self, rows: Iterable[WorkerRow], worker: WorkerId, *, mine: Mapping[str, Any]) -> "NameCheck":
        """The check after another listing. A row that says nothing of its process proves nothing."""
        processes = [worker_report.read(row.facts).process for row in rows if row.worker == worker]
        theirs = any(each not in ({}, mine) for each in processes)
        return NameCheck(self.doubles + 1 if theirs else 0)

    @property
    def taken(self) -> bool:
        """Whether another process surely uses the name."""
        return self.doubles >= DOUBLES_MAX


def due(counter: int, *, mine: Mapping[str, Any], beating: bool) -> bool:
    """Whether to read the row before the heartbeat after `counter`.

    It is read before the first heartbeat, after a late one (`beating` is false then), and now and then; never for a process that
    nothing identifies (`mine` is empty).
    """
    return bool(mine) and (not beating or counter % NAME_CHECK_BEATS == 0)


def held_by_neighbour(
    rows: Iterable[WorkerRow],
    worker: WorkerId,
    *,
    mine: Mapping[str, Any],
    runs: Callable[[Mapping[str, Any]], bool],
) -> bool:
    """Whether another process wrote the worker's row and, by `runs`, surely runs on this machine."""
    processes = [worker_report.read(row.facts).process for row in rows if row.worker == worker]
    return any(each != mine and runs(each) for each in processes)
