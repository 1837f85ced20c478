"""All benchmarks, one table and one file of figures.

    python -m benchmarks [--rounds 5] [--seconds 5] [--no-end-to-end] [--no-peers] [--json FILE]

Takes some 35 minutes, 15 of them without benchmarks.end_to_end and benchmarks.peers. Each part can be run alone: those two,
benchmarks.throughput, benchmarks.latency, benchmarks.idle. Peers are measured if they are installed (make peers). What mappings of one
stream save by sharing its reads is measured apart, by benchmarks.shared_reads.
"""

import argparse
import asyncio
import json
from dataclasses import asdict
from pathlib import Path

from benchmarks import idle, latency, throughput
from benchmarks.end_to_end import lateness
from benchmarks.end_to_end import measuring as batches
from benchmarks.end_to_end.cases import CASES
from benchmarks.peers import measuring as peers
from benchmarks.peers.cases import missing


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks")
    parser.add_argument("--rounds", type=int, default=throughput.ROUNDS)
    parser.add_argument("--seconds", type=float, default=throughput.SECONDS)
    parser.add_argument("--no-end-to-end", action="store_true", help="leave batches through invokers out")
    parser.add_argument("--no-peers", action="store_true", help="leave out what a user could take instead")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    given = parser.parse_args()
    rows, ratios = asyncio.run(
        throughput.run(list(throughput.CASES), rounds=given.rounds, seconds=given.seconds)
    )
    print(throughput.table(rows, ratios), flush=True)
    late = asyncio.run(latency.run(latency.SECONDS))
    print(f"\n{latency.table(late)}", flush=True)
    resting = asyncio.run(idle.run(idle.SECONDS))
    print(f"\n{idle.table(resting)}", flush=True)
    figures = throughput.document(rows, ratios) | {
        "latency": [asdict(row) for row in late],
        "idle": [asdict(row) for row in resting],
    }
    if not given.no_end_to_end:
        figures["end_to_end"] = end_to_end()
    if not given.no_peers:
        figures["peers"] = beside_peers()
    if given.json:
        given.json.write_text(json.dumps(figures, indent=2) + "\n")
        print(f"\nwritten to {given.json}")


def end_to_end() -> dict[str, object]:
    """Batches through each invoker."""
    rows, verdicts = asyncio.run(batches.run(list(CASES)))
    print(f"\n{batches.table(rows, verdicts)}", flush=True)
    late = asyncio.run(lateness.run())
    print(f"\n{lateness.table(late)}", flush=True)
    return batches.document(rows, verdicts) | {"lateness": [asdict(row) for row in late]}


def beside_peers() -> dict[str, object]:
    """The peers, if they are installed."""
    if wanted := missing():
        print(f"\n{wanted}")
        return {}
    rows, verdicts = asyncio.run(peers.run())
    print(f"\n{peers.table(rows, verdicts)}", flush=True)
    return peers.document(rows, verdicts)


if __name__ == "__main__":
    main()
