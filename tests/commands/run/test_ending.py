"""`poller run` ends in its time and says why, whatever goes on in its loop; each case is a process of its own."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
GRACE_S = 0.5

PROGRAM = """
import asyncio, os, signal, sys, threading, time
from poller.commands.run import ending, command as run
from poller.commands.run.command import run_daemon
from tests.commands.test_cli import Diary, FakeEngine, full, mapped, plug_ins
ending.LAST_RESORT_S = 1.5
ending.LEFT_S_MAX = 0.5

class Engine(FakeEngine):
    grace_s = {grace_s}

    def __init__(self):
        super().__init__(Diary(), signals=0)

    async def run(self):
        print("runs", flush=True)
        await self.act()
        await self._stopped.wait()

    async def act(self):
{act}

async def stubborn():
    while True:
        try:
            await asyncio.sleep(1000)
        except asyncio.CancelledError:
            continue

status = run_daemon(full(mapped()), plug_ins(Diary()), Engine().make, place="f")
print("status", status, flush=True)
ending.exit_in_time(status, "{}\\n".format)
sys.exit(status)
"""


def ended(act: str, *, term: bool) -> tuple[int, str, float]:
    """Exit status, stderr, and how long the end took after SIGTERM or from the first line on."""
    lines = "\n".join(f"        {line}" for line in act.splitlines())
    program = PROGRAM.replace("{grace_s}", str(GRACE_S)).replace("{act}", lines)
    with subprocess.Popen(
        [sys.executable, "-c", program], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == "runs\n"
        began = time.monotonic()
        if term:
            time.sleep(0.3)
            process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=30)
        return process.returncode, err, time.monotonic() - began


def test_a_daemon_whose_tasks_are_all_cancelled_from_inside_says_so_and_fails() -> None:
    status, err, _ = ended("for task in asyncio.all_tasks(): task.cancel()", term=False)
    assert status == 1
    assert "poller: the daemon was cancelled from inside" in err
    assert "Traceback" not in err


@pytest.mark.parametrize("error", ["SystemExit", "KeyboardInterrupt"])
def test_what_would_end_the_program_out_of_a_callback_is_reported_and_fails(error: str) -> None:
    act = f"def bad():\n    raise {error}\nasyncio.get_running_loop().call_soon(bad)"
    status, err, _ = ended(act, term=False)
    assert status == 1
    assert f"poller: the daemon was ended from inside by {error}" in err
    assert "Traceback" not in err


def test_a_task_that_refuses_to_end_is_left_behind_by_name() -> None:
    act = "task = asyncio.create_task(stubborn(), name='call of orders')\nself.keep = task"
    status, err, took_s = ended(act, term=True)
    assert status == 1
    assert "poller: 1 tasks do not end though they were cancelled, and are left behind: call of orders" in err
    assert took_s < 5.0


@pytest.mark.parametrize(
    "act",
    ["time.sleep(60)", "while True: pass", "await stubborn()"],
    ids=["sleeps in the loop", "spins in the loop", "the engine itself refuses to end"],
)
def test_sigterm_ends_a_daemon_whose_loop_is_blocked_and_shows_where(act: str) -> None:
    status, err, took_s = ended(act, term=True)
    assert status == 1
    assert "most recent call first" in err
    assert GRACE_S + 1.5 <= took_s < 10.0
    if "stubborn" not in act:
        assert "in act" in err


@pytest.mark.parametrize(
    ("how", "name"),
    [
        ("asyncio.create_task(asyncio.to_thread(time.sleep, 60))", "asyncio_0"),
        ("threading.Thread(target=time.sleep, args=(60,), name='pump').start()", "pump"),
    ],
)
def test_threads_that_do_not_end_are_left_behind_by_name(how: str, name: str) -> None:
    status, err, took_s = ended(f"self.keep = {how}\nawait asyncio.sleep(0.1)", term=True)
    assert status == 1
    assert f"poller: 1 threads do not end, and are left behind: {name}; exit status 1" in err
    assert took_s < 10.0


def test_the_status_is_the_one_that_was_reported_though_an_executor_is_at_work() -> None:
    act = "from concurrent.futures import ThreadPoolExecutor\nself.pool = ThreadPoolExecutor()\n"
    status, err, took_s = ended(act + "self.pool.submit(time.sleep, 60)", term=True)
    waits = "Python's exit waits for the thread ThreadPoolExecutor-0_0; the process ends without it; exit status 0"
    assert (status, err) == (0, f"{waits}\n")
    assert took_s < 10.0


def test_idle_threads_of_an_executor_delay_nothing() -> None:
    act = "from concurrent.futures import ThreadPoolExecutor\nself.pool = ThreadPoolExecutor()\n"
    act += "await asyncio.to_thread(time.sleep, 0)\nself.pool.submit(time.sleep, 0).result()"
    assert ended(act, term=True)[:2] == (0, "")


def test_nothing_is_reported_of_an_orderly_end() -> None:
    assert ended("pass", term=True)[:2] == (0, "")
