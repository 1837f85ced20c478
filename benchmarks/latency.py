"""How long a record is on its way: from the moment it is sent until the function is called.

    python -m benchmarks.latency [--seconds 20] [--json FILE]

A queue is polled long, so a message is handed over when it comes. A stream is asked again after a while: once a second by
default, up to five times at AWS's limit for one shard, and a record waits half of that on average.
"""

import asyncio
import os
import statistics
import tempfile
from dataclasses import dataclass
from pathlib import Path

from benchmarks.command import command
from benchmarks.function import LATENCIES
from benchmarks.subjects import Cores, daemon, mapping, stub

SECONDS = 20.0
SHARDS = 40


@dataclass(frozen=True, slots=True)
class Case:
    """A source and the rhythm of its reads."""

    name: str
    kind: str
    idle_poll_s: float = 1.0


CASES = (
    Case("sqs", "sqs"),
    Case("kinesis, one poll a second", "kinesis", 1.0),
    Case("kinesis, five polls a second", "kinesis", 0.2),
)


@dataclass(frozen=True, slots=True)
class Row:
    """Milliseconds on the way."""

    case: str
    records: int
    p50_ms: float
    p99_ms: float


async def measured(case: Case, seconds: float, cores: Cores) -> Row:
    """Runs one case for so long."""
    with (
        tempfile.TemporaryDirectory() as name,
        stub(cores, f"live-{case.kind}", "--shards", str(SHARDS)) as url,
    ):
        folder = Path(name)
        notes = folder / "latencies"
        notes.touch()
        os.environ[LATENCIES] = str(notes)
        settings: dict[str, object] = {
            "functions": {"orders": {"invoker": "python", "handler": "benchmarks.function:timed"}},
            "tuning": {"idle_poll_s": case.idle_poll_s},
        }
        async with daemon(cores, folder, url, [mapping(case.kind)], settings=settings) as running:
            if case.kind == "kinesis":
                await running.reads(SHARDS)
            # What was sent before everything was open was late without the daemon's fault.
            await asyncio.sleep(2.0)
            before = notes.stat().st_size
            await asyncio.sleep(seconds)
            return _row(case, notes.read_text()[before:])


def _row(case: Case, noted: str) -> Row:
    values = sorted(float(line) * 1000.0 for line in noted.splitlines())
    hundredths = statistics.quantiles(values, n=100)
    return Row(case.name, len(values), hundredths[49], hundredths[98])


async def run(seconds: float) -> list[Row]:
    """All cases, one after the other."""
    cores = Cores(apart=False)
    return [await measured(case, seconds, cores) for case in CASES]


def table(rows: list[Row]) -> str:
    """For people."""
    lines = [f"{'sent to called':32s} {'records':>8s} {'p50 ms':>8s} {'p99 ms':>8s}"]
    lines += [f"{row.case:32s} {row.records:8d} {row.p50_ms:8.1f} {row.p99_ms:8.1f}" for row in rows]
    return "\n".join(lines)


if __name__ == "__main__":
    command("latency", run, table, seconds=SECONDS)
