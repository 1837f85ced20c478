"""Handlers that fork: a copy ends where the handler's code ends in it, answers nothing, and keeps no port of the daemon."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.adapters.invokers.functions.copies import STATUSES
from tests.adapters.invokers.handlers.test_child_processes import Lines, answer, importable, ran

__all__ = ["importable"]

COPIES = "tests.adapters.invokers.functions.copies"
AT_IMPORT = "tests.adapters.invokers.functions.copies_at_import:handler"
ROOT = Path(__file__).parents[4]
ENDS = [{"end": end} for end in STATUSES]
AWAITS = [{"end": "awaits"}, {"end": "awaits", "waits": True}]
ON_LOOP = ["forks_on_loop", "gives_awaitable", "forks_in_task"]


def statuses(events: Sequence[Any]) -> list[int]:
    """What the originals answer."""
    return [1 if event["end"] == "awaits" else STATUSES[event["end"]] for event in events]


@pytest.mark.parametrize("handler", ["forks", "forks_on_loop", "gives_awaitable"])
def test_a_copy_of_a_function_s_process_ends_with_its_status_and_answers_nothing(handler: str) -> None:
    lines = Lines()
    events = ENDS if handler == "forks" else [*ENDS, *({**end, "waits": True} for end in ENDS), *AWAITS]
    found = ran(f"{COPIES}:{handler}", *events, lines=lines)
    assert [answer(each) for each in found] == statuses(events)
    texts = [line.text for line in lines.said]
    assert {f"a copy {end}" for end in STATUSES} <= set(texts)
    assert "these words" in texts
    assert any("boom in a copy" in text for text in texts)
    assert not any("exit function" in text or "goes on" in text for text in texts)


DAEMON = """
import asyncio, json, sys
from adapters.control.server import listening
from adapters.invokers.python import PythonSettings, open_python
from poller.clock import LoopClock
from poller.commands.run.daemon_loop import DaemonLoop, LoopThreads
from poller.config.field_types import Address
from poller.domain.invocations import Succeeded
from poller.foreign_tasks import make_task
from poller.plugins import Environment
from poller.testing.invoker import invocation

handler, loop, events = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])

async def main():
    sock = await listening(Address("127.0.0.1", 0))
    given = PythonSettings(function="orders", handler=handler)
    async with open_python(given, Environment(LoopClock())) as invoker:
        for event in events:
            outcome = await invoker.invoke(invocation(event))
            found = json.loads(outcome.payload) if isinstance(outcome, Succeeded) else str(outcome)
            print(json.dumps(found), flush=True)
    print(sock.getsockname()[1], flush=True)

def new_loop():
    if loop == "uvloop":
        return DaemonLoop(LoopThreads())
    found = asyncio.new_event_loop()
    found.set_task_factory(make_task)
    return found

with asyncio.Runner(loop_factory=new_loop) as runner:
    runner.run(main())
"""


def daemon(handler: str, events: Sequence[Any], folder: Path, loop: str = "uvloop") -> tuple[list[Any], str]:
    """What a daemon printed on its standard output, line by line, and on stderr, once it has ended. Its copies may go on."""
    out, err = folder / "out", folder / "err"
    command = [sys.executable, "-W", "ignore", "-c", DAEMON, handler, loop, json.dumps(events)]
    with out.open("wb") as stdout, err.open("wb") as stderr:
        subprocess.run(command, cwd=ROOT, stdout=stdout, stderr=stderr, timeout=60, check=False)
    return [json.loads(line) for line in out.read_text().splitlines()], err.read_text()


@pytest.mark.parametrize(
    ("handler", "loop"),
    [
        ("forks", "uvloop"),
        *((handler, loop) for handler in ON_LOOP for loop in ("uvloop", "asyncio")),
        ("forks_in_pool", "uvloop"),
    ],
)
def test_a_copy_of_the_daemon_ends_with_its_status_and_nothing_of_the_daemon_runs_in_it(
    handler: str, loop: str, tmp_path: Path
) -> None:
    events = ENDS if handler not in ON_LOOP else [*ENDS, *({**end, "waits": True} for end in ENDS)]
    if handler in {"forks_on_loop", "gives_awaitable"}:
        events = [*events, *AWAITS]
    [*found, port], told = daemon(f"{COPIES}:{handler}", events, tmp_path, loop)
    assert found == statuses(events)
    assert port > 0
    for words in (*(f"a copy {end}" for end in STATUSES), "these words", "boom in a copy"):
        assert words in told
    assert "exit function" not in told
    assert "goes on" not in told


def test_a_copy_that_outlives_the_daemon_does_not_keep_its_port(tmp_path: Path) -> None:
    [copy, port], told = daemon(f"{COPIES}:leaves_behind", [{}], tmp_path)
    try:
        os.kill(copy, 0)
        with socket.socket() as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind(("127.0.0.1", port))
            sock.listen()
    finally:
        os.kill(copy, signal.SIGKILL)
    assert told == ""


@pytest.mark.parametrize("isolation", ["process", None])
def test_a_module_that_forks_at_import_is_imported_once(isolation: str | None, tmp_path: Path) -> None:
    if isolation:
        assert answer(ran(AT_IMPORT, {})[0]) == [4, 0]
    else:
        found, _ = daemon(AT_IMPORT, [{}], tmp_path)
        assert found[0] == [4, 0]


@pytest.mark.parametrize("handler", ["uses_multiprocessing", "uses_multiprocessing_on_loop"])
@pytest.mark.parametrize("isolation", ["process", None])
def test_processes_of_multiprocessing_go_on_to_work(
    handler: str, isolation: str | None, tmp_path: Path
) -> None:
    if isolation:
        assert answer(ran(f"{COPIES}:{handler}", {"number": 21})[0]) == [42, 0]
    else:
        found, _ = daemon(f"{COPIES}:{handler}", [{"number": 21}] * 2, tmp_path)
        assert found[:2] == [[42, 0]] * 2
