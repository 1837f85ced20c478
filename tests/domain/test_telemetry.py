"""Events for observers are told by the names of their parts: numbers of one kind cannot change places unseen."""

import inspect

import pytest

from poller.domain.telemetry import daemon_events, mapping_events
from poller.domain.telemetry.event import TelemetryEvent

EVENTS = [
    kind
    for module in (daemon_events, mapping_events)
    for _, kind in inspect.getmembers(module, inspect.isclass)
    if issubclass(kind, TelemetryEvent) and kind is not TelemetryEvent
]


def test_all_events_are_known_here() -> None:
    assert len(EVENTS) > 20


@pytest.mark.parametrize("kind", EVENTS, ids=lambda kind: kind.__name__)
def test_an_event_takes_no_parts_by_their_order(kind: type[TelemetryEvent]) -> None:
    with pytest.raises(TypeError, match="positional"):
        kind("mapping")
