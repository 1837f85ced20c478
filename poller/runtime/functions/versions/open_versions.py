"""Owns the open versions of one function: each is opened when it is needed, in a task of its own, and closed when it is idle.

A part must be closed in the task that opened it. A version that cannot be opened harms no other one; it is tried again later.
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterator
from contextlib import AsyncExitStack, contextmanager
from functools import partial

from poller.config.plugin_specs import PluginSpec, version_of
from poller.domain.plan import FunctionPlan
from poller.domain.telemetry.labels import TaskEnd, TaskKind
from poller.ports import Invoker
from poller.runtime.functions.versions.alias_states import AliasStates
from poller.runtime.mappings.supervisor import PartFailed
from poller.runtime.watched_tasks import WatchedTasks, reason_of

IDLE_S = 600.0
"""A version that no call used for this long is closed, unless an alias leads to it."""
AGAIN_S = 5.0
"""The wait before a version that could not be opened is tried again."""

type Open = Callable[[AsyncExitStack, PluginSpec], Awaitable[Invoker]]
"""Opens an invoker into a stack. Raises PartFailed."""


class VersionTrouble(Exception):
    """A version is not open, and `reason` says why. Try again later."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class OpenVersion:
    """One version in a task of its own."""

    def __init__(self) -> None:
        self.invoker: Invoker | None = None
        self.trouble = ""
        self.settled = asyncio.Event()
        """It is open, or could not be opened."""
        self.left = asyncio.Event()
        self.users = 0
        self.last_used = asyncio.get_running_loop().time()

    async def run(self, opening: Callable[[AsyncExitStack], Awaitable[Invoker]]) -> None:
        """Opens the version, waits until it is left, and closes it."""
        async with AsyncExitStack() as stack:
            self.invoker = await opening(stack)
            self.settled.set()
            await self.left.wait()

    def end_with(self, trouble: str) -> None:
        """It is not open, or not any more."""
        self.invoker, self.trouble = None, trouble
        self.last_used = asyncio.get_running_loop().time()
        self.settled.set()

    @property
    def idle_s(self) -> float:
        """Seconds since its last call ended, or since it could not be opened."""
        return 0.0 if self.users else asyncio.get_running_loop().time() - self.last_used


class OpenVersions:
    """The open versions of one function, by number. Their tasks are in `scope`."""

    def __init__(self, plan: FunctionPlan, opening: Open, states: AliasStates, scope: WatchedTasks) -> None:
        self._plan = plan
        self._opening = opening
        self._states = states
        self._scope = scope
        self._open: dict[str, OpenVersion] = {}
        self._closed = False

    def want(self, number: str) -> OpenVersion:
        """Begins to open a version unless it is open, or could not be opened a moment ago."""
        found = self._open.get(number)
        if found is not None and (not found.trouble or found.idle_s < AGAIN_S):
            return found
        opened = self._open[number] = OpenVersion()
        if self._closed:
            opened.end_with("the function is being closed")
            return opened
        name = f"{TaskKind.VERSION} {self._plan.name}:{number}"
        work = opened.run(partial(self._begin, number))
        self._scope.spawn(work, name, partial(self._ended, number, opened, name))
        return opened

    async def opened(self, numbers: Collection[str]) -> None:
        """Opens versions and waits until each of them is open or could not be opened."""
        for each in [self.want(number) for number in numbers]:
            await each.settled.wait()

    async def invoker(self, number: str) -> Invoker:
        """The open version's invoker. Raises VersionTrouble."""
        found = self.want(number)
        await found.settled.wait()
        if found.invoker is None:
            raise VersionTrouble(f"version {number} of {self._plan.name} cannot be opened: {found.trouble}")
        return found.invoker

    @contextmanager
    def used(self, number: str) -> Iterator[None]:
        """A call uses the version inside the block, so that it is not closed as idle."""
        found = self._open.get(number)
        if found is None:
            yield
            return
        found.users += 1
        try:
            yield
        finally:
            found.users -= 1
            found.last_used = asyncio.get_running_loop().time()

    @property
    def invokers(self) -> list[Invoker]:
        """The invokers of the open versions."""
        return [each.invoker for each in self._open.values() if each.invoker is not None]

    def close_idle(self, keep: Collection[str]) -> None:
        """Closes versions that no call has used for long, except for those in `keep`."""
        for number, each in list(self._open.items()):
            if number not in keep and each.settled.is_set() and each.idle_s >= IDLE_S:
                self._leave(number, each)

    def close(self) -> None:
        """Closes all versions; their tasks end soon after."""
        self._closed = True
        for number, each in list(self._open.items()):
            self._leave(number, each)

    async def _begin(self, number: str, stack: AsyncExitStack) -> Invoker:
        found = await self._opening(stack, version_of(self._plan, number))
        self._states.troubles.pop((self._plan.name, number), None)
        return found

    def _leave(self, number: str, found: OpenVersion) -> None:
        found.left.set()
        del self._open[number]
        self._states.troubles.pop((self._plan.name, number), None)

    def _ended(
        self, number: str, opened: OpenVersion, name: str, end: TaskEnd, error: BaseException | None
    ) -> None:
        """Keeps why a version is not open, until it is tried again."""
        if error is None and (opened.left.is_set() or self._scope.ending):
            opened.end_with("the function is being closed")
            return
        expected = isinstance(error, PartFailed)
        reason = error.reason if isinstance(error, PartFailed) else reason_of(error) if error else str(end)
        opened.end_with(reason)
        if self._open.get(number) is opened:
            self._states.troubles[self._plan.name, number] = reason
        if not expected:
            self._scope.report_end(TaskKind.VERSION, name, end, reason)
