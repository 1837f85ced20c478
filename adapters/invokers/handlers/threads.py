"""Owns the threads in which synchronous functions run: a bounded number, started when they are needed.

A thread cannot be ended from outside. Whoever stops waiting for one leaves it running, and its place stays taken
until its function returns. The threads are daemon threads: one that never returns does not keep the program from ending.
"""

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from queue import SimpleQueue
from typing import Any

LOOPS_MAX = 16
"""Where there are more threads they have no event loops: each takes three file descriptors."""

type _Job = tuple[Callable[[], Any], asyncio.Future[Any]]
type _Inbox = SimpleQueue[_Job | None]


class Threads:
    """Up to `threads_max` threads that belong to the running loop; every method is called on that loop.

    `dropped` gets what a function returned when nobody waits for it any more.
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

    @property
    def busy(self) -> int:
        """Threads at work, those included that nobody waits for any more."""
        return len(self._all) - len(self._idle)

    @property
    def full(self) -> bool:
        """Whether `start` may not be called now."""
        return self.busy >= self._threads_max

    def start[T](self, function: Callable[[], T]) -> asyncio.Future[T]:
        """What `function` will return or raise, called in a thread. Only while not `full`.

        Cancelling the future gives up waiting, and nothing else.
        """
        assert not self.full, "asked for a thread while all are busy"
        future: asyncio.Future[T] = self._loop.create_future()
        inbox = self._idle.pop() if self._idle else self._begin()
        inbox.put((function, future))
        return future

    def close(self) -> None:
        """Ends idle threads now and busy ones when their function returns."""
        for inbox in self._all:
            inbox.put(None)
        self._all, self._idle = [], []

    def _begin(self) -> _Inbox:
        inbox: _Inbox = SimpleQueue()
        self._all.append(inbox)
        name = f"{self._name}-{len(self._all)}"
        threading.Thread(target=self._work, args=(inbox,), name=name, daemon=True).start()
        return inbox

    def _work(self, inbox: _Inbox) -> None:
        with _event_loop() if self._threads_max <= LOOPS_MAX else nullcontext():
            self._work_off(inbox)

    def _work_off(self, inbox: _Inbox) -> None:
        while (job := inbox.get()) is not None:
            function, future = job
            result, error = _ran(function)
            try:
                self._loop.call_soon_threadsafe(partial(self._finished, inbox, future, result, error=error))
            except RuntimeError:
                # The loop has closed: nobody waits for this answer or for this thread.
                return
            del job, function, future, result, error

    def _finished(
        self, inbox: _Inbox, future: asyncio.Future[Any], result: Any, *, error: Exception | None
    ) -> None:
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
    """Code for Lambda finds an event loop in its thread, and uses it by `run_until_complete`."""
    try:
        loop = asyncio.new_event_loop()
    except OSError:
        # No file descriptor is left: few functions need a loop.
        yield
        return
    asyncio.set_event_loop(loop)
    try:
        yield
    finally:
        asyncio.set_event_loop(None)
        loop.close()


def _ran(function: Callable[[], Any]) -> tuple[Any, Exception | None]:
    try:
        return function(), None
    except StopIteration as error:
        # A future takes everything but this.
        return None, RuntimeError(f"StopIteration: {error}")
    except Exception as error:  # noqa: BLE001 - it is raised again where the function is waited for
        return None, error
    except BaseException as error:  # noqa: BLE001 - raised on the loop it would end the program
        return None, RuntimeError(f"{type(error).__name__}: {error}")
