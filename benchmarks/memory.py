"""How much memory the daemon takes under full load, and what it does meanwhile: many busy shards, or many pollers with large messages.

python -m benchmarks.memory shards|pollers [--memory-mb 128] [--seconds 15] [--in CHECKOUT]

Prints the peak of the resident memory, the peak of what the daemon says that it holds, and the records in a second. With `--in` the
daemon of another checkout is measured, such as an older version.
"""

import argparse
import asyncio
import os
import tempfile
import time
from pathlib import Path

from benchmarks.subjects import Cores, cpu_s, daemon, get, mapping, peak_mb, stub

SHARDS = 96
PAGES = 64
POLLERS = 125
"""AWS's pollers, of ten receives at once each."""
LOOK_S = 0.2
WARM_S = 3.0


async def measured(kind: str, memory_mb: int | None, seconds: float) -> None:
    """Runs one case and prints its figures."""
    cores = Cores()
    shards = kind == "shards"
    source = "kinesis" if shards else "large-sqs"
    wanted = mapping("kinesis" if shards else "sqs")
    if not shards:
        wanted["ProvisionedPollerConfig"] = {"MinimumPollers": POLLERS, "MaximumPollers": POLLERS}
    settings = {"tuning": {"memory_mb": memory_mb}} if memory_mb is not None else {}
    with (
        tempfile.TemporaryDirectory() as folder,
        stub(cores, source, "--shards", str(SHARDS), "--pages", str(PAGES if shards else 1)) as url,
    ):
        get(f"{url}/close", post=True)
        async with daemon(cores, Path(folder), url, [wanted], settings=settings) as running:
            if shards:
                await running.reads(SHARDS)
            get(f"{url}/open", post=True)
            await asyncio.sleep(WARM_S)
            began, records, used = time.perf_counter(), await running.count(), cpu_s(running.pid)
            held = waiting = 0.0
            while time.perf_counter() - began < seconds:
                held = max(held, await running.figure("poller_memory_held_bytes"))
                waiting = max(waiting, await running.figure("poller_memory_waiting_calls"))
                await asyncio.sleep(LOOK_S)
            records = await running.count() - records
            took, cpu = time.perf_counter() - began, cpu_s(running.pid) - used
            print(
                f"{kind}, memory_mb {memory_mb}: resident {peak_mb(running.pid):.0f} MB at most, "
                f"held {held / 2**20:.0f} MB at most, {waiting:.0f} waiting at most, "
                f"{records / took:,.0f} records/s, {cpu / max(1, records) * 1e6:.2f} µs of CPU each"
            )


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.memory")
    parser.add_argument("kind", choices=("shards", "pollers"))
    parser.add_argument("--memory-mb", type=int)
    parser.add_argument("--seconds", type=float, default=15.0)
    parser.add_argument("--in", dest="checkout", type=Path, help="another checkout, after `make setup`")
    given = parser.parse_args()
    if given.checkout is not None:
        os.chdir(given.checkout)
    asyncio.run(measured(given.kind, given.memory_mb, given.seconds))


if __name__ == "__main__":
    main()
