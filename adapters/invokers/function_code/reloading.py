"""Owns an invoker that takes changed code of its function up between calls.

Each version of the code is loaded beside the running one and has modules, threads or processes of its own. When it is loaded, calls
begin in it. Calls that run finish in the version in which they began, and an old version is closed when nothing of it runs any
more. A version that cannot be loaded changes nothing: the running one goes on.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from adapters.invokers.function_code.code_watch import LOOK_S, CodeWatch, Step
from adapters.invokers.function_code.source_files import SourceFiles, digests
from poller.domain.invocations import Invocation, Outcome
from poller.domain.plan import CallLimit
from poller.domain.status import CodeStatus
from poller.ports import Clock

OLD_VERSIONS_MAX = 10
"""Earlier versions of which calls may still run. Threads cannot be ended, so without a limit each change could add one."""


class Version(Protocol):
    """One loaded version of a function's code."""

    @property
    def sources(self) -> Mapping[str, bytes]:
        """What its modules were read from, by path."""
        ...

    @property
    def busy(self) -> int:
        """How many calls run in it, including those that nobody waits for any more."""
        ...

    @property
    def calls_left(self) -> int:
        """How many calls go on in it although nobody waits for them."""
        ...

    @property
    def call_limit(self) -> CallLimit:
        """How many calls can run at once, and why."""
        ...

    @property
    def start_s_max(self) -> float:
        """How long starting may take before a call."""
        ...

    async def invoke(self, invocation: Invocation) -> Outcome:
        """Runs a call."""
        ...

    def take_over(self, before: "Version | None") -> None:
        """Calls begin in this version from now on, and in `before` no more."""
        ...

    async def renew(self, before: "Version") -> None:
        """Replaces what `before` has started and what stands idle, one by one."""
        ...

    async def close(self) -> None:
        """Ends everything of it."""
        ...


@dataclass(frozen=True, slots=True)
class RefusedCode:
    """A version that could not be loaded: why, and what of it was read before it failed."""

    reason: str
    sources: Mapping[str, bytes]


type Load = Callable[[], Awaitable[Version | RefusedCode]]


class ReloadingInvoker:
    """Calls a function in the newest version of its code that could be loaded."""

    def __init__(self, first: Version, load: Load, clock: Clock) -> None:
        self._current = first
        self._load = load
        self._clock = clock
        self._old: list[Version] = []
        self._files = SourceFiles()
        self._watch = CodeWatch(digests(first.sources))
        self._code = CodeStatus(since=clock.now())
        first.take_over(None)

    @property
    def call_limit(self) -> CallLimit:
        """How many calls can run at once, and why."""
        return self._current.call_limit

    @property
    def calls_left(self) -> int:
        """How many calls go on although nobody waits for them, in all versions."""
        return sum(each.calls_left for each in (self._current, *self._old))

    @property
    def start_s_max(self) -> float:
        """How long starting may take before a call."""
        return self._current.start_s_max

    @property
    def code(self) -> CodeStatus:
        """The running code, and whether a change of it was refused."""
        return self._code

    async def invoke(self, invocation: Invocation) -> Outcome:
        """Runs a call in the version that is the current one now."""
        return await self._current.invoke(invocation)

    async def follow_code(self, changed: Callable[[], None]) -> None:
        """Takes changes up until cancelled; calls `changed` after each one, and after each new reason of a refusal."""
        while True:
            await asyncio.sleep(LOOK_S)
            await self._close_unused()
            self._watch.also(digests(_more(self._current.sources, self._watch.running)))
            watch = self._watch
            contents = await asyncio.to_thread(self._files.look, watch.paths, with_folders=watch.with_folders)
            before, version = self._code, self._current
            match watch.looked(contents, self._clock.monotonic()):
                case Step.LOAD:
                    await self._load_changed(contents)
                case Step.RESTORED:
                    self._code = CodeStatus(since=before.since, taken_up=before.taken_up)
            if (self._code.refused, self._code.taken_up) != (before.refused, before.taken_up):
                changed()
            if self._current is not version:
                await self._current.renew(version)

    async def close(self) -> None:
        """Ends all versions."""
        for each in (self._current, *self._old):
            await each.close()

    async def _load_changed(self, contents: Mapping[str, bytes | None]) -> None:
        found = await self._loaded()
        now = self._clock.now()
        if isinstance(found, RefusedCode):
            self._watch.refuse(contents, digests(found.sources), self._clock.monotonic())
            since = self._code.refused_since if self._code.refused else now
            self._code = CodeStatus(
                since=self._code.since,
                taken_up=self._code.taken_up,
                refused=found.reason,
                refused_since=since,
            )
            return
        before, self._current = self._current, found
        self._old.append(before)
        found.take_over(before)
        self._watch.took_up(digests(found.sources))
        self._code = CodeStatus(since=now, taken_up=self._code.taken_up + 1)

    async def _loaded(self) -> Version | RefusedCode:
        if len(self._old) >= OLD_VERSIONS_MAX:
            reason = f"calls of {len(self._old)} earlier versions still run; the change is taken up when one has ended"
            return RefusedCode(reason, {})
        found = await self._load()
        if isinstance(found, RefusedCode):
            return found
        limit, new = self._current.call_limit, found.call_limit
        if limit.calls == new.calls:
            return found
        await found.close()
        return RefusedCode(
            f"so many calls could run at once: {_said(new)}, and now it is {_said(limit)}, which a change of"
            " the code cannot set; restart the daemon, or set workers",
            found.sources,
        )

    async def _close_unused(self) -> None:
        for each in [each for each in self._old if not each.busy]:
            self._old.remove(each)
            await each.close()


def _more(sources: Mapping[str, bytes], known: Mapping[str, bytes | None]) -> dict[str, bytes]:
    """Returns the sources that are not known yet. A thread may import a module at this moment."""
    return {path: source for path, source in list(sources.items()) if path not in known}


def _said(limit: CallLimit) -> str:
    return "any number" if limit.calls is None else str(limit.calls)
