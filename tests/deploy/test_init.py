"""The image's process 1: it reaps orphans, hands signals on, and ends as the daemon does."""

import json
import re
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

DOCKERFILE = Path(__file__).parents[2] / "Dockerfile"
ORPHANS = 30
PATIENCE_S = 30.0
PROGRAM = f"""
import os, signal, sys
signal.signal(signal.SIGTERM, lambda *_: sys.exit(7))
for _ in range({ORPHANS}):
    child = os.fork()
    if not child:
        if not os.fork():
            os.setsid()
            os._exit(3)
        os._exit(0)
    os.waitpid(child, 0)
kept = os.fork()
if not kept:
    os._exit(5)
print("left", flush=True)
sys.stdin.readline()
print(os.waitstatus_to_exitcode(os.waitpid(kept, 0)[1]), flush=True)
signal.pause()
"""
"""Leaves children of children behind, and has one child whose exit status it asks for much later."""


def entry_point() -> list[str]:
    """The words of the image's entry point."""
    *_, last = re.findall(r"^ENTRYPOINT (.*)$", DOCKERFILE.read_text(), re.MULTILINE)
    words: list[str] = json.loads(last)
    return words


def zombies(of: int) -> int:
    """How many children of a process wait to be reaped."""
    children = Path(f"/proc/{of}/task/{of}/children").read_text().split()
    states: list[str] = []
    for child in children:
        # One may be reaped just now.
        with suppress(OSError):
            states.append(Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()[0])
    return states.count("Z")


def test_the_daemon_is_started_by_an_init() -> None:
    assert entry_point() == ["tini", "--", "poller"]


@pytest.mark.skipif(shutil.which("tini") is None, reason="tini is not installed")
def test_the_init_reaps_orphans_and_leaves_the_daemon_its_own_children() -> None:
    init, dashes, _ = entry_point()
    # Here it is not process 1, and asks to get orphans all the same.
    command = [init, "-s", dashes, sys.executable, "-W", "ignore", "-c", PROGRAM]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == b"left\n"
            until = time.monotonic() + PATIENCE_S
            while zombies(process.pid) and time.monotonic() < until:
                time.sleep(0.01)
            assert zombies(process.pid) == 0
            process.stdin.write(b"\n")
            process.stdin.flush()
            assert process.stdout.readline() == b"5\n"
            process.send_signal(signal.SIGTERM)
            assert process.wait(PATIENCE_S) == 7
        finally:
            process.kill()
