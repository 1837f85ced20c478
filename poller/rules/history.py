"""Owns what is kept of the last hour: for each mapping its lag, records, failures and pollers, one number for each step of 15 s.

Time is cut into steps from the start on. While a step is open, events are counted. When it has ended, its numbers go into rings of
fixed length, where they replace those of an hour ago. An event costs a few look-ups, and nothing runs between events: the steps that have
ended since the last event are closed by the next one, or by whoever asks.

The lag of a mapping is that of its worst shard here: how far the last read was behind, how old the records of an invocation were at its end, or for
how long a lane has been blocked. The last one keeps a chart from standing still while nothing is read, because a lane is blocked.

Rings are kept for a limited number of mappings. Those in trouble come first, then the busiest. One that has rings keeps them until another
is twice as busy; otherwise two that are about as busy would take each other's place all the time, and neither would have a past.
"""

from array import array
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field

from poller.domain.records import Epoch, MappingId, Monotonic, ShardId
from poller.domain.rows import MappingState
from poller.domain.telemetry.event import TelemetryEvent
from poller.domain.telemetry.history import (
    STEP_S,
    STEPS_MAX,
    HistoryPoint,
    MappingHistory,
    MappingPoint,
    RecentHistory,
)
from poller.domain.telemetry.mapping_events import (
    Blocked,
    GroupsBlocked,
    InvocationFinished,
    MappingChanged,
    Polled,
    Pollers,
    ShardStopped,
)

MAPPINGS_MAX = 1_000
"""Mappings that have rings."""
KEPT_FACTOR = 2.0
"""A mapping without rings must be so many times as busy as one that has them to take its place."""
FADE = 0.98
"""What is left after each step of how busy a mapping was: half of it after eight minutes."""
MAPPINGS_PER_SLICE = 8
UNKNOWN = -1
NUMBER_MAX = 2**31 - 1
"""The largest number of a ring. As milliseconds it is 24 days."""
DECIMALS = 2
"""Decimals of a rate."""


SPARE_STEPS = 16
"""Steps that may end while a history is built, without an effect on it: four minutes."""
RING_STEPS = STEPS_MAX + SPARE_STEPS


def _ring() -> array[int]:
    return array("i", [UNKNOWN]) * RING_STEPS


@dataclass(slots=True)
class _Rings:
    """The numbers of the closed steps. Step n is at place n modulo RING_STEPS."""

    records: array[int] = field(default_factory=_ring)
    failures: array[int] = field(default_factory=_ring)
    lag_ms: array[int] | None = None
    pollers: array[int] | None = None

    def put(self, place: int, mapping: "_Mapping", lag_ms: int) -> None:
        self.records[place] = min(mapping.records, NUMBER_MAX)
        self.failures[place] = min(mapping.failures, NUMBER_MAX)
        if self.lag_ms is None and lag_ms != UNKNOWN:
            self.lag_ms = _ring()
        if self.lag_ms is not None:
            self.lag_ms[place] = min(lag_ms, NUMBER_MAX)
        if self.pollers is None and mapping.pollers is not None:
            self.pollers = _ring()
        if self.pollers is not None:
            self.pollers[place] = UNKNOWN if mapping.pollers is None else min(mapping.pollers, NUMBER_MAX)


@dataclass(slots=True)
class _Mapping:
    """What is known of a mapping, and what is counted in the open step."""

    records: int = 0
    failures: int = 0
    age_ms: int = UNKNOWN
    """The largest age of a batch whose invocation ended in this step."""
    pollers: int | None = None
    behind_ms: dict[ShardId, int] = field(default_factory=dict)
    blocked: dict[tuple[ShardId, int], Monotonic] = field(default_factory=dict)
    """Since when lanes have been blocked."""
    groups_blocked: bool = False
    broken: bool = False
    busy: float = 0.0
    rings: _Rings | None = None

    @property
    def troubled(self) -> bool:
        return self.broken or self.groups_blocked or bool(self.blocked)

    def lag_ms(self, now: Monotonic) -> int:
        since = min(self.blocked.values(), default=now)
        behind = max(self.behind_ms.values(), default=UNKNOWN)
        return max(behind, self.age_ms, round((now - since) * 1000) if self.blocked else UNKNOWN)

    def begin_step(self) -> None:
        self.busy = self.busy * FADE + self.records
        self.records = self.failures = 0
        self.age_ms = UNKNOWN


class HistoryRings:
    """The history of one worker. `began` is when its first step begins."""

    def __init__(self, began: Monotonic, *, mappings_max: int = MAPPINGS_MAX) -> None:
        self._began = began
        self._mappings_max = mappings_max
        self._mappings: dict[MappingId, _Mapping] = {}
        self._closed = 0
        self._open_until = Monotonic(began + STEP_S)
        self._takes: Mapping[type[TelemetryEvent], Callable[..., None]] = {
            Polled: self._polled,
            InvocationFinished: self._finished,
            Pollers: self._counted_pollers,
            Blocked: self._blocked,
            GroupsBlocked: self._groups_blocked,
            ShardStopped: self._stopped,
            MappingChanged: self._changed,
        }

    def wants(self, kind: type[TelemetryEvent]) -> bool:
        """Whether events of this type change the history."""
        return kind in self._takes

    def take(self, event: TelemetryEvent, now: Monotonic, wall: Epoch) -> None:
        """Counts an event. `now` and `wall` are the same moment."""
        if now >= self._open_until:
            self.close_steps(now)
        count = self._takes.get(type(event))
        if count is not None:
            count(event, now, wall)

    def close_steps(self, now: Monotonic) -> int:
        """Closes the steps that have ended by `now`. Returns how many have ended since the beginning."""
        ended = int((now - self._began) // STEP_S)
        if ended > self._closed:
            self._choose()
            first = max(self._closed, ended - STEPS_MAX)
            if first > self._closed:
                # What was counted belongs to a step that is older than an hour by now.
                self._begin_step()
            for step in range(first, ended):
                self._close(step)
            self._closed = ended
            self._open_until = Monotonic(self._began + (ended + 1) * STEP_S)
        return self._closed

    def point(self, *, ended: Epoch) -> HistoryPoint:
        """The numbers of the newest closed step, which ended at `ended`."""
        if not self._closed:
            return HistoryPoint(now=ended)
        place = (self._closed - 1) % RING_STEPS
        return HistoryPoint(
            now=ended,
            mappings={
                mapping: _point(each.rings, place)
                for mapping, each in self._mappings.items()
                if each.rings is not None
            },
        )

    def slices(self, mapping: MappingId | None, *, ended: Epoch) -> Generator[None, None, RecentHistory]:
        """Builds the history of one mapping or of all. The newest closed step ended at `ended`."""
        closed = self._closed
        wanted = list(self._mappings) if mapping is None else [mapping]
        found: dict[MappingId, MappingHistory] = {}
        rates: dict[int, float | None] = {UNKNOWN: None}
        for number, each in enumerate(wanted, 1):
            known = self._mappings.get(each)
            if known is not None and known.rings is not None:
                found[each] = _series(known.rings, closed, rates)
            if not number % MAPPINGS_PER_SLICE:
                yield
        return RecentHistory(now=ended, mappings=found)

    def ended_ago_s(self, now: Monotonic) -> float:
        """How long ago the newest closed step ended."""
        return now - (self._began + self._closed * STEP_S)

    def _close(self, step: int) -> None:
        end = Monotonic(self._began + (step + 1) * STEP_S)
        place = step % RING_STEPS
        for each in self._mappings.values():
            if each.rings is not None:
                each.rings.put(place, each, each.lag_ms(end))
        self._begin_step()

    def _begin_step(self) -> None:
        for each in self._mappings.values():
            each.begin_step()

    def _choose(self) -> None:
        """Gives rings to the mappings that should have them, and takes them from the others."""
        ranked = list(self._mappings.values())
        if len(ranked) > self._mappings_max:
            ranked.sort(key=_rank, reverse=True)
        for number, each in enumerate(ranked):
            if number >= self._mappings_max:
                each.rings = None
            elif each.rings is None:
                each.rings = _Rings()

    def _polled(self, event: Polled, _now: Monotonic, _wall: Epoch) -> None:
        found = self._mappings.get(event.mapping)
        if found is not None and event.shard is not None and event.behind_ms is not None:
            found.behind_ms[event.shard] = event.behind_ms

    def _finished(self, event: InvocationFinished, _now: Monotonic, _wall: Epoch) -> None:
        found = self._mappings.get(event.mapping)
        if found is None:
            return
        found.records += event.records - event.failed
        found.failures += event.failed > 0
        if event.iterator_age_ms is not None and event.iterator_age_ms > found.age_ms:
            found.age_ms = round(event.iterator_age_ms)

    def _counted_pollers(self, event: Pollers, _now: Monotonic, _wall: Epoch) -> None:
        found = self._mappings.get(event.mapping)
        if found is not None:
            found.pollers = event.pollers

    def _blocked(self, event: Blocked, now: Monotonic, wall: Epoch) -> None:
        found = self._mappings.get(event.mapping)
        if found is None:
            return
        lane = event.shard, event.lane
        if event.blocked:
            since = wall if event.since is None else min(event.since, wall)
            found.blocked[lane] = Monotonic(now - (wall - since))
        else:
            found.blocked.pop(lane, None)

    def _groups_blocked(self, event: GroupsBlocked, _now: Monotonic, _wall: Epoch) -> None:
        found = self._mappings.get(event.mapping)
        if found is not None:
            found.groups_blocked = event.since is not None

    def _stopped(self, event: ShardStopped, _now: Monotonic, _wall: Epoch) -> None:
        found = self._mappings.get(event.mapping)
        if found is None:
            return
        found.behind_ms.pop(event.shard, None)
        for lane in [each for each in found.blocked if each[0] == event.shard]:
            del found.blocked[lane]

    def _changed(self, event: MappingChanged, _now: Monotonic, _wall: Epoch) -> None:
        if event.state is MappingState.DELETING:
            self._mappings.pop(event.mapping, None)
            return
        found = self._mappings.setdefault(event.mapping, _Mapping())
        found.broken = event.state is MappingState.BROKEN
        if event.state is MappingState.DISABLED:
            found.groups_blocked = False
            found.pollers = None if found.pollers is None else 0


def _rank(mapping: _Mapping) -> tuple[bool, float, bool]:
    kept = mapping.rings is not None
    busy = mapping.busy + mapping.records
    return mapping.troubled, busy * (KEPT_FACTOR if kept else 1.0), kept


def _series(rings: _Rings, closed: int, rates: dict[int, float | None]) -> MappingHistory:
    """The series of a mapping. `rates` keeps what was computed, since most numbers are the same."""
    records = _in_order(rings.records, closed)
    rates |= {each: _rate(each) for each in set(records).difference(rates)}
    return MappingHistory(
        lag_ms=None if rings.lag_ms is None else _numbers(rings.lag_ms, closed),
        records_per_s=tuple([rates[each] for each in records]),
        failures=_numbers(rings.failures, closed),
        pollers=None if rings.pollers is None else _numbers(rings.pollers, closed),
    )


def _point(rings: _Rings, place: int) -> MappingPoint:
    return MappingPoint(
        lag_ms=None if rings.lag_ms is None else _number(rings.lag_ms[place]),
        records_per_s=_rate(rings.records[place]),
        failures=_number(rings.failures[place]),
        pollers=None if rings.pollers is None else _number(rings.pollers[place]),
    )


def _in_order(ring: array[int], closed: int) -> list[int]:
    """The numbers of the closed steps, oldest first."""
    steps = min(closed, STEPS_MAX)
    place = (closed - steps) % RING_STEPS
    found = ring[place : place + steps]
    return (found + ring[: steps - len(found)]).tolist()


def _numbers(ring: array[int], closed: int) -> tuple[int | None, ...]:
    # A call for each number would take three times as long.
    return tuple([None if each < 0 else each for each in _in_order(ring, closed)])


def _number(stored: int) -> int | None:
    return None if stored < 0 else stored


def _rate(stored: int) -> float | None:
    return None if stored < 0 else round(stored / STEP_S, DECIMALS)
