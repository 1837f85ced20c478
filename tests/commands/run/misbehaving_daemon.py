"""A program for tests of how a daemon ends: `poller run` over a fake stream with one record, and a function that misbehaves."""

import asyncio
import atexit
import os
import signal
import sys
import time
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from adapters.invokers import python
from adapters.observers import logs
from adapters.stores import memory
from poller.commands.run.command import run_daemon
from poller.commands.run.ending import exit_in_time
from poller.config.settings import Settings
from poller.output.last_words import LastWords
from poller.plugins import Environment, GivenPlugins, Plugin
from poller.runtime.daemon import Daemon
from tests.runtime.fakes import STREAM_ARN, FakeStream, records

HERE = "tests.commands.run.misbehaving_daemon"


def called() -> None:
    """Tells the test."""
    os.write(1, b"called\n")


async def answers(_event: Any, _context: Any) -> None:
    """Does nothing wrong."""
    called()


async def refuses(_event: Any, _context: Any) -> None:
    """Refuses every cancellation."""
    called()
    while True:
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            continue


async def cancels_all(_event: Any, _context: Any) -> None:
    """Cancels every task that it finds."""
    for task in asyncio.all_tasks():
        task.cancel()
    called()


async def stops_the_loop(_event: Any, _context: Any) -> None:
    """Stops the loop, from here and from a task of its own."""

    async def stop() -> None:
        asyncio.get_running_loop().stop()

    asyncio.get_running_loop().stop()
    await asyncio.create_task(stop())
    called()


async def takes_over_the_loop(_event: Any, _context: Any) -> None:
    """Does to the loop what a program of its own may do."""
    loop = asyncio.get_running_loop()
    loop.set_task_factory(asyncio.eager_task_factory)
    loop.set_exception_handler(lambda *_: None)
    loop.add_signal_handler(signal.SIGTERM, lambda: None)
    loop.remove_signal_handler(signal.SIGINT)
    with ThreadPoolExecutor() as executor:
        loop.set_default_executor(executor)
        await asyncio.to_thread(int)
    await loop.shutdown_asyncgens()
    await loop.shutdown_default_executor()
    called()


async def leaves_an_exit(_event: Any, _context: Any) -> None:
    """Wants to end the program from a task that nobody awaits."""

    async def leave() -> None:
        sys.exit(7)

    leaves_an_exit.__dict__["kept"] = asyncio.create_task(leave())
    await asyncio.sleep(0.1)
    called()


def leaves_a_pool(_event: Any, _context: Any) -> None:
    """Leaves a pool of threads at work, as a library for metrics or traces may."""
    pool = ThreadPoolExecutor()
    pool.submit(time.sleep, 3600)
    pool.shutdown(wait=False)
    called()


def sleeps_quietly() -> None:
    """Holds nothing of its parent's output, which the test reads to its end."""
    os.close(1)
    os.close(2)
    time.sleep(20)


def leaves_a_process(_event: Any, _context: Any) -> None:
    """Leaves a child process at work, which Python waits for at its exit."""
    import multiprocessing

    child = multiprocessing.get_context("spawn").Process(target=sleeps_quietly, name="worker of a function")
    child.start()
    called()


def leaves_an_exit_function(_event: Any, _context: Any) -> None:
    """Leaves an exit function that waits for a service which is away."""
    atexit.register(time.sleep, 3600)
    called()


def hangs(_event: Any, _context: Any) -> None:
    """Never returns, in a thread."""
    called()
    time.sleep(3600)


class Anything(BaseModel):
    """Any settings."""

    model_config = ConfigDict(extra="allow")


class Control:
    """Serves nobody."""

    address = "nowhere"

    async def serve(self, *_: Any, **__: Any) -> None:
        await asyncio.Event().wait()


class Quiet:
    """Observes nothing."""

    def on(self, _: Any) -> None:
        return


def given(name: str, port: Any) -> Plugin[Any, Any]:
    @asynccontextmanager
    async def opening(_settings: Anything, _env: Environment) -> AsyncIterator[Any]:
        yield port

    return Plugin(name, Anything, opening)


def main(handler: str, timeout_s: float, grace_s: float) -> int:
    """Runs until a signal."""
    stream = FakeStream()
    stream.put(*records(1))
    registry = GivenPlugins(
        {
            ("observers", "prometheus"): given("prometheus", Quiet()),
            ("observers", "logs"): logs.plugin,
            ("control", "http"): given("http", Control()),
            ("stores", "memory"): memory.plugin,
            ("sources", "kinesis"): given("kinesis", stream),
            ("invokers", "python"): python.plugin,
        }
    )
    functions: dict[str, Any] = {
        "orders": {"invoker": "python", "handler": handler, "timeout_s": timeout_s, "workers": 1}
    }
    mapping = {"FunctionName": "orders", "EventSourceArn": STREAM_ARN, "StartingPosition": "TRIM_HORIZON"}
    document = {
        "store": "memory://",
        "functions": functions,
        "mappings": [mapping],
        "tuning": {"grace_s": grace_s},
    }
    words = LastWords()
    status = run_daemon(
        Settings.model_validate(document), registry, Daemon, place=str(Path(__file__)), words=words
    )
    exit_in_time(status, words.form)
    return status


if __name__ == "__main__":
    status = main(sys.argv[1], float(sys.argv[2]), float(sys.argv[3]))
    sys.exit(status)
