"""Owns the processes that the demo starts: each has its output in a file and is ended by its own id."""

import asyncio
import os
import random
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import aiohttp

from adapters.private_files import private_opener

HOST = "127.0.0.1"
PORTS = range(16_000, 30_000)
"""Ports for servers: below 32,768, where Linux begins to number outgoing connections."""
PORTS_TRIED_MAX = 1_000
POLL_S = 0.05
END_S_MAX = 5.0
"""How long a process may take to end after SIGTERM before it is killed."""
ANSWER_S_MAX = 5.0
TAIL_CHARS = 2000


class Unusable(Exception):
    """Something that the demo needs did not work. The text says what, and where its output is."""


@dataclass(frozen=True, slots=True)
class Running:
    """A process that the demo has started."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path

    @property
    def pid(self) -> int:
        """Its process id."""
        return self.process.pid

    @property
    def exit_status(self) -> int | None:
        """None while it runs; negative if a signal ended it."""
        return self.process.poll()

    def signal(self, number: signal.Signals) -> None:
        """Sends it a signal if it still runs."""
        self.process.send_signal(number)

    async def ended(self, within_s: float) -> int:
        """Waits for its end and returns the exit status; raises Unusable if that takes longer than `within_s`."""
        deadline = time.monotonic() + within_s
        while (status := self.exit_status) is None:
            if time.monotonic() > deadline:
                raise Unusable(f"{self.name} (pid {self.pid}) did not end in {within_s:g} s\n{self.tail()}")
            await asyncio.sleep(POLL_S)
        return status

    async def answers(self, url: str, within_s: float) -> None:
        """Waits until `url` answers 200; raises Unusable if the process ends or the time is over."""
        deadline = time.monotonic() + within_s
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=ANSWER_S_MAX)) as session:
            while time.monotonic() < deadline and self.exit_status is None:
                if await _answers(session, url):
                    return
                await asyncio.sleep(POLL_S)
        status = self.exit_status
        why = f"no answer in {within_s:g} s" if status is None else f"it ended with exit status {status}"
        raise Unusable(f"{self.name} (pid {self.pid}) at {url}: {why}\n{self.tail()}")

    def tail(self) -> str:
        """Returns the end of its output."""
        return f"end of {self.log}:\n{self.log.read_text(errors='replace')[-TAIL_CHARS:]}"


async def _answers(session: aiohttp.ClientSession, url: str) -> bool:
    try:
        async with session.get(url) as answer:
            return answer.status == 200
    except (aiohttp.ClientError, TimeoutError, OSError):
        return False


@contextmanager
def running(name: str, command: Sequence[str], env: Mapping[str, str], folder: Path) -> Iterator[Running]:
    """Runs `command` in `folder` until the block ends; its output is appended to NAME.log there."""
    log = folder / f"{name}.log"
    with open(log, "ab", opener=private_opener) as output:
        # A process group of its own, so that Ctrl-C in a terminal reaches only us, and we end the others in order.
        process = subprocess.Popen(
            command,
            env=dict(env),
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            process_group=0,
        )
    try:
        yield Running(name, process, log)
    finally:
        _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(END_S_MAX)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def free_port() -> int:
    """Returns a TCP port of the loopback address that is free now; raises Unusable if none is found.

    The port is random and below the range that systems give to outgoing connections. A port that the system picks is
    given again soon, also to another process that asks before the first one listens: two daemons then share an address.
    """
    for _ in range(PORTS_TRIED_MAX):
        port = random.choice(PORTS)
        with socket.socket() as probe:
            try:
                probe.bind((HOST, port))
            except OSError:
                continue
            return port
    raise Unusable("no free TCP port was found on the loopback address")


def plain_environment() -> dict[str, str]:
    """Returns this process's environment without variables that redirect AWS clients or configure the daemon."""
    away = ("aws_", "poller_", "demo_")
    kept = {name: text for name, text in os.environ.items() if not name.lower().startswith(away)}
    proxies = {name for name in kept if name.lower().endswith("_proxy")}
    return {name: text for name, text in kept.items() if name not in proxies}
