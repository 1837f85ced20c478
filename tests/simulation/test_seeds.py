"""Whole daemons keep every promise in the worlds of many seeds, and the worlds are unkind enough."""

import pytest

from tests.simulation.__main__ import account
from tests.simulation.kept_seeds import (
    KEPT_BASE_SEEDS,
    KEPT_OPERATED_SEEDS,
    KEPT_REDRIVEN_SEEDS,
    KEPT_SEEDS,
    KEPT_STREAM_SEEDS,
    KEPT_WHOLE_SEEDS,
)
from tests.simulation.sweep import CHUNK, SELDOM, SELDOM_SEEDS, SOMETIMES, Swept, sweep
from tests.simulation.worlds.scenario import base
from tests.simulation.worlds.variations import draw, operated, redriven, vary, without_calls
from tests.simulation.worlds.world import run_scenario

SEEDS = 150
"""`make soak` runs many more, and what fails there is kept; these are for changes that break nearly every world."""
CHUNKS = [range(start, start + CHUNK) for start in range(0, SEEDS, CHUNK)]
MARKED_SEEDS = range(1000, 1250)
"""Seeds of which each mark must be seen, in one process that counts them."""


@pytest.mark.parametrize("seeds", CHUNKS, ids=lambda seeds: f"{seeds.start}-{seeds.stop - 1}")
def test_every_promise_is_kept(seeds: range) -> None:
    swept = sweep(seeds)
    assert swept.failed == {}
    assert swept.seeds == CHUNK


@pytest.mark.parametrize("seed", KEPT_BASE_SEEDS, ids=str)
def test_a_bug_that_simulation_found_in_a_base_scenario_stays_away(seed: int) -> None:
    assert run_scenario(base(seed)).virtual_s > 0


@pytest.mark.parametrize("seed", KEPT_SEEDS, ids=str)
def test_a_bug_that_simulation_found_stays_away(seed: int) -> None:
    assert run_scenario(vary(base(seed))).virtual_s > 0


def test_bugs_that_simulation_found_with_operators_stay_away() -> None:
    assert [seed for seed in KEPT_OPERATED_SEEDS if not run_scenario(operated(seed)).virtual_s] == []


def test_bugs_that_simulation_found_in_redrives_stay_away() -> None:
    assert [seed for seed in KEPT_REDRIVEN_SEEDS if not run_scenario(redriven(seed)).virtual_s] == []


def test_bugs_that_simulation_found_in_whole_scenarios_stay_away() -> None:
    assert [seed for seed in KEPT_WHOLE_SEEDS if not run_scenario(without_calls(seed)).virtual_s] == []


def test_bugs_that_simulation_found_with_consumers_stay_away() -> None:
    assert [seed for seed in KEPT_STREAM_SEEDS if not run_scenario(draw(seed)).virtual_s] == []


@pytest.mark.timeout(900)
def test_a_sweep_sees_everything_that_should_happen_sometimes() -> None:
    swept = sweep(MARKED_SEEDS)
    assert swept.failed == {}
    assert swept.never() == []


def test_an_account_of_odd_keys_can_be_printed() -> None:
    assert account(["put key-8\ud800", "grüße"]).encode() == "put key-8\\ud800\ngrüße".encode()


def test_a_sweep_that_is_too_kind_names_what_it_never_saw() -> None:
    swept = Swept()
    swept.marks.update(SOMETIMES[1:])
    assert swept.never() == [SOMETIMES[0]]


def test_what_is_seldom_is_missed_only_by_a_long_sweep() -> None:
    swept = Swept(seeds=SELDOM_SEEDS - 1)
    swept.marks.update(SOMETIMES)
    assert swept.never() == []
    swept.seeds += 1
    assert swept.never() == list(SELDOM)
