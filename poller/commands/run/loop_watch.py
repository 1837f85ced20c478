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
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import FrameType

from poller.domain.records import MappingId
from poller.domain.sizing.fleet_size import FleetScaling, ShowsFleetSize
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
HELD_S = 0.5
"""If the timer is handled this much too late and the loop's thread did not run meanwhile, the loop's own code is not the cause."""
THREADS_MAX = 3
NO_CODE = "no code on the loop: the process was stopped, had no processor, or a thread held the interpreter"
_IDLE = frozenset({"wait", "get", "_do_jobs", "_worker", "select", "poll", "accept", "_recv"})
"""The functions in which threads wait for work."""
_WAITING = frozenset({"run_until_complete", "run_forever", "_run_once", "select", "run"})
"""The functions in which the thread of the loop is while it runs no other code."""


class LoopWatch:
    """Emits an event each time that the running loop was blocked. `notes` gives the last of them for the status."""

    def __init__(self, observer: Observer) -> None:
        self._observer = observer
        self._place = ""
        self._due = self._ran_s = 0.0
        """When the timer fires, and how long the loop's thread had run when it was set."""
        self._last: deque[tuple[float, LoopBlocked]] = deque(maxlen=SHOWN_MAX)

    async def run(self) -> None:
        """Watches until cancelled. Places are found in the main thread only, because other threads get no signals."""
        with self._looking() as arm:
            while True:
                began = time.monotonic()
                self._place = ""
                self._due, self._ran_s = began + TICK_S + BLOCKED_S, time.thread_time()
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
        if self._place:
            return
        late_s = time.monotonic() - self._due
        # Code of the loop that holds the interpreter makes this late too, but then its thread has run.
        held = late_s > HELD_S and time.thread_time() - self._ran_s < late_s / 2
        self._place = places_of_threads() if held else place_of(frame)

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


def places_of_threads() -> str:
    """That the loop's thread was not the cause, and where other threads are that are at work."""
    here = threading.get_ident()
    # Only this is safe in a signal handler: the names of threads are behind a lock, which the interrupted code may hold.
    frames = [frame for ident, frame in sys._current_frames().items() if ident != here]
    busy = [place_of(frame) for frame in frames if frame.f_code.co_name not in _IDLE]
    return cut("; ".join([NO_CODE, *(f"a thread is at {each}" for each in busy[:THREADS_MAX])]))


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
        return self._noted(self._view.status())

    async def fleet(
        self, *, only: str = "", mapping: MappingId | None = None, ask: bool = True
    ) -> DaemonStatus:
        """The status of all workers. Raises UnknownWorker."""
        return self._noted(await self._view.fleet(only=only, mapping=mapping, ask=ask))

    async def refresh(self) -> None:
        """Makes mappings show what all workers have written."""
        await self._view.refresh()

    async def fleet_size(self) -> FleetScaling | None:
        """How many workers there should be; None while that is not known."""
        return await self._view.fleet_size() if isinstance(self._view, ShowsFleetSize) else None

    def _noted(self, status: DaemonStatus) -> DaemonStatus:
        notes = self._notes()
        return replace(status, notes=(*status.notes, *notes)) if notes else status
