"""How much memory one more shard, poller or mapping takes.

python -m benchmarks.footprint [--seconds 8] [--json FILE]

Each is measured twice, with few and with many, and the difference is divided. Memory is bounded as a whole by `tuning.memory_mb`; these
figures say how many of each fit beside each other before that limit slows anybody down.
"""

import asyncio
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.command import command
from benchmarks.subjects import Cores, daemon, get, mapping, peak_mb, stub

SECONDS = 8.0
KB = 1024


@dataclass(frozen=True, slots=True)
class Case:
    """What is counted, how many there are at first and then, and how many kilobytes one may take."""

    name: str
    few: int
    many: int
    kb_max: float
    kind: str = "kinesis"
    busy: bool = False
    mappings: bool = False
    """Whether mappings are counted, each of a stream with one shard; otherwise shards or pollers of one mapping."""
    pages: int = field(default=1, kw_only=True)


CASES = (
    Case("an idle shard", 100, 500, 60.0),
    Case("a busy shard", 16, 64, 1_536.0, busy=True, pages=64),
    Case("a busy poller of a queue", 10, 110, 300.0, kind="sqs", busy=True),
    Case("a mapping with an idle shard", 50, 250, 200.0, mappings=True),
)


@dataclass(frozen=True, slots=True)
class Row:
    """Kilobytes of one, at the daemon's peak, and the megabytes of the daemon with few and with many."""

    case: str
    kb: float
    few_mb: float
    many_mb: float
    within: bool


async def peak_of(case: Case, number: int, seconds: float, cores: Cores) -> float:
    """The most resident memory, in megabytes, of a daemon with so many."""
    shards = number if case.kind == "kinesis" and not case.mappings else 1
    with (
        tempfile.TemporaryDirectory() as folder,
        stub(cores, case.kind, "--shards", str(shards), "--pages", str(case.pages)) as url,
    ):
        get(f"{url}/close", post=True)
        async with daemon(cores, Path(folder), url, _mappings(case, number)) as running:
            if case.kind == "kinesis":
                await running.reads(number)
            if case.busy:
                get(f"{url}/open", post=True)
            await asyncio.sleep(seconds)
            return peak_mb(running.pid)


def _mappings(case: Case, number: int) -> Sequence[Mapping[str, object]]:
    plain = mapping(case.kind)
    if case.mappings:
        return [plain | {"EventSourceArn": f"{plain['EventSourceArn']}-{each}"} for each in range(number)]
    if case.kind == "sqs":
        # A poller of AWS receives ten times at once, as ten of ours do.
        plain |= {"ProvisionedPollerConfig": {"MinimumPollers": number, "MaximumPollers": number}}
    return [plain]


async def measured(case: Case, seconds: float, cores: Cores) -> Row:
    """Both daemons of a case, one after the other."""
    few, many = [await peak_of(case, number, seconds, cores) for number in (case.few, case.many)]
    each = (many - few) * KB / (case.many - case.few)
    return Row(case.name, each, few, many, each <= case.kb_max)


async def run(seconds: float) -> list[Row]:
    """All cases."""
    cores = Cores()
    return [await measured(case, seconds, cores) for case in CASES]


def table(rows: list[Row]) -> str:
    """For people."""
    lines = [f"{'one more takes':32s} {'KB':>8s} {'MB, few':>8s} {'MB, many':>9s}"]
    lines += [
        f"{row.case:32s} {row.kb:8.0f} {row.few_mb:8.0f} {row.many_mb:9.0f}   {'within' if row.within else 'beyond'} its budget"
        for row in rows
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    command("footprint", run, table, seconds=SECONDS)
