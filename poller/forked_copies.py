"""Owns what a forked copy of this process may do. Code of a function that calls `os.fork` makes one.

The copy has one thread and shares all sockets with its original. If it went on in the daemon's code, it would answer the original's
calls, read its connections and keep its port. So it ends where the function's code ends in it: with the exit status that Python would
give it, after its lines are written, and without the exit functions, which are the original's. A copy that never comes back, such as
a process of `multiprocessing`, is left alone. It only gives up the sockets that listen.

A copy of code on the event loop must not go back to the loop either, since the loop waits for the original's connections. It would do
so by its next `await`. The interpreter's monitoring finds that, in copies only, so that the original pays nothing for it.
"""

import asyncio
import os
import sys
import threading
import traceback
from _thread import start_new_thread
from collections.abc import Callable
from contextlib import suppress
from os import _exit
from socket import socket
from time import sleep
from types import CodeType
from typing import Any
from weakref import WeakSet

LAST_LINES_S_MAX = 2.0
"""How long a copy may take for its last lines. A lock that another thread of the original had when it forked is never released."""
FAILED = 1
AWAITED = (
    "a forked copy of a function cannot await: the event loop is its original's; end the copy with os._exit"
)

process_id = os.getpid
"""Bound at import like all else here that a copy needs, since a function may replace what it finds in modules."""

_TOOL = "poller: forked copies"
_TOOL_IDS = (4, 3, 5, 2, 1, 0)
"""The interpreter's ids of monitoring tools, the ones first that are not meant for debuggers, coverage and profilers."""

# Fork hooks belong to the process and cannot be taken back, so what they use belongs to the process as well.
_listening: WeakSet[socket] = WeakSet()
_awaiting: list[CodeType] = []
_forking = threading.local()


def close_in_copies(sock: socket) -> socket:
    """Makes forked copies of this process close a listening socket, so that its port is free when this process has ended."""
    _listening.add(sock)
    return sock


def ends_copies_that_await[F: Callable[..., Any]](function: F) -> F:
    """Decorates a coroutine function that awaits a function's code: a copy that would go back to the loop through it ends."""
    _awaiting.append(function.__code__)
    return function


class ends_copies:  # noqa: N801 - it is used like a function
    """Ends copies that are forked inside this context, where they leave it."""

    __slots__ = ("_process",)

    def __enter__(self) -> None:
        self._process = process_id()

    def __exit__(self, _kind: object, error: BaseException | None, _stack: object) -> None:
        if process_id() != self._process:
            end_copy(error)


def end_copy(error: BaseException | None, last_lines: Callable[[], object] = lambda: None) -> None:
    """Ends this process, whose code ended with `error`; `last_lines` is called before the streams are flushed.

    The exit status is that of a SystemExit, FAILED for another error, and 0 without one. Returns only for a GeneratorExit: the
    garbage collector of a copy closes a coroutine that its original had left behind, which is no end of the copy's own code.
    """
    if isinstance(error, GeneratorExit):
        return
    status = FAILED
    try:
        status, text = _end_of(error)
        with suppress(RuntimeError):
            start_new_thread(_end_late, (status,))
        for step in (
            lambda: _write(text),
            last_lines,
            lambda: _flush("stdout"),
            lambda: _flush("stderr"),
        ):
            # The streams may be a function's own, or None.
            with suppress(Exception):
                step()
    finally:
        _exit(status)


def _write(text: str) -> None:
    if text:
        sys.stderr.write(text)


def _flush(stream: str) -> None:
    getattr(sys, stream).flush()


def _end_of(error: BaseException | None) -> tuple[int, str]:
    """The exit status of a program that ends with `error`, and what it writes to stderr."""
    if error is None:
        return 0, ""
    if not isinstance(error, SystemExit):
        return FAILED, "".join(_format(error))
    if error.code is None:
        return 0, ""
    return (error.code & 0xFF, "") if isinstance(error.code, int) else (FAILED, f"{error.code}\n")


_format = traceback.format_exception
_running_loop = asyncio._get_running_loop


def _end_late(status: int) -> None:
    sleep(LAST_LINES_S_MAX)
    _exit(status)


def _before_fork() -> None:
    _forking.on_loop = _running_loop() is not None


def _in_copy() -> None:
    for sock in list(_listening):
        with suppress(OSError):
            # Not by the loop: it would take the socket from the original too, since both have the same epoll object.
            os.close(sock.detach())
    if getattr(_forking, "on_loop", False):
        _watch_awaits()


def _watch_awaits() -> None:
    monitoring = sys.monitoring
    free = [each for each in _TOOL_IDS if monitoring.get_tool(each) is None]
    if not free or any(monitoring.get_tool(each) == _TOOL for each in _TOOL_IDS):
        return
    monitoring.use_tool_id(free[0], _TOOL)
    monitoring.register_callback(free[0], monitoring.events.PY_YIELD, _awaited)
    for code in _awaiting:
        monitoring.set_local_events(free[0], code, monitoring.events.PY_YIELD)


def _awaited(*_: object) -> None:
    # asyncio forgets in a copy which loop runs. A loop that the copy has started itself is its own affair.
    if _running_loop() is None:
        end_copy(RuntimeError(AWAITED))


os.register_at_fork(before=_before_fork, after_in_child=_in_copy)
