"""Owns `poller run`: opens observers and the control server, runs the daemon, follows its configuration file.

The first signal stops the daemon, a second one cancels it.
"""

import asyncio
import logging
import os
import random
import sys
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from poller.clock import LoopClock
from poller.commands.root.problems import print_problems
from poller.commands.run.daemon_loop import DaemonLoop, LoopThreads
from poller.commands.run.descriptors import few_descriptors, raise_limit
from poller.commands.run.ending import (
    LastResort,
    leave,
    left_behind,
    lines_of_left,
    threads_left_behind,
)
from poller.commands.run.engine import Engine, MakeEngine
from poller.commands.run.loop_watch import LoopWatch, WatchedStatus
from poller.commands.run.malloc import keep_freed_memory
from poller.commands.run.report import RunReport, faults_logged, faults_of, problems_of, starting
from poller.commands.run.signals import Stopping, signals_taken
from poller.commands.run.tracing import opened_env
from poller.commands.shared import control_settings, nothing_runs, observer_settings, unlike_names
from poller.commands.supervise.own_process import OwnProcess, joined
from poller.config.daemon_plan import daemon_plan
from poller.config.settings import Settings
from poller.config.yaml_files import Signature, read_document
from poller.domain.errors import InvalidConfiguration
from poller.domain.plan import DaemonPlan
from poller.domain.telemetry.labels import TaskKind
from poller.domain.telemetry.observers import Observers
from poller.output.last_words import LastWords
from poller.output.log_fields import EVENT
from poller.output.queued_output import DroppedLines, QueuedStreams
from poller.plugins import Registry, opened
from poller.runtime.history import HistoryObserver
from poller.runtime.reload import Loaded, watch
from poller.runtime.watched_tasks import WatchedTasks

WAIT_FOR_RESTART = (
    "region",
    "endpoint_url",
    "endpoint_urls",
    "identities",
    "listen",
    "store",
    "api",
    "log",
    "tracing",
    "resources",
    "worker",
)
"""Settings that a running daemon cannot change."""


@dataclass(frozen=True, slots=True)
class ConfigurationFile:
    """The file that the settings come from, and how to read it again. `load` raises InvalidConfiguration.

    `seen` is the signature before the file was read, so that a change while the daemon starts is noticed.
    """

    path: Path
    load: Callable[[], Settings]
    seen: Signature = None


def run_daemon(
    settings: Settings,
    registry: Registry,
    make_engine: MakeEngine,
    *,
    place: str,
    file: ConfigurationFile | None = None,
    words: LastWords | None = None,
    process: OwnProcess | None = None,
) -> int:
    """Runs until a signal; returns the exit status. Problems are printed on stderr, those of settings with their `place`.

    Changes of `file` are taken over while the daemon runs. `words` gets the log's formats for what is told after its end.
    `process` is this process if a supervisor has started it.
    """
    streams = QueuedStreams()
    words = words or LastWords()
    with streams.installed():
        return _run(
            settings,
            registry,
            make_engine,
            place=place,
            file=file,
            streams=streams,
            words=words,
            process=process,
        )


def _run(
    settings: Settings,
    registry: Registry,
    make_engine: MakeEngine,
    *,
    place: str,
    file: ConfigurationFile | None,
    streams: QueuedStreams,
    words: LastWords,
    process: OwnProcess | None,
) -> int:
    report = RunReport(LoopClock(steady=time.monotonic))
    error: BaseException | None = None
    tasks: list[str] = []
    threads: list[str] = []
    keep_freed_memory(os.environ)
    last_resort = LastResort()
    loop_threads = LoopThreads()
    runner = asyncio.Runner(loop_factory=partial(DaemonLoop, loop_threads))
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
                    process=process,
                )
            )
        finally:
            tasks = runner.run(left_behind())
            loop_threads.shut_down()
            threads = threads_left_behind(last_resort.threads())
    except BaseException as raised:  # noqa: BLE001 - whatever ends the daemon is reported in its last line
        error = raised
    left = [*tasks, *threads]
    end = report.ended(error, left)
    # Problems that prevent a start are printed for people. Faults come after the log and have the log's format.
    print_problems(problems_of(error, place=place))
    print_problems(faults_of(error), words.form)
    print_problems(lines_of_left(tasks, threads, end.exit_status), words.form)
    print(words.end(end), end="", file=sys.stderr)
    if left:
        leave(end.exit_status, streams.drain)
    runner.close()
    last_resort.disarm()
    return end.exit_status


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
    process: OwnProcess | None = None,
) -> None:
    """Opens everything, runs the daemon and the control server, and returns when the daemon has drained."""
    plan = daemon_plan(settings)
    descriptors = raise_limit()
    index, listening = (None, None) if process is None else (process.index, process.place.listening)
    async with AsyncExitStack() as stack:
        env = await opened_env(settings, registry, stack, worker=plan.worker, dropped=dropped, words=words)
        observers = [
            await stack.enter_async_context(opened(registry, "observers", name, given, env))
            for name, given in observer_settings(settings, index).items()
        ]
        history = HistoryObserver(env.clock, plan.worker)
        observer = Observers((*observers, report.counts, history))
        stack.enter_context(faults_logged())
        control = await stack.enter_async_context(
            opened(registry, "control", "http", control_settings(settings, listening), env)
        )
        env.strangers.observer = observer
        engine = make_engine(plan, registry=registry, env=env, observer=observer, rng=random.Random())
        last_resort.grace_s = lambda: engine.grace_s
        expositions = [each for each in observers if hasattr(each, "exposition")]
        task = asyncio.current_task()
        assert task is not None
        stopping = Stopping(engine.stop, task.cancel, report.on_signal, supervised=process is not None)
        place = file.path if file is not None else None
        observer.on(starting(settings, plan, registry, listen=control.address, file=place))
        for line in few_descriptors(descriptors):
            logging.getLogger("poller.daemon").warning("%s", line, extra={EVENT: "few_descriptors"})
        _warn_of_configuration(settings)
        with signals_taken(stopping, last_resort.arm), stopping.known():
            async with WatchedTasks(observer) as group:
                watching_loop = LoopWatch(observer)
                view = WatchedStatus(engine, watching_loop.notes)
                if process is not None:
                    view = WatchedStatus(view, process.notes)
                served = {"observer": observer, "history": history, "processes": process}
                serving = partial(control.serve, view, expositions, **served, **_controls(engine))
                beside = [
                    group.kept(TaskKind.CONTROL, serving, fatal=(OSError,)),
                    group.kept(TaskKind.LOOP_WATCH, watching_loop.run),
                ]
                if process is not None:
                    joined(process, stopping, engine, last_resort.arm)
                    beside.append(group.kept(TaskKind.SUPERVISOR, process.run))
                if file is not None:
                    load = again(file, settings, plan)
                    watching = partial(watch, file.path, load, engine, observer, seen=file.seen)
                    beside.append(group.kept(TaskKind.CONFIGURATION_FILE, watching))
                await engine.run()
                for each in beside:
                    each.cancel()


def _controls(engine: Engine) -> dict[str, Any]:
    """What the server lets people change and look into."""
    changes = engine.control
    return {
        "control": changes,
        "tags": changes,
        "operations": engine.operations,
        "peeking": changes,
        "functions": None if changes is None else changes.functions,
        "calls": None if changes is None else changes.calls,
    }


def _warn_of_configuration(settings: Settings) -> None:
    """Logs what is allowed, and perhaps not meant."""
    log = logging.getLogger("poller.configuration")
    for line in nothing_runs(settings):
        log.warning("%s", line, extra={EVENT: "nothing_runs"})
    for line in unlike_names(settings):
        log.warning("%s", line, extra={EVENT: "unlike_name"})


def again(file: ConfigurationFile, running: Settings, plan: DaemonPlan) -> Callable[[], Loaded]:
    """Returns a function that reads the file again for a daemon that runs with `running` and `plan`. Its worker and its store stay."""

    def load() -> Loaded:
        settings = file.load()
        if not settings.mappings and not read_document(file.path):
            # An empty file is probably being written, or the disk is full. That must not stop all mappings.
            raise InvalidConfiguration([f"{file.path}: is empty; write `mappings: []` to run none"])
        found = daemon_plan(settings)
        waiting = tuple(
            name for name in WAIT_FOR_RESTART if getattr(settings, name) != getattr(running, name)
        )
        return Loaded(found.as_started(plan), waiting)

    return load
