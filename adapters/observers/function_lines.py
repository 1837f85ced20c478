"""Owns how functions' lines get into the log: as lines of the log's own format, so many in a second and no more.

A function that writes without end must neither fill the disk nor hold up the others. What is beyond the limit is
dropped, counted, and told once a second.
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
"""Of one function."""
SECOND_S = 1.0
SAID = "function_log"
DROPPED = "function_log_dropped"

type Fields = dict[str, Any]
type Later = Callable[[float, Callable[[], None]], None]
"""Calls something on the loop after so many seconds; may be called from any thread."""


@dataclass(slots=True)
class _Second:
    began: Epoch
    lines: int = 0
    dropped: int = 0

    def over(self, now: float) -> bool:
        """Whether it is another second; so too when somebody has set the clock back."""
        return not self.began <= now < self.began + SECOND_S


class FunctionLines:
    """Writes lines of functions; `line` may be called from any thread."""

    def __init__(self, write: Callable[[int, str, Fields], None], clock: Clock, *, later: Later) -> None:
        self._write = write
        self._clock = clock
        self._later = later
        self._lock = threading.Lock()
        self._seconds: dict[str, _Second] = {}

    def line(self, line: FunctionLine) -> None:
        """Writes one line, or counts it where the second has no room for more."""
        taken, dropped, first = self._taken(line.function)
        if dropped:
            self._tell_dropped(line.function, dropped)
        if first:
            self._later(SECOND_S, self.tell)
        if taken:
            more: Fields = {"function": line.function, "request_id": line.request_id, "logger": line.logger}
            given = {name: value for name, value in more.items() if value}
            self._write(_level(line.level), SAID, dict(line.fields) | given | {"message": line.text})

    def dropped(self, function: str, lines: int) -> None:
        """Counts lines that were dropped before they came here."""
        now = self._clock.now()
        with self._lock:
            second = self._seconds.setdefault(function, _Second(now))
            first = second.dropped == 0
            second.dropped += lines
        if first:
            self._later(SECOND_S, self.tell)

    def tell(self) -> None:
        """Tells what was dropped in seconds that are over, and forgets functions that are quiet."""
        self._tell(self._clock.now())

    def close(self) -> None:
        """Tells all that was dropped."""
        self._tell(float("inf"))

    def _taken(self, function: str) -> tuple[bool, int, bool]:
        """Whether a line may be written, how many were dropped before it, whether it is the first to be dropped."""
        # Of the two clocks this is the one that threads may read.
        now = self._clock.now()
        dropped = 0
        with self._lock:
            second = self._seconds.get(function)
            if second is None or second.over(now):
                dropped = second.dropped if second is not None else 0
                second = self._seconds[function] = _Second(now)
            taken = second.lines < LINES_PER_SECOND_MAX
            second.lines += taken
            second.dropped += not taken
            return taken, dropped, second.dropped == 1 and not taken

    def _tell(self, now: float) -> None:
        with self._lock:
            over = {name: second for name, second in self._seconds.items() if second.over(now)}
            for name in over:
                del self._seconds[name]
        for name, second in over.items():
            if second.dropped:
                self._tell_dropped(name, second.dropped)

    def _tell_dropped(self, function: str, lines: int) -> None:
        more = {"function": function, "lines": lines, "lines_per_second_max": LINES_PER_SECOND_MAX}
        self._write(logging.WARNING, DROPPED, more)


def _level(level: int) -> int:
    """The standard level that a level of one's own comes nearest to from above."""
    steps = (logging.CRITICAL, logging.ERROR, logging.WARNING, logging.INFO)
    return next((step for step in steps if level >= step), logging.DEBUG)


def later_on(loop: asyncio.AbstractEventLoop) -> Later:
    """Calls on `loop`; a loop that is closed calls nothing any more."""

    def later(after_s: float, call: Callable[[], None]) -> None:
        if not loop.is_closed():
            loop.call_soon_threadsafe(loop.call_later, after_s, call)

    return later


@asynccontextmanager
async def function_lines(
    write: Callable[[int, str, Fields], None], clock: Clock
) -> AsyncIterator[FunctionLines]:
    """Yields what takes lines; at the end it tells what was dropped."""
    lines = FunctionLines(write, clock, later=later_on(asyncio.get_running_loop()))
    try:
        yield lines
    finally:
        lines.close()
