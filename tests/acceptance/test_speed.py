"""A guard against slow changes: the daemon's cost of one record against a bare loop's, and how long a pushed record is on its way.

The bounds leave room for noise. They are about half of what `make bench` shows, so that a change that doubles the cost of a
record fails, and a busy machine does not.
"""

import asyncio

import pytest

from benchmarks import latency
from benchmarks.subjects import Cores
from benchmarks.throughput import CASES, Case, measured, row_of, verdicts

pytestmark = pytest.mark.acceptance

ROUNDS = 2
SECONDS = 1.5
TRIES = 3
"""Other processes make a measurement worse by a third at times, and never better. A slow change is slow in each try."""
LOWEST = {"kinesis": 0.4, "dynamodb": 0.6, "sqs": 0.38}
"""Ratio to the bare loop, by CPU time for one record."""
PUSHED_MS_MAX = 80.0
"""The median time from the moment at which a record is sent to a consumer until the function is called."""
PUSHED_S = 4.0
PUSHED_MIN = 20
"""Records in that time, of some fifty."""


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


def test_a_pushed_record_is_called_within_a_few_milliseconds() -> None:
    (case,) = [case for case in latency.CASES if case.kind == "consumer"]
    row = asyncio.run(latency.measured(case, PUSHED_S, Cores(apart=False)))
    assert row.records >= PUSHED_MIN
    assert row.p50_ms < PUSHED_MS_MAX
