"""How long it takes until a daemon with many mappings reads all of their shards, and what its commands take.

python -m benchmarks.starting [--mappings 1000] [--json FILE]

Five shards each, on stores in a SQLite file and in a PostgreSQL server of its own.
"""

import argparse
import asyncio
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.subjects import Cores, configuration, cpu_s, daemon, environment, get, mapping, peak_mb, stub
from tests.postgres import postgres

MAPPINGS = 1_000
SHARDS = 5
"""Of each mapping's stream."""
STARTED_S_MAX = 20.0
CHECK_S_MAX = 3.0
HELP_S_MAX = 0.3
ROUNDS = 5
"""Commands are run so often; the fastest run has the least of the machine's noise."""


@dataclass(frozen=True, slots=True)
class Row:
    """Seconds that something took, the CPU seconds and the most memory of its process if they are known, and the limit of its seconds."""

    what: str
    took_s: float
    limit_s: float
    used_s: float | None = None
    peak_mb: float | None = None


def mappings_of(count: int) -> list[dict[str, object]]:
    """Mappings of streams that differ by name."""
    plain = mapping("kinesis")
    return [plain | {"EventSourceArn": f"{plain['EventSourceArn']}-{number}"} for number in range(count)]


@contextmanager
def _stores() -> Iterator[list[tuple[str, dict[str, object]]]]:
    with postgres() as server:
        yield [("SQLite", {}), ("PostgreSQL", {"store": server.url()})]


async def started(store: str, settings: dict[str, object], mappings: int, cores: Cores) -> Row:
    """The time from the start of the process until all shards are read."""
    with (
        tempfile.TemporaryDirectory() as folder,
        stub(cores, "kinesis", "--shards", str(SHARDS), "--pages", "1") as url,
    ):
        get(f"{url}/close", post=True)
        began = time.perf_counter()
        async with daemon(cores, Path(folder), url, mappings_of(mappings), settings=settings) as running:
            await running.reads(mappings * SHARDS)
            took = time.perf_counter() - began
            what = f"{mappings:,} mappings, {mappings * SHARDS:,} shards, {store}"
            return Row(what, took, STARTED_S_MAX, cpu_s(running.pid), peak_mb(running.pid))


def commanded(mappings: int) -> list[Row]:
    """The fastest runs of `poller --help` and of `poller check` with so many mappings."""
    with tempfile.TemporaryDirectory() as folder:
        file = configuration(Path(folder), "http://127.0.0.1:9", "127.0.0.1:0", mappings_of(mappings), {})
        check = _fastest("check", "--config", str(file))
    return [
        Row("poller --help", _fastest("--help"), HELP_S_MAX),
        Row(f"poller check, {mappings:,} mappings", check, CHECK_S_MAX),
    ]


def _fastest(*words: str) -> float:
    return min(_ran(*words) for _ in range(ROUNDS))


def _ran(*words: str) -> float:
    began = time.perf_counter()
    subprocess.run(
        [sys.executable, "-m", "poller", *words], env=environment(), stdout=subprocess.DEVNULL, check=True
    )
    return time.perf_counter() - began


async def run(mappings: int = MAPPINGS) -> list[Row]:
    """All of it."""
    cores = Cores(apart=False)
    with _stores() as stores:
        rows = [await started(store, settings, mappings, cores) for store, settings in stores]
    return rows + await asyncio.to_thread(commanded, mappings)


def table(rows: list[Row]) -> str:
    """For people."""
    lines = [f"{'from the start on':48s} {'seconds':>8s} {'of CPU':>8s} {'peak MB':>8s}"]
    lines += [
        f"{row.what:48s} {row.took_s:8.2f} {_text(row.used_s, 1):>8s} {_text(row.peak_mb, 0):>8s}   "
        f"{'within' if row.took_s <= row.limit_s else 'beyond'} its limit of {row.limit_s:g} s"
        for row in rows
    ]
    return "\n".join(lines)


def _text(figure: float | None, places: int) -> str:
    return "" if figure is None else f"{figure:.{places}f}"


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.starting")
    parser.add_argument("--mappings", type=int, default=MAPPINGS)
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    given = parser.parse_args()
    rows = asyncio.run(run(given.mappings))
    print(table(rows))
    if given.json:
        given.json.write_text(json.dumps([asdict(row) for row in rows], indent=2) + "\n")


if __name__ == "__main__":
    main()
