"""Owns the reload of the configuration file: it notices changes, takes over a valid file, and reports an invalid one."""

import asyncio
import errno
import os
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import watchfiles

from poller.config.yaml_files import PASSING, Signature, UnreadableNow, signature
from poller.domain.errors import InvalidConfiguration
from poller.domain.plan import DaemonPlan
from poller.domain.telemetry.daemon_events import ConfigurationReloaded, ConfigurationUnread
from poller.domain.telemetry.observers import Observer
from poller.rules.responses import cut
from poller.start_folder import from_start_folder

POLL_S = 2.0
"""The interval at which the file is checked. Network file systems and links into other folders give no notification of changes."""
_PASSING_TEXTS = tuple(os.strerror(each) for each in (errno.EMFILE, errno.ENFILE))
SETTLE_MS = 100
"""Changes within this time count as one, because editors save a file in several steps."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """A valid configuration. `waiting` names changed settings that take effect at the next start."""

    plan: DaemonPlan
    waiting: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Read:
    """What came of one try: a configuration that can be taken over, or problems. `passing`: they may be over in a moment."""

    loaded: Loaded | None = None
    problems: tuple[str, ...] = ()
    passing: bool = False


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

    What cannot be read for want of descriptors or memory is not refused: it is read again until it can be.
    `load` raises InvalidConfiguration.
    """
    async for _ in changes:
        unread = False
        while (found := await _read(load, daemon)).passing:
            reason = _reason(found.problems)
            daemon.note = (
                f"the changed configuration file cannot be read yet, the one before stays in effect: {reason}"
            )
            if not unread:
                observer.on(ConfigurationUnread(reason=reason, wait_s=POLL_S))
            unread = True
            await asyncio.sleep(POLL_S)
        if found.loaded is not None:
            taken = daemon.replan(found.loaded.plan)
            daemon.note = _waiting(found.loaded)
            observer.on(ConfigurationReloaded(ok=True, reason=daemon.note, changes=taken))
            continue
        reason = _reason(found.problems)
        daemon.note = f"the changed configuration file is refused, the one before stays in effect: {reason}"
        observer.on(ConfigurationReloaded(ok=False, reason=reason))


async def _read(load: Callable[[], Awaitable[Loaded]], daemon: Reloadable) -> _Read:
    """Reads and tries the configuration once."""
    try:
        loaded = await load()
        problems = tuple(await daemon.rehearse(loaded.plan))
    except UnreadableNow as error:
        return _Read(problems=tuple(error.problems), passing=True)
    except InvalidConfiguration as error:
        problems = tuple(error.problems)
    except Exception as error:  # noqa: BLE001 - a bug of ours in reading is reported like a refused file
        if isinstance(error, OSError) and error.errno in PASSING:
            return _Read(problems=(str(error),), passing=True)
        problems = (f"could not be read, by a fault of the daemon: {type(error).__name__}: {error}",)
    else:
        if not problems:
            return _Read(loaded)
    # What plug-ins find wrong, for example with a file of secrets, is a text and nothing more.
    return _Read(problems=problems, passing=any(text in each for text in _PASSING_TEXTS for each in problems))


async def changes_of(path: Path, ticks: AsyncIterator[object], seen: Signature) -> AsyncGenerator[None]:
    """Yields whenever the file at `path` was replaced or written. It checks now and at each tick.

    `seen` is the signature from before the configuration in effect was read. While it cannot be told, nothing counts as changed.
    """
    first = _now(path, seen)
    if first != seen:
        seen = first
        yield
    async for _ in ticks:
        now = _now(path, seen)
        if now != seen:
            seen = now
            yield


def _now(path: Path, seen: Signature) -> Signature:
    try:
        return signature(path)
    except UnreadableNow:
        return seen


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


def _reason(problems: Sequence[str]) -> str:
    more = f" (and {len(problems) - 1} more; `poller check` tells them all)" if len(problems) > 1 else ""
    return cut(problems[0]) + more
