"""Owns what acceptance tests do with daemons that are real processes: killing and draining them, commands that end by themselves."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from adapters.demo.daemon import Daemon
from adapters.demo.journal import Line, Reader
from adapters.demo.processes import plain_environment
from adapters.demo.scenario import Scene

POLL_S = 0.05
COMMAND_S_MAX = 150.0


@dataclass(frozen=True, slots=True)
class Ended:
    """A command that has ended."""

    status: int
    out: str
    err: str


def command(*words: str, env: Mapping[str, str] | None = None, cwd: Path | None = None) -> Ended:
    """Runs `poller` with these arguments to its end."""
    done = subprocess.run(
        [sys.executable, "-m", "poller", *words],
        env=plain_environment() | dict(env or {}),
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
        timeout=COMMAND_S_MAX,
    )
    return Ended(done.returncode, done.stdout, done.stderr)


async def kill(daemon: Daemon) -> None:
    """Ends the daemon by SIGKILL, as the kernel or a machine's end does."""
    daemon.running.signal(signal.SIGKILL)
    assert await daemon.running.ended(5.0) == -signal.SIGKILL


async def drained(daemon: Daemon, *, within_s: float) -> int:
    """Sends SIGTERM; returns the exit status."""
    daemon.running.signal(signal.SIGTERM)
    return await daemon.running.ended(within_s)


async def settled(stage: Scene, *, within_s: float) -> None:
    """Returns when every record is where it should be, or time is up; the account tells which."""
    deadline = time.monotonic() + within_s
    while not stage.evidence.complete and time.monotonic() < deadline:
        await asyncio.sleep(POLL_S)
        await stage.look()


def open_requests(lines: Sequence[Line]) -> set[str]:
    """Invocations that began and have not ended."""
    return {line.request for line in lines if line.began} - {line.request for line in lines if not line.began}


async def until(
    reader: Reader, lines: list[Line], holds: Callable[[list[Line]], bool], within_s: float
) -> None:
    """Adds the journal's lines to `lines` until `holds(lines)`; raises TimeoutError otherwise."""
    async with asyncio.timeout(within_s):
        while not holds(lines):
            await asyncio.sleep(POLL_S)
            lines += reader.fresh()


def alive(pid: int) -> bool:
    """Whether a process runs (one that has ended and was not yet waited for does not)."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def children(pid: int) -> list[int]:
    """The processes that a process started."""
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def wait_until(holds: Callable[[], bool], *, within_s: float) -> None:
    """Returns when `holds()`; fails otherwise."""
    deadline = time.monotonic() + within_s
    while not holds():
        assert time.monotonic() < deadline, f"did not come true within {within_s:g} s"
        time.sleep(POLL_S)


def interrupt(process: "subprocess.Popen[str]") -> None:
    """Sends what Ctrl-C sends."""
    os.kill(process.pid, signal.SIGINT)
