"""Owns versions of a function's code: modules of their own in the daemon's process, or child processes of their own."""

import asyncio
import gc
from collections.abc import Callable, Mapping
from typing import Protocol
from weakref import ref

from adapters.invokers.function_code.private_imports import PrivateImports
from adapters.invokers.function_code.reloading import RefusedCode, Version
from adapters.invokers.handlers.calling import Handler
from adapters.invokers.handlers.loading import IMPORT_S_MAX, load_apart, too_slow
from adapters.invokers.handlers.threads import Threads
from adapters.invokers.process import ProcessInvoker
from poller.domain.errors import InvalidConfiguration
from poller.domain.invocations import Invocation, Outcome
from poller.domain.plan import CallLimit

CLOSED_VERSIONS_MAX = 5
"""Closed versions that are in memory. To free them holds the process up for as long as it takes to look at all its objects."""


class HandlerCalls(Protocol):
    """Calls of one loaded handler in this process."""

    @property
    def busy(self) -> int:
        """How many calls run, including those that nobody waits for any more."""
        ...

    @property
    def calls_left(self) -> int:
        """How many of them nobody waits for any more."""
        ...

    @property
    def call_limit(self) -> CallLimit:
        """How many can run at once, and why."""
        ...

    async def invoke(self, invocation: Invocation) -> Outcome:
        """Runs a call."""
        ...

    async def close(self) -> None:
        """Ends what can be ended."""
        ...


class ModulesVersion:
    """A version whose modules are imported into the daemon's process, apart from all others."""

    start_s_max = 0.0

    def __init__(self, calls: HandlerCalls, imports: PrivateImports) -> None:
        self._calls = calls
        self._imports = imports
        self.invoke = calls.invoke
        self.sources: Mapping[str, bytes] = imports.sources.read

    @property
    def busy(self) -> int:
        """How many calls run in it."""
        return self._calls.busy

    @property
    def calls_left(self) -> int:
        """How many calls go on in it although nobody waits for them."""
        return self._calls.calls_left

    @property
    def call_limit(self) -> CallLimit:
        """How many calls can run at once, and why."""
        return self._calls.call_limit

    def take_over(self, before: Version | None) -> None:
        """Makes Python's tracebacks show the lines of this version."""
        if isinstance(before, ModulesVersion):
            before._imports.sources.hide_lines()
        self._imports.sources.show_lines()

    async def renew(self, before: Version) -> None:
        """Does nothing: a version in this process has nothing that stands idle."""

    async def close(self) -> None:
        """Lets go of its modules."""
        await self._calls.close()
        self._imports.close()


class ModulesLoader:
    """Loads versions of one function into the daemon's process, each in a thread of its own."""

    def __init__(
        self,
        function: str,
        handler: str,
        *,
        folder: str,
        threads: Callable[[], Threads],
        calls: Callable[[Handler, Threads], HandlerCalls],
    ) -> None:
        self._function = function
        self._handler = handler
        self._folder = folder
        self._threads = threads
        self._calls = calls
        self._versions: list[ref[PrivateImports]] = []
        self._stuck: asyncio.Future[Handler] | None = None
        """An import that did not end in time. No other one is begun as long as it goes on, so that there is one thread of them."""

    async def load(self) -> ModulesVersion | RefusedCode:
        """Imports the code as it is now."""
        if self._stuck is not None and not self._stuck.done():
            return RefusedCode(f"{self._too_slow().problems[0]} (it still goes on)", {})
        await self._collect()
        imports, threads = PrivateImports(self._function, self._folder), self._threads()
        self._versions.append(ref(imports))
        try:
            handler = await self._imported(imports, threads)
            return ModulesVersion(self._calls(handler, threads), imports)
        except BaseException as error:
            threads.close()
            imports.close()
            if isinstance(error, InvalidConfiguration):
                return RefusedCode(error.problems[0], dict(imports.sources.read))
            raise

    async def _imported(self, imports: PrivateImports, threads: Threads) -> Handler:
        loading = threads.start(
            lambda: load_apart(self._function, self._handler, imports), name=f"import of {self._function}"
        )
        self._stuck = loading
        loading.add_done_callback(_read)
        await asyncio.wait((loading,), timeout=IMPORT_S_MAX)
        if not loading.done():
            raise self._too_slow()
        return loading.result()

    async def _collect(self) -> None:
        """Frees closed versions if there are many. Modules and their functions refer to each other, so that Python alone may wait long."""
        self._versions = [each for each in self._versions if each() is not None]
        closed = [each for each in self._versions if (found := each()) is not None and found.closed]
        if len(closed) >= CLOSED_VERSIONS_MAX:
            await asyncio.to_thread(gc.collect)

    def _too_slow(self) -> InvalidConfiguration:
        return too_slow(self._function, self._handler, IMPORT_S_MAX)


def _read(done: asyncio.Future[Handler]) -> None:
    """Reads the exception, so that asyncio does not log it as never retrieved."""
    _ = done.cancelled() or done.exception()


class ProcessesVersion:
    """A version that runs in child processes of its own. `sources` are what the first of them has imported."""

    def __init__(self, invoker: ProcessInvoker, sources: Mapping[str, bytes]) -> None:
        self._invoker = invoker
        self.invoke = invoker.invoke
        self.close = invoker.close
        self.sources = sources
        self.start_s_max = invoker.start_s_max
        self.call_limit = invoker.call_limit
        self.calls_left = 0

    @property
    def busy(self) -> int:
        """How many calls run in it."""
        return self._invoker.busy

    def take_over(self, before: Version | None) -> None:
        """Does nothing: processes know only their own version."""

    async def renew(self, before: Version) -> None:
        """Starts a process for each that waits for calls in `before`, and ends that one, one after another."""
        assert isinstance(before, ProcessesVersion)
        ended = 0
        while before._invoker.waiting:
            # The first process runs already, since the code was tried in it.
            problem = None if ended == 0 else await self._invoker.warm()
            await before._invoker.stop_one()
            ended += 1
            if problem is not None:
                # Others are started when calls need them.
                return
