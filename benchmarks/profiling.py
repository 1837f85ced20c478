"""Where the time of one record goes in a daemon under full load, or that of one batch through another invoker.

    python -m benchmarks.profiling kinesis|dynamodb|sqs|fifo [--invoker http] [--size 1] [--seconds 10] [--rows 40]

The daemon runs under the standard library's profiler. That makes small functions look dearer than they are: compare
shares, not times.
"""

import argparse
import asyncio
import pstats
import tempfile
from pathlib import Path

from benchmarks.end_to_end.cases import INVOKERS, Case, function
from benchmarks.subjects import SOURCES, STREAMS, Cores, daemon, get, mapping, stub
from benchmarks.throughput import SHARDS

SECONDS = 10.0
ROWS = 40


async def profiled(kind: str, invoker: str, size: int | None, *, seconds: float, folder: Path) -> Path:
    """Runs a daemon for so long, with Lambda's batch size unless `size` is given; returns the file with its profile."""
    cores, out = Cores(), folder / "profile"
    python = ["-m", "cProfile", "-o", str(out)]
    with stub(cores, kind, "--shards", str(SHARDS)) as url, stub(cores, "none") as server:
        get(f"{url}/close", post=True)
        wanted = mapping(kind) if size is None else Case(kind, invoker, size).mapping()
        settings: dict[str, object] = {"functions": {"orders": function(invoker, server, timed=False)}}
        async with daemon(cores, folder, url, [wanted], python=python, settings=settings) as running:
            if kind in STREAMS:
                await running.reads(SHARDS)
            get(f"{url}/open", post=True)
            await asyncio.sleep(seconds)
    return out


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.profiling")
    parser.add_argument("kind", choices=sorted(SOURCES))
    parser.add_argument("--invoker", choices=INVOKERS, default="python")
    parser.add_argument("--size", type=int)
    parser.add_argument("--sort", choices=("tottime", "cumtime"), default="tottime")
    parser.add_argument("--seconds", type=float, default=SECONDS)
    parser.add_argument("--rows", type=int, default=ROWS)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        out = asyncio.run(
            profiled(given.kind, given.invoker, given.size, seconds=given.seconds, folder=Path(folder))
        )
        pstats.Stats(str(out)).strip_dirs().sort_stats(given.sort).print_stats(given.rows)


if __name__ == "__main__":
    main()
