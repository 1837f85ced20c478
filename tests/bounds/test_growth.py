"""The measure of growth itself: it passes what is linear and fails what is not, in time as in memory."""

import pytest

from tests.bounds.growth import assert_linear


def numbers(size: int) -> list[int]:
    return list(range(size))


def test_linear_work_passes() -> None:
    def total(given: list[int]) -> int:
        return sum(given)

    assert_linear(total, numbers, 100_000)


def test_work_that_sorts_passes() -> None:
    def backwards(size: int) -> list[int]:
        return numbers(size)[::-1]

    assert_linear(sorted, backwards, 50_000)


def test_work_that_is_quadratic_in_time_fails() -> None:
    def pairs(given: list[int]) -> int:
        return sum(1 for one in given if one + 1 in given)

    with pytest.raises(AssertionError, match=r"4 times the input: .* s became"):
        assert_linear(pairs, numbers, 500)


def test_work_that_is_quadratic_in_memory_alone_fails() -> None:
    def square(given: list[int]) -> bytes:
        # Memory that nobody writes to costs no time.
        return bytes(len(given) ** 2)

    with pytest.raises(AssertionError, match=r"4 times the input: .* bytes became"):
        assert_linear(square, numbers, 1_000)
