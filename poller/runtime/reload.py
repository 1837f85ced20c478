"""Owns the reload of the configuration file: it notices changes, takes over a valid file, and reports an invalid one."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import watchfiles

from poller.config.yaml_files import Signature, signature
from poller.domain.errors import InvalidConfiguration
from poller.domain.plan import DaemonPlan
from poller.domain.telemetry.daemon_events import ConfigurationReloaded
from poller.domain.telemetry.observers import Observer
from poller.rules.responses import cut
from poller.start_folder import from_start_folder

POLL_S = 2.0
"""The interval at which the file is checked. Network file systems and links into other folders give no notification of changes."""
SETTLE_MS = 100
"""Changes within this time count as one, because editors save a file in several steps."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """A valid configuration. `waiting` names changed settings that take effect at the next start."""

    plan: DaemonPlan
    waiting: tuple[str, ...] = ()


class Reloadable(Protocol):
    """The methods of the daemon that a reload needs."""

    note: str

    async def rehearse(self, plan: DaemonPlan) -> list[str]:
        """Tries the parts of another configuration; returns their problems."""
        ...

    def replan(self, plan: DaemonPlan) -> tuple[str, ...]:
        """Takes over another configuration; returns the changes, one line each."""
        ...


async def follow(
    changes: AsyncIterator[None],
    load: Callable[[], Awaitable[Loaded]],
    daemon: Reloadable,
    observer: Observer,
) -> None:
    """Reloads at each change until cancelled. A refused configuration changes only the daemon's `note`.

    `load` raises InvalidConfiguration.
    """
    async for _ in changes:
        try:
            loaded = await load()
            problems = await daemon.rehearse(loaded.plan)
        except InvalidConfiguration as error:
            problems = error.problems
        except Exception as error:  # noqa: BLE001 - a bug of ours in reading is reported like a refused file
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
    """Yields whenever the file at `path` was replaced or written. It checks now and at each tick.

    `seen` is the signature from before the configuration in effect was read.
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
            from_start_folder(path).parent,
            watch_filter=None,
            step=SETTLE_MS,
            rust_timeout=int(POLL_S * 1000),
            yield_on_timeout=True,
            recursive=False,
        )
        async for happened in watched:
            yield happened
    except (OSError, RuntimeError):
        # The system has no watches left, or the folder was removed. The regular checks do not need a watch.
        pass
    while True:
        await asyncio.sleep(POLL_S)
        yield None


async def watch(
    path: Path, load: Callable[[], Loaded], daemon: Reloadable, observer: Observer, *, seen: Signature
) -> None:
    """Follows the file at `path` until cancelled. `seen` is its signature from before it was read at the start.

    `load` runs in a thread, because a large file takes seconds to read.
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
