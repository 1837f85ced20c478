"""Owns how the lines of functions get into the log, in the log's own format and at a limited rate.

A function that writes without end must neither fill the disk nor hold up the others. Lines beyond the limit are dropped and
counted, and once a second a line of the log gives the count.
"""

import asyncio
import logging
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from poller.domain.records import Epoch
from poller.output.function_log import FunctionLine
from poller.ports import Clock

LINES_PER_SECOND_MAX = 1000
"""The limit of one function."""
SECOND_S = 1.0
FUNCTION_LINE = "function_log"
DROPPED = "function_log_dropped"

type Fields = dict[str, Any]
type Later = Callable[[float, Callable[[], None]], None]
"""Calls a callback on the loop after a number of seconds; may be called from any thread."""


@dataclass(slots=True)
class _Second:
    began: Epoch
    lines: int = 0
    dropped: int = 0

    def is_over(self, now: float) -> bool:
        """Whether this second has passed. A clock that was set back starts another second too."""
        return not self.began <= now < self.began + SECOND_S


class FunctionLines:
    """Writes lines of functions to the log. `line` may be called from any thread."""

    def __init__(self, write: Callable[[int, str, Fields], None], clock: Clock, *, later: Later) -> None:
        self._write = write
        self._clock = clock
        self._later = later
        self._lock = threading.Lock()
        self._seconds: dict[str, _Second] = {}

    def line(self, line: FunctionLine) -> None:
        """Writes one line, or counts it as dropped if this second has had its share."""
        admitted, dropped, first = self._admit(line.function)
        if dropped:
            self._report_dropped(line.function, dropped)
        if first:
            self._later(SECOND_S, self.report)
        if admitted:
            more: Fields = {"function": line.function, "request_id": line.request_id, "logger": line.logger}
            given = {name: value for name, value in more.items() if value}
            self._write(_level(line.level), FUNCTION_LINE, dict(line.fields) | given | {"message": line.text})

    def dropped(self, function: str, lines: int) -> None:
        """Counts lines that were dropped before they reached the log."""
        now = self._clock.now()
        with self._lock:
            second = self._seconds.setdefault(function, _Second(now))
            first = second.dropped == 0
            second.dropped += lines
        if first:
            self._later(SECOND_S, self.report)

    def report(self) -> None:
        """Logs what was dropped in seconds that are over, and forgets functions that are quiet."""
        self._report(self._clock.now())

    def close(self) -> None:
        """Logs all that was dropped."""
        self._report(float("inf"))

    def _admit(self, function: str) -> tuple[bool, int, bool]:
        """Returns whether a line may be written, how many were dropped in the second before, and whether it is the first to be dropped."""
        # Threads may read the epoch clock, but not the monotonic one.
        now = self._clock.now()
        dropped = 0
        with self._lock:
            second = self._seconds.get(function)
            if second is None or second.is_over(now):
                dropped = second.dropped if second is not None else 0
                second = self._seconds[function] = _Second(now)
            if second.lines < LINES_PER_SECOND_MAX:
                second.lines += 1
                return True, dropped, False
            second.dropped += 1
            return False, dropped, second.dropped == 1

    def _report(self, now: float) -> None:
        with self._lock:
            finished = {name: second for name, second in self._seconds.items() if second.is_over(now)}
            for name in finished:
                del self._seconds[name]
        for name, second in finished.items():
            if second.dropped:
                self._report_dropped(name, second.dropped)

    def _report_dropped(self, function: str, lines: int) -> None:
        more = {"function": function, "lines": lines, "lines_per_second_max": LINES_PER_SECOND_MAX}
        self._write(logging.WARNING, DROPPED, more)


def _level(level: int) -> int:
    """Returns the highest standard level that is not above `level`."""
    steps = (logging.CRITICAL, logging.ERROR, logging.WARNING, logging.INFO)
    return next((step for step in steps if level >= step), logging.DEBUG)


def later_on(loop: asyncio.AbstractEventLoop) -> Later:
    """Returns what schedules calls on `loop`. It does nothing once the loop is closed."""

    def later(after_s: float, call: Callable[[], None]) -> None:
        if not loop.is_closed():
            loop.call_soon_threadsafe(loop.call_later, after_s, call)

    return later


@asynccontextmanager
async def function_lines(
    write: Callable[[int, str, Fields], None], clock: Clock
) -> AsyncIterator[FunctionLines]:
    """Yields a receiver of lines. At the end it logs what was dropped."""
    lines = FunctionLines(write, clock, later=later_on(asyncio.get_running_loop()))
    try:
        yield lines
    finally:
        lines.close()
