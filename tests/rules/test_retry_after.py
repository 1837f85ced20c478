"""`retryAfterSeconds` of a report gives waits, or is ignored and counted; it never changes which messages failed."""

import json
import math
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from poller.domain.invocations import Succeeded
from poller.rules.responses import Accepted, Partial, Rejected, ResponseReading, parse
from poller.rules.retry_after import SECONDS_MAX, RetryAfter, wrong

IDS = ("a", "b", "c")
QUEUE = ResponseReading(report_failures=True, ignore_empty_items=True, retry_after=True)
STREAM = ResponseReading(report_failures=True)


def report(*items: dict[str, Any]) -> Succeeded:
    return Succeeded(json.dumps({"batchItemFailures": list(items)}).encode())


def failed(name: str, value: Any) -> dict[str, Any]:
    return {"itemIdentifier": name, "retryAfterSeconds": value}


def retry_after(*items: dict[str, Any]) -> RetryAfter | None:
    verdict = parse(report(*items), IDS, QUEUE)
    assert isinstance(verdict, Partial)
    return verdict.retry_after


@pytest.mark.parametrize("value", [0, 0.0, -0.0, 0.25, 1, 60, 43_200, 43_201, 999_999_999])
def test_a_number_from_zero_on_is_a_wait(value: float) -> None:
    assert retry_after(failed("b", value)) == RetryAfter({1: value})


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (-1, "a negative number"),
        (-1e300, "a negative number"),
        (1_767_225_600, "too large a number, perhaps a date or milliseconds"),
        (1_767_225_600_000, "too large a number, perhaps a date or milliseconds"),
        (10**300, "too large a number, perhaps a date or milliseconds"),
        (True, "true or false, and not a number"),
        (False, "true or false, and not a number"),
        ("30", "a text, and not a number"),
        ("", "a text, and not a number"),
        ([30], "a list or an object, and not a number"),
        ({}, "a list or an object, and not a number"),
    ],
)
def test_another_value_is_ignored_and_its_message_has_failed(value: Any, reason: str) -> None:
    verdict = parse(report(failed("b", value), failed("c", 5)), IDS, QUEUE)
    assert isinstance(verdict, Partial)
    assert verdict.failed == frozenset({1, 2})
    assert verdict.retry_after == RetryAfter({2: 5}, 1, reason)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_number_that_json_does_not_have_makes_the_whole_report_unreadable(value: float) -> None:
    verdict = parse(report(failed("b", value)), IDS, QUEUE)
    assert isinstance(verdict, Rejected)
    assert verdict.error == "the answer is not JSON"
    assert wrong(value) == "not a finite number"


@pytest.mark.parametrize("value", [10**400, -(10**400)], ids=["large", "negative"])
def test_a_number_that_no_float_holds_makes_the_whole_report_unreadable(value: int) -> None:
    verdict = parse(report(failed("b", value)), IDS, QUEUE)
    assert isinstance(verdict, Rejected)
    assert verdict.error == "the answer is not JSON"


def test_null_is_as_good_as_nothing() -> None:
    assert retry_after(failed("b", None), {"itemIdentifier": "a"}) is None


def test_a_message_that_is_named_twice_has_the_longer_wait() -> None:
    assert retry_after(failed("b", 5), failed("b", 7), failed("b", 6)) == RetryAfter({1: 7})


def test_the_first_wrong_value_is_named_and_all_are_counted() -> None:
    found = retry_after(failed("a", "x"), failed("b", -1), failed("c", True))
    assert found == RetryAfter({}, 3, "a text, and not a number")


def test_an_item_without_a_message_has_no_wait() -> None:
    assert parse(report({}), IDS, QUEUE) == Accepted()
    assert isinstance(parse(report({"retryAfterSeconds": 5}), IDS, QUEUE), Rejected)


def test_streams_do_not_read_it() -> None:
    verdict = parse(report(failed("b", 5), failed("c", "x")), IDS, STREAM)
    assert isinstance(verdict, Partial)
    assert (verdict.failed, verdict.retry_after) == (frozenset({1, 2}), None)


ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=2), inner, max_size=2),
    max_leaves=3,
)


@given(values=st.lists(ANY, min_size=1, max_size=3))
@example(values=[SECONDS_MAX])
@example(values=[math.nextafter(SECONDS_MAX, 0)])
def test_any_value_is_a_wait_or_is_counted(values: list[Any]) -> None:
    answer = report(*(failed(name, value) for name, value in zip(IDS, values, strict=False)))
    verdict = parse(answer, IDS, QUEUE)
    without = parse(answer, IDS, STREAM)
    if isinstance(without, Rejected):
        assert isinstance(verdict, Rejected)
        return
    assert isinstance(verdict, Partial)
    assert isinstance(without, Partial)
    assert verdict.failed == without.failed
    found = verdict.retry_after or RetryAfter({})
    assert len(found.seconds) + found.ignored == sum(value is not None for value in values)
    assert all(0 <= each < SECONDS_MAX for each in found.seconds.values())
    assert bool(found.reason) is bool(found.ignored)
