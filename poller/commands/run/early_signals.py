"""Owns signals before a daemon can drain and after it has drained. At these times nothing runs that could be lost.

This module is imported before all others and imports nothing heavy. So a signal while the process still loads its modules has
the same effect as a moment later.
"""

import os
import signal
from collections.abc import Callable
from types import FrameType

SIGNALS = (signal.SIGTERM, signal.SIGINT)
INTERRUPTED = 1
"""Exit status when running invocations were cancelled, by a second signal or because the grace time was over."""


def install() -> None:
    """From now on SIGTERM and SIGINT end the process at once with exit status 0, because it has not begun anything."""
    for each in SIGNALS:
        if signal.getsignal(each) in (signal.SIG_DFL, signal.default_int_handler):
            signal.signal(each, leave)


def leave(number: int, frame: FrameType | None) -> None:
    """Ends the process. It does not raise, because an exception from a signal handler can appear anywhere and be lost."""
    os._exit(0)


def hurry(number: int, frame: FrameType | None) -> None:
    """Ends the process with the status of a second signal. The daemon has drained, so everything is saved."""
    os._exit(INTERRUPTED)


def disregard(number: int, frame: FrameType | None) -> None:
    """Does nothing. A drained process of a supervisor ends with its own status, however many signals it gets."""


def after[Handler](before: Handler) -> Handler | Callable[[int, FrameType | None], None]:
    """The handler for the time after the drain, for a signal that had the handler `before`."""
    return hurry if before is leave else before


def ignore() -> bool:
    """Ignores signals: the process is about to end with its own status. Otherwise Python would restore the default handlers at its exit.

    Returns whether this process is the program itself, which installed the handlers, and not another one that uses its code.
    """
    ours = [each for each in SIGNALS if signal.getsignal(each) in (leave, hurry, disregard)]
    for each in ours:
        signal.signal(each, signal.SIG_IGN)
    return bool(ours)
