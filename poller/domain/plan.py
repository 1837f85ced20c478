"""Owns what the runtime is asked to run: frozen plans, resolved from settings and mappings."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from poller.domain.arns import Arn
from poller.domain.policies import Backoff, BatchPolicy, QueuePolicy, RetryPolicy, ScalingPolicy
from poller.domain.records import Epoch, MappingId, Position, WorkerId

_URL = re.compile(r"([a-z][a-z0-9_-]{0,63})://.")


class SourceKind(StrEnum):
    """Which plug-in reads a source; the service part of its ARN."""

    KINESIS = "kinesis"
    DYNAMODB = "dynamodb"
    SQS = "sqs"


def url_scheme(text: str) -> str | None:
    """The scheme of a destination that is a URL; None for an ARN and anything else."""
    found = _URL.match(text)
    return found[1] if found else None


def destination_plugin(destination: str) -> str:
    """Which plug-in delivers to a destination: the scheme of a URL (https is http), else the service of an ARN.

    Raises ValueError for a text that is neither.
    """
    scheme = url_scheme(destination)
    if scheme is None:
        return Arn.parse(destination).service
    return "http" if scheme == "https" else scheme


class OnDestinationFailure(StrEnum):
    """What happens to a batch whose notice cannot be delivered."""

    KEEP = "keep"
    DROP = "drop"


@dataclass(frozen=True, slots=True)
class Start:
    """Where shards begin that exist when the mapping is created: the horizon, a moment, or LATEST.

    LATEST is the moment at which the mapping was created, which the store keeps.
    """

    latest: bool = False
    since: Epoch | None = None

    def position(self, created: Epoch) -> Position:
        """The starting position of a mapping created at `created`."""
        since = created if self.latest else self.since
        return Position.horizon() if since is None else Position.at(since)


@dataclass(frozen=True, slots=True, kw_only=True)
class MappingPlan:
    """One event source mapping, ready to run.

    `function` names an entry of the daemon's functions, `function_arn` is the ARN as mapped (with its qualifier),
    `role_arn` fills `invokeIdentityArn`; `lanes` is ParallelizationFactor; `tumbling_window_s` is 0 when off.
    """

    mapping: MappingId
    kind: SourceKind
    source_arn: str
    function: str
    function_arn: str
    role_arn: str = ""
    enabled: bool = True
    start: Start = Start()
    batch: BatchPolicy = BatchPolicy()
    retry: RetryPolicy = RetryPolicy()
    scaling: ScalingPolicy = ScalingPolicy()
    queue: QueuePolicy = QueuePolicy()
    lanes: int = 1
    tumbling_window_s: int = 0
    filters: tuple[str, ...] = ()
    destination: str | None = None
    on_destination_failure: OnDestinationFailure = OnDestinationFailure.KEEP
    source_settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def region(self) -> str:
        """Region of the source."""
        return Arn.parse(self.source_arn).region

    @property
    def fifo(self) -> bool:
        """Whether the source is a FIFO queue."""
        return self.kind is SourceKind.SQS and self.source_arn.endswith(".fifo")


TIMEOUT_S = 30.0
"""How long a function may take that has no limit of its own, unless something else is configured."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FunctionPlan:
    """One function: which invoker calls it, with which settings, for how long, how often at once (None: no limit).

    `timeout_s` None is TIMEOUT_S, or the function's own limit where its service has one (`poller.ports.FunctionLookup`).
    `arn` is its unqualified ARN (None: built from the source's), `role` the ARN that fills `invokeIdentityArn`.
    """

    name: str
    invoker: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    timeout_s: float | None = None
    max_concurrency: int | None = None
    arn: str | None = None
    role: str = ""


@dataclass(frozen=True, slots=True)
class CallLimit:
    """How many calls of a function can run at once (None: any number), and why; one line for people."""

    calls: int | None
    reason: str

    def within(self, max_concurrency: int | None) -> "CallLimit":
        """With a function's own limit, which only makes it less."""
        if max_concurrency is None or (self.calls is not None and self.calls <= max_concurrency):
            return self
        return CallLimit(max_concurrency, f"max_concurrency: {max_concurrency}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Tuning:
    """The daemon's own rhythm, all in seconds unless named otherwise."""

    idle_poll_s: float = 1.0
    """Between reads of a shard that had no records."""
    discovery_s: float = 30.0
    """Between listings of a stream's shards; at once when a shard ends."""
    checkpoint_s: float = 1.0
    """At most one checkpoint write per shard in this time; always at a handover and at shutdown."""
    grace_s: float = 30.0
    """For running invocations at shutdown, before they are cancelled."""
    read_records_max: int = 10_000
    """Records asked for in one read."""
    look_ahead_records_max: int = 10_000
    """Records held per shard beyond the first unsettled one when there are several lanes."""
    port_backoff: Backoff = Backoff(base_s=0.5, cap_s=30.0)
    """For failed calls to sources, destinations and the store."""
    lease_s: float = 10.0
    """A worker whose heartbeat stands still for so long is taken for dead, by itself too."""
    heartbeat_s: float = 1.0
    """Between two heartbeats, each of which also looks at the other workers'."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DaemonPlan:
    """All that one daemon runs.

    `documents` has the mappings' parameters in AWS's names as they were written; `default_invoker` calls functions that
    are not among `functions`; `on_destination_failure` is the default of mappings made through the API.
    """

    worker: WorkerId
    store: str
    store_settings: Mapping[str, Any] = field(default_factory=dict)
    functions: Mapping[str, FunctionPlan] = field(default_factory=dict)
    mappings: tuple[MappingPlan, ...] = ()
    documents: Mapping[MappingId, Mapping[str, Any]] = field(default_factory=dict)
    default_invoker: str = "lambda"
    on_destination_failure: OnDestinationFailure = OnDestinationFailure.KEEP
    tuning: Tuning = Tuning()
