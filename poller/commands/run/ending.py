"""Owns how `poller run` ends although something refuses to end: a call that cannot be cancelled, or a blocked loop.

Nothing here waits without a limit. Tasks that do not end are named on stderr, and the exit status is not 0.
"""

import asyncio
import faulthandler
import os
import threading
from collections.abc import Callable, Sequence
from typing import Never

from poller.output.queued_output import unwaiting

LAST_RESORT_S = 13.0
"""This long after the grace time the process ends in any case. In our Kubernetes manifests the margin is 15 s."""
LEFT_S_MAX = 5.0
"""How long tasks that are left when the daemon has ended may take to end after they were cancelled."""
NAMES_MAX = 10
STDERR = 2


class CancelledFromInside(Exception):
    """The daemon was cancelled although no signal had asked for it."""

    def __init__(self) -> None:
        super().__init__(
            "the daemon was cancelled from inside, as by a function that cancels all tasks of the loop;"
            " nothing is lost, start it again"
        )


class LastResort:
    """Ends the process some time after the first signal, even if its loop is blocked. Then it prints the stacks on stderr."""

    def __init__(self) -> None:
        self.grace_s: Callable[[], float] = float
        """How long running invocations may take after the stop. It is set when the daemon exists."""
        self._armed = False
        self._before = set(threading.enumerate())

    def arm(self, *_: object) -> None:
        """Starts the timer; further calls do nothing. It may be called from a signal handler."""
        if self._armed:
            return
        self._armed = True
        try:
            faulthandler.dump_traceback_later(
                self.grace_s() + LAST_RESORT_S, exit=True, file=unwaiting(STDERR)
            )
        except (ValueError, OSError, AttributeError):
            # Without stderr there is no such timer. The sender of the signal has to kill the process.
            return

    def disarm(self) -> None:
        """Everything has ended. The timer is kept only if threads are left that Python would wait for at its exit."""
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
            # Its error is a consequence of the cancellation, and is read only so that asyncio does not report it.
            task.exception()
    return sorted(task.get_name() for task in late)


def line_of_left(names: Sequence[str], status: int) -> str:
    """A line that names the tasks that do not end."""
    shown = ", ".join(names[:NAMES_MAX])
    return (
        f"{len(names)} tasks do not end though they were cancelled, and are left behind: {shown};"
        f" exit status {status}"
    )


def leave(status: int, drain: Callable[[], object]) -> Never:
    """Ends the process at once, because the remaining tasks would keep it running for ever. `drain` writes the queued output first."""
    drain()
    os._exit(status)
