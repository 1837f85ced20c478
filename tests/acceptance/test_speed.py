"""A guard against slow changes: the daemon's cost of one record against a bare loop's, in one run on one core.

The bounds leave room for noise. They are about half of what `make bench` shows, so that a change that doubles the cost of a
record fails, and a busy machine does not.
"""

import asyncio

import pytest

from benchmarks.subjects import Cores
from benchmarks.throughput import CASES, Case, measured, row_of, verdicts

pytestmark = pytest.mark.acceptance

ROUNDS = 2
SECONDS = 1.5
TRIES = 3
"""Other processes make a measurement worse by a third at times, and never better. A slow change is slow in each try."""
LOWEST = {"kinesis": 0.4, "dynamodb": 0.6, "sqs": 0.38}
"""Ratio to the bare loop, by CPU time for one record."""


def guarded(case: Case) -> float:
    """The daemon's ratio to the bare loop in this case."""
    samples = asyncio.run(
        measured(case, rounds=ROUNDS, seconds=SECONDS, cores=Cores(), names=("bare", "daemon"))
    )
    rows = {name: row_of(case, name, each) for name, each in samples.items()}
    (found,) = [each for each in verdicts(case, rows) if each.against == "bare"]
    return found.ratio


@pytest.mark.parametrize("name", LOWEST)
def test_a_record_costs_no_more_than_it_did_against_a_bare_loop(name: str) -> None:
    (case,) = [case for case in CASES if case.name == name]
    ratios: list[float] = []
    while len(ratios) < TRIES and max(ratios, default=0.0) < LOWEST[name]:
        ratios.append(guarded(case))
    assert max(ratios) >= LOWEST[name], f"{ratios} of a bare loop's speed"
