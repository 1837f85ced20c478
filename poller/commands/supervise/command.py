"""Owns `poller run --processes` as the supervisor: what it opens, and how it starts and ends."""

import asyncio
import os
import random
import socket
import uuid
from contextlib import AsyncExitStack
from typing import Protocol

from poller.commands.root.problems import FAILED, print_problems
from poller.commands.run import early_signals
from poller.commands.run.report import leaves, problems_of
from poller.commands.run.signals import handled
from poller.commands.shared import control_settings, environment, observer_settings
from poller.commands.supervise.children import Child, Slot, same_command, start_child
from poller.commands.supervise.place import NAME_CHARS_MAX, ProcessPlace, settings_of_process, worker_of
from poller.commands.supervise.processors import processors
from poller.commands.supervise.supervisor import ProcessSupervisor
from poller.config.field_types import store_name
from poller.config.settings import Settings
from poller.domain.errors import InvalidConfiguration
from poller.output.last_words import LastWords
from poller.output.queued_output import QueuedStreams
from poller.plugins import Registry, opened
from poller.rules.supervision.counting import PROCESSES_MAX, number_of_processes


class Bound(Protocol):
    """A control server that has bound its port."""

    @property
    def descriptor(self) -> int:
        """The descriptor of the socket that listens."""
        ...


def processes_of(text: str) -> int:
    """The number that `--processes` means. Raises InvalidConfiguration."""
    found = number_of_processes(text, processors())
    if found is None:
        raise InvalidConfiguration(
            [f"--processes: value {text!r}: write auto, or a number from 1 to {PROCESSES_MAX}"]
        )
    return found


def supervise(settings: Settings, registry: Registry, *, processes: int, place: str) -> int:
    """Runs the processes until a signal; returns the exit status. Problems are printed on stderr, those of settings with their `place`."""
    streams = QueuedStreams()
    words = LastWords()
    with streams.installed():
        try:
            _refuse_unfit(settings, processes)
            return asyncio.run(_supervise(settings, registry, streams, words, processes=processes))
        except BaseExceptionGroup as group:
            print_problems(problems_of(group, place=place))
            if any(not isinstance(each, InvalidConfiguration | OSError) for each in leaves(group)):
                raise
            return FAILED
        except (InvalidConfiguration, OSError) as error:
            print_problems(problems_of(error, place=place))
            return FAILED


def _refuse_unfit(settings: Settings, processes: int) -> None:
    """Raises InvalidConfiguration for settings with which several processes cannot work together."""
    if store_name(settings.store) == "memory":
        raise InvalidConfiguration(
            [
                "store: memory:// is the memory of one process, and --processes starts several;"
                " write sqlite:///var/lib/poller/state.db, or leave --processes out"
            ]
        )
    if settings.worker is not None and len(worker_of(settings.worker, processes - 1)) > NAME_CHARS_MAX:
        raise InvalidConfiguration(
            [
                f"worker: too long for --processes, which adds -0, -1 and so on; write {NAME_CHARS_MAX - 3} characters or fewer"
            ]
        )
    settings_of_process(settings, _place(0, processes, ""))


async def _supervise(
    settings: Settings, registry: Registry, streams: QueuedStreams, words: LastWords, *, processes: int
) -> int:
    base = settings.worker or f"{socket.gethostname()}-{uuid.uuid4().hex[:8]}"
    async with AsyncExitStack() as stack:
        env = environment(settings, streams.dropped, words)
        stack.push_async_callback(env.shared.close)
        logs = observer_settings(settings)["logs"]
        await stack.enter_async_context(opened(registry, "observers", "logs", logs, env))
        bound: Bound = await stack.enter_async_context(
            opened(registry, "control", "http", control_settings(settings), env)
        )
        command = same_command()

        async def start(slot: Slot) -> Child:
            return await start_child(command, _place(slot.index, processes, slot.worker, bound.descriptor))

        supervisor = ProcessSupervisor(
            start,
            [worker_of(base, index) for index in range(processes)],
            grace_s=settings.tuning.grace_s,
            rng=random.Random(),
        )
        with handled(supervisor.on_signal, afterwards=early_signals.disregard):
            return await supervisor.run()


def _place(index: int, processes: int, worker: str, listening: int = -1) -> ProcessPlace:
    return ProcessPlace(
        index=index,
        processes=processes,
        worker=worker,
        link=-1,
        listening=listening,
        supervisor=os.getpid(),
    )
