"""What every observer keeps: it takes every event, any number of them, at once, and raises nothing."""

import asyncio
import io
import sys
import time
from collections.abc import Callable
from typing import Any

import pytest

from adapters.observers.logs import LogSettings
from adapters.observers.logs import plugin as logs
from adapters.observers.prometheus import PrometheusSettings
from adapters.observers.prometheus import plugin as prometheus
from poller.plugins import Environment, Plugin
from poller.records import MappingId, ShardId
from poller.telemetry import Event, Observer, Observers
from tests.adapters.observing import SetClock, one_of_each

EVENTS_PER_SECOND_MIN = 1_000
"""Far below what observers take on any machine, far above what a daemon could bear."""

OBSERVERS = [
    pytest.param(prometheus, PrometheusSettings(), id="prometheus"),
    pytest.param(logs, LogSettings(level="debug"), id="logs-json"),
    pytest.param(logs, LogSettings(level="debug", format="console"), id="logs-console"),
    pytest.param(logs, LogSettings(), id="logs-info"),
]
everyone = pytest.mark.parametrize(("plugin", "settings"), OBSERVERS)


@pytest.fixture(autouse=True)
def no_stderr(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", io.StringIO())


def with_observer[T](plugin: Plugin[Any, Any], settings: Any, use: Callable[[Observer], T]) -> T:
    async def run() -> T:
        async with plugin.open(settings, Environment(clock=SetClock())) as observer:
            return use(observer)

    return asyncio.run(run())


def feed(events: list[Event]) -> Callable[[Observer], int]:
    def use(observer: Observer) -> int:
        for event in events:
            observer.on(event)
        return len(events)

    return use


@everyone
def test_an_observer_takes_every_event_in_any_order(plugin: Plugin[Any, Any], settings: Any) -> None:
    events = one_of_each()
    assert with_observer(plugin, settings, feed([*events, *reversed(events), *events])) == 3 * len(events)


@everyone
@pytest.mark.parametrize("index", range(len(one_of_each())))
def test_an_observer_takes_each_event_first(plugin: Plugin[Any, Any], settings: Any, index: int) -> None:
    assert with_observer(plugin, settings, feed([one_of_each()[index]])) == 1


@everyone
def test_an_observer_keeps_up(plugin: Plugin[Any, Any], settings: Any) -> None:
    events = [
        event
        for number in range(200)
        for event in one_of_each(MappingId(f"m{number % 20}"), ShardId(f"s{number}"), number)
    ]
    began = time.perf_counter()
    count = with_observer(plugin, settings, feed(events))
    assert count / (time.perf_counter() - began) > EVENTS_PER_SECOND_MIN


class Recorded:
    """The fake observer of other suites: it keeps what it was given."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def on(self, event: Event) -> None:
        self.events.append(event)


def test_several_observers_get_the_same_events_in_order() -> None:
    one, two = Recorded(), Recorded()
    feed(one_of_each())(Observers((one, two)))
    assert one.events == two.events == one_of_each()
