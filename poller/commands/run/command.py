"""Owns `poller run`: opens observers and the control server, runs the daemon, follows its configuration file.

Signals are turned into the daemon's two ways of stopping.
"""

import asyncio
import logging
import os
import random
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Protocol

import uvloop

from poller.clock import LoopClock
from poller.commands.run import early_signals
from poller.commands.run.early_signals import SIGNALS
from poller.commands.run.ending import CancelledFromInside, LastResort, leave, left_behind, told_left
from poller.commands.run.loop_watch import LoopWatch, WatchedStatus
from poller.commands.run.malloc import keep_freed_memory
from poller.commands.run.report import RunReport, faults_logged, faults_of, problems_of, starting
from poller.commands.shared import (
    control_settings,
    environment,
    nothing_runs,
    observer_settings,
    tell,
    unlike_names,
)
from poller.config.daemon_plan import daemon_plan
from poller.config.field_types import Address
from poller.config.file_signature import Signature
from poller.config.settings import Settings
from poller.config.yaml_files import read_document
from poller.domain.errors import InvalidConfiguration
from poller.domain.mapping_api import MappingControl, TagControl
from poller.domain.plan import DaemonPlan
from poller.domain.status import DaemonStatus, StatusView
from poller.domain.telemetry import Observer, Observers, TaskKind
from poller.foreign_tasks import foreign, make_task
from poller.output.last_words import LastWords
from poller.output.log_fields import EVENT
from poller.output.queued_output import DroppedLines, QueuedStreams
from poller.plugins import Environment, Registry, opened
from poller.ports import Exposition
from poller.runtime.reload import Loaded, Reloadable, watch
from poller.runtime.watched_tasks import WatchedTasks

WAIT_FOR_RESTART = (
    "region",
    "endpoint_url",
    "endpoint_urls",
    "listen",
    "store",
    "api",
    "log",
    "worker",
)
"""Settings that a running daemon cannot change."""


@dataclass(frozen=True, slots=True)
class ConfigurationFile:
    """Where the settings came from, and how to read them again; `load` raises InvalidConfiguration.

    `seen` is from before they were read, so that a change while the daemon starts is one.
    """

    path: Path
    load: Callable[[], Settings]
    seen: Signature = None


class Changing(MappingControl, TagControl, Protocol):
    """Who changes mappings while they run."""


class Engine(Reloadable, Protocol):
    """The daemon as this command sees it."""

    @property
    def control(self) -> Changing | None:
        """Who changes its mappings; None when nothing can be changed."""
        ...

    async def run(self) -> None:
        """Returns when everything has drained after `stop`."""
        ...

    @property
    def grace_s(self) -> float:
        """How long running invocations have after `stop`."""
        ...

    def stop(self) -> None:
        """Takes nothing new, finishes, saves, and lets `run` return."""
        ...

    def status(self) -> DaemonStatus:
        """A picture of this moment."""
        ...


class Control(Protocol):
    """The control server."""

    @property
    def address(self) -> Address:
        """Where it listens."""
        ...

    async def serve(
        self,
        view: StatusView,
        expositions: Sequence[Exposition],
        control: MappingControl | None = None,
        tags: TagControl | None = None,
        observer: Observer | None = None,
    ) -> None:
        """Serves until cancelled; raises OSError when it cannot listen."""
        ...


class MakeEngine(Protocol):
    """Builds the daemon; `poller.runtime.daemon.Daemon` is one."""

    def __call__(
        self,
        plan: DaemonPlan,
        *,
        registry: Registry,
        env: Environment,
        observer: Observer,
        rng: random.Random,
    ) -> Engine:
        """An engine that has not started anything."""
        ...


class Stopping:
    """The first signal stops, each further one cancels."""

    def __init__(
        self, stop: Callable[[], None], cancel: Callable[[], object], told: Callable[[str], None]
    ) -> None:
        self._told = told
        self._stop = stop
        self._cancel = cancel
        self._asked = False
        self._cancelled = False

    @contextmanager
    def known(self) -> Iterator[None]:
        """Raises CancelledFromInside in place of a cancellation that no signal asked for."""
        try:
            yield
        except asyncio.CancelledError:
            if self._cancelled:
                raise
            raise CancelledFromInside from None

    def on_signal(self, name: str) -> None:
        """Takes one signal, SIGTERM or SIGINT."""
        self._told(name)
        if self._asked:
            self._cancelled = True
            self._cancel()
        self._asked = True
        self._stop()


def run_daemon(
    settings: Settings,
    registry: Registry,
    make_engine: MakeEngine,
    *,
    place: str,
    file: ConfigurationFile | None = None,
) -> int:
    """Runs until a signal; returns the exit status. What is wrong is told on stderr, settings with their `place`.

    Changes of `file` are taken over while the daemon runs.
    """
    streams = QueuedStreams()
    with streams.installed():
        return _run(settings, registry, make_engine, place=place, file=file, streams=streams)


def _run(
    settings: Settings,
    registry: Registry,
    make_engine: MakeEngine,
    *,
    place: str,
    file: ConfigurationFile | None,
    streams: QueuedStreams,
) -> int:
    words = LastWords()
    report = RunReport(LoopClock(steady=time.monotonic))
    error: BaseException | None = None
    left: list[str] = []
    keep_freed_memory(os.environ)
    last_resort = LastResort()
    runner = asyncio.Runner(loop_factory=_new_loop)
    try:
        try:
            runner.run(
                serve(
                    settings,
                    registry,
                    make_engine,
                    file,
                    report=report,
                    last_resort=last_resort,
                    dropped=streams.dropped,
                    words=words,
                )
            )
        finally:
            left = runner.run(left_behind())
    except BaseException as raised:  # noqa: BLE001 - whatever ends the daemon is told, as its last line
        error = raised
    end = report.ended(error, left)
    # What keeps it from starting is for people; what ends it comes behind its log, and has the log's form.
    tell(problems_of(error, place=place))
    tell(faults_of(error), words.form)
    if left:
        tell([told_left(left, end.exit_status)], words.form)
    print(words.end(end), end="", file=sys.stderr)
    if left:
        leave(end.exit_status, streams.drain)
    runner.close()
    last_resort.disarm()
    return end.exit_status


class DaemonLoop(uvloop.Loop):
    """A loop that functions cannot stop."""

    def stop(self) -> None:
        """As the loop's own; does nothing when a function asks for it."""
        if not foreign():
            super().stop()


def _new_loop() -> asyncio.AbstractEventLoop:
    """A loop on which functions cannot cancel the daemon's tasks, nor end it from a task that they started."""
    loop = DaemonLoop()
    loop.set_task_factory(make_task)  # type: ignore[arg-type]  # typeshed knows no generic one
    return loop


async def serve(
    settings: Settings,
    registry: Registry,
    make_engine: MakeEngine,
    file: ConfigurationFile | None = None,
    *,
    report: RunReport,
    last_resort: LastResort,
    dropped: DroppedLines | None = None,
    words: LastWords | None = None,
) -> None:
    """Opens everything, runs the daemon beside the control server, and returns when the daemon has drained."""
    plan = daemon_plan(settings)
    async with AsyncExitStack() as stack:
        env = environment(settings, dropped, words)
        stack.push_async_callback(env.shared.close)
        observers = [
            await stack.enter_async_context(opened(registry, "observers", name, given, env))
            for name, given in observer_settings(settings).items()
        ]
        observer = Observers((*observers, report.counts))
        stack.enter_context(faults_logged())
        control = await stack.enter_async_context(
            opened(registry, "control", "http", control_settings(settings), env)
        )
        env.strangers.observer = observer
        engine = make_engine(plan, registry=registry, env=env, observer=observer, rng=random.Random())
        last_resort.grace_s = lambda: engine.grace_s
        expositions = [each for each in observers if hasattr(each, "exposition")]
        task = asyncio.current_task()
        assert task is not None
        stopping = Stopping(engine.stop, task.cancel, report.on_signal)
        place = file.path if file is not None else None
        observer.on(starting(settings, plan, registry, listen=control.address, file=place))
        for line in nothing_runs(settings):
            logging.getLogger("poller.configuration").warning("%s", line, extra={EVENT: "nothing_runs"})
        for line in unlike_names(settings):
            logging.getLogger("poller.configuration").warning("%s", line, extra={EVENT: "unlike_name"})
        with _signals(stopping.on_signal, last_resort.arm), stopping.known():
            async with WatchedTasks(observer) as group:
                changes = engine.control
                watching_loop = LoopWatch(observer)
                view = WatchedStatus(engine, watching_loop.notes)
                serving = partial(
                    control.serve, view, expositions, control=changes, tags=changes, observer=observer
                )
                beside = [
                    group.kept(TaskKind.CONTROL, serving, fatal=(OSError,)),
                    group.kept(TaskKind.LOOP_WATCH, watching_loop.run),
                ]
                if file is not None:
                    load = again(file, settings, plan)
                    watching = partial(watch, file.path, load, engine, observer, seen=file.seen)
                    beside.append(group.kept(TaskKind.CONFIGURATION_FILE, watching))
                await engine.run()
                for each in beside:
                    each.cancel()


def again(file: ConfigurationFile, running: Settings, plan: DaemonPlan) -> Callable[[], Loaded]:
    """Reads the file again for a daemon that runs by `running` and `plan`; its worker and its store stay."""

    def load() -> Loaded:
        settings = file.load()
        if not settings.mappings and not read_document(file.path):
            # Somebody is writing it, or has no room to: no reason to stop everything.
            raise InvalidConfiguration([f"{file.path}: is empty; write `mappings: []` to run none"])
        found = daemon_plan(settings)
        waiting = tuple(
            name for name in WAIT_FOR_RESTART if getattr(settings, name) != getattr(running, name)
        )
        kept = replace(found, worker=plan.worker, store=plan.store, store_settings=plan.store_settings)
        return Loaded(kept, waiting)

    return load


@contextmanager
def _signals(
    on_signal: Callable[[str], None], at_once: Callable[[int, FrameType | None], None]
) -> Iterator[None]:
    """Calls `on_signal` on the loop, and `at_once` even while the loop is blocked."""
    loop = asyncio.get_running_loop()
    before = {each: signal.getsignal(each) for each in SIGNALS}
    for each in SIGNALS:
        loop.add_signal_handler(each, on_signal, each.name)
        # The loop hears of signals through a descriptor; Python's own handler is free.
        signal.signal(each, at_once)
        signal.siginterrupt(each, False)
    try:
        yield
    finally:
        for each in SIGNALS:
            loop.remove_signal_handler(each)
            # The loop leaves Python's own handler behind, also where the signal was ignored. None is a handler that
            # was not set from Python, which Python cannot set again.
            if before[each] is not None:
                signal.signal(each, early_signals.after(before[each]))
