"""Owns the observer that feeds the history of the last hour, and what the API reads of it."""

from collections.abc import Generator
from dataclasses import replace

from poller.domain.records import Epoch, MappingId, WorkerId
from poller.domain.telemetry.history import HistoryPoint, RecentHistory
from poller.domain.telemetry.observers import AnyTelemetryEvent
from poller.ports import Clock
from poller.rules.history import HistoryRings


class HistoryObserver:
    """A HistorySource that is fed by telemetry events. It has no task: steps are closed by the next event, or when somebody asks."""

    def __init__(self, clock: Clock, worker: WorkerId) -> None:
        self._clock = clock
        self._worker = worker
        self._rings = HistoryRings(clock.monotonic())

    def wants(self, kind: type[AnyTelemetryEvent]) -> bool:
        """Whether events of this type change the history."""
        return self._rings.wants(kind)

    def on(self, event: AnyTelemetryEvent) -> None:
        """Takes one event; returns at once."""
        self._rings.take(event, self._clock.monotonic(), self._clock.now())

    def steps(self) -> int:
        """How many steps have ended since the start."""
        return self._rings.close_steps(self._clock.monotonic())

    def point(self) -> HistoryPoint:
        """The newest step that has ended; empty before the first."""
        return self._rings.point(ended=self._ended())

    def slices(self, mapping: MappingId | None = None) -> Generator[None, None, RecentHistory]:
        """Builds the history of one mapping or of all, a few milliseconds of work in each step."""
        found = yield from self._rings.slices(mapping, ended=self._ended())
        return replace(found, worker=str(self._worker))

    def _ended(self) -> Epoch:
        """When the newest step ended."""
        now = self._clock.monotonic()
        self._rings.close_steps(now)
        return Epoch(self._clock.now() - self._rings.ended_ago_s(now))
