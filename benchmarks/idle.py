"""What the daemon costs while nothing happens, and how much memory many shards take.

python -m benchmarks.idle [--seconds 10] [--json FILE]
"""

import asyncio
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.command import command
from benchmarks.subjects import Cores, cpu_s, daemon, get, mapping, peak_mb, stub

SECONDS = 10.0
SETTLE_S = 52.0
"""After so long without records a shard is read as rarely as it ever is."""


@dataclass(frozen=True, slots=True)
class Case:
    """So many mappings of so many shards each, and what they may take."""

    name: str
    mappings: int
    shards: int
    cpu_max: float | None = None
    memory_mb_max: float | None = None


CASES = (
    Case("200 idle shards", 1, 200, cpu_max=0.10),
    Case("1,000 idle shards of 100 mappings", 100, 10, memory_mb_max=300.0),
)


@dataclass(frozen=True, slots=True)
class Row:
    """The part of a core that was used, and the most memory."""

    case: str
    cpu: float
    peak_mb: float
    within: bool


def mappings_of(case: Case) -> Sequence[Mapping[str, object]]:
    """Mappings of streams that differ by name."""
    plain = mapping("kinesis")
    return [
        plain | {"EventSourceArn": f"{plain['EventSourceArn']}-{number}"} for number in range(case.mappings)
    ]


async def measured(case: Case, seconds: float, cores: Cores) -> Row:
    """Lets everything settle, then measures."""
    with (
        tempfile.TemporaryDirectory() as folder,
        stub(cores, "kinesis", "--shards", str(case.shards), "--pages", "1") as url,
    ):
        get(f"{url}/close", post=True)
        async with daemon(cores, Path(folder), url, mappings_of(case)) as running:
            await running.reads(case.mappings * case.shards)
            await asyncio.sleep(SETTLE_S)
            began, used = time.perf_counter(), cpu_s(running.pid)
            await asyncio.sleep(seconds)
            cpu = (cpu_s(running.pid) - used) / (time.perf_counter() - began)
            memory = peak_mb(running.pid)
    within = cpu <= (case.cpu_max or 1.0) and memory <= (case.memory_mb_max or memory)
    return Row(case.name, cpu, memory, within)


async def run(seconds: float) -> list[Row]:
    """All cases."""
    cores = Cores(apart=False)
    return [await measured(case, seconds, cores) for case in CASES]


def table(rows: list[Row]) -> str:
    """For people."""
    lines = [f"{'while nothing happens':36s} {'of a core':>10s} {'peak MB':>8s}"]
    lines += [
        f"{row.case:36s} {row.cpu:10.1%} {row.peak_mb:8.0f}   {'within' if row.within else 'beyond'} its limit"
        for row in rows
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    command("idle", run, table, seconds=SECONDS)
