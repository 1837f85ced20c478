"""Owns the watch over the event loop: it reports code that blocks the loop, with its place.

All of the daemon runs on one loop: heartbeats, probes, the calls of all functions. Code that computes or sleeps there without
`await` stops all of it. A timer on the loop notices when it is called late. To find the place, a timer of the operating system
sends SIGALRM if the loop has not finished its pass in time. Python then calls the handler in the loop's own thread, between two
steps of the code that runs there. Reports have the names of files and functions, never values.

`faulthandler` could report places too, from a thread of its own. But it reads stacks while they change, which may crash the
process.
"""

import asyncio
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import FrameType

from poller.domain.status import DaemonStatus, StatusView
from poller.domain.telemetry.daemon_events import LoopBlocked
from poller.domain.telemetry.observers import Observer
from poller.rules.responses import cut

TICK_S = 0.25
BLOCKED_S = 1.0
"""The loop counts as blocked if its timer is called this much too late."""
PLACES_MAX = 6
"""Calls of the stack that are reported, the innermost first."""
FRAMES_MAX = 1000
"""Frames of a stack that are read."""
SHOWN_S = 300.0
"""How long a block is shown in the status."""
SHOWN_MAX = 5
NO_CODE = "no code on the loop: the process was stopped, had no processor, or a thread held the interpreter"
_WAITING = frozenset({"run_until_complete", "run_forever", "_run_once", "select", "run"})
"""The functions in which the thread of the loop is while it runs no other code."""


class LoopWatch:
    """Emits an event each time that the running loop was blocked. `notes` gives the last of them for the status."""

    def __init__(self, observer: Observer) -> None:
        self._observer = observer
        self._place = ""
        self._last: deque[tuple[float, LoopBlocked]] = deque(maxlen=SHOWN_MAX)

    async def run(self) -> None:
        """Watches until cancelled. Places are found in the main thread only, because other threads get no signals."""
        with self._looking() as arm:
            while True:
                began = time.monotonic()
                self._place = ""
                arm(TICK_S + BLOCKED_S)
                await asyncio.sleep(TICK_S)
                late_s = time.monotonic() - began - TICK_S
                if late_s >= BLOCKED_S:
                    self._tell(LoopBlocked(blocked_s=late_s, place=self._place))

    def notes(self) -> list[str]:
        """The blocks of the last minutes, one line each."""
        now = time.monotonic()
        return [
            f"the event loop was blocked for {event.blocked_s:.1f} s ({now - at:.0f} s ago): {event.place or 'by unknown code'}"
            for at, event in self._last
            if now - at < SHOWN_S
        ]

    @contextmanager
    def _looking(self) -> Iterator[Callable[[float], object]]:
        """Yields a function that restarts the timer. When the timer fires, `_look` finds the place."""
        if threading.current_thread() is not threading.main_thread():
            yield lambda _: None
            return
        before, timer = signal.signal(signal.SIGALRM, self._look), signal.getitimer(signal.ITIMER_REAL)
        try:
            yield lambda after_s: signal.setitimer(signal.ITIMER_REAL, after_s)
        finally:
            signal.setitimer(signal.ITIMER_REAL, *timer)
            signal.signal(signal.SIGALRM, before)

    def _look(self, _: int, frame: FrameType | None) -> None:
        """The signal handler. It may interrupt any code of the loop's thread, so it takes no lock and raises nothing."""
        if not self._place:
            self._place = place_of(frame)

    def _tell(self, event: LoopBlocked) -> None:
        self._last.append((time.monotonic(), event))
        self._observer.on(event)


def place_of(frame: FrameType | None) -> str:
    """The calls in which a thread is, the innermost first; empty if that is not known."""
    if frame is None:
        return ""
    if frame.f_code.co_name in _WAITING:
        return NO_CODE
    return cut(" < ".join(list(_places(frame))[:PLACES_MAX]))


def _places(frame: FrameType | None) -> Iterator[str]:
    for _ in range(FRAMES_MAX):
        if frame is None:
            return
        code = frame.f_code
        if code.co_name not in _WAITING:
            yield f"{code.co_name} ({'/'.join(Path(code.co_filename).parts[-2:])}:{frame.f_lineno})"
        frame = frame.f_back


class WatchedStatus:
    """A StatusView that adds notes to those of `view`."""

    def __init__(self, view: StatusView, notes: Callable[[], list[str]]) -> None:
        self._view = view
        self._notes = notes

    def status(self) -> DaemonStatus:
        """The status at this moment; returns at once."""
        status = self._view.status()
        notes = self._notes()
        return replace(status, notes=(*status.notes, *notes)) if notes else status
