"""How many processes there are, and what each may use."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from poller.rules.supervision.counting import (
    PROCESSES_MAX,
    number_of_processes,
    quota_of,
    usable_processors,
)
from poller.rules.supervision.shares import MEMORY_MB_MIN, memory_share_mb


@pytest.mark.parametrize(
    ("text", "processors", "number"),
    [
        ("1", 8, 1),
        ("2", 1, 2),
        (str(PROCESSES_MAX), 1, PROCESSES_MAX),
        (str(PROCESSES_MAX + 1), 1, None),
        ("0", 8, None),
        ("-1", 8, None),
        ("2.5", 8, None),
        ("", 8, None),
        ("Auto", 8, None),
        ("٢", 8, None),
        ("9" * 5000, 8, None),
        ("auto", 8, 8),
        ("auto", 0, 1),
        ("auto", 500, PROCESSES_MAX),
    ],
)
def test_a_number_of_processes_is_auto_or_from_1_to_the_limit(
    text: str, processors: int, number: int | None
) -> None:
    assert number_of_processes(text, processors) == number


@pytest.mark.parametrize(
    ("allowed", "quotas", "processors"),
    [
        (8, [], 8),
        (8, [(250_000, 100_000)], 2),
        (8, [(50_000, 100_000)], 1),
        (2, [(800_000, 100_000)], 2),
        (8, [(400_000, 100_000), (300_000, 100_000)], 3),
        (0, [], 1),
    ],
)
def test_a_quota_counts_in_whole_processors_and_the_smallest_one_holds(
    allowed: int, quotas: list[tuple[int, int]], processors: int
) -> None:
    assert usable_processors(allowed, quotas) == processors


@pytest.mark.parametrize(
    ("quota", "period", "found"),
    [
        ("200000", "100000", (200_000, 100_000)),
        ("max", "100000", None),
        ("-1", "100000", None),
        ("0", "100000", None),
        ("200000", "0", None),
        ("9" * 20, "100000", None),
        ("", "", None),
    ],
)
def test_a_quota_is_two_positive_numbers(quota: str, period: str, found: tuple[int, int] | None) -> None:
    assert quota_of(quota, period) == found


@given(memory_mb=st.integers(64, 1_000_000), processes=st.integers(1, PROCESSES_MAX))
def test_processes_never_hold_more_together_than_was_given(memory_mb: int, processes: int) -> None:
    share = memory_share_mb(memory_mb, processes, given=True)
    if share is None:
        assert memory_mb < MEMORY_MB_MIN * processes
    else:
        assert share >= MEMORY_MB_MIN
        assert share * processes <= memory_mb


def test_a_default_gives_each_process_at_least_what_it_needs() -> None:
    assert memory_share_mb(512, 4, given=False) == 128
    assert memory_share_mb(512, 16, given=False) == MEMORY_MB_MIN
