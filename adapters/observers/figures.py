"""Owns the figures behind the metrics: plain counts per mapping, moved by events, forgotten as a whole.

Gauges are read from what is true now, so they cannot outlive the shard, the mapping or the function they speak of.
"""

from bisect import bisect_left
from collections import Counter, OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from poller import errors
from poller.ports import Clock
from poller.records import Epoch, MappingId, Monotonic, ShardId
from poller.telemetry import (
    Bisected,
    Blocked,
    Capacity,
    CheckpointSaved,
    Condition,
    ConfigurationReloaded,
    Deleted,
    DestinationFailed,
    Discarded,
    Ended,
    Event,
    Filtered,
    InvocationFinished,
    InvocationStarted,
    LeaseMoved,
    Loss,
    MappingChanged,
    MappingState,
    Polled,
    Pollers,
    PortFailed,
    RecordsLost,
    Released,
    Retrying,
    ShardStarted,
    ShardStopped,
    StoreFailed,
)

LINGER_S = 300.0
"""For how long a deleted mapping's series stay, so that the last counts are scraped."""
LINGERING_MAX = 200
FORGOTTEN_MAX = 10_000

RECORDS_BOUNDS = (1, 10, 50, 100, 500, 1000, 5000, 10_000)
DURATION_BOUNDS_S = (0.01, 0.05, 0.1, 0.5, 1, 5, 10, 30, 60, 300, 900)
AGE_BOUNDS_S = (0.5, 1, 5, 15, 60, 300, 900, 3600, 21_600, 86_400)

OTHER = "other"
PORTS = frozenset({"source", "discovery", "store", "destination", "invoker"})
ERRORS = frozenset(
    name
    for name, found in vars(errors).items()
    if isinstance(found, type) and issubclass(found, errors.PortError)
)
_STILL = frozenset({MappingState.DISABLED, MappingState.BROKEN, MappingState.DELETING})


class Histogram:
    """Counts of observed values at or below each of `bounds`, and their sum."""

    __slots__ = ("_bounds", "_counts", "total")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, value: float) -> None:
        """Adds one value."""
        self._counts[bisect_left(self._bounds, value)] += 1
        self.total += value

    def buckets(self) -> list[tuple[str, float]]:
        """Upper bound and cumulative count of each bucket, +Inf last."""
        found: list[tuple[str, float]] = []
        below = 0
        for bound, count in zip((*self._bounds, "+Inf"), self._counts, strict=True):
            below += count
            found.append((str(bound), below))
        return found


@dataclass(slots=True)
class ShardFigures:
    """What is true of one shard that is read here; `blocked` has the lanes that fail and since when."""

    behind_s: float | None = None
    age_s: float | None = None
    blocked: dict[int, Epoch] = field(default_factory=dict)
    destination_failing: bool = False


@dataclass(slots=True)
class MappingFigures:
    """All figures of one mapping. A count that is None has no series: it does not apply, or nothing moved it yet."""

    function: str = ""
    source_arn: str = ""
    state: MappingState | None = None
    deleted_at: Monotonic | None = None

    polled: int = 0
    filtered: int | None = None
    invoked: int = 0
    failed: int = 0
    dropped: int | None = None
    delivered: int | None = None
    deleted: int | None = None

    processed: int = 0
    ended: Counter[Ended] = field(default_factory=Counter)
    retries_counted: int = 0
    retries_free: int = 0
    bisections: int | None = None
    discards: Counter[Condition] = field(default_factory=Counter)
    discarded: Counter[Condition] = field(default_factory=Counter)
    losses: Counter[Loss] = field(default_factory=Counter)
    port_failures: Counter[tuple[str, str]] = field(default_factory=Counter)
    destination_failures: int | None = None
    checkpoints: int | None = None
    leases_taken: int | None = None
    leases_lost: int | None = None
    deletes_lapsed: int | None = None
    deletes_failed: int | None = None
    released: int | None = None
    pollers: int | None = None

    records: Histogram = field(default_factory=lambda: Histogram(RECORDS_BOUNDS))
    duration: Histogram = field(default_factory=lambda: Histogram(DURATION_BOUNDS_S))
    age: Histogram | None = None

    shards: dict[ShardId, ShardFigures] = field(default_factory=dict)
    leases: set[ShardId] = field(default_factory=set)

    @property
    def source(self) -> str:
        """The service part of the source's ARN; empty before the mapping was announced."""
        parts = self.source_arn.split(":")
        return parts[2] if len(parts) > 2 else ""

    @property
    def stream(self) -> bool:
        """Whether the source is known to have shards."""
        return self.source in {"kinesis", "dynamodb"}

    def behind_s(self) -> float | None:
        """How far the shard that is furthest behind has to read, in seconds."""
        return max((s.behind_s for s in self.shards.values() if s.behind_s is not None), default=None)

    def age_s(self) -> float | None:
        """The highest of the shards' last iterator ages, in seconds."""
        return max((s.age_s for s in self.shards.values() if s.age_s is not None), default=None)

    def blocked_lanes(self) -> int:
        """Lanes that fail now."""
        return sum(len(shard.blocked) for shard in self.shards.values())

    def blocked_shards(self) -> dict[ShardId, Epoch]:
        """Shards with a failing lane, and since when the first of them fails."""
        return {shard: min(found.blocked.values()) for shard, found in self.shards.items() if found.blocked}

    def destinations_failing(self) -> int:
        """Shards that wait for their on-failure destination."""
        return sum(shard.destination_failing for shard in self.shards.values())

    def drop_shard(self, shard: ShardId) -> None:
        """Forgets what was true of a shard that is no longer read here."""
        self.shards.pop(shard, None)
        self.leases.discard(shard)

    def start_at_zero(self) -> None:
        """Gives the counts that fit the source a zero, so that their first increase is seen."""
        names = _STREAM_COUNTS if self.stream else _QUEUE_COUNTS
        for name in names:
            if getattr(self, name) is None:
                setattr(self, name, 0)
        if self.stream and self.age is None:
            self.age = Histogram(AGE_BOUNDS_S)


_STREAM_COUNTS = (
    "dropped",
    "delivered",
    "bisections",
    "destination_failures",
    "checkpoints",
    "leases_taken",
    "leases_lost",
)
_QUEUE_COUNTS = ("deleted", "deletes_lapsed", "deletes_failed", "released")


@dataclass(frozen=True, slots=True)
class CapacityFigures:
    """Invocations of one function that run now, and how many may."""

    in_flight: int
    limit: int | None


class Forgotten:
    """Ids whose late events no longer count; the oldest make room for new ones."""

    def __init__(self, ids_max: int) -> None:
        self._ids: OrderedDict[str, None] = OrderedDict()
        self._ids_max = ids_max

    def __contains__(self, name: str) -> bool:
        return name in self._ids

    def add(self, name: str) -> None:
        """Late events of `name` no longer count."""
        self._ids[name] = None
        while len(self._ids) > self._ids_max:
            self._ids.popitem(last=False)

    def discard(self, name: str) -> None:
        """Events of `name` count again."""
        self._ids.pop(name, None)


@dataclass(slots=True)
class DaemonFigures:
    """What belongs to the daemon as a whole; `reloaded_at` is when the configuration was last taken over."""

    reloaded_at: Epoch
    reload_ok: bool = True
    reloads: Counter[str] = field(default_factory=lambda: Counter(success=0, failure=0))
    store_failures: Counter[str] = field(default_factory=Counter)


class Figures:
    """The figures of all mappings and functions, and of the daemon itself."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.mappings: dict[MappingId, MappingFigures] = {}
        self.functions: dict[str, CapacityFigures] = {}
        self.daemon = DaemonFigures(clock.now())
        self._gone = Forgotten(FORGOTTEN_MAX)
        self._gone_functions = Forgotten(FORGOTTEN_MAX)

    def on(self, event: Event) -> None:
        """Takes one event; returns at once."""
        match event:
            case Capacity():
                self._capacity(event)
            case MappingChanged():
                self._changed(event)
            case ConfigurationReloaded():
                self._reloaded(event)
            case StoreFailed():
                self.daemon.store_failures[event.error if event.error in ERRORS else OTHER] += 1
            case _ if event.mapping not in self._gone:
                figures = self.mappings.get(event.mapping)
                if figures is None:
                    figures = self.mappings[event.mapping] = MappingFigures()
                APPLY[type(event)](figures, event, self._clock.now())

    def sweep(self) -> None:
        """Forgets mappings that were deleted long enough ago, with all their series."""
        now = self._clock.monotonic()
        lingering = [
            (figures.deleted_at, mapping)
            for mapping, figures in self.mappings.items()
            if figures.deleted_at is not None
        ]
        lingering.sort()
        surplus = len(lingering) - LINGERING_MAX
        for index, (deleted_at, mapping) in enumerate(lingering):
            if index < surplus or now - deleted_at >= LINGER_S:
                self._forget(mapping)

    def _capacity(self, event: Capacity) -> None:
        if event.function not in self._gone_functions:
            self.functions[event.function] = CapacityFigures(event.in_flight, event.limit)

    def _changed(self, event: MappingChanged) -> None:
        self._gone.discard(event.mapping)
        self._gone_functions.discard(event.function)
        figures = self.mappings.setdefault(event.mapping, MappingFigures())
        before, figures.function = figures.function, event.function
        figures.source_arn, figures.state = event.source_arn, event.state
        figures.start_at_zero()
        if event.state in _STILL:
            figures.shards.clear()
            figures.leases.clear()
            figures.pollers = None
        if event.state is not MappingState.DELETING:
            figures.deleted_at = None
        elif figures.deleted_at is None:
            figures.deleted_at = self._clock.monotonic()
            self.sweep()
        self._drop_function(before)

    def _reloaded(self, event: ConfigurationReloaded) -> None:
        self.daemon.reloads["success" if event.ok else "failure"] += 1
        self.daemon.reload_ok = event.ok
        if event.ok:
            self.daemon.reloaded_at = self._clock.now()

    def _forget(self, mapping: MappingId) -> None:
        figures = self.mappings.pop(mapping)
        self._gone.add(mapping)
        self._drop_function(figures.function)

    def _drop_function(self, function: str) -> None:
        if function and all(each.function != function for each in self.mappings.values()):
            self.functions.pop(function, None)
            self._gone_functions.add(function)


def _polled(figures: MappingFigures, event: Polled, _now: Epoch) -> None:
    figures.polled += event.records
    shard = figures.shards.get(event.shard) if event.shard is not None else None
    if shard is None:
        return
    if event.behind_ms is not None:
        shard.behind_s = event.behind_ms / 1000
    if not event.records and not event.behind_ms and not shard.blocked:
        # At the tip of an idle shard nothing waits: the age of the last batch would go on alarming for ever.
        shard.age_s = 0.0


def _filtered(figures: MappingFigures, event: Filtered, _now: Epoch) -> None:
    figures.filtered = (figures.filtered or 0) + event.records


def _started(figures: MappingFigures, event: InvocationStarted, _now: Epoch) -> None:
    figures.invoked += event.records
    figures.records.observe(event.records)


def _finished(figures: MappingFigures, event: InvocationFinished, _now: Epoch) -> None:
    figures.ended[event.ended] += 1
    figures.failed += event.failed
    figures.processed += event.records - event.failed
    figures.duration.observe(event.duration_s)
    if event.iterator_age_ms is None:
        return
    age_s = event.iterator_age_ms / 1000
    if figures.age is None:
        figures.age = Histogram(AGE_BOUNDS_S)
    figures.age.observe(age_s)
    if event.shard is not None and event.shard in figures.shards:
        figures.shards[event.shard].age_s = age_s


def _retrying(figures: MappingFigures, event: Retrying, _now: Epoch) -> None:
    if event.free:
        figures.retries_free += 1
    else:
        figures.retries_counted += 1


def _bisected(figures: MappingFigures, _event: Bisected, _now: Epoch) -> None:
    figures.bisections = (figures.bisections or 0) + 1


def _discarded(figures: MappingFigures, event: Discarded, _now: Epoch) -> None:
    figures.discards[event.condition] += 1
    figures.discarded[event.condition] += event.records
    if event.delivered:
        figures.delivered = (figures.delivered or 0) + event.records
    else:
        figures.dropped = (figures.dropped or 0) + event.records
    if event.shard in figures.shards:
        figures.shards[event.shard].destination_failing = False


def _destination_failed(figures: MappingFigures, event: DestinationFailed, _now: Epoch) -> None:
    figures.destination_failures = (figures.destination_failures or 0) + 1
    if event.shard in figures.shards:
        figures.shards[event.shard].destination_failing = event.wait_s is not None


def _blocked(figures: MappingFigures, event: Blocked, now: Epoch) -> None:
    shard = figures.shards.get(event.shard)
    if shard is None:
        return
    if event.blocked:
        shard.blocked.setdefault(event.lane, now)
    else:
        shard.blocked.pop(event.lane, None)


def _deleted(figures: MappingFigures, event: Deleted, _now: Epoch) -> None:
    figures.deleted = (figures.deleted or 0) + event.messages
    figures.deletes_lapsed = (figures.deletes_lapsed or 0) + event.lapsed
    figures.deletes_failed = (figures.deletes_failed or 0) + event.failed


def _released(figures: MappingFigures, event: Released, _now: Epoch) -> None:
    figures.released = (figures.released or 0) + event.messages


def _checkpoint_saved(figures: MappingFigures, _event: CheckpointSaved, _now: Epoch) -> None:
    figures.checkpoints = (figures.checkpoints or 0) + 1


def _shard_started(figures: MappingFigures, event: ShardStarted, _now: Epoch) -> None:
    figures.shards[event.shard] = ShardFigures()
    figures.leases.add(event.shard)


def _shard_stopped(figures: MappingFigures, event: ShardStopped, _now: Epoch) -> None:
    figures.drop_shard(event.shard)


def _lease_moved(figures: MappingFigures, event: LeaseMoved, _now: Epoch) -> None:
    if event.held:
        figures.leases_taken = (figures.leases_taken or 0) + 1
        figures.leases.add(event.shard)
    elif (
        event.shard in figures.leases
    ):  # a loss may be noticed twice: by a refused write, by a look at the store
        figures.leases_lost = (figures.leases_lost or 0) + 1
        figures.drop_shard(event.shard)


def _records_lost(figures: MappingFigures, event: RecordsLost, _now: Epoch) -> None:
    figures.losses[event.loss] += 1


def _port_failed(figures: MappingFigures, event: PortFailed, _now: Epoch) -> None:
    port = event.port if event.port in PORTS else OTHER
    error = event.error if event.error in ERRORS else OTHER
    figures.port_failures[port, error] += 1


def _pollers(figures: MappingFigures, event: Pollers, _now: Epoch) -> None:
    figures.pollers = event.pollers


APPLY: Mapping[type, Callable[[MappingFigures, Any, Epoch], None]] = {
    Polled: _polled,
    Filtered: _filtered,
    InvocationStarted: _started,
    InvocationFinished: _finished,
    Retrying: _retrying,
    Bisected: _bisected,
    Discarded: _discarded,
    DestinationFailed: _destination_failed,
    Blocked: _blocked,
    Deleted: _deleted,
    Released: _released,
    CheckpointSaved: _checkpoint_saved,
    ShardStarted: _shard_started,
    ShardStopped: _shard_stopped,
    LeaseMoved: _lease_moved,
    RecordsLost: _records_lost,
    PortFailed: _port_failed,
    Pollers: _pollers,
}
"""How each event of one mapping moves its figures."""
