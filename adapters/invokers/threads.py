"""Owns the threads in which synchronous functions run: a bounded number, started when they are needed.

A thread cannot be ended from outside. Whoever stops waiting for one leaves it running, and its place stays taken
until its function returns. The threads are daemon threads: one that never returns does not keep the program from ending.
"""

import asyncio
import inspect
import threading
from collections.abc import Callable
from functools import partial
from queue import SimpleQueue
from typing import Any

type _Job = tuple[Callable[[], Any], asyncio.Future[Any]]
type _Inbox = SimpleQueue[_Job | None]


class Threads:
    """Up to `threads_max` threads that belong to the running loop; every method is called on that loop."""

    def __init__(self, name: str, threads_max: int) -> None:
        self._name = name
        self._threads_max = threads_max
        self._loop = asyncio.get_running_loop()
        self._idle: list[_Inbox] = []
        self._all: list[_Inbox] = []

    @property
    def busy(self) -> int:
        """Threads at work, those included that nobody waits for any more."""
        return len(self._all) - len(self._idle)

    @property
    def full(self) -> bool:
        """Whether `run` may not be called now."""
        return self.busy >= self._threads_max

    async def run[T](self, function: Callable[[], T]) -> T:
        """What `function` returns or raises, called in a thread. Only while not `full`."""
        assert not self.full, "asked for a thread while all are busy"
        future: asyncio.Future[T] = self._loop.create_future()
        inbox = self._idle.pop() if self._idle else self._start()
        inbox.put((function, future))
        return await future

    def close(self) -> None:
        """Ends idle threads now and busy ones when their function returns."""
        for inbox in self._all:
            inbox.put(None)
        self._all, self._idle = [], []

    def _start(self) -> _Inbox:
        inbox: _Inbox = SimpleQueue()
        self._all.append(inbox)
        name = f"{self._name}-{len(self._all)}"
        threading.Thread(target=self._work, args=(inbox,), name=name, daemon=True).start()
        return inbox

    def _work(self, inbox: _Inbox) -> None:
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
            if inspect.iscoroutine(result):
                result.close()
        elif error is not None:
            future.set_exception(error)
        else:
            future.set_result(result)


def _ran(function: Callable[[], Any]) -> tuple[Any, Exception | None]:
    try:
        return function(), None
    except Exception as error:  # noqa: BLE001 - it is raised again where the function is waited for
        return None, error
