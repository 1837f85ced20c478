"""Owns signals before a daemon can drain and after it has drained: then nothing runs that would be lost.

It is imported before everything else and imports nothing heavy, since a process that is asked to stop while it
still loads its modules has to end as it would a moment later.
"""

import os
import signal
from collections.abc import Callable
from types import FrameType

SIGNALS = (signal.SIGTERM, signal.SIGINT)
INTERRUPTED = 1
"""Exit status when running invocations were cancelled, by a second signal or because the grace time was over."""


def install() -> None:
    """From now on SIGTERM and SIGINT end the process at once, exit status 0: it has not begun anything."""
    for each in SIGNALS:
        if signal.getsignal(each) in (signal.SIG_DFL, signal.default_int_handler):
            signal.signal(each, leave)


def leave(number: int, frame: FrameType | None) -> None:
    """Ends the process. An exception could come up anywhere, and be lost there."""
    os._exit(0)


def hurry(number: int, frame: FrameType | None) -> None:
    """Ends the process as a second signal does, which is the one that is late: what was to be saved is."""
    os._exit(INTERRUPTED)


def after[Handler](before: Handler) -> Handler | Callable[[int, FrameType | None], None]:
    """The handler for the time behind the drain, by the one from before it."""
    return hurry if before is leave else before


def ignore() -> None:
    """The process ends with its own status in a moment; Python's last steps would bring the default handlers back."""
    for each in SIGNALS:
        if signal.getsignal(each) in (leave, hurry):
            signal.signal(each, signal.SIG_IGN)
