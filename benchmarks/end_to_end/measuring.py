"""Owns the measurement of CPU time for one batch: the subjects of a case take turns on one core, and medians count."""

import asyncio
import signal
import statistics
import tempfile
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.end_to_end.cases import CHILDREN, SHARDS, Case
from benchmarks.end_to_end.subjects import Contender, Used, bare_process, our_daemon, signalled
from benchmarks.subjects import Cores, stub

ROUNDS = 3
SECONDS = 1.5
WARM_S = 1.5
WARM_CHILDREN_S = 5.0
"""Function processes start with the first calls."""
BATCHES_MIN = 30
"""A turn goes on until it has so many: on a busy machine the subject may have little of its core."""
TURN_PARTS_MAX = 60
SETTLE_S = 0.4
"""How long a subject that goes on is left alone, until it does again what it does under load."""


@dataclass(frozen=True, slots=True)
class Row:
    """Medians of one subject in one case; CPU times are microseconds for one batch."""

    case: str
    subject: str
    batches_per_s: float
    records_per_s: float
    own_us: float
    children_us: float
    spread: float
    """The distance of the middle half of the turns' CPU times, as a part of the median."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """The bare loop's CPU time divided by the daemon's, by turns that followed each other, and the aim."""

    case: str
    ratio: float
    least: float
    most: float
    target: float | None


async def turn(subject: Contender, others: list[Contender], seconds: float) -> Used:
    """Runs one subject alone for so long, and longer while it has done next to nothing."""
    for each in others:
        signalled(each.pid, signal.SIGSTOP)
    signalled(subject.pid, signal.SIGCONT)
    await asyncio.sleep(SETTLE_S)
    before = await subject.used()
    for _ in range(TURN_PARTS_MAX):
        await asyncio.sleep(seconds)
        found = (await subject.used()).since(before)
        if found.batches >= BATCHES_MIN:
            return found
    raise AssertionError(f"fewer than {BATCHES_MIN} batches in {TURN_PARTS_MAX * seconds:g} s")


async def measured(case: Case, cores: Cores, *, rounds: int, seconds: float) -> dict[str, list[Used]]:
    """The turns of both subjects."""
    with (
        tempfile.TemporaryDirectory() as folder,
        stub(cores, case.kind, "--shards", str(SHARDS)) as url,
        stub(cores, "none") as server,
    ):
        async with AsyncExitStack() as stack:
            # The bare loop is started last, and stopped before the daemon starts its work again.
            ours = await stack.enter_async_context(
                our_daemon(case, cores, Path(folder), url, f"{server}/orders")
            )
            signalled(ours.pid, signal.SIGSTOP)
            bare = await stack.enter_async_context(bare_process(case, cores, url, f"{server}/orders"))
            subjects: dict[str, Contender] = {"daemon": ours, "bare": bare}
            warm_s = WARM_CHILDREN_S if case.invoker in CHILDREN else WARM_S
            for name in subjects:
                await turn(*against(name, subjects), warm_s)
            turns: dict[str, list[Used]] = {name: [] for name in subjects}
            for number in range(rounds):
                # Who begins changes, so that a machine that gets slower harms none of them.
                for name in sorted(subjects, reverse=number % 2 == 0):
                    turns[name].append(await turn(*against(name, subjects), seconds))
        return turns


def against(name: str, subjects: dict[str, Contender]) -> tuple[Contender, list[Contender]]:
    """The subject of this name, and the others."""
    return subjects[name], [each for other, each in subjects.items() if other != name]


def row_of(case: Case, subject: str, turns: list[Used]) -> Row:
    """Medians of these turns."""
    costs = sorted(map(cost_us, turns))
    quarter = len(costs) // 4
    return Row(
        case=case.name,
        subject=subject,
        batches_per_s=statistics.median(each.batches / each.at for each in turns),
        records_per_s=statistics.median(each.records / each.at for each in turns),
        own_us=statistics.median(each.own_s / each.batches * 1e6 for each in turns),
        children_us=statistics.median(each.children_s / each.batches * 1e6 for each in turns),
        spread=(costs[-1 - quarter] - costs[quarter]) / statistics.median(costs),
    )


def verdict_of(case: Case, turns: dict[str, list[Used]]) -> Verdict:
    """The ratio of each round, and of them the median, the least and the most."""
    ratios = [
        cost_us(bare) / cost_us(ours) for ours, bare in zip(turns["daemon"], turns["bare"], strict=True)
    ]
    return Verdict(case.name, statistics.median(ratios), min(ratios), max(ratios), case.target)


def cost_us(turn: Used) -> float:
    """CPU microseconds for one batch, those of function processes too."""
    return (turn.own_s + turn.children_s) / turn.batches * 1e6


async def run(
    cases: list[Case], *, rounds: int = ROUNDS, seconds: float = SECONDS
) -> tuple[list[Row], list[Verdict]]:
    """Measures these cases."""
    cores = Cores()
    rows: list[Row] = []
    verdicts: list[Verdict] = []
    for case in cases:
        turns = await measured(case, cores, rounds=rounds, seconds=seconds)
        rows += [row_of(case, name, each) for name, each in turns.items()]
        verdicts.append(verdict_of(case, turns))
    return rows, verdicts


def table(rows: list[Row], verdicts: list[Verdict]) -> str:
    """For people."""
    lines = [
        f"{'case':22s} {'subject':8s} {'batches/s':>10s} {'records/s':>10s} {'CPU µs/batch':>13s} "
        f"{'children µs':>12s} {'spread':>7s}"
    ]
    lines += [
        f"{row.case:22s} {row.subject:8s} {row.batches_per_s:10,.0f} {row.records_per_s:10,.0f} {row.own_us:13.1f} "
        f"{row.children_us:12.1f} {row.spread:7.0%}"
        for row in rows
    ]
    lines.append("")
    lines += [
        f"{each.case:22s} daemon / bare {each.ratio:6.2f} ({each.least:.2f} to {each.most:.2f})"
        f"{judged(each.ratio, each.target)}"
        for each in verdicts
    ]
    return "\n".join(lines)


def judged(ratio: float, target: float | None) -> str:
    """Whether an aim is reached, where there is one."""
    return "" if target is None else f"   target {target:.2f} {'reached' if ratio >= target else 'missed'}"


def document(rows: list[Row], verdicts: list[Verdict]) -> dict[str, object]:
    """For comparison over time."""
    return {"rows": [asdict(row) for row in rows], "ratios": [asdict(each) for each in verdicts]}
