"""Owns the two subjects of a case, and what they have used so far: one runs while the other is stopped by a signal."""

import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from benchmarks.end_to_end.cases import SHARDS, Case, function
from benchmarks.subjects import STREAMS, Cores, Daemon, Loop, counting, daemon, exact_cpu_s, get

METRICS = ("poller_records_processed_total", "poller_invocations_total")


@dataclass(frozen=True, slots=True)
class Used:
    """What a subject has done and used so far; `own_s` and `children_s` are CPU seconds."""

    records: float
    batches: float
    own_s: float
    children_s: float
    at: float

    def since(self, before: "Used") -> "Used":
        """The difference."""
        return Used(
            self.records - before.records,
            self.batches - before.batches,
            self.own_s - before.own_s,
            self.children_s - before.children_s,
            self.at - before.at,
        )


class Contender(Protocol):
    """A subject under load."""

    @property
    def pid(self) -> int:
        """Its id."""
        ...

    async def used(self) -> Used:
        """So far."""
        ...


@dataclass(frozen=True, slots=True)
class OurDaemon:
    """The daemon."""

    running: Daemon

    @property
    def pid(self) -> int:
        """Its id."""
        return self.running.pid

    async def used(self) -> Used:
        """By its metrics."""
        records, batches = await self.running.figures(*METRICS)
        return used(self.pid, records, batches)


@dataclass(frozen=True, slots=True)
class BareProcess:
    """The bare loop."""

    running: Loop

    @property
    def pid(self) -> int:
        """Its id."""
        return self.running.pid

    async def used(self) -> Used:
        """By what it prints."""
        records, batches = self.running.counts()
        return used(self.pid, records, batches)


def used(pid: int, records: float, batches: float) -> Used:
    """With the CPU time of the process and of all that it started."""
    # Short turns need exact times: /proc/PID/stat counts hundredths of a second.
    children_s = sum(exact_cpu_s(each) for each in descendants(pid))
    return Used(records, batches, exact_cpu_s(pid), children_s, time.perf_counter())


def descendants(pid: int) -> list[int]:
    """The processes that a process started, and those that they started."""
    found: list[int] = []
    for each in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in map(int, each.read_text().split()):
            found += [child, *descendants(child)]
    return found


def signalled(pid: int, number: signal.Signals) -> None:
    """Sends a signal to a process and to all that it started."""
    for each in (pid, *descendants(pid)):
        with suppress(ProcessLookupError):
            os.kill(each, number)


@asynccontextmanager
async def our_daemon(
    case: Case,
    cores: Cores,
    folder: Path,
    url: str,
    server: str,
    *,
    timed: bool = False,
    python: Sequence[str] = (),
) -> AsyncIterator[OurDaemon]:
    """The running daemon of a case; it may have records when its shards are read."""
    settings: dict[str, object] = {"functions": {"orders": function(case.invoker, server, timed=timed)}}
    get(f"{url}/close", post=True)
    async with daemon(cores, folder, url, [case.mapping()], settings=settings, python=python) as running:
        try:
            if case.kind in STREAMS:
                await running.reads(SHARDS)
            get(f"{url}/open", post=True)
            yield OurDaemon(running)
        finally:
            signalled(running.pid, signal.SIGCONT)


@asynccontextmanager
async def bare_process(
    case: Case, cores: Cores, url: str, server: str, *, timed: bool = False
) -> AsyncIterator[BareProcess]:
    """The running bare loop of a case."""
    words = [case.kind, case.invoker, url, server, "--size", str(case.size), "--workers", str(case.workers)]
    command = [
        sys.executable,
        "-m",
        "benchmarks.end_to_end.bare_loop",
        *words,
        *(["--timed"] if timed else []),
    ]
    async with counting(cores, command) as running:
        try:
            yield BareProcess(running)
        finally:
            signalled(running.pid, signal.SIGCONT)
