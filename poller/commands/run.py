"""Owns `poller run`: opens observers and the control server, runs the daemon, follows its configuration file.

Signals are turned into the daemon's two ways of stopping.
"""

import asyncio
import os
import random
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import uvloop

from poller.commands.check import static_problems
from poller.commands.parts import FAILED, control_settings, environment, observer_settings, tell
from poller.control import MappingControl, TagControl
from poller.errors import InvalidConfiguration, PortError
from poller.memory import keep_freed_memory
from poller.plan import DaemonPlan
from poller.planning import daemon_plan
from poller.plugins import Environment, Registry, opened
from poller.ports import Exposition
from poller.runtime.reload import Loaded, Reloadable, watch
from poller.settings import Settings
from poller.status import DaemonStatus, StatusView
from poller.telemetry import Observer, Observers

INTERRUPTED = 1
"""Exit status after a second signal: running invocations were cancelled."""
SIGNALS = (signal.SIGTERM, signal.SIGINT)


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
    """Where the settings came from, and how to read them again; `load` raises InvalidConfiguration."""

    path: Path
    load: Callable[[], Settings]


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

    def stop(self) -> None:
        """Takes nothing new, finishes, saves, and lets `run` return."""
        ...

    def status(self) -> DaemonStatus:
        """A picture of this moment."""
        ...


class Control(Protocol):
    """The control server."""

    async def serve(
        self,
        view: StatusView,
        expositions: Sequence[Exposition],
        control: MappingControl | None = None,
        tags: TagControl | None = None,
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

    def __init__(self, stop: Callable[[], None], cancel: Callable[[], object]) -> None:
        self._stop = stop
        self._cancel = cancel
        self._asked = False

    def on_signal(self) -> None:
        """Takes one SIGTERM or SIGINT."""
        if self._asked:
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
    problems: list[str] = []
    status = FAILED
    keep_freed_memory(os.environ)
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(serve(settings, registry, make_engine, file))
        status = 0
    except* InvalidConfiguration as group:
        problems += [f"{place}: {problem}" for each in _leaves(group) for problem in each.problems]
    except* PortError as group:
        problems += [each.reason for each in _leaves(group)]
    except* OSError as group:
        problems += [str(each) for each in _leaves(group)]
    except* asyncio.CancelledError:
        status = INTERRUPTED
    tell(problems)
    return status


async def serve(
    settings: Settings,
    registry: Registry,
    make_engine: MakeEngine,
    file: ConfigurationFile | None = None,
) -> None:
    """Opens everything, runs the daemon beside the control server, and returns when the daemon has drained."""
    plan = daemon_plan(settings)
    problems = static_problems(settings, plan, registry)
    if problems:
        raise InvalidConfiguration(problems)
    async with AsyncExitStack() as stack:
        env = environment(settings)
        stack.push_async_callback(env.shared.close)
        observers = [
            await stack.enter_async_context(opened(registry, "observers", name, given, env))
            for name, given in observer_settings(settings).items()
        ]
        control = await stack.enter_async_context(
            opened(registry, "control", "http", control_settings(settings), env)
        )
        observer = Observers(tuple(observers))
        engine = make_engine(plan, registry=registry, env=env, observer=observer, rng=random.Random())
        expositions = [each for each in observers if hasattr(each, "exposition")]
        task = asyncio.current_task()
        assert task is not None
        with _signals(Stopping(engine.stop, task.cancel).on_signal):
            async with asyncio.TaskGroup() as group:
                changes = engine.control
                served = control.serve(engine, expositions, control=changes, tags=changes)
                beside = [group.create_task(served, name="control")]
                if file is not None:
                    load = again(file, settings, plan, registry)
                    watching = watch(file.path, load, engine, observer)
                    beside.append(group.create_task(watching, name="configuration file"))
                await engine.run()
                for each in beside:
                    each.cancel()


def again(
    file: ConfigurationFile, running: Settings, plan: DaemonPlan, registry: Registry
) -> Callable[[], Loaded]:
    """Reads the file again for a daemon that runs by `running` and `plan`; its worker and its store stay."""

    def load() -> Loaded:
        settings = file.load()
        found = daemon_plan(settings)
        problems = static_problems(settings, found, registry)
        if problems:
            raise InvalidConfiguration(problems)
        waiting = tuple(
            name for name in WAIT_FOR_RESTART if getattr(settings, name) != getattr(running, name)
        )
        kept = replace(found, worker=plan.worker, store=plan.store, store_settings=plan.store_settings)
        return Loaded(kept, waiting)

    return load


@contextmanager
def _signals(on_signal: Callable[[], None]) -> Iterator[None]:
    loop = asyncio.get_running_loop()
    before = {each: signal.getsignal(each) for each in SIGNALS}
    for each in SIGNALS:
        loop.add_signal_handler(each, on_signal)
    try:
        yield
    finally:
        for each in SIGNALS:
            loop.remove_signal_handler(each)
            # The loop leaves Python's own handler behind, also where the signal was ignored. None is a handler that
            # was not set from Python, which Python cannot set again.
            if before[each] is not None:
                signal.signal(each, before[each])


def _leaves[E: BaseException](group: BaseExceptionGroup[E]) -> Iterator[E]:
    for each in group.exceptions:
        if isinstance(each, BaseExceptionGroup):
            yield from _leaves(each)
        else:
            yield each
