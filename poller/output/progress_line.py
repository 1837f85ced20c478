"""Owns how a command says how far it is: on a terminal one line that is written over, elsewhere a line every ten seconds.

It goes to standard error, so that it is never among the output. A command that is over within a second shows nothing.
"""

import asyncio
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType, TracebackType
from typing import Self, TextIO

from poller.output.terminal import cells, cells_prefix, columns_of, encoding_of, moves_cursor, printable

SHOWN_AFTER_S = 1.0
"""A line that is written over is shown from this age on."""
AGAIN_S = 0.2
"""Such a line is written over no more often."""
PLAIN_EVERY_S = 10.0
"""Where no line can be written over, a line is written this often."""
TICK_S = 0.5
SECONDS_FROM_S = 2.0
"""From this age on the line says how long it has taken."""
_REMOVE = "\r\x1b[K"


class ProgressLine:
    """One line of progress. `quiet`: nothing is shown, as where the output is for programs."""

    def __init__(
        self,
        stream: TextIO | None = None,
        *,
        quiet: bool = False,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._stream = sys.stderr if stream is None else stream
        self._quiet = quiet or self._stream is None
        self._over = not self._quiet and moves_cursor(self._stream)
        self._now = now
        self._began = now()
        self._written = self._began + (SHOWN_AFTER_S - AGAIN_S if self._over else 0.0)
        self._text = ""
        self._on_screen = False

    def say(self, text: str) -> None:
        """What is done now, without the time that it has taken."""
        self._text = text
        self.tick()

    def tick(self) -> None:
        """Writes the line if it is time to."""
        now = self._now()
        if self._quiet or not self._text or now - self._written < (AGAIN_S if self._over else PLAIN_EVERY_S):
            return
        self._written = now
        took = now - self._began
        seconds = f", {took:.0f} s" if took >= SECONDS_FROM_S else ""
        text = printable(f"poller: {self._text}", encoding_of(self._stream))
        self._on_screen = self._over
        self._write(f"{_REMOVE}{self._fitted(text, seconds)}" if self._over else f"{text}{seconds}\n")

    def clear(self) -> None:
        """Removes the line, so that something else can be written. It comes back with the next tick."""
        if self._on_screen:
            self._on_screen = False
            self._write(_REMOVE)

    def end(self) -> None:
        """Removes the line; nothing is shown any more until something else is said."""
        self.clear()
        self._text = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.clear()
        self._quiet = True

    def _fitted(self, text: str, seconds: str) -> str:
        """The line in one line of the screen, without its last cell, since some terminals begin a line behind that."""
        room = max(1, (columns_of(self._stream) or 1) - 1 - len(seconds))
        if cells(text) > room:
            mark = printable("…", encoding_of(self._stream))
            text = text[: cells_prefix(text, max(0, room - len(mark)))] + mark
        return text + seconds

    def _write(self, text: str) -> None:
        # That nobody sees the progress is no reason to end.
        with suppress(OSError, ValueError):
            self._stream.write(text)
            self._stream.flush()


@contextmanager
def ticking(progress: ProgressLine) -> Iterator[None]:
    """Lets the running event loop write the line again and again, while the block awaits."""
    loop = asyncio.get_running_loop()
    handles: list[asyncio.TimerHandle] = []

    def tick() -> None:
        progress.tick()
        handles[:] = [loop.call_later(TICK_S, tick)]

    handles.append(loop.call_later(TICK_S, tick))
    try:
        yield
    finally:
        handles[0].cancel()


@contextmanager
def ticking_by_timer(progress: ProgressLine) -> Iterator[None]:
    """Lets a timer of the system write the line again and again, while the block computes. The block prints nothing. Only the main thread gets signals."""

    def tick(_signal: int, _frame: FrameType | None) -> None:
        progress.tick()

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGALRM, tick)
    timer_before = signal.setitimer(signal.ITIMER_REAL, TICK_S, TICK_S)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        signal.setitimer(signal.ITIMER_REAL, *timer_before)
