"""Whatever a function process starts goes on between calls, and ends with it, with the time limit and with the daemon."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from adapters.invokers.function_processes import launcher
from adapters.invokers.process import ProcessInvoker
from adapters.invokers.python import PythonSettings, open_python
from poller.domain.invocations import FunctionError, Succeeded, TimedOut
from poller.ports import Invoker
from poller.testing.invoker import invocation
from tests.adapters.invokers.function_processes.test_process_invoker import running
from tests.adapters.invokers.functions.families import KINDS, ROOT
from tests.contracts import invokers

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux has subreapers")

PROGRAM = f"""
sys.path.insert(0, {str(ROOT)!r})
from tests.adapters.invokers.functions.families import act
while True:
    headers, event = taken()
    answered(headers, act(event))
"""
WAYS = ("process", "python")


@pytest.fixture
def mark(monkeypatch: pytest.MonkeyPatch) -> str:
    """What all processes of a test have among their variables."""
    monkeypatch.setenv("MARK", uuid.uuid4().hex)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    return os.environ["MARK"]


@asynccontextmanager
async def opened(way: str) -> AsyncIterator[Invoker]:
    """A function in one process, by either way."""
    if way == "process":
        async with running(PROGRAM, processes=1, stop_grace_s=0.2, init_timeout_s=60) as invoker:
            yield invoker
    else:
        handler = "tests.adapters.invokers.functions.families:handle"
        given = PythonSettings(function="orders", handler=handler, isolation="process", processes=1)
        async with invokers.environment() as env, open_python(given, env) as found:
            assert isinstance(found, ProcessInvoker)
            yield found


def kinds(mark: str) -> set[str]:
    """The kinds of the processes that are there; empty for a function's process itself."""
    found = set()
    for place in Path("/proc").glob("[0-9]*/environ"):
        try:
            variables = place.read_bytes().decode().split("\0")
        except OSError:
            continue
        if f"MARK={mark}" in variables:
            found.add(next((each[5:] for each in variables if each.startswith("KIND=")), ""))
    return found


def all_there(mark: str) -> bool:
    """Whether each kind is there; one that goes from process to process may be missed by one look."""
    return any(kinds(mark) >= KINDS.keys() for _ in range(100))


def left(mark: str, within_s: float = 20.0) -> set[str]:
    """What is still there when all have had the time to end."""
    deadline = time.monotonic() + within_s
    while (found := kinds(mark)) and time.monotonic() < deadline:
        time.sleep(0.02)
    return found


async def started(invoker: Invoker) -> int:
    """Starts all kinds; the id of the function's process."""
    outcome = await invoker.invoke(invocation({"do": "start"}, timeout_s=60))
    assert isinstance(outcome, Succeeded), outcome
    return int(json.loads(outcome.payload))


def parent(pid: int) -> int:
    """Of a process that is there."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


async def time_out(invoker: Invoker, _pid: int) -> None:
    assert await invoker.invoke(invocation({"do": "hang"}, timeout_s=0.3)) == TimedOut(0.3)


async def exits(invoker: Invoker, _pid: int) -> None:
    assert isinstance(await invoker.invoke(invocation({"do": "exit"})), FunctionError)


async def killed(_invoker: Invoker, pid: int) -> None:
    os.kill(pid, signal.SIGKILL)


async def guard_killed(_invoker: Invoker, pid: int) -> None:
    guard = parent(pid)
    assert guard != os.getpid()
    os.kill(guard, signal.SIGKILL)


async def other_guard_killed(_invoker: Invoker, pid: int) -> None:
    guard = parent(parent(pid))
    assert parent(guard) == os.getpid()
    os.kill(guard, signal.SIGKILL)


ENDS: list[Callable[[Invoker, int], Awaitable[None]]] = [
    time_out,
    exits,
    killed,
    guard_killed,
    other_guard_killed,
]


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("way", WAYS)
def test_what_a_process_started_ends_with_it(
    way: str, end: Callable[[Invoker, int], Awaitable[None]], mark: str
) -> None:
    async def run() -> set[str]:
        async with opened(way) as invoker:
            pid = await started(invoker)
            assert all_there(mark)
            await end(invoker, pid)
            return await asyncio.to_thread(left, mark)

    assert asyncio.run(run()) == set()


@pytest.mark.parametrize("way", WAYS)
def test_what_a_process_started_goes_on_between_calls_and_ends_when_the_function_is_closed(
    way: str, mark: str
) -> None:
    async def run() -> None:
        async with opened(way) as invoker:
            first = await started(invoker)
            await asyncio.sleep(0.5)
            again = await invoker.invoke(invocation({"do": "pid"}))
            assert again == Succeeded(str(first).encode())
            assert all_there(mark)

    asyncio.run(run())
    assert left(mark) == set()


DAEMON = """
import asyncio, signal, sys
from tests.adapters.invokers.function_processes.test_process_families import opened, started
from poller.testing.invoker import invocation
async def main():
    term = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, term.set)
    async with opened("process") as one, opened("python") as other, asyncio.TaskGroup() as tasks:
        async with asyncio.TaskGroup() as starts:
            starts.create_task(started(one))
            starts.create_task(started(other))
        hang = lambda invoker: tasks.create_task(invoker.invoke(invocation({"do": "hang"}, timeout_s=600)))
        calls = [hang(one), hang(other)]
        print("runs", flush=True)
        await term.wait()
        for call in calls:
            call.cancel()
asyncio.run(main())
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_what_a_process_started_ends_with_the_daemon(number: signal.Signals, mark: str) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", DAEMON], cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as daemon:
        assert daemon.stdout is not None
        assert daemon.stdout.readline() == "runs\n"
        assert all_there(mark)
        daemon.send_signal(number)
        daemon.wait()
    assert left(mark) == set()


def test_a_guard_gives_up_on_who_cannot_be_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[Any] = []
    monkeypatch.setattr(launcher, "END_S_MAX", 0.1)
    monkeypatch.setattr(launcher, "_send", lambda *told: sent.append(told))
    monkeypatch.setattr(launcher, "_any_left", lambda: True)
    with subprocess.Popen(["sleep", "60"]) as child:
        launcher.end_all()
        child.kill()
    assert {(child.pid, signal.SIGSTOP), (child.pid, signal.SIGKILL)} <= set(sent)
