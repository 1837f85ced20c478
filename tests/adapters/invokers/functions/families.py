"""A function that starts processes of every kind that hides from who started it, and leaves them at work; run as a program, it is one.

Each kind has the variable KIND, by which it is found; all that it starts inherits it.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[4]
GENERATIONS = 30
GENERATION_S = 0.05
LIVES_S = 120.0
"""Longer than any test waits for an end."""


def _plain() -> None:
    _ready()


def _in_a_session_of_its_own() -> None:
    os.setsid()
    _ready()


def _daemonised() -> None:
    if os.fork():
        os._exit(0)
    os.setsid()
    if os.fork():
        os._exit(0)
    _ready()


def _deaf_to_sigterm() -> None:
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)
    _ready()


def _many() -> None:
    """Each generation starts the next one and stays."""
    _ready()
    for _ in range(GENERATIONS):
        if os.fork():
            break
        os.setsid()
        time.sleep(GENERATION_S)


def _runaway() -> None:
    """Each generation starts the next one and ends."""
    _ready()
    for _ in range(GENERATIONS):
        if os.fork():
            os._exit(0)
        time.sleep(GENERATION_S)


def _ready() -> None:
    os.write(1, b"\n")


KINDS: dict[str, Callable[[], None]] = {
    "plain": _plain,
    "in a session of its own": _in_a_session_of_its_own,
    "daemonised": _daemonised,
    "deaf to SIGTERM": _deaf_to_sigterm,
    "many": _many,
    "runaway": _runaway,
}


def act(event: Any) -> Any:
    """Does what `event["do"]` says."""
    match event["do"]:
        case "start":
            started = [
                subprocess.Popen(
                    [sys.executable, "-S", __file__, kind],
                    env={**os.environ, "KIND": kind},
                    stdout=subprocess.PIPE,
                )
                for kind in KINDS
            ]
            for each in started:
                assert each.stdout is not None
                each.stdout.readline()
        case "exit":
            os._exit(3)
        case "hang":
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            time.sleep(LIVES_S)
    return os.getpid()


def handle(event: Any, _context: Any) -> Any:
    """The same as a handler."""
    return act(event)


if __name__ == "__main__":
    KINDS[sys.argv[1]]()
    time.sleep(LIVES_S)
