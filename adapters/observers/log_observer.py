"""Owns the observer that writes the log: one line for each change of state, fewer lines for a problem that repeats.

A problem is logged when it is new, and then at growing intervals only. A lane that is no longer blocked is logged too, if its
blocking was logged or lasted long.
"""

import logging
from collections.abc import Callable, Iterable

from adapters.observers.function_lines import Later
from adapters.observers.log_events import (
    EVENT_NAMES,
    LEVELS,
    RELEVANT_BELOW_LEVEL,
    Fields,
    fields_of,
    level_of,
    problem_of,
    problem_text,
)
from adapters.observers.log_throttle import LogEntry, LogThrottle
from poller.domain.records import MappingId, Monotonic, ShardId
from poller.domain.telemetry.mapping_events import Blocked, LeaseMoved, ShardStopped
from poller.domain.telemetry.observers import AnyTelemetryEvent
from poller.ports import Clock

BLOCKED_LOGGED_S = 10.0
"""The end of a blocking is logged if its start was logged, or if it lasted this long."""
SHARDS_MAX = 10_000
"""Blocked shards that are remembered."""
UNBLOCKED = "unblocked"
TIMER_MARGIN_S = 0.001
"""Timers may run a little early."""


class LogObserver:
    """Writes one line for each change of state; a problem that repeats is logged at growing intervals only."""

    def __init__(
        self,
        write: Callable[[int, str, Fields], None],
        clock: Clock,
        *,
        level: int,
        later: Later | None = None,
    ) -> None:
        self._write = write
        self._clock = clock
        self._level = level
        self._later = later
        self._throttle: LogThrottle[AnyTelemetryEvent] = LogThrottle()
        self._timer_at: Monotonic | None = None
        # Most events are never logged. This set recognizes them at once.
        self._ignored = {
            kind for kind, least in LEVELS.items() if isinstance(least, int) and least < level
        } - RELEVANT_BELOW_LEVEL
        self._blocked: dict[tuple[MappingId, ShardId], dict[int, tuple[Monotonic, bool]]] = {}

    def wants(self, kind: type[AnyTelemetryEvent]) -> bool:
        """Whether events of this type may be logged."""
        return kind not in self._ignored

    def on(self, event: AnyTelemetryEvent) -> None:
        """Logs one event if it is to be logged; returns at once."""
        if type(event) in self._ignored:
            return
        match event:
            case Blocked(blocked=True):
                self._block(event)
            case Blocked():
                self._unblock(event)
            case ShardStopped() | LeaseMoved(held=False):
                self._blocked.pop((event.mapping, event.shard), None)
                self._log(event)
            case _:
                self._log(event)

    def close(self) -> None:
        """Logs what the throttle still holds back."""
        self._write_all(self._throttle.flush())

    def _log(self, event: AnyTelemetryEvent) -> bool:
        """Logs an event unless its level is too low or the throttle holds it back; returns whether it was logged."""
        level = level_of(event)
        if level < self._level:
            return False
        if level == logging.DEBUG or (problem := problem_of(event)) is None:
            self._write_event(LogEntry(event, new=True))
            return True
        entries = self._throttle.offer(problem, event, self._clock.monotonic(), text=problem_text(event))
        for each in entries:
            self._write_event(each)
        self._set_timer()
        return any(each.event is event for each in entries)

    def _set_timer(self) -> None:
        """Sets a timer, so that held back events are logged in time even if no other event comes."""
        due = self._throttle.next_due()
        if due is None or self._later is None or (self._timer_at is not None and self._timer_at <= due):
            return
        self._timer_at = due
        self._later(max(0.0, due - self._clock.monotonic()) + TIMER_MARGIN_S, self._timer_ran)

    def _timer_ran(self) -> None:
        self._timer_at = None
        self._write_all(self._throttle.due(self._clock.monotonic()))
        self._set_timer()

    def _write_all(self, entries: Iterable[LogEntry[AnyTelemetryEvent]]) -> None:
        """Writes events that were held back, except that a lane is blocked when it no longer is."""
        for each in entries:
            if not isinstance(each.event, Blocked) or self._is_blocked(each.event):
                self._write_event(each)

    def _write_event(self, entry: LogEntry[AnyTelemetryEvent]) -> None:
        event = entry.event
        more = {"untold": entry.suppressed} if entry.suppressed else {}
        fields = fields_of(event)
        if not entry.new:
            # The stack trace is in the line that reported this error first.
            fields.pop("stack_trace", None)
        self._write(level_of(event), EVENT_NAMES[type(event)], fields | more)

    def _is_blocked(self, event: Blocked) -> bool:
        return event.lane in self._blocked.get((event.mapping, event.shard), {})

    def _block(self, event: Blocked) -> None:
        logged = self._log(event)
        if len(self._blocked) < SHARDS_MAX:
            lanes = self._blocked.setdefault((event.mapping, event.shard), {})
            for_s = max(0.0, self._clock.now() - event.since) if event.since is not None else 0.0
            lanes.setdefault(event.lane, (Monotonic(self._clock.monotonic() - for_s), logged))

    def _unblock(self, event: Blocked) -> None:
        now = self._clock.monotonic()
        shard = (event.mapping, event.shard)
        lanes = self._blocked.get(shard, {})
        since, logged = lanes.pop(event.lane, (now, False))
        if not lanes:
            self._blocked.pop(shard, None)
        if not logged and now - since < BLOCKED_LOGGED_S:
            return
        self._write_all(self._throttle.resolved(("invocation", *shard)))
        self._write_all(self._throttle.resolved(("retry", *shard)))
        if self._level <= logging.INFO:
            more = {"blocked_s": round(now - since, 3)}
            self._write(logging.INFO, UNBLOCKED, fields_of(event) | more)
