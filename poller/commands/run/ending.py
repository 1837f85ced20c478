"""Owns how `poller run` ends although something refuses to end: a call that cannot be cancelled, or a blocked loop.

Nothing here waits without a limit. Tasks that do not end are named on stderr, and the exit status is not 0.
"""

import asyncio
import concurrent.futures.thread
import faulthandler
import os
import sys
import threading
import time
from collections.abc import Callable, Container, Sequence
from contextlib import suppress
from typing import Never

from poller.domain.untrusted.texts import line_of
from poller.foreign_tasks import FUNCTION_THREADS
from poller.output.queued_output import unwaiting

LAST_RESORT_S = 13.0
"""This long after the grace time the process ends in any case. In our Kubernetes manifests the margin is 15 s."""
LEFT_S_MAX = 5.0
"""How long tasks that are left when the daemon has ended may take to end after they were cancelled."""
JOIN_S_MAX = 0.1
NAMES_MAX = 10
STDERR = 2
LOOP_THREADS = "asyncio"
WAITED_CHARS_MAX = 1_000
_EXECUTOR_THREADS: Container[threading.Thread] = getattr(concurrent.futures.thread, "_threads_queues", ())
"""The threads that Python itself asks to end at its exit. Python has no public name for them."""


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

    def threads(self) -> list[threading.Thread]:
        """The threads that were started since, and that Python would wait for at its exit or that run functions."""
        return [
            each
            for each in threading.enumerate()
            if each not in self._before and (not each.daemon or each.name.startswith(FUNCTION_THREADS))
        ]

    def disarm(self) -> None:
        """Everything has ended. `exit_in_time` bounds what Python itself does at its exit."""
        if self._armed:
            faulthandler.cancel_dump_traceback_later()


def exit_in_time(status: int, form: Callable[[str], str]) -> None:
    """Makes the process end with `status` whatever Python waits for at its exit. Must be called just before that exit.

    Python joins threads and child processes there, and calls exit functions. A function's module may have left any of these, and
    each may take for ever. What is waited for is named on stderr, in a line made by `form`.
    """
    with suppress(ValueError, OSError, AttributeError):
        # For code that holds the interpreter, so that no other thread runs.
        faulthandler.dump_traceback_later(3 * LEFT_S_MAX, exit=True, file=unwaiting(STDERR))
    threading.Thread(target=_end_late, args=(status, form), name="end of the process", daemon=True).start()


def _end_late(status: int, form: Callable[[str], str]) -> None:
    time.sleep(LEFT_S_MAX)
    line = form(f"Python's exit waits for {_waited_for()}; the process ends without it; exit status {status}")
    with suppress(OSError):
        os.write(unwaiting(STDERR), line.encode(errors="replace"))
    os._exit(status)


def _waited_for() -> str:
    """What Python joins at its exit: threads and child processes, or else an exit function that has not returned."""
    here = threading.current_thread(), threading.main_thread()
    threads = [
        f"the thread {each.name}"
        for each in threading.enumerate()
        if each not in here and (not each.daemon or each in _EXECUTOR_THREADS)
    ]
    # Asked for only if a function has imported it.
    module = sys.modules.get("multiprocessing")
    children = [f"the process {each.name}" for each in module.active_children()] if module else []
    found = sorted([*threads, *children])[:NAMES_MAX]
    return line_of(", ".join(found), chars_max=WAITED_CHARS_MAX) or "an exit function of a function's module"


def threads_left_behind(threads: Sequence[threading.Thread]) -> list[str]:
    """Waits for `threads`, for a limited time, and returns the names of those that are still at work.

    Threads of executors are left out, because idle ones end by themselves when Python exits. Those of the loop's own executor,
    which is shut down before, count.
    """
    deadline = time.monotonic() + LEFT_S_MAX
    at_work = [each for each in threads if _at_work(each)]
    for each in at_work:
        each.join(max(0.0, deadline - time.monotonic()))
    return sorted(each.name for each in at_work if each.is_alive())


def _at_work(thread: threading.Thread) -> bool:
    return thread.name.startswith(f"{LOOP_THREADS}_") or thread not in _EXECUTOR_THREADS


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


def lines_of_left(tasks: Sequence[str], threads: Sequence[str], status: int) -> list[str]:
    """A line that names the tasks that do not end, and one that names the threads."""
    kinds = ((tasks, "tasks do not end though they were cancelled"), (threads, "threads do not end"))
    return [
        f"{len(names)} {what}, and are left behind: {', '.join(names[:NAMES_MAX])}; exit status {status}"
        for names, what in kinds
        if names
    ]


def leave(status: int, drain: Callable[[], object]) -> Never:
    """Ends the process at once, because the remaining tasks would keep it running for ever. `drain` writes the queued output first."""
    drain()
    os._exit(status)
