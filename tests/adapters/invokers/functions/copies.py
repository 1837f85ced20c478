"""Handlers that fork: the original answers with the exit status of its copy, and the copy ends as `event["end"]` says."""

import asyncio
import atexit
import multiprocessing
import os
import sys
import time
from collections.abc import Awaitable
from typing import Any

STATUSES = {
    "returns": 0,
    "exit": 0,
    "exit 0": 0,
    "exit 3": 3,
    "exit -1": 255,
    "exit words": 1,
    "raises": 1,
    "forks": 0,
    "os._exit": 5,
}
"""How a copy can end, and the exit status that Python gives it."""
FIRST = os.getpid()
atexit.register(lambda: os.write(2, b"exit function of a copy\n") if os.getpid() != FIRST else None)


def forks(event: Any, _context: Any) -> Any:
    """Forks."""
    copy = os.fork()
    return _status(copy) if copy else _end(event["end"])


async def forks_on_loop(event: Any, _context: Any) -> Any:
    """Forks on the loop, at first without having waited."""
    if event.get("waits"):
        await asyncio.sleep(0.001)
    copy = os.fork()
    if copy:
        return _status(copy)
    if event["end"] == "awaits":
        await asyncio.sleep(0)
        print("the copy goes on")
    return _end(event["end"])


def gives_awaitable(event: Any, context: Any) -> Awaitable[Any]:
    """Forks on the loop too, and is no coroutine function."""
    return forks_on_loop(event, context)


async def forks_in_task(event: Any, context: Any) -> Any:
    """Forks in a task that the handler starts."""
    return await asyncio.create_task(forks_on_loop(event, context))


async def forks_in_pool(event: Any, context: Any) -> Any:
    """Forks in a thread of a pool."""
    return await asyncio.to_thread(forks, event, context)


def leaves_behind(_event: Any, _context: Any) -> int:
    """Starts a process that outlives its parent; answers with its id."""
    copy = os.fork()
    if not copy:
        time.sleep(60)
    return copy


def uses_multiprocessing(event: Any, _context: Any) -> Any:
    """Lets a forked process of `multiprocessing` compute."""
    fork = multiprocessing.get_context("fork")
    here, there = fork.Pipe()
    child = fork.Process(target=_compute, args=(there, event["number"]))
    child.start()
    found = here.recv()
    child.join()
    return [found, child.exitcode]


async def uses_multiprocessing_on_loop(event: Any, context: Any) -> Any:
    """The same, on the loop."""
    await asyncio.sleep(0)
    return uses_multiprocessing(event, context)


def _compute(there: Any, number: int) -> None:
    async def twice() -> int:
        await asyncio.sleep(0.001)
        return 2 * number

    # A loop of the process's own.
    there.send(asyncio.run(twice()))


def _status(copy: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(copy, 0)[1])


def _end(end: str) -> Any:
    print(f"a copy {end}")
    match end:
        case "exit":
            sys.exit()
        case "exit 0":
            sys.exit(0)
        case "exit 3":
            sys.exit(3)
        case "exit -1":
            sys.exit(-1)
        case "exit words":
            sys.exit("these words")
        case "raises":
            raise ValueError("boom in a copy")
        case "forks":
            os.fork()
        case "os._exit":
            os._exit(5)
    return "the copy answers"
