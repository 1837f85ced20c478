"""Owns the threads in which synchronous functions run: a bounded number, started when they are needed.

A thread cannot be ended from outside. If nobody waits for it any more it still runs, and counts as busy until its function
returns. The threads are daemon threads, so one that never returns does not keep the program from ending.
"""

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from queue import SimpleQueue
from typing import Any

LOOPS_MAX = 16
"""With more threads than this, threads get no event loop: each loop takes three file descriptors."""

type _Job = tuple[Callable[[], Any], asyncio.Future[Any]]
type _Inbox = SimpleQueue[_Job | None]


class Threads:
    """Up to `threads_max` threads that report to the running loop. Every method must be called on that loop.

    `dropped` is called with what a function returned if nobody waits for it any more.
    """

    def __init__(
        self, name: str, threads_max: int, *, dropped: Callable[[Any], None] = lambda _: None
    ) -> None:
        self._name = name
        self._threads_max = threads_max
        self._dropped = dropped
        self._loop = asyncio.get_running_loop()
        self._idle: list[_Inbox] = []
        self._all: list[_Inbox] = []
        self._running: dict[_Inbox, asyncio.Future[Any]] = {}

    @property
    def left(self) -> int:
        """The number of threads whose function runs although nobody waits for it any more."""
        return sum(future.cancelled() for future in self._running.values())

    @property
    def busy(self) -> int:
        """The number of busy threads, including those that nobody waits for any more."""
        return len(self._all) - len(self._idle)

    @property
    def full(self) -> bool:
        """Whether all threads are busy, so that `start` must not be called."""
        return self.busy >= self._threads_max

    def start[T](self, function: Callable[[], T], *, name: str = "") -> asyncio.Future[T]:
        """Calls `function` in a thread; returns a future of its result. Must not be called while `full`.

        Cancelling the future does not end the function. `name` is the thread's name meanwhile, if it is to have another one.
        """
        assert not self.full, "asked for a thread while all are busy"
        future: asyncio.Future[T] = self._loop.create_future()
        inbox = self._idle.pop() if self._idle else self._start_thread()
        self._running[inbox] = future
        inbox.put((_under_name(name, function) if name else function, future))
        return future

    def close(self) -> None:
        """Ends idle threads now, and busy ones when their function returns."""
        for inbox in self._all:
            inbox.put(None)
        self._all, self._idle = [], []

    def _start_thread(self) -> _Inbox:
        inbox: _Inbox = SimpleQueue()
        self._all.append(inbox)
        name = f"{self._name}-{len(self._all)}"
        threading.Thread(target=self._work, args=(inbox,), name=name, daemon=True).start()
        return inbox

    def _work(self, inbox: _Inbox) -> None:
        with _event_loop() if self._threads_max <= LOOPS_MAX else nullcontext():
            self._do_jobs(inbox)

    def _do_jobs(self, inbox: _Inbox) -> None:
        while (job := inbox.get()) is not None:
            function, future = job
            result, error = _result_of(function)
            try:
                self._loop.call_soon_threadsafe(partial(self._finished, inbox, future, result, error=error))
            except RuntimeError:
                # The loop is closed, so nobody waits for this result or this thread.
                return
            del job, function, future, result, error

    def _finished(
        self, inbox: _Inbox, future: asyncio.Future[Any], result: Any, *, error: Exception | None
    ) -> None:
        self._running.pop(inbox, None)
        if inbox in self._all:
            self._idle.append(inbox)
        if future.done():
            self._dropped(result)
        elif error is not None:
            future.set_exception(error)
        else:
            future.set_result(result)


@contextmanager
def _event_loop() -> Iterator[None]:
    """Gives a thread an event loop, since code written for Lambda expects one for `run_until_complete`."""
    try:
        loop = asyncio.new_event_loop()
    except OSError:
        # No file descriptor is left. Few functions need a loop, so the thread goes on without one.
        yield
        return
    asyncio.set_event_loop(loop)
    try:
        yield
    finally:
        asyncio.set_event_loop(None)
        loop.close()


def _under_name[T](name: str, function: Callable[[], T]) -> Callable[[], T]:
    """The same function, which gives its thread this name while it runs."""

    def named() -> T:
        thread = threading.current_thread()
        before, thread.name = thread.name, name
        try:
            return function()
        finally:
            thread.name = before

    return named


def _result_of(function: Callable[[], Any]) -> tuple[Any, Exception | None]:
    try:
        return function(), None
    except StopIteration as error:
        # A future does not accept StopIteration.
        return None, RuntimeError(f"StopIteration: {error}")
    except Exception as error:  # noqa: BLE001 - it is raised again where the function is waited for
        return None, error
    except BaseException as error:  # noqa: BLE001 - raised on the loop it would end the program
        return None, RuntimeError(f"{type(error).__name__}: {error}")
