"""Owns the contract of every Observer: it takes every kind of event and any number of events, returns at once, and raises nothing."""

import time
from collections.abc import Callable, Coroutine
from contextlib import AbstractAsyncContextManager
from typing import Any

from poller.domain.records import MappingId, ShardId
from poller.domain.telemetry.observers import Observer
from poller.testing.telemetry_events import one_of_each

type ObserverOpening = Callable[[], AbstractAsyncContextManager[Observer]]
type ObserverScenario = Callable[[ObserverOpening], Coroutine[Any, Any, None]]

EVENTS_PER_SECOND_MIN = 1_000
"""The least rate of events. Observers are much faster on any machine; one that is slower would slow down the daemon."""


async def it_takes_every_event_in_any_order(opening: ObserverOpening) -> None:
    events = one_of_each()
    async with opening() as observer:
        for event in (*events, *reversed(events), *events):
            observer.on(event)


async def it_takes_each_event_first(opening: ObserverOpening) -> None:
    for event in one_of_each():
        async with opening() as observer:
            observer.on(event)


async def it_keeps_up(opening: ObserverOpening) -> None:
    events = [
        event
        for number in range(200)
        for event in one_of_each(MappingId(f"m{number % 20}"), ShardId(f"s{number}"), number)
    ]
    async with opening() as observer:
        began = time.perf_counter()
        for event in events:
            observer.on(event)
        took_s = time.perf_counter() - began
    assert len(events) / took_s > EVENTS_PER_SECOND_MIN


SCENARIOS: tuple[ObserverScenario, ...] = (
    it_takes_every_event_in_any_order,
    it_takes_each_event_first,
    it_keeps_up,
)
"""For every observer."""
