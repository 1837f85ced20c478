"""What a batch costs through each invoker, and how late it is.

    python -m benchmarks.end_to_end [--case 'sqs/http/*' ...] [--rounds 3] [--seconds 1.5] [--json FILE]

A case is SOURCE/INVOKER/SIZE. Takes some 15 minutes for all; lateness is measured if no case is named.
"""

import argparse
import asyncio
import json
from dataclasses import asdict
from pathlib import Path

from benchmarks.end_to_end import lateness, measuring
from benchmarks.end_to_end.cases import chosen


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.end_to_end")
    parser.add_argument("--case", action="append", default=[], help="a name of a case, or a pattern")
    parser.add_argument("--rounds", type=int, default=measuring.ROUNDS)
    parser.add_argument("--seconds", type=float, default=measuring.SECONDS)
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    given = parser.parse_args()
    cases = chosen(given.case)
    if not cases:
        parser.error("no case has such a name; a case is SOURCE/INVOKER/SIZE, such as sqs/http/1")
    rows, verdicts = asyncio.run(measuring.run(cases, rounds=given.rounds, seconds=given.seconds))
    print(measuring.table(rows, verdicts), flush=True)
    late = [] if given.case else asyncio.run(lateness.run())
    if late:
        print(f"\n{lateness.table(late)}")
    if given.json:
        figures = measuring.document(rows, verdicts) | {"lateness": [asdict(row) for row in late]}
        given.json.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
