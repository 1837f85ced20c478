"""The daemon beside what a user could take instead.

    make peers
    python -m benchmarks.peers [--rounds 3] [--seconds 2] [--json FILE]

A function inside the daemon stands against a callback inside the peer.
"""

import argparse
import asyncio
import json
from pathlib import Path

from benchmarks.peers import measuring
from benchmarks.peers.cases import missing


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers")
    parser.add_argument("--rounds", type=int, default=measuring.ROUNDS)
    parser.add_argument("--seconds", type=float, default=measuring.SECONDS)
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    given = parser.parse_args()
    if wanted := missing():
        parser.error(wanted)
    rows, verdicts = asyncio.run(measuring.run(rounds=given.rounds, seconds=given.seconds))
    print(measuring.table(rows, verdicts))
    if given.json:
        given.json.write_text(json.dumps(measuring.document(rows, verdicts), indent=2) + "\n")


if __name__ == "__main__":
    main()
