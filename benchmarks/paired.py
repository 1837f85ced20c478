"""CPU time for one record in two checkouts of the project, in one run: this one, and another one, such as an older version.

    git worktree add /tmp/before COMMIT && make -C /tmp/before setup
    python -m benchmarks.paired /tmp/before --kind kinesis [--filtered] [--rounds 8] [--seconds 1.2]

On a shared machine two runs of the same version differ by a tenth or more. So here the two daemons take turns of about a second on the
same core: one runs while the other is stopped by a signal. What slows the machine down slows both, and differences of two percent show.
"""

import argparse
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.subjects import SOURCES, STREAMS, Cores, cpu_s, daemon, get, mapping, stub
from benchmarks.throughput import SHARDS, WARM_S

SETTLE_S = 0.4
"""How long a daemon that goes on is left alone, until it does again what it does under load."""
OURS = Path(__file__).resolve().parent.parent


async def serve(kind: str, *, filtered: bool) -> None:
    """Runs a daemon under load. Prints its process id, and for each line of stdin how many records and CPU seconds it has taken."""
    cores = Cores()
    with stub(cores, kind, "--shards", str(SHARDS)) as url, tempfile.TemporaryDirectory() as folder:
        metric = "poller_polled_event_count_total" if filtered else "poller_records_processed_total"
        get(f"{url}/close", post=True)
        wanted = [mapping(kind, filtered=filtered)]
        async with daemon(cores, Path(folder), url, wanted, metric=metric) as running:
            if kind in STREAMS:
                await running.reads(SHARDS)
            get(f"{url}/open", post=True)
            print(running.pid, flush=True)
            for _ in sys.stdin:
                print(await running.count(), cpu_s(running.pid), flush=True)


@dataclass(frozen=True, slots=True)
class Version:
    """The daemon of one checkout."""

    process: subprocess.Popen[str]
    pid: int

    def figures(self) -> tuple[int, float]:
        """How many records it has taken so far, and how many CPU seconds."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        records, seconds = self.process.stdout.readline().split()
        return int(records), float(seconds)

    def turn(self, other: "Version", seconds: float) -> float:
        """Runs it alone for so long; returns the CPU time for one record, in microseconds."""
        os.kill(other.pid, signal.SIGSTOP)
        os.kill(self.pid, signal.SIGCONT)
        time.sleep(SETTLE_S)
        records, used = self.figures()
        time.sleep(seconds)
        records_then, used_then = self.figures()
        assert records_then > records, "nothing was processed: the stub has no more pages; take fewer rounds"
        return (used_then - used) / (records_then - records) * 1e6


@contextmanager
def running(checkout: Path, kind: str, *, filtered: bool) -> Iterator[Version]:
    """The daemon of a checkout, driven by this module of ours and everything else of its own."""
    code = f"import asyncio; from paired import serve; asyncio.run(serve({kind!r}, filtered={filtered}))"
    command = [str(checkout / ".venv/bin/python"), "-c", code]
    paths = f"{checkout}{os.pathsep}{OURS / 'benchmarks'}"
    with subprocess.Popen(
        command,
        cwd=checkout,
        env=os.environ | {"PYTHONPATH": paths},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        version = Version(process, int(process.stdout.readline()))
        try:
            yield version
        finally:
            os.kill(version.pid, signal.SIGCONT)
            process.stdin.close()


def compared(
    other: Path, kind: str, *, filtered: bool, rounds: int, seconds: float
) -> tuple[list[float], list[float]]:
    """Microseconds of CPU time for one record in each turn: of the other checkout, and of ours."""
    with ExitStack() as stack:
        versions = [
            stack.enter_context(running(checkout, kind, filtered=filtered)) for checkout in (other, OURS)
        ]
        time.sleep(WARM_S)
        taken: tuple[list[float], list[float]] = ([], [])
        for number in range(rounds):
            # Who begins changes, so that a machine that gets slower harms none of them.
            for index in (0, 1) if number % 2 == 0 else (1, 0):
                taken[index].append(versions[index].turn(versions[1 - index], seconds))
    return taken


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.paired")
    parser.add_argument("other", type=Path, help="another checkout, after `make setup`")
    parser.add_argument("--kind", choices=sorted(SOURCES), default="kinesis")
    parser.add_argument(
        "--filtered", action="store_true", help="with a filter that lets half of the records pass"
    )
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=1.2, help="of each turn")
    given = parser.parse_args()
    before, now = compared(
        given.other.resolve(), given.kind, filtered=given.filtered, rounds=given.rounds, seconds=given.seconds
    )
    ratios = sorted(ours / others for others, ours in zip(before, now, strict=True))
    quarter = len(ratios) // 4
    print(
        f"{given.kind}{', one filter' if given.filtered else ''}, CPU µs/record, medians of {len(ratios)} turns"
    )
    print(f"{given.other}  {statistics.median(before):8.2f}")
    print(f"this checkout  {statistics.median(now):8.2f}")
    print(
        f"ratio {statistics.median(ratios):.3f}, middle half {ratios[quarter]:.3f} to {ratios[-1 - quarter]:.3f}"
    )


if __name__ == "__main__":
    main()
