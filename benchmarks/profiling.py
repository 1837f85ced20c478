"""Where the time of one record goes in a daemon under full load.

    python -m benchmarks.profiling kinesis|dynamodb|sqs|fifo [--seconds 10] [--rows 40]

The daemon runs under the standard library's profiler. That makes small functions look dearer than they are: compare
shares, not times.
"""

import argparse
import asyncio
import pstats
import tempfile
from pathlib import Path

from benchmarks.subjects import SOURCES, STREAMS, Cores, daemon, get, mapping, stub
from benchmarks.throughput import SHARDS

SECONDS = 10.0
ROWS = 40


async def profiled(kind: str, seconds: float, folder: Path) -> Path:
    """Runs a daemon for so long; returns the file with its profile."""
    cores, out = Cores(), folder / "profile"
    python = ["-m", "cProfile", "-o", str(out)]
    with stub(cores, kind, "--shards", str(SHARDS)) as url:
        get(f"{url}/close", post=True)
        async with daemon(cores, folder, url, [mapping(kind)], python=python) as running:
            if kind in STREAMS:
                await running.reads(SHARDS)
            get(f"{url}/open", post=True)
            await asyncio.sleep(seconds)
    return out


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.profiling")
    parser.add_argument("kind", choices=sorted(SOURCES))
    parser.add_argument("--seconds", type=float, default=SECONDS)
    parser.add_argument("--rows", type=int, default=ROWS)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        out = asyncio.run(profiled(given.kind, given.seconds, Path(folder)))
        pstats.Stats(str(out)).strip_dirs().sort_stats("tottime").print_stats(given.rows)


if __name__ == "__main__":
    main()
