"""How long a record is on its way: from the moment it is sent until the function is called.

    python -m benchmarks.latency [--seconds 20] [--json FILE]

A queue is polled long, so a message is handed over when it comes. A shard is read again after a tenth of the time that it has been
quiet, between a fifth of a second, which is AWS's limit, and `tuning.idle_poll_s`. A record waits for half of that on average. A consumer is
pushed its records.
"""

import asyncio
import os
import statistics
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.command import command
from benchmarks.function import LATENCIES
from benchmarks.subjects import Cores, daemon, mapping, stub

SECONDS = 20.0


@dataclass(frozen=True, slots=True)
class Case:
    """A source, and for a stream the mean time between two records of a shard. `shards` are enough for some hundred records."""

    name: str
    kind: str
    gap_s: float = 0.0
    shards: int = 0
    settle_s: float = 2.0
    """What was sent before everything was open was late without the daemon's fault, and the quiet before it was short."""
    tuning: Mapping[str, object] = field(default_factory=dict)


CASES = (
    Case("sqs", "sqs"),
    Case("kinesis, a record every 3 s", "kinesis", 3.0, 40),
    Case("kinesis, a record every 10 s", "kinesis", 10.0, 120, settle_s=15.0),
    Case("the same, idle_poll_s: 0.2", "kinesis", 10.0, 120, tuning={"idle_poll_s": 0.2}),
    Case("kinesis, pushed to a consumer", "consumer", 3.0, 40),
)
STUBS = {"consumer": "live-kinesis"}
"""The kinds of the stub that are not named like the source."""


@dataclass(frozen=True, slots=True)
class Row:
    """Milliseconds on the way."""

    case: str
    records: int
    p50_ms: float
    p99_ms: float


async def measured(case: Case, seconds: float, cores: Cores) -> Row:
    """Runs one case for so long."""
    kind = STUBS.get(case.kind, f"live-{case.kind}")
    with (
        tempfile.TemporaryDirectory() as name,
        stub(cores, kind, "--shards", str(case.shards), "--gap", str(case.gap_s)) as url,
    ):
        folder = Path(name)
        notes = folder / "latencies"
        notes.touch()
        os.environ[LATENCIES] = str(notes)
        settings: dict[str, object] = {
            "functions": {"orders": {"invoker": "python", "handler": "benchmarks.function:timed"}},
            "tuning": dict(case.tuning),
        }
        async with daemon(cores, folder, url, [mapping(case.kind)], settings=settings) as running:
            if case.kind != "sqs":
                await running.reads(case.shards)
            await asyncio.sleep(case.settle_s)
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
