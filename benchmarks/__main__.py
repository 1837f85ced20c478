"""All benchmarks, one table and one file of figures.

    python -m benchmarks [--rounds 5] [--seconds 5] [--json FILE]

Takes some 15 minutes. Each part can be run alone: benchmarks.throughput, benchmarks.latency, benchmarks.idle. What mappings of one
stream save by sharing its reads is measured apart, by benchmarks.shared_reads.
"""

import argparse
import asyncio
import json
from dataclasses import asdict
from pathlib import Path

from benchmarks import idle, latency, throughput


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks")
    parser.add_argument("--rounds", type=int, default=throughput.ROUNDS)
    parser.add_argument("--seconds", type=float, default=throughput.SECONDS)
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    given = parser.parse_args()
    rows, ratios = asyncio.run(
        throughput.run(list(throughput.CASES), rounds=given.rounds, seconds=given.seconds)
    )
    print(throughput.table(rows, ratios), flush=True)
    late = asyncio.run(latency.run(latency.SECONDS))
    print(f"\n{latency.table(late)}", flush=True)
    resting = asyncio.run(idle.run(idle.SECONDS))
    print(f"\n{idle.table(resting)}")
    if given.json:
        figures = throughput.document(rows, ratios) | {
            "latency": [asdict(row) for row in late],
            "idle": [asdict(row) for row in resting],
        }
        given.json.write_text(json.dumps(figures, indent=2) + "\n")
        print(f"\nwritten to {given.json}")


if __name__ == "__main__":
    main()
