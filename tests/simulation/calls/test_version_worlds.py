"""Versions and aliases in worlds of trouble: each call gets a version that its qualifier allows, retries stay, and shifts move as they should."""

from collections import Counter
from functools import cache

import pytest

from poller.domain.functions.shifts import ENDED
from tests.simulation.calls.version_world import VERSIONS, run_versions
from tests.simulation.kept_seeds import KEPT_VERSION_SEEDS

SEEDS = (*range(9), 30)
"""In the last one a new version fails so often that it is taken back."""
SEEN = (
    *(f"alias call of version {each}" for each in VERSIONS),
    "tried again on its version",
    "tried again on another",
    "alias changed",
    "alias made",
    "file taken over",
    "shift begun",
    *(f"shift {each}" for each in sorted(ENDED)),
    *(f"rolled back {how}" for how in ("by hand", "by a hook", "by failures")),
    "crash",
    "stop",
    "pause",
    "records",
)
"""What these seeds must show together."""


@cache
def seen_in(seed: int) -> Counter[str]:
    """What a world shows; each runs once."""
    return run_versions(seed)


@pytest.mark.parametrize("seed", sorted({*SEEDS, *KEPT_VERSION_SEEDS}))
def test_each_call_gets_a_version_that_its_alias_allows_and_shifts_end(seed: int) -> None:
    assert seen_in(seed)["shift begun"] + seen_in(seed)["calls"] > 0


def test_the_seeds_show_what_they_are_for() -> None:
    seen = sum((seen_in(seed) for seed in SEEDS), Counter[str]())
    assert [each for each in SEEN if not seen[each]] == []
