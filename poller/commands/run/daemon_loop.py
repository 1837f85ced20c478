"""Owns the daemon's event loop, which it shares with asynchronous functions: they cannot stop it, shut it down or change it.

What a function does to the loop holds for its call, or has no effect. Its threads are its own: `asyncio.to_thread` of a function
never waits for that of the daemon or of another function, and the daemon never waits for theirs.
"""

import socket
from collections.abc import Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from contextvars import ContextVar
from functools import partial
from typing import Any

import uvloop

from poller.commands.run.ending import LOOP_THREADS
from poller.foreign_tasks import foreign, make_task, owner

_CHOSEN: ContextVar[Executor | None] = ContextVar("chosen executor", default=None)
"""The default executor that the present call of a function has set."""


class LoopThreads:
    """The threads of `asyncio.to_thread`, in an executor of the daemon's and one for each function that uses any."""

    def __init__(self) -> None:
        self._executors: dict[str, ThreadPoolExecutor] = {}

    def of(self, name: str) -> ThreadPoolExecutor:
        """Returns the executor of a function, or of the daemon, whose name is empty."""
        found = self._executors.get(name)
        if found is None:
            prefix = f"{LOOP_THREADS}_{name}" if name else LOOP_THREADS
            found = self._executors[name] = ThreadPoolExecutor(thread_name_prefix=prefix)
        return found

    def shut_down(self) -> None:
        """Lets threads end when their work is done. Work that has not begun is cancelled."""
        for each in self._executors.values():
            each.shutdown(wait=False, cancel_futures=True)


class DaemonLoop(uvloop.Loop):
    """An event loop whose methods have no effect on the daemon when a function calls them."""

    def __init__(self, threads: LoopThreads) -> None:
        super().__init__()
        self._threads = threads
        # Without it uvloop would make an executor of its own, for which it waits without a limit.
        super().set_default_executor(threads.of(""))
        super().set_task_factory(make_task)  # type: ignore[arg-type]  # typeshed knows no generic one

    def stop(self) -> None:
        """Stops the loop. It does nothing if a function calls it."""
        if not foreign():
            super().stop()

    def run_in_executor[T, *Ts](self, executor: Any, func: Callable[[*Ts], T], *args: *Ts) -> Any:
        """As asyncio's. A function's default executor is its own."""
        if executor is None and (name := owner()):
            executor = _CHOSEN.get() or self._threads.of(name)
        return super().run_in_executor(executor, func, *args)

    async def getaddrinfo(self, host: Any, port: Any, **options: Any) -> Any:
        """As asyncio's. uvloop has four threads for names, which slow names of a function must not take: it uses its own threads."""
        if not foreign():
            return await super().getaddrinfo(host, port, **options)
        return await self.run_in_executor(None, partial(socket.getaddrinfo, host, port, **options))

    def set_default_executor(self, executor: Any) -> None:
        """As asyncio's. If a function calls it, it holds for that call."""
        if foreign():
            _CHOSEN.set(executor)
        else:
            super().set_default_executor(executor)

    async def shutdown_default_executor(self, timeout: float | None = None) -> None:
        """As asyncio's. It does nothing if a function calls it."""
        if not foreign():
            await super().shutdown_default_executor(timeout)

    async def shutdown_asyncgens(self) -> None:
        """As asyncio's. It does nothing if a function calls it: the daemon's context managers are asynchronous generators."""
        if not foreign():
            await super().shutdown_asyncgens()

    def set_task_factory(self, factory: Any) -> None:
        """As asyncio's. It does nothing if a function calls it."""
        if not foreign():
            super().set_task_factory(factory)

    def set_exception_handler(self, handler: Any) -> None:
        """As asyncio's. It does nothing if a function calls it."""
        if not foreign():
            super().set_exception_handler(handler)

    def add_signal_handler[*Ts](self, sig: int, callback: Callable[[*Ts], object], *args: *Ts) -> None:
        """As asyncio's. It does nothing if a function calls it."""
        if not foreign():
            super().add_signal_handler(sig, callback, *args)

    def remove_signal_handler(self, sig: int) -> bool:
        """As asyncio's. It does nothing and returns False if a function calls it."""
        return False if foreign() else super().remove_signal_handler(sig)
