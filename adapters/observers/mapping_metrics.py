"""Owns the figures of one mapping: its counts and histograms, and the present state of its shards."""

from bisect import bisect_left
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, fields

from poller.domain.arns import Arn
from poller.domain.invocations import Condition, Ended
from poller.domain.records import Epoch, Monotonic, ShardId
from poller.domain.rows import MappingState
from poller.domain.telemetry.labels import Loss, SourceCall

RECORDS_BOUNDS = (1, 10, 50, 100, 500, 1000, 5000, 10_000)
DURATION_BOUNDS_S = (0.01, 0.05, 0.1, 0.5, 1, 5, 10, 30, 60, 300, 900)
SERVICES = frozenset({"kinesis", "dynamodb", "sqs"})
SHOWN_FROM_THE_START: Mapping[str, tuple[SourceCall, ...]] = {
    "kinesis": (SourceCall.GET_RECORDS, SourceCall.GET_SHARD_ITERATOR, SourceCall.LIST_SHARDS),
    "dynamodb": (SourceCall.GET_RECORDS, SourceCall.GET_SHARD_ITERATOR, SourceCall.DESCRIBE_STREAM),
    "sqs": (
        SourceCall.RECEIVE_MESSAGE,
        SourceCall.DELETE_MESSAGE_BATCH,
        SourceCall.CHANGE_MESSAGE_VISIBILITY_BATCH,
    ),
}
"""The usual calls of each service. The others have a series from their first call on."""
AGE_BOUNDS_S = (0.5, 1, 5, 15, 60, 300, 900, 3600, 21_600, 86_400)


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
        """Returns the upper bound and the cumulative count of each bucket, the one of +Inf last."""
        found: list[tuple[str, float]] = []
        below = 0
        for bound, count in zip((*self._bounds, "+Inf"), self._counts, strict=True):
            below += count
            found.append((str(bound), below))
        return found


@dataclass(slots=True)
class ShardFigures:
    """The present state of one shard that this daemon reads; `blocked` says since when each blocked lane is blocked."""

    behind_s: float | None = None
    age_s: float | None = None
    blocked: dict[int, Epoch] = field(default_factory=dict)
    destination_failing: bool = False


@dataclass(slots=True)
class RunningFigures:
    """What of a mapping runs here now: its shards and leases, or its pollers and the message groups that are blocked."""

    shards: dict[ShardId, ShardFigures] = field(default_factory=dict)
    leases: set[ShardId] = field(default_factory=set)
    pollers: int | None = None
    groups_blocked_since: Epoch | None = None

    def behind_s(self) -> float | None:
        """Returns how many seconds the shard that is furthest behind is behind the tip of the stream."""
        return max((s.behind_s for s in self.shards.values() if s.behind_s is not None), default=None)

    def age_s(self) -> float | None:
        """Returns the highest of the shards' last iterator ages, in seconds."""
        return max((s.age_s for s in self.shards.values() if s.age_s is not None), default=None)

    def blocked_lanes(self) -> int:
        """Counts the lanes that are blocked now."""
        return sum(len(shard.blocked) for shard in self.shards.values())

    def blocked_shards(self) -> dict[ShardId, Epoch]:
        """Returns the shards with a blocked lane, and since when the first lane of each is blocked."""
        return {shard: min(found.blocked.values()) for shard, found in self.shards.items() if found.blocked}

    def destinations_failing(self) -> int:
        """Counts the shards that wait for their on-failure destination."""
        return len([shard for shard in self.shards.values() if shard.destination_failing])

    def drop_shard(self, shard: ShardId) -> None:
        """Removes the state of a shard that this daemon no longer reads."""
        self.shards.pop(shard, None)
        self.leases.discard(shard)


@dataclass(slots=True)
class InvocationFigures:
    """Invocations, and the records that were handed over in them; `age` is None while no invocation had an iterator age."""

    handed: int = 0
    processed: int = 0
    failed: int = 0
    ended: Counter[Ended] = field(default_factory=Counter)
    retries_counted: int = 0
    retries_free: int = 0
    records: Histogram = field(default_factory=lambda: Histogram(RECORDS_BOUNDS))
    duration: Histogram = field(default_factory=lambda: Histogram(DURATION_BOUNDS_S))
    age: Histogram | None = None


@dataclass(slots=True)
class StreamCounts:
    """Counts that only mappings of streams have. None: nothing has changed it yet."""

    dropped: int | None = None
    delivered: int | None = None
    bisections: int | None = None
    destination_failures: int | None = None
    checkpoints: int | None = None
    leases_taken: int | None = None
    leases_lost: int | None = None


@dataclass(slots=True)
class QueueCounts:
    """Counts of messages that only mappings of queues have. None: nothing has changed it yet."""

    deleted: int | None = None
    deletes_lapsed: int | None = None
    deletes_failed: int | None = None
    released: int | None = None
    retries_delayed: int | None = None
    retry_after_ignored: int | None = None


@dataclass(slots=True)
class MappingFigures:
    """All figures of one mapping. A count that is None has no series: it does not apply, or nothing has changed it yet."""

    function: str = ""
    source_arn: str = ""
    state: MappingState | None = None
    deleted_at: Monotonic | None = None

    polled: int = 0
    filtered: int | None = None
    discards: Counter[Condition] = field(default_factory=Counter)
    discarded: Counter[Condition] = field(default_factory=Counter)
    losses: Counter[Loss] = field(default_factory=Counter)
    port_failures: Counter[tuple[str, str]] = field(default_factory=Counter)
    source_calls: Counter[SourceCall] = field(default_factory=Counter)

    invocations: InvocationFigures = field(default_factory=InvocationFigures)
    stream_counts: StreamCounts = field(default_factory=StreamCounts)
    queue_counts: QueueCounts = field(default_factory=QueueCounts)
    running: RunningFigures = field(default_factory=RunningFigures)

    @property
    def source(self) -> str:
        """The service that has the source; empty if it is not known yet or is no source of events."""
        arn = Arn.read(self.source_arn)
        return arn.service if arn is not None and arn.service in SERVICES else ""

    @property
    def stream(self) -> bool:
        """Whether the source is a stream, which has shards."""
        return self.source in {"kinesis", "dynamodb"}

    def start_at_zero(self) -> None:
        """Sets the counts that fit the source to zero, so that a query sees their first increase."""
        counts = self.stream_counts if self.stream else self.queue_counts
        for each in fields(counts):
            if getattr(counts, each.name) is None:
                setattr(counts, each.name, 0)
        for call in SHOWN_FROM_THE_START.get(self.source, ()):
            self.source_calls[call] += 0
        if self.stream and self.invocations.age is None:
            self.invocations.age = Histogram(AGE_BOUNDS_S)
