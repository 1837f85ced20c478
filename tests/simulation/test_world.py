"""A world is the same whenever its seed is run, in this process or another."""

import hashlib
import os
import subprocess
import sys
from collections import Counter

import pytest

from tests.simulation.sweep import sweep
from tests.simulation.worlds.variations import draw
from tests.simulation.worlds.world import Failed, run_scenario, run_seed

SEEDS = (3, 17, 58)
PROGRAM = """
import hashlib
from tests.simulation.worlds.world import run_seed
for seed in {seeds}:
    print(hashlib.sha256("\\n".join(run_seed(seed, trace=True).history).encode()).hexdigest())
"""


def account(seed: int) -> str:
    return hashlib.sha256("\n".join(run_seed(seed, trace=True).history).encode()).hexdigest()


def test_the_same_seed_gives_the_same_account() -> None:
    assert [account(seed) for seed in SEEDS] == [account(seed) for seed in SEEDS]
    assert len({account(seed) for seed in SEEDS}) == len(SEEDS)


@pytest.mark.parametrize("hash_seed", ["1", "2"])
def test_the_account_does_not_depend_on_the_process(hash_seed: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(seeds=SEEDS)],
        env={**os.environ, "PYTHONHASHSEED": hash_seed},
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    assert done.stdout.split() == [account(seed) for seed in SEEDS]


def test_all_four_sources_are_drawn() -> None:
    kinds = Counter(
        f"{each.plan.kind}{' fifo' if each.plan.fifo else ''}"
        for seed in range(200)
        for each in draw(seed).setups
    )
    assert set(kinds) == {"kinesis", "dynamodb", "sqs", "sqs fifo"}


def test_a_failing_seed_is_reported_with_its_replay() -> None:
    failure = Failed(7, "order: 3 before 2", ["a line"])
    assert "python -m tests.simulation --seed 7 --trace" in str(failure)
    assert (failure.seed, failure.reason, failure.history) == (7, "order: 3 before 2", ["a line"])


def test_an_account_is_kept_only_when_somebody_wants_to_read_it() -> None:
    assert run_scenario(draw(3)).history == []
    assert run_scenario(draw(3), trace=True).history != []


def test_a_sweep_adds_up() -> None:
    first, second = sweep(range(2)), sweep(range(2, 3))
    first.add(second)
    assert first.seeds == 3
    assert first.failed == {}
