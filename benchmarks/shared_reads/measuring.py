"""Owns the measurement of mappings that share the reads of a stream, beside mappings that read for themselves.

The stream takes five reads of a shard in a second, as AWS does, and refuses more. Mappings of one daemon keep to that together even if
they do not share their reads, so that each of them reads rarely. Daemons do not know of each other.
"""

import asyncio
import json
import os
import statistics
import tempfile
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

from benchmarks.function import LATENCIES
from benchmarks.subjects import Cores, Daemon, cpu_s, daemon, get, mapping, stub

SETTLE_S = 6.0
SHARDS = 2
GAP_S = 0.05
"""Between two records of a shard, on average."""


@dataclass(frozen=True, slots=True)
class Case:
    """So many daemons with so many mappings each."""

    name: str
    daemons: int
    mappings: int
    shared: bool = True


CASES = (
    Case("one mapping", 1, 1),
    Case("ten mappings that share their reads", 1, 10),
    Case("ten mappings, shared_reads: false", 1, 10, shared=False),
    Case("ten daemons with a mapping each", 10, 1),
)


@dataclass(frozen=True, slots=True)
class Row:
    """What one shard was asked in a second, how late records were at each function, and the part of a core that all daemons took."""

    case: str
    reads_s: float
    refused_s: float
    records: int
    p50_ms: float
    p99_ms: float
    cpu: float


async def started(stack: AsyncExitStack, case: Case, folder: Path, url: str, cores: Cores) -> list[Daemon]:
    """The daemons of a case, one after the other, each with a store of its own."""
    names = [f"orders-{number}" for number in range(case.mappings)]
    function = {"invoker": "python", "handler": "benchmarks.function:timed"}
    settings = {"functions": dict.fromkeys(names, function)}
    plain = mapping("kinesis") | {"StartingPosition": "LATEST", "shared_reads": case.shared}
    mappings = [plain | {"FunctionName": name} for name in names]
    found: list[Daemon] = []
    for number in range(case.daemons):
        place = folder / str(number)
        place.mkdir()
        running = daemon(cores, place, url, mappings, settings=settings)
        found.append(await stack.enter_async_context(running))
    for each in found:
        await each.reads(case.mappings * SHARDS)
    return found


def counts(url: str) -> dict[str, int]:
    """What the stream has counted so far."""
    found: dict[str, int] = json.loads(get(f"{url}/counts", post=True))
    return found


async def measured(case: Case, seconds: float, cores: Cores) -> Row:
    """Lets everything settle, then measures."""
    arguments = ("--shards", str(SHARDS), "--gap", str(GAP_S))
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        url = stack.enter_context(stub(cores, "limited-kinesis", *arguments))
        notes = folder / "latencies"
        notes.touch()
        os.environ[LATENCIES] = str(notes)
        daemons = await started(stack, case, folder, url, cores)
        await asyncio.sleep(SETTLE_S)
        place, asked = notes.stat().st_size, counts(url)
        began, used = time.perf_counter(), sum(cpu_s(each.pid) for each in daemons)
        await asyncio.sleep(seconds)
        took_s, later = time.perf_counter() - began, counts(url)
        cpu = (sum(cpu_s(each.pid) for each in daemons) - used) / took_s
        late = sorted(float(line) * 1000.0 for line in notes.read_text()[place:].splitlines())
    hundredths = statistics.quantiles(late, n=100)
    per_shard = {name: (later[name] - asked[name]) / took_s / SHARDS for name in later}
    return Row(
        case.name,
        reads_s=per_shard["reads"],
        refused_s=per_shard["refused"],
        records=len(late),
        p50_ms=hundredths[49],
        p99_ms=hundredths[98],
        cpu=cpu,
    )


async def run(seconds: float) -> list[Row]:
    """All cases, one after the other."""
    cores = Cores(apart=False)
    return [await measured(case, seconds, cores) for case in CASES]


def table(rows: list[Row]) -> str:
    """For people."""
    heads = ("reads/s", "refused/s", "records", "p50 ms", "p99 ms", "of a core")
    lines = [f"{'a second of one shard':38s}" + "".join(f"{head:>11s}" for head in heads)]
    lines += [
        f"{row.case:38s}{row.reads_s:11.1f}{row.refused_s:11.1f}{row.records:11d}"
        f"{row.p50_ms:11.0f}{row.p99_ms:11.0f}{row.cpu:11.1%}"
        for row in rows
    ]
    return "\n".join(lines)
