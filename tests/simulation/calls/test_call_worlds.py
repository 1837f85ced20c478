"""Asynchronous calls in worlds of trouble: each accepted call ends once, nobody writes what another works on, and operations come to their end."""

from collections import Counter
from functools import cache

import pytest

from tests.simulation.calls.call_world import run_calls
from tests.simulation.kept_seeds import KEPT_CALL_SEEDS

SEEDS = 10
SEEN = (
    "calls",
    "crash",
    "stop",
    "pause",
    "skipped",
    "dropped",
    "retried",
    "claimed from a worker that is gone",
    "an operation rewrote a call",
    *(f"{action} of {which} done" for action in ("retry", "skip") for which in ("some", "all")),
    "skip of some failed",
)
"""What these seeds must show together."""


@cache
def seen_in(seed: int) -> Counter[str]:
    """What a world shows; each runs once."""
    return run_calls(seed)


@pytest.mark.parametrize("seed", sorted({*range(SEEDS), *KEPT_CALL_SEEDS}))
def test_each_call_ends_once_and_only_its_owner_writes_it(seed: int) -> None:
    assert seen_in(seed)["calls"] > 0


def test_the_seeds_show_what_they_are_for() -> None:
    seen = sum((seen_in(seed) for seed in range(SEEDS)), Counter[str]())
    assert [each for each in SEEN if not seen[each]] == []
