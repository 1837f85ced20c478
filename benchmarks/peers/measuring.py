"""Owns the measurement: the daemon and the peers of its source take turns on one core, on the same stub."""

import statistics
import subprocess
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from signal import SIGCONT, SIGSTOP

from adapters.demo.processes import free_port
from benchmarks.end_to_end.cases import SHARDS, Case
from benchmarks.end_to_end.measuring import against, judged, turn
from benchmarks.end_to_end.subjects import BareProcess, Contender, Used, our_daemon, signalled
from benchmarks.peers.cases import PEERS, ROOT, Peer, node
from benchmarks.subjects import Cores, counting, stub

ROUNDS = 3
SECONDS = 2.0
WARM_S = 4.0
BATCHES = {"kinesis": 100, "sqs": 10}
"""Lambda's default batch sizes."""


@dataclass(frozen=True, slots=True)
class Row:
    """Medians of one subject; `cpu_us` is microseconds for one record."""

    kind: str
    subject: str
    records_per_s: float
    cpu_us: float
    spread: float


@dataclass(frozen=True, slots=True)
class Verdict:
    """How many times the daemon's CPU time for one record a peer takes, by rounds."""

    peer: str
    ratio: float
    least: float
    most: float
    target: float | None
    lacks: str


@contextmanager
def tables(cores: Cores) -> Iterator[str]:
    """A DynamoDB on the stub's core for peers that keep their state in one."""
    port = free_port()
    package = ROOT / "tests" / "npm"
    command = [
        str(node()),
        "--require",
        str(package / "loopback.js"),
        str(package / "node_modules/dynalite/cli.js"),
    ]
    with (
        cores.children_on(cores.stub),
        subprocess.Popen(
            [*command, "--port", str(port), "--createTableMs", "0"], stdout=subprocess.DEVNULL
        ) as it,
    ):
        try:
            yield f"http://127.0.0.1:{port}"
        finally:
            it.terminate()


@asynccontextmanager
async def driven(peer: Peer, cores: Cores, words: list[str]) -> AsyncIterator[BareProcess]:
    """A running peer."""
    async with counting(cores, peer.command(*words)) as running:
        try:
            yield BareProcess(running)
        finally:
            signalled(running.pid, SIGCONT)


async def measured(kind: str, cores: Cores, *, rounds: int, seconds: float) -> dict[str, list[Used]]:
    """The turns of the daemon and of each peer of this source."""
    case = Case(kind, "python", BATCHES[kind])
    peers = [peer for peer in PEERS if peer.kind == kind]
    with ExitStack() as outer:
        folder = outer.enter_context(tempfile.TemporaryDirectory())
        url = outer.enter_context(stub(cores, kind, "--shards", str(SHARDS)))
        state = outer.enter_context(tables(cores)) if any(peer.tables for peer in peers) else ""
        async with AsyncExitStack() as stack:
            subjects: dict[str, Contender] = {
                "daemon": await stack.enter_async_context(our_daemon(case, cores, Path(folder), url, ""))
            }
            for peer in peers:
                for running in subjects.values():
                    signalled(running.pid, SIGSTOP)
                words = [url, state] if peer.tables else [url]
                subjects[peer.name] = await stack.enter_async_context(driven(peer, cores, words))
            for name in subjects:
                await turn(*against(name, subjects), WARM_S)
            turns: dict[str, list[Used]] = {name: [] for name in subjects}
            for number in range(rounds):
                for name in sorted(subjects, reverse=number % 2 == 0):
                    turns[name].append(await turn(*against(name, subjects), seconds))
    return turns


def cost_us(turn_of: Used) -> float:
    """CPU microseconds for one record."""
    return (turn_of.own_s + turn_of.children_s) / turn_of.records * 1e6


def row_of(kind: str, subject: str, turns: list[Used]) -> Row:
    """Medians of these turns."""
    costs = sorted(map(cost_us, turns))
    quarter = len(costs) // 4
    median = statistics.median(costs)
    return Row(
        kind,
        subject,
        statistics.median(each.records / each.at for each in turns),
        median,
        (costs[-1 - quarter] - costs[quarter]) / median,
    )


def verdict_of(peer: Peer, turns: dict[str, list[Used]]) -> Verdict:
    """The ratio of each round, and of them the median, the least and the most."""
    ratios = [
        cost_us(its) / cost_us(ours) for its, ours in zip(turns[peer.name], turns["daemon"], strict=True)
    ]
    return Verdict(peer.name, statistics.median(ratios), min(ratios), max(ratios), peer.target, peer.lacks)


async def run(*, rounds: int = ROUNDS, seconds: float = SECONDS) -> tuple[list[Row], list[Verdict]]:
    """Measures the peers of both sources."""
    cores = Cores()
    rows: list[Row] = []
    verdicts: list[Verdict] = []
    for kind in BATCHES:
        turns = await measured(kind, cores, rounds=rounds, seconds=seconds)
        rows += [row_of(kind, name, each) for name, each in turns.items()]
        verdicts += [verdict_of(peer, turns) for peer in PEERS if peer.kind == kind]
    return rows, verdicts


def table(rows: list[Row], verdicts: list[Verdict]) -> str:
    """For people."""
    lines = [f"{'source':8s} {'subject':16s} {'records/s':>10s} {'CPU µs/record':>14s} {'spread':>7s}"]
    lines += [
        f"{row.kind:8s} {row.subject:16s} {row.records_per_s:10,.0f} {row.cpu_us:14.2f} {row.spread:7.0%}"
        for row in rows
    ]
    lines.append("")
    lines += [
        f"{each.peer:16s} / daemon {each.ratio:6.2f} ({each.least:.2f} to {each.most:.2f}){judged(each.ratio, each.target)}; lacks {each.lacks}"
        for each in verdicts
    ]
    return "\n".join(lines)


def document(rows: list[Row], verdicts: list[Verdict]) -> dict[str, object]:
    """For comparison over time."""
    return {"rows": [asdict(row) for row in rows], "ratios": [asdict(each) for each in verdicts]}
