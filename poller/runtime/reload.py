"""Owns the reload of the configuration file: notices that it changed, hands a good one over, tells a bad one."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import watchfiles

from poller.config.file_signature import Signature, signature
from poller.domain.errors import InvalidConfiguration
from poller.domain.plan import DaemonPlan
from poller.domain.telemetry import ConfigurationReloaded, Observer
from poller.rules.responses import cut

POLL_S = 2.0
"""Between two looks at the file where nothing tells of its changes (network file systems, links into other folders)."""
SETTLE_MS = 100
"""An editor's several steps are one change."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """A configuration that may be taken over; `waiting` names settings that changed and wait for the next start."""

    plan: DaemonPlan
    waiting: tuple[str, ...] = ()


class Reloadable(Protocol):
    """The daemon as a reload sees it."""

    note: str

    async def rehearse(self, plan: DaemonPlan) -> list[str]:
        """What is wrong with the parts that another configuration would open."""
        ...

    def replan(self, plan: DaemonPlan) -> tuple[str, ...]:
        """Takes another configuration; returns what changes, one line each."""
        ...


async def follow(
    changes: AsyncIterator[None],
    load: Callable[[], Awaitable[Loaded]],
    daemon: Reloadable,
    observer: Observer,
) -> None:
    """Reloads at each change until cancelled. A configuration that is refused changes nothing but the note.

    `load` raises InvalidConfiguration.
    """
    async for _ in changes:
        try:
            loaded = await load()
            problems = await daemon.rehearse(loaded.plan)
        except InvalidConfiguration as error:
            problems = error.problems
        except Exception as error:  # noqa: BLE001 - a fault of ours in reading is told like a file that is refused
            problems = [f"could not be read, by a fault of the daemon: {type(error).__name__}: {error}"]
        else:
            if not problems:
                taken = daemon.replan(loaded.plan)
                daemon.note = _waiting(loaded)
                observer.on(ConfigurationReloaded(ok=True, reason=daemon.note, changes=taken))
                continue
        reason = _reason(problems)
        daemon.note = f"the changed configuration file is refused, the one before stays in effect: {reason}"
        observer.on(ConfigurationReloaded(ok=False, reason=reason))


async def changes_of(path: Path, ticks: AsyncIterator[object], seen: Signature) -> AsyncGenerator[None]:
    """Yields whenever the file at `path` is another one than before, or was written; looks now and at each tick.

    `seen` is what was there before the file was read that is in effect.
    """
    first = signature(path)
    if first != seen:
        seen = first
        yield
    async for _ in ticks:
        now = signature(path)
        if now != seen:
            seen = now
            yield


async def ticks_beside(path: Path) -> AsyncGenerator[object]:
    """Ticks when something happens in the folder of `path`, and every POLL_S seconds."""
    try:
        watched = watchfiles.awatch(
            path.parent,
            watch_filter=None,
            step=SETTLE_MS,
            rust_timeout=int(POLL_S * 1000),
            yield_on_timeout=True,
            recursive=False,
        )
        async for happened in watched:
            yield happened
    except (OSError, RuntimeError):
        # No watches are left, or the folder went away; looking now and then needs neither.
        pass
    while True:
        await asyncio.sleep(POLL_S)
        yield None


async def watch(
    path: Path, load: Callable[[], Loaded], daemon: Reloadable, observer: Observer, *, seen: Signature
) -> None:
    """Follows the file at `path` until cancelled; `seen` is from before it was read at the start.

    `load` runs in a thread: a large file takes seconds to read, and the loop goes on meanwhile.
    """

    def off_loop() -> Awaitable[Loaded]:
        return asyncio.to_thread(load)

    async with aclosing(ticks_beside(path)) as ticks, aclosing(changes_of(path, ticks, seen)) as changes:
        await follow(changes, off_loop, daemon, observer)


def _waiting(loaded: Loaded) -> str:
    if not loaded.waiting:
        return ""
    return f"changed in the configuration file, in effect after a restart: {', '.join(loaded.waiting)}"


def _reason(problems: list[str]) -> str:
    more = f" (and {len(problems) - 1} more; `poller check` tells them all)" if len(problems) > 1 else ""
    return cut(problems[0]) + more
