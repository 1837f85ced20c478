"""Owns the command: `python -m tests.simulation.calls --seeds A:B`, which runs many worlds of asynchronous calls, and of versions."""

import argparse
import sys
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field

from tests.simulation.calls.call_checks import CallFault
from tests.simulation.calls.call_world import run_calls
from tests.simulation.calls.version_world import run_versions
from tests.virtual import Deadlock, LimitPassed

WORLDS = {"calls": run_calls, "versions": run_versions}
CHUNK = 20


@dataclass(slots=True)
class Swept:
    """What some seeds of a world have shown. `failed` maps a seed to its reason."""

    seen: Counter[str] = field(default_factory=Counter)
    failed: dict[int, str] = field(default_factory=dict)


def sweep(world: str, seeds: range) -> Swept:
    """Runs seeds of one world one after the other."""
    swept = Swept()
    for seed in seeds:
        try:
            swept.seen += WORLDS[world](seed)
        except (CallFault, Deadlock, LimitPassed, BaseExceptionGroup) as error:
            swept.failed[seed] = f"{type(error).__name__}: {error}"
    return swept


def main() -> int:
    """Runs the seeds of all worlds; 1 if one of them failed."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation.calls", description=__doc__)
    parser.add_argument("--seeds", default="0:500", help="a range, first:behind the last")
    parser.add_argument("--jobs", type=int, default=1, help="processes beside each other")
    parser.add_argument("--world", choices=sorted(WORLDS), action="append", help="all of them unless named")
    given = parser.parse_args()
    first, _, last = given.seeds.partition(":")
    chunks = [range(start, min(start + CHUNK, int(last))) for start in range(int(first), int(last), CHUNK)]
    failed = 0
    for world in given.world or WORLDS:
        seen = Counter[str]()
        with ProcessPoolExecutor(given.jobs) as pool:
            for swept in pool.map(sweep, [world] * len(chunks), chunks):
                seen += swept.seen
                failed += len(swept.failed)
                for seed, reason in swept.failed.items():
                    print(f"{world}: seed {seed}: {reason}", flush=True)
        print(f"{world}: seeds {first} to {last} saw {dict(sorted(seen.items()))}")
    print(f"{failed} worlds failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
