"""Owns how much later a function is called than a bare loop would call it: messages come one by one to a queue that is polled long.

A queue has no rhythm of reading, so what is left is the way through the daemon and its invoker.
"""

import asyncio
import os
import statistics
import tempfile
from dataclasses import dataclass
from pathlib import Path

from benchmarks.end_to_end.cases import CHILDREN, INVOKERS, Case
from benchmarks.end_to_end.measuring import WARM_CHILDREN_S, WARM_S
from benchmarks.end_to_end.subjects import bare_process, our_daemon
from benchmarks.function import LATENCIES
from benchmarks.subjects import Cores, stub

SECONDS = 10.0
SIZE = 10


@dataclass(frozen=True, slots=True)
class Row:
    """Milliseconds from sent to called."""

    invoker: str
    subject: str
    records: int
    p50_ms: float
    p99_ms: float


async def measured(invoker: str, subject: str, seconds: float, cores: Cores) -> Row:
    """Runs one subject for so long."""
    case = Case("sqs", invoker, SIZE)
    with tempfile.TemporaryDirectory() as name:
        notes = Path(name) / "latencies"
        notes.touch()
        os.environ[LATENCIES] = str(notes)
        noting = ("--notes", str(notes))
        with stub(cores, "live-sqs", *noting) as url, stub(cores, "none", *noting) as server:
            target = f"{server}/orders"
            running = (
                our_daemon(case, cores, Path(name), url, target, timed=True)
                if subject == "daemon"
                else bare_process(case, cores, url, target, timed=True)
            )
            async with running:
                await asyncio.sleep(WARM_CHILDREN_S if invoker in CHILDREN else WARM_S)
                before = notes.stat().st_size
                await asyncio.sleep(seconds)
                noted = notes.read_text()[before:].splitlines()
    values = [float(line) * 1000.0 for line in noted]
    hundredths = statistics.quantiles(values, n=100)
    return Row(invoker, subject, len(values), hundredths[49], hundredths[98])


async def run(seconds: float = SECONDS) -> list[Row]:
    """All invokers, each with both subjects."""
    cores = Cores(apart=False)
    return [
        await measured(invoker, subject, seconds, cores)
        for invoker in INVOKERS
        for subject in ("daemon", "bare")
    ]


def table(rows: list[Row]) -> str:
    """For people."""
    lines = [f"{'sqs, sent to called':22s} {'subject':8s} {'records':>8s} {'p50 ms':>8s} {'p99 ms':>8s}"]
    lines += [
        f"{row.invoker:22s} {row.subject:8s} {row.records:8d} {row.p50_ms:8.2f} {row.p99_ms:8.2f}"
        for row in rows
    ]
    return "\n".join(lines)
