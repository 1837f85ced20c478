"""A daemon as a real process with a function that misbehaves: it goes on, and SIGTERM ends it in its time."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryFile

import pytest

DAEMON = "tests.commands.run.misbehaving_daemon"
GRACE_S = 1.0
TIMEOUT_S = 0.5
SLACK_S = 4.0
"""For a machine that is busy with other tests."""
CLOSE_S = 6.0
"""What a handler that refuses to be cancelled is given, in the function's closing and in the program's."""


NAMED = {
    "hangs": "1 threads do not end, and are left behind: function-orders-1",
    "leaves_a_pool": "Python's exit waits for the thread ThreadPoolExecutor-0_0",
    "leaves_a_process": "Python's exit waits for the process worker of a function",
    "leaves_an_exit_function": "Python's exit waits for an exit function of a function's module",
}
"""What names the culprit."""


def ended(handler: str) -> tuple[int, float, str]:
    """Exit status, seconds from SIGTERM to the end, and what was told, of a daemon whose function is this handler."""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}
    command = [sys.executable, "-m", DAEMON, handler, str(TIMEOUT_S), str(GRACE_S)]
    # A file, since a pipe ends only when the processes end, too, that a function has left behind.
    with (
        TemporaryFile("w+") as errors,
        subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=errors, text=True) as child,
    ):
        try:
            assert child.stdout is not None
            assert child.stdout.readline() == "called\n"
            time.sleep(1.0)
            assert child.poll() is None, "it ended by itself"
            asked = time.monotonic()
            child.send_signal(signal.SIGTERM)
            status = child.wait(timeout=40)
            took_s = time.monotonic() - asked
            errors.seek(0)
            return status, took_s, errors.read()
        finally:
            child.kill()


@pytest.mark.acceptance
@pytest.mark.parametrize(
    ("handler", "status", "within_s"),
    [
        (f"{DAEMON}:answers", 0, SLACK_S),
        (f"{DAEMON}:cancels_all", 0, SLACK_S),
        (f"{DAEMON}:leaves_an_exit", 0, SLACK_S),
        (f"{DAEMON}:stops_the_loop", 0, SLACK_S),
        (f"{DAEMON}:takes_over_the_loop", 0, SLACK_S),
        (f"{DAEMON}:leaves_a_pool", 0, CLOSE_S + SLACK_S),
        (f"{DAEMON}:leaves_a_process", 0, CLOSE_S + SLACK_S),
        (f"{DAEMON}:leaves_an_exit_function", 0, CLOSE_S + SLACK_S),
        # What is left behind is named, and the status says so.
        (f"{DAEMON}:refuses", 1, GRACE_S + CLOSE_S + SLACK_S),
        (f"{DAEMON}:hangs", 1, GRACE_S + CLOSE_S + SLACK_S),
        ("tests.adapters.invokers.functions.endless_module:handler", 0, SLACK_S),
    ],
)
def test_sigterm_ends_the_daemon_whatever_its_function_does(
    handler: str, status: int, within_s: float
) -> None:
    found, took_s, told = ended(handler)
    assert found == status, told
    assert took_s < within_s
    if "leaves_an_exit" not in handler:
        # Of a task that nobody waits for Python itself speaks, when there is no daemon any more.
        assert [line for line in told.splitlines() if not is_json(line)] == [], "the log is JSON to its end"
    for name, words in NAMED.items():
        assert (words in told) == (name == handler.partition(":")[2])


def is_json(line: str) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except ValueError:
        return False
