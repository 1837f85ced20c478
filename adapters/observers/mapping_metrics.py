"""Owns the figures of one mapping: its counts and histograms, and the present state of its shards."""

from bisect import bisect_left
from collections import Counter
from dataclasses import dataclass, field

from poller.domain.arns import Arn
from poller.domain.invocations import Condition, Ended
from poller.domain.records import Epoch, Monotonic, ShardId
from poller.domain.rows import MappingState
from poller.domain.telemetry.labels import Loss

RECORDS_BOUNDS = (1, 10, 50, 100, 500, 1000, 5000, 10_000)
DURATION_BOUNDS_S = (0.01, 0.05, 0.1, 0.5, 1, 5, 10, 30, 60, 300, 900)
SERVICES = frozenset({"kinesis", "dynamodb", "sqs"})
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
class MappingFigures:
    """All figures of one mapping. A count that is None has no series: it does not apply, or nothing has changed it yet."""

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
    groups_blocked_since: Epoch | None = None

    records: Histogram = field(default_factory=lambda: Histogram(RECORDS_BOUNDS))
    duration: Histogram = field(default_factory=lambda: Histogram(DURATION_BOUNDS_S))
    age: Histogram | None = None

    shards: dict[ShardId, ShardFigures] = field(default_factory=dict)
    leases: set[ShardId] = field(default_factory=set)

    @property
    def source(self) -> str:
        """The service that has the source; empty if it is not known yet or is no source of events."""
        arn = Arn.read(self.source_arn)
        return arn.service if arn is not None and arn.service in SERVICES else ""

    @property
    def stream(self) -> bool:
        """Whether the source is a stream, which has shards."""
        return self.source in {"kinesis", "dynamodb"}

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

    def start_at_zero(self) -> None:
        """Sets the counts that fit the source to zero, so that a query sees their first increase."""
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
