"""Answers that are much too large are refused before they are encoded, and only those."""

import time
from typing import Any

import pytest

from adapters.invokers.handlers.calling import least_bytes, outcome_of_result
from adapters.invokers.outcomes import ANSWER_BYTES_MAX, RESPONSE_TOO_LARGE
from poller.domain.invocations import FunctionError, Succeeded

CYCLE: list[Any] = []
CYCLE.append(CYCLE)


@pytest.mark.parametrize(
    "result",
    [
        "x" * 100_000_000,
        ["x" * 1024] * 100_000,
        {"body": {"items": ["x" * 1024] * 100_000}},
        {str(number): "x" * 100 for number in range(200_000)},
        ("x" * 10_000,) * 10_000,
        [0] * 20_000_000,
    ],
    ids=["string", "list", "nested", "dictionary", "tuple", "numbers"],
)
def test_an_answer_that_is_much_too_large_is_not_encoded(result: Any) -> None:
    began = time.perf_counter()
    outcome = outcome_of_result(result)
    assert time.perf_counter() - began < 0.08
    assert isinstance(outcome, FunctionError)
    assert outcome.error_type == RESPONSE_TOO_LARGE


@pytest.mark.parametrize("char", ["x", "é", "\n"])
def test_what_fits_is_answered_to_the_last_byte(char: str) -> None:
    bytes_each = {"x": 1, "é": 6, "\n": 2}[char]
    fits = (ANSWER_BYTES_MAX - 2) // bytes_each
    assert isinstance(outcome_of_result(char * fits), Succeeded)
    outcome = outcome_of_result(char * (fits + 1))
    assert isinstance(outcome, FunctionError)
    assert outcome.error_type == RESPONSE_TOO_LARGE


@pytest.mark.parametrize(
    "result", [None, 1, "ä", [], {}, [1, [2, ["x"]]], {"a": [], "b": {"c": "d"}}, {1: ()}]
)
def test_no_answer_is_thought_larger_than_it_is(result: Any) -> None:
    outcome = outcome_of_result(result)
    assert isinstance(outcome, Succeeded)
    assert least_bytes(result) <= len(outcome.payload)


def test_an_answer_that_holds_itself_is_looked_at_for_a_while_only() -> None:
    outcome = outcome_of_result(CYCLE)
    assert isinstance(outcome, FunctionError)
    assert outcome.error_type == "Runtime.MarshalError"
