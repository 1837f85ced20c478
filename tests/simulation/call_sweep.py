"""Owns the command: `python -m tests.simulation.call_sweep --seeds A:B`, which runs many worlds of asynchronous calls one after the other."""

import argparse
import sys
from collections import Counter

from tests.simulation.worlds.call_queues import run_calls


def main() -> int:
    """Runs the seeds; 1 if one of them failed."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation.call_sweep", description=__doc__)
    parser.add_argument("--seeds", default="0:500", help="a range, first:behind the last")
    first, _, last = parser.parse_args().seeds.partition(":")
    failed, seen = 0, Counter[str]()
    for seed in range(int(first), int(last)):
        try:
            seen += run_calls(seed)
        except AssertionError as error:
            failed += 1
            print(f"seed {seed}: {type(error).__name__}: {error}", flush=True)
    print(f"{failed} of the seeds {first} to {last} failed; saw {dict(seen)}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
