"""Owns the command: `python -m tests.simulation --seeds A:B --jobs N`, or `--seed N --trace` for one readable account."""

import argparse
import sys
import time
from collections.abc import Iterable

from tests.simulation.sweep import Swept, spread
from tests.simulation.worlds.scenario import Scenario, base
from tests.simulation.worlds.variations import draw
from tests.simulation.worlds.world import Failed, run_scenario


def main() -> int:
    """Runs what was asked for; 1 if a seed failed or a full sweep was too kind."""
    options = _options()
    if options.seed is not None:
        scenario = base(options.seed) if options.base else draw(options.seed)
        return _one(scenario, trace=options.trace)
    first, _, last = options.seeds.partition(":")
    return _many(range(int(first), int(last)), options.jobs)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seeds", default="0:500", help="a range, first:behind the last")
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    parser.add_argument("--seed", type=int, help="one seed only")
    parser.add_argument("--base", action="store_true", help="that seed without its variations")
    parser.add_argument("--trace", action="store_true", help="print the account of that seed")
    return parser.parse_args()


def _one(scenario: Scenario, *, trace: bool) -> int:
    try:
        report = run_scenario(scenario, trace=trace)
    except Failed as failure:
        print(account(failure.history))
        print(failure)
        return 1
    print(account(report.history))
    print(f"seed {scenario.seed} holds; {report.virtual_s:.0f} s of virtual time; saw {dict(report.marks)}")
    return 0


def account(history: Iterable[str]) -> str:
    """The lines of a history for a terminal, which takes no half of a surrogate pair; keys may have one."""
    return "\n".join(history).encode(errors="backslashreplace").decode()


def _many(seeds: range, jobs: int) -> int:
    began, total = time.monotonic(), Swept()
    for swept in spread(seeds, jobs):
        total.add(swept)
        for seed, reason in swept.failed.items():
            print(f"seed {seed}: {reason}", flush=True)
        took = time.monotonic() - began
        print(
            f"{total.seeds}/{len(seeds)} seeds, {len(total.failed)} failed, {took:.0f} s,"
            f" {total.virtual_s / 3600:.1f} h of virtual time",
            file=sys.stderr,
            flush=True,
        )
    for mark, count in sorted(total.marks.items()):
        print(f"{count:8} {mark}")
    never = total.never()
    if never:
        print(f"never seen: {', '.join(never)}")
    return 1 if total.failed or (never and len(seeds) >= 500) else 0


if __name__ == "__main__":
    sys.exit(main())
