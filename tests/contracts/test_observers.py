"""Owns the run of the observer suite on every observer, and what several observers get together."""

import asyncio
import io
import sys
from typing import Any

import pytest

from adapters.observers.logs import LogSettings
from adapters.observers.logs import plugin as logs
from adapters.observers.prometheus import PrometheusSettings
from adapters.observers.prometheus import plugin as prometheus
from poller.domain.telemetry.event import TelemetryEvent
from poller.domain.telemetry.observers import Observers
from poller.plugins import Environment, Plugin
from poller.testing.observer import SCENARIOS, ObserverScenario
from poller.testing.telemetry_events import SetClock, one_of_each

OBSERVERS = [
    pytest.param(prometheus, PrometheusSettings(), id="prometheus"),
    pytest.param(logs, LogSettings(level="debug"), id="logs-json"),
    pytest.param(logs, LogSettings(level="debug", format="console"), id="logs-console"),
    pytest.param(logs, LogSettings(), id="logs-info"),
]


@pytest.fixture(autouse=True)
def no_stderr(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", io.StringIO())


@pytest.mark.parametrize(("plugin", "settings"), OBSERVERS)
@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.__name__)
def test_every_observer(scenario: ObserverScenario, plugin: Plugin[Any, Any], settings: Any) -> None:
    asyncio.run(scenario(lambda: plugin.open(settings, Environment(clock=SetClock()))))


class Recorded:
    """The fake observer of other suites: it keeps what it was given."""

    def __init__(self) -> None:
        self.events: list[TelemetryEvent] = []

    def on(self, event: TelemetryEvent) -> None:
        self.events.append(event)


def test_several_observers_get_the_same_events_in_order() -> None:
    one, two = Recorded(), Recorded()
    both = Observers((one, two))
    for event in one_of_each():
        both.on(event)
    assert one.events == two.events == one_of_each()
