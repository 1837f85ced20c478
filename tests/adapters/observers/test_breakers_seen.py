"""Owns facts of what metrics and log show of circuit breakers."""

import logging

from adapters.observers.log_events import fields_of, level_of
from poller.domain.rows import MappingState
from poller.domain.telemetry.daemon_events import BreakerChanged
from poller.domain.telemetry.labels import BreakerState
from poller.testing.telemetry_events import changed
from tests.adapters.observers.test_prometheus import Scraped


def turned(state: BreakerState, reason: str = "why", next_try_s: float | None = None) -> BreakerChanged:
    return BreakerChanged(function="orders", state=state, reason=reason, next_try_s=next_try_s)


def series(page: Scraped) -> dict[str, float]:
    return {
        dict(labels).get("state", name): value
        for (name, labels), value in page.series().items()
        if name.startswith("poller_function_breaker")
    }


def test_the_state_of_a_breaker_is_one_series_of_three_and_openings_are_counted() -> None:
    page = Scraped()
    page.on(changed())
    assert series(page) == {}
    page.on(turned(BreakerState.CLOSED, ""))
    for state in (BreakerState.OPEN, BreakerState.HALF_OPEN, BreakerState.OPEN):
        page.on(turned(state))
    assert series(page) == {
        "open": 1.0,
        "half_open": 0.0,
        "closed": 0.0,
        "poller_function_breaker_opened_total": 2.0,
    }


def test_the_series_of_a_breaker_end_with_its_function() -> None:
    page = Scraped()
    page.on(changed(), turned(BreakerState.OPEN), changed(function="other"))
    assert series(page) == {}
    page.on(changed(state=MappingState.ENABLED, function="other"), turned(BreakerState.CLOSED))
    assert series(page) == {}, "a late event makes no series"


def test_the_series_of_a_breaker_end_with_its_setting_and_begin_again_with_another_one() -> None:
    page = Scraped()
    page.on(changed(), turned(BreakerState.OPEN))
    page.on(BreakerChanged(function="orders", state=BreakerState.CLOSED, reason="other settings", gone=True))
    assert series(page) == {}
    page.on(turned(BreakerState.CLOSED, ""))
    assert series(page) == {
        "open": 0.0,
        "half_open": 0.0,
        "closed": 1.0,
        "poller_function_breaker_opened_total": 0.0,
    }


def test_opening_is_a_warning_closing_is_told_and_the_rest_is_for_debugging() -> None:
    levels = {
        turned(BreakerState.OPEN): logging.WARNING,
        turned(BreakerState.CLOSED, "the try succeeded"): logging.INFO,
        turned(BreakerState.CLOSED, ""): logging.DEBUG,
        turned(BreakerState.HALF_OPEN): logging.DEBUG,
    }
    assert {event: level_of(event) for event in levels} == levels
    assert fields_of(turned(BreakerState.OPEN, "5 of 8 calls failed", 30.0)) == {
        "function": "orders",
        "state": "open",
        "reason": "5 of 8 calls failed",
        "next_try_s": 30.0,
        "gone": False,
    }
