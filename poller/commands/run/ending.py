"""Owns the end of `poller run` against whatever refuses to end: calls that cannot be cancelled, a loop that is blocked.

Nothing here waits without a limit. What is left behind is named on stderr, and the exit status is not 0.
"""

import asyncio
import faulthandler
import os
import threading
from collections.abc import Callable, Sequence
from typing import Never

from poller.output.queued_output import unwaiting

LAST_RESORT_S = 13.0
"""After the grace: the process ends whatever it still does. Kubernetes' own margin, by our manifests, is 15 s."""
LEFT_S_MAX = 5.0
"""How long what is left when the daemon has ended may take to end, once it is cancelled."""
NAMES_MAX = 10
STDERR = 2


class CancelledFromInside(Exception):
    """The daemon was cancelled, and nobody outside had asked for it."""

    def __init__(self) -> None:
        super().__init__(
            "the daemon was cancelled from inside, as by a function that cancels all tasks of the loop;"
            " nothing is lost, start it again"
        )


class LastResort:
    """Ends the process some time after the first signal, even when its loop is blocked; stacks go to stderr then."""

    def __init__(self) -> None:
        self.grace_s: Callable[[], float] = float
        """How long running invocations have, as soon as there is a daemon."""
        self._armed = False
        self._before = set(threading.enumerate())

    def arm(self, *_: object) -> None:
        """The clock runs from the first call on. May be called from a signal handler."""
        if self._armed:
            return
        self._armed = True
        try:
            faulthandler.dump_traceback_later(
                self.grace_s() + LAST_RESORT_S, exit=True, file=unwaiting(STDERR)
            )
        except (ValueError, OSError, AttributeError):
            # There is no stderr to tell anything on; whoever sent the signal ends the process in the end.
            return

    def disarm(self) -> None:
        """All has ended; but threads that the program would wait for at its end have only their time."""
        lingering = [each for each in threading.enumerate() if not each.daemon and each not in self._before]
        if lingering:
            self.arm()
        elif self._armed:
            faulthandler.cancel_dump_traceback_later()


async def left_behind() -> list[str]:
    """Cancels all other tasks of the loop, and returns the names of those that do not end in time."""
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    if not tasks:
        return []
    ended, late = await asyncio.wait(tasks, timeout=LEFT_S_MAX)
    for task in ended:
        if not task.cancelled():
            # What it raised follows from the cancellation; nobody is left to hear of it.
            task.exception()
    return sorted(task.get_name() for task in late)


def told_left(names: Sequence[str], status: int) -> str:
    """Says which tasks do not end."""
    shown = ", ".join(names[:NAMES_MAX])
    return (
        f"{len(names)} tasks do not end though they were cancelled, and are left behind: {shown};"
        f" exit status {status}"
    )


def leave(status: int, drain: Callable[[], object]) -> Never:
    """Ends the process, since what is left would keep it for ever; `drain` waits for what was said, with a limit."""
    drain()
    os._exit(status)
