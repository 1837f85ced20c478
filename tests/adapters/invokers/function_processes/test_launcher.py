"""Function processes start as they are told, with nothing of the daemon's, and end with it, however it ends."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.invokers.function_processes.process_settings import ProcessSettings, environment
from adapters.invokers.process import open_process
from poller.domain.invocations import FunctionError, Succeeded, Unreachable
from poller.testing.invoker import invocation
from tests.adapters.invokers.function_processes.test_process_invoker import called
from tests.contracts import invokers

linux = pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process that its parent ended")
ROOT = Path(__file__).parents[4]

DAEMON = """
import asyncio, os, signal, sys, uvloop
from tests.adapters.invokers.function_processes.test_process_invoker import running
from poller.testing.invoker import invocation
async def main(_, loop, program, mark, busy):
    async with running(program, env={"MARK": mark, "BUSY": busy}, processes=9) as invoker, asyncio.TaskGroup() as tasks:
        call = lambda: tasks.create_task(invoker.invoke(invocation({}, timeout_s=60)))
        call()
        while not os.path.exists(busy):
            await asyncio.sleep(0.01)
        for _ in range(8):
            call()
            await asyncio.sleep(0.008)
        os.kill(os.getpid(), signal.SIGKILL)
{"asyncio": asyncio, "uvloop": uvloop}[sys.argv[1]].run(main(*sys.argv))
"""
"""Starts one process, and when that works eight more, one after the other; is killed while they start."""
BUSY = """
signal.signal(signal.SIGTERM, signal.SIG_IGN)
headers, event = taken()
with open(os.environ["BUSY"], "a") as file:
    file.write("busy\\n")
time.sleep(60)
"""


def marked(mark: str) -> list[int]:
    """All processes with a mark among their variables."""
    found = []
    for place in Path("/proc").glob("[0-9]*/environ"):
        try:
            if f"MARK={mark}\0".encode() in place.read_bytes():
                found.append(int(place.parent.name))
        except OSError:
            continue
    return found


def none_left(mark: str) -> bool:
    """Whether no marked process is there, within five seconds."""
    deadline = time.monotonic() + 5
    while marked(mark):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


@linux
@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_processes_at_work_and_those_that_start_end_with_a_daemon_that_is_killed(
    loop: str, tmp_path: Path
) -> None:
    mark, busy = uuid.uuid4().hex, tmp_path / "busy"
    killed = subprocess.run(
        [sys.executable, "-c", DAEMON, loop, BUSY, mark, str(busy)], cwd=ROOT, check=False
    )
    assert killed.returncode == -signal.SIGKILL
    assert busy.exists()
    # One that was not a marked process yet has the time to become one.
    time.sleep(0.3)
    assert none_left(mark)


def copied(file: str, target: Path, **settings: Any) -> str:
    """A file of a function process that is no Python: what the kernel says of it."""

    async def run() -> None:
        command = ["cp", file, str(target)]
        given = ProcessSettings.model_validate({"function": "orders", "command": command, **settings})
        async with invokers.environment() as env, open_process(given, env) as invoker:
            assert await invoker.warm() is not None

    asyncio.run(run())
    return target.read_bytes().decode(errors="surrogateescape")


@linux
def test_the_command_gets_what_it_was_given_and_no_more(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in os.environ:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PATH", os.defpath)
    monkeypatch.setenv("LATIN", "caf\udce9 = =")
    monkeypatch.setenv("LC_CTYPE", "C")
    monkeypatch.setenv("PYTHONHOME", "/nowhere")
    monkeypatch.setenv("LONG", "x" * 100_000)
    text = copied("/proc/self/environ", tmp_path / "copy")
    found = {each.partition("=")[0] for each in text.split("\0") if each}
    settings = ProcessSettings(function="orders", command=["cp"])
    assert found == environment(settings, "", region=None).keys()
    assert "LATIN=caf\udce9 = =\0" in text
    assert "LC_CTYPE=C\0" in text


@linux
def test_no_variable_of_a_function_is_in_the_way_of_its_start(tmp_path: Path) -> None:
    # A library that Python needs, and the command does not.
    (tmp_path / "libm.so.6").write_text("no library")
    env = {"LD_LIBRARY_PATH": str(tmp_path)}
    assert f"LD_LIBRARY_PATH={tmp_path}" in copied("/proc/self/environ", tmp_path / "copy", env=env)


def ignored(status: str) -> int:
    """The signals that a process ignores, as its file in /proc says: a bit each."""
    [line] = [line for line in status.splitlines() if line.startswith("SigIgn")]
    return int(line.split()[1], 16)


@linux
def test_the_command_ignores_no_signals_that_python_ignores(tmp_path: Path) -> None:
    found = ignored(copied("/proc/self/status", tmp_path / "copy"))
    pythons = 1 << signal.SIGPIPE - 1 | 1 << signal.SIGXFSZ - 1
    assert found & pythons == 0
    assert found & ~ignored(Path("/proc/self/status").read_text()) == 0


@linux
def test_the_command_has_no_descriptors_but_the_standard_ones() -> None:
    [outcome] = asyncio.run(
        called("headers, event = taken(); answered(headers, os.listdir('/proc/self/fd')); taken()", {})
    )
    assert isinstance(outcome, Succeeded)
    assert len(json.loads(outcome.payload)) == 3 + 1, "one reads the list"


def test_a_program_that_went_away_is_unreachable(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    program = tmp_path / "program"
    program.touch(mode=0o700)

    async def run() -> Any:
        settings = ProcessSettings(function="orders", command=[str(program)])
        async with invokers.environment() as env, open_process(settings, env) as invoker:
            program.unlink()
            return await invoker.invoke(invocation({}))

    outcome = asyncio.run(run())
    assert isinstance(outcome, Unreachable)
    if sys.platform == "linux":
        assert "exit status 127" in outcome.reason
        assert f"{program}: cannot be started: No such file or directory" in capfd.readouterr().err


@linux
@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGTERM])
def test_the_command_dies_of_signals_as_ever(number: signal.Signals) -> None:
    [outcome] = asyncio.run(called(f"taken(); os.kill(os.getpid(), {int(number)})", {}))
    assert isinstance(outcome, FunctionError)
    assert outcome.message.endswith(f"signal {int(number)}")


def mixed(word: str) -> st.SearchStrategy[str]:
    """Spellings of a word in upper and lower case."""
    return st.tuples(*(st.sampled_from([each.lower(), each.upper()]) for each in word)).map("".join)


@given(prefix=mixed("poller_"), name=st.sampled_from(["url", "API__TOKENS_FILE", "", "Store"]))
def test_no_spelling_of_the_daemons_variables_reaches_a_function(prefix: str, name: str) -> None:
    settings = ProcessSettings(function="orders", command=["x"], env={"POLLER_OWN": "the user's word"})
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(prefix + name, "hidden")
        patch.setenv("APPOLLER_X", "kept")
        found = environment(settings, "127.0.0.1:1", region=None)
    assert "hidden" not in found.values()
    assert found["APPOLLER_X"] == "kept"
    assert found["POLLER_OWN"] == "the user's word"
