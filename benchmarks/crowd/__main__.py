"""How late records are under load in a daemon of 100 mappings, and what three of them in trouble do to the others.

    python -m benchmarks.crowd [--seconds 8] [--json FILE]

First the highest rate is found: more is sent than the daemon takes. Then half of that rate and four fifths of it are sent, each with all mappings
well, and with one whose function fails (a blocked shard), a slow one and a throttled one. Figures are of the other 97.
"""

import asyncio
import os
import statistics
import tempfile
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from benchmarks.command import command
from benchmarks.crowd.function import LATENCIES
from benchmarks.subjects import SOURCES, Cores, daemon, get, mapping, stub

SECONDS = 8.0
SETTLE_S = 3.0
MAPPINGS = 100
IN_TROUBLE = ("failing", "slow", "throttled")
"""The functions of the first mappings, where some are in trouble."""
OFFERED_PER_S = {"sqs": 40_000.0, "kinesis": 150_000.0}
"""More than one core takes."""
PARTS = (0.5, 0.8)
P99_MS_MAX = {"sqs": 10.0, "kinesis": 1.2 * 200.0}
"""At half of the highest rate. A busy shard is read every 200 ms."""
WORSE_MAX = 2.0
"""By so much the 99th hundredth of no mapping may grow because of others' trouble."""


@dataclass(frozen=True, slots=True)
class Row:
    """Milliseconds on the way, over the mappings that are well; and the greatest p99 of one of them."""

    case: str
    per_s: float
    p50_ms: float
    p99_ms: float
    worst_ms: float
    within: bool


async def noted(
    kind: str, per_s: float, seconds: float, cores: Cores, *, trouble: bool
) -> dict[str, list[float]]:
    """Milliseconds of all records, by mapping, of those that are well."""
    shape = ("--shards", str(MAPPINGS), "--gap", str(MAPPINGS / per_s))
    with (
        tempfile.TemporaryDirectory() as name,
        stub(cores, f"crowded-{kind}", *shape) as url,
        stub(cores, "throttling") as throttling,
    ):
        folder = Path(name)
        notes = folder / "latencies"
        notes.touch()
        os.environ[LATENCIES] = str(notes)
        python = {"invoker": "python"}
        functions = {
            each: python | {"handler": f"benchmarks.crowd.function:{each}"}
            for each in ("timed", "failing", "slow")
        }
        settings = {"functions": functions | {"throttled": {"invoker": "http", "url": throttling}}}
        mappings = list(_mappings(kind, IN_TROUBLE if trouble else ()))
        async with daemon(cores, folder, url, mappings, settings=settings) as running:
            if kind == "kinesis":
                await running.reads(MAPPINGS)
            get(f"{url}/open", post=True)
            await asyncio.sleep(SETTLE_S)
            before = notes.stat().st_size
            await asyncio.sleep(seconds)
            text = notes.read_text()[before:]
    return _by_mapping(text.splitlines()[1:-1])


def _mappings(kind: str, in_trouble: tuple[str, ...]) -> Iterable[dict[str, object]]:
    for number in range(MAPPINGS):
        function = in_trouble[number] if number < len(in_trouble) else "timed"
        yield mapping(kind) | {"FunctionName": function, "EventSourceArn": f"{SOURCES[kind]}-{number}"}


def _by_mapping(lines: Iterable[str]) -> dict[str, list[float]]:
    found: defaultdict[str, list[float]] = defaultdict(list)
    for line in lines:
        source, seconds = line.split()
        if int(source) >= len(IN_TROUBLE):
            found[source].append(float(seconds) * 1000.0)
    return found


def _p99(values: Iterable[float]) -> float:
    return statistics.quantiles(values, n=100)[98]


async def measured(kind: str, seconds: float, cores: Cores) -> list[Row]:
    """All rows of one kind of source."""
    saturated = await noted(kind, OFFERED_PER_S[kind], seconds, cores, trouble=False)
    well = MAPPINGS - len(IN_TROUBLE)
    highest = sum(map(len, saturated.values())) / seconds * MAPPINGS / well
    rows = [Row(f"{kind}, highest rate", highest, 0.0, 0.0, 0.0, within=True)]
    for part in PARTS:
        before: dict[str, float] = {}
        for trouble in (False, True):
            found = await noted(kind, highest * part, seconds, cores, trouble=trouble)
            every = sorted(each for values in found.values() for each in values)
            p99s = {source: _p99(values) for source, values in found.items()}
            within = (part > PARTS[0] or _p99(every) <= P99_MS_MAX[kind]) and all(
                each <= WORSE_MAX * before.get(source, each) for source, each in p99s.items()
            )
            case = f"{kind}, {part:.0%}, {'three in trouble' if trouble else 'all well'}"
            rate = len(every) / seconds * MAPPINGS / well
            rows.append(Row(case, rate, statistics.median(every), _p99(every), max(p99s.values()), within))
            before = p99s
    return rows


async def run(seconds: float) -> list[Row]:
    """Queues, then streams."""
    cores = Cores()
    return [row for kind in OFFERED_PER_S for row in await measured(kind, seconds, cores)]


def table(rows: list[Row]) -> str:
    """For people."""
    lines = [
        f"{'100 mappings, sent to called':36s} {'records/s':>10s} {'p50 ms':>8s} {'p99 ms':>8s} {'worst p99':>10s}"
    ]
    lines += [
        f"{row.case:36s} {row.per_s:10,.0f} {row.p50_ms:8.1f} {row.p99_ms:8.1f} {row.worst_ms:10.1f}   "
        f"{'within' if row.within else 'beyond'} its limits"
        for row in rows
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    command("crowd", run, table, seconds=SECONDS)
