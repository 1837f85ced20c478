"""How many records a second one core takes: the daemon against a plain and a bare loop.

    python -m benchmarks.throughput [--case kinesis ...] [--rounds 5] [--seconds 5] [--json FILE]

The subjects take turns within one run, so that noise of the machine meets all of them; the table shows medians.
Ratios are of CPU time for one record: on a core of its own that is the ratio of rates, and on one that others use too
it counts only the time that the subject had. Absolute figures mean little on a shared machine.
"""

import argparse
import asyncio
import json
import platform
import statistics
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

from benchmarks.subjects import STREAMS, Cores, Subject, cpu_s, daemon, get, loop, mapping, peak_mb, stub

ROUNDS = 5
SECONDS = 5.0
WARM_S = 2.0
SHARDS = 96
"""The daemon reads a shard at most 4.4 times a second: so many shards have room for 420,000 records a second."""
POLLERS = 10
SUBJECTS = ("plain", "bare", "daemon")


@dataclass(frozen=True, slots=True)
class Case:
    """What is measured, and the ratios to the plain and to the bare loop that it is to reach."""

    name: str
    kind: str
    to_plain: float | None
    to_bare: float
    filtered: bool = False


CASES = (
    Case("kinesis", "kinesis", 7.0, 0.6),
    Case("kinesis, one filter", "kinesis", None, 0.4, filtered=True),
    Case("dynamodb", "dynamodb", 7.0, 0.6),
    Case("dynamodb, one filter", "dynamodb", None, 0.4, filtered=True),
    Case("sqs", "sqs", 2.5, 0.7),
    Case("sqs fifo", "fifo", 2.5, 0.7),
    Case("http invoker", "http", None, 0.7),
)


@dataclass(frozen=True, slots=True)
class Sample:
    """One measured stretch."""

    per_s: float
    cpu_us: float
    peak_mb: float


async def sample(subject: Subject, seconds: float) -> Sample:
    """Lets the subject warm up, then measures it for so long."""
    await asyncio.sleep(WARM_S)
    began, count, used = time.perf_counter(), await subject.count(), cpu_s(subject.pid)
    await asyncio.sleep(seconds)
    records = await subject.count() - count
    elapsed, spent = time.perf_counter() - began, cpu_s(subject.pid) - used
    assert records > 0, "nothing was processed"
    return Sample(records / elapsed, spent / records * 1e6, peak_mb(subject.pid))


@asynccontextmanager
async def subject_of(case: Case, name: str, cores: Cores, url: str, function: str) -> AsyncIterator[Subject]:
    """A running subject of this case: `daemon`, `plain` or `bare`. With `http`, the daemon's invoker alone stands for it."""
    kind = case.kind
    if kind == "http" and name == "daemon":
        name = "invoker"
    if name != "daemon":
        workers = SHARDS if kind in STREAMS else POLLERS
        async with loop(cores, name, kind, function if kind == "http" else url, workers=workers) as found:
            yield found
        return
    with tempfile.TemporaryDirectory() as folder:
        metric = "poller_polled_event_count_total" if case.filtered else "poller_records_processed_total"
        wanted = [mapping(kind, filtered=case.filtered)]
        get(f"{url}/close", post=True)
        async with daemon(cores, Path(folder), url, wanted, metric=metric) as running:
            if kind in STREAMS:
                await running.reads(SHARDS)
            get(f"{url}/open", post=True)
            yield running


async def measured(
    case: Case, *, rounds: int, seconds: float, cores: Cores, names: Sequence[str] = SUBJECTS
) -> dict[str, list[Sample]]:
    """Samples of each subject, taken in turns."""
    names = [name for name in names if name != "plain" or case.kind != "http"]
    samples: dict[str, list[Sample]] = {name: [] for name in names}
    source = "kinesis" if case.kind == "http" else case.kind
    shards = ["--shards", str(SHARDS)]
    with stub(cores, source, *shards) as url, stub(cores, "none") as function:
        for _ in range(rounds):
            for name in names:
                target = f"{function}/2015-03-31/functions/function/invocations"
                async with subject_of(case, name, cores, url, target) as subject:
                    samples[name].append(await sample(subject, seconds))
    return samples


@dataclass(frozen=True, slots=True)
class Row:
    """Medians of one subject in one case."""

    case: str
    subject: str
    per_s: float
    cpu_us: float
    peak_mb: float
    spread: float
    """The distance of the middle half of the samples, as a part of the median."""


def row_of(case: Case, name: str, samples: list[Sample]) -> Row:
    """The medians."""
    rates = sorted(each.per_s for each in samples)
    median = statistics.median(rates)
    quarter = len(rates) // 4
    return Row(
        case=case.name,
        subject=name,
        per_s=median,
        cpu_us=statistics.median(each.cpu_us for each in samples),
        peak_mb=statistics.median(each.peak_mb for each in samples),
        spread=(rates[-1 - quarter] - rates[quarter]) / median,
    )


@dataclass(frozen=True, slots=True)
class Verdict:
    """A ratio that was reached, and the one that is aimed at; `by_rate` is the same by records a second."""

    case: str
    against: str
    ratio: float
    target: float
    by_rate: float


def verdicts(case: Case, rows: dict[str, Row]) -> list[Verdict]:
    """The daemon's ratios, by CPU time for one record: a core that others use too counts only for whom it ran."""
    found = []
    for against, target in (("plain", case.to_plain), ("bare", case.to_bare)):
        if target is not None and against in rows:
            ratio = rows[against].cpu_us / rows["daemon"].cpu_us
            by_rate = rows["daemon"].per_s / rows[against].per_s
            found.append(Verdict(case.name, against, ratio, target, by_rate))
    return found


def table(rows: list[Row], found: list[Verdict]) -> str:
    """For people."""
    lines = [
        f"{'case':22s} {'subject':8s} {'records/s':>10s} {'CPU µs/record':>14s} {'peak MB':>8s} {'spread':>7s}"
    ]
    lines += [
        f"{row.case:22s} {row.subject:8s} {row.per_s:10,.0f} {row.cpu_us:14.2f} {row.peak_mb:8.0f} {row.spread:7.0%}"
        for row in rows
    ]
    lines.append("")
    lines += [
        f"{each.case:22s} daemon / {each.against:6s} {each.ratio:6.2f}   target {each.target:4.1f}   "
        f"{'reached' if each.ratio >= each.target else 'missed'}   (by rate {each.by_rate:.2f})"
        for each in found
    ]
    return "\n".join(lines)


async def run(cases: list[Case], *, rounds: int, seconds: float) -> tuple[list[Row], list[Verdict]]:
    """Measures all cases."""
    cores = Cores()
    rows: list[Row] = []
    found: list[Verdict] = []
    for case in cases:
        samples = await measured(case, rounds=rounds, seconds=seconds, cores=cores)
        by_name = {name: row_of(case, name, each) for name, each in samples.items()}
        rows += by_name.values()
        found += verdicts(case, by_name)
    return rows, found


def document(rows: list[Row], found: list[Verdict]) -> dict[str, object]:
    """For comparison over time."""
    libraries = ("aiobotocore", "aiohttp", "msgspec", "orjson", "uvloop")
    return {
        "python": platform.python_version(),
        "machine": platform.machine(),
        "libraries": {name: version(name) for name in libraries},
        "rows": [asdict(row) for row in rows],
        "ratios": [asdict(each) for each in found],
    }


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.throughput")
    parser.add_argument("--case", action="append", choices=[case.name for case in CASES])
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--seconds", type=float, default=SECONDS)
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    given = parser.parse_args()
    cases = [case for case in CASES if not given.case or case.name in given.case]
    rows, found = asyncio.run(run(cases, rounds=given.rounds, seconds=given.seconds))
    print(table(rows, found))
    if given.json:
        given.json.write_text(json.dumps(document(rows, found), indent=2) + "\n")


if __name__ == "__main__":
    main()
