"""Owns the plans that the runtime runs: frozen values, made from settings and mappings."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

from poller.domain.arns import Arn
from poller.domain.functions.queued_calls import RETRY_WAITS_S, AsyncPolicy
from poller.domain.functions.versions import AliasPlan, VersionPlan
from poller.domain.policies import (
    Backoff,
    BatchPolicy,
    BreakerPolicy,
    QueuePolicy,
    RatePolicy,
    RetryPolicy,
    ScalingPolicy,
)
from poller.domain.records import Epoch, MappingId, Position, WorkerId

LATEST = "$LATEST"
SERVICE_INVOKER = "lambda"
"""The invoker whose functions have versions and aliases of their own at AWS."""
_URL = re.compile(r"([a-z][a-z0-9_-]{0,63})://.")


class SourceKind(StrEnum):
    """Which plug-in reads a source. The value is the service part of the source's ARN."""

    KINESIS = "kinesis"
    DYNAMODB = "dynamodb"
    SQS = "sqs"


@dataclass(frozen=True, slots=True)
class EventContent:
    """What an event of a mapping may hold: records of which kind of source, and whether all of them are of one message group.

    `fifo`: whether the source is a FIFO queue. `single`: whether an event has one record at most. `tumbling`: whether it has the state of
    a tumbling window.
    """

    kind: SourceKind
    one_group: bool = False
    fifo: bool = False
    single: bool = False
    tumbling: bool = False


def url_scheme(text: str) -> str | None:
    """The scheme of a destination that is a URL; None if it is an ARN or something else."""
    found = _URL.match(text)
    return found[1] if found else None


def destination_plugin(destination: str) -> str:
    """Which plug-in delivers to a destination: the scheme of a URL (`http` also for https), or the service of an ARN.

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
    """Where a mapping begins to read the shards that exist when it is created: the trim horizon, a moment, or LATEST.

    LATEST is the moment at which the mapping was created, which the store keeps.
    """

    latest: bool = False
    since: Epoch | None = None

    def position(self, created: Epoch) -> Position:
        """The starting position of a mapping created at `created`."""
        since = created if self.latest else self.since
        return Position.horizon() if since is None else Position.at(since)


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamPolicy:
    """How a stream mapping reads its shards: from where on, in how many lanes (ParallelizationFactor), in which tumbling windows (0: none)."""

    start: Start = Start()
    lanes: int = 1
    tumbling_window_s: int = 0
    shared_reads: bool = True
    """Whether its reads are shared with other mappings of the stream on the same worker."""


@dataclass(frozen=True, slots=True)
class DiscardPolicy:
    """Where the notices of discarded batches go (None: nowhere), and what happens to a batch whose notice cannot be delivered.

    With `include_payload` the notices of queues and topics carry the event, too. `payload_prefix` (s3://BUCKET/PREFIX) is where
    an event goes that is too large for a message. Other destinations get the event in any case. `identity` names as whom a service
    of AWS is called.
    """

    destination: str | None = None
    on_destination_failure: OnDestinationFailure = OnDestinationFailure.KEEP
    include_payload: bool = False
    payload_prefix: str | None = None
    identity: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class MappingPlan:
    """One event source mapping, ready to run.

    `function` names an entry of the daemon's functions, `function_arn` is the ARN as mapped (with its qualifier),
    `role_arn` fills `invokeIdentityArn`. `stream` and `discard` apply to streams only, `scaling` and `queue` to queues only.
    """

    mapping: MappingId
    kind: SourceKind
    source_arn: str
    function: str
    function_arn: str
    role_arn: str = ""
    enabled: bool = True
    batch: BatchPolicy = BatchPolicy()
    retry: RetryPolicy = RetryPolicy()
    stream: StreamPolicy = StreamPolicy()
    discard: DiscardPolicy = DiscardPolicy()
    scaling: ScalingPolicy = ScalingPolicy()
    queue: QueuePolicy = QueuePolicy()
    filters: tuple[str, ...] = ()
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
"""The time limit of a function that has no limit of its own and no configured one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FunctionPlan:
    """One function: which invoker calls it, with which settings and time limit, and how many calls may run at once (None: no limit).

    If `timeout_s` is None, the limit is the one of the function's service (`poller.ports.FunctionLookup`), or TIMEOUT_S.
    `arn` is its unqualified ARN (None: built from the source's), `role` the ARN that fills `invokeIdentityArn`.
    `rate` bounds how fast all workers together call it, `breaker` holds its calls while they fail (None: neither).
    `async_policies` has how asynchronous calls are tried, by qualifier; the one of "" is for calls without a qualifier. `dead_letter`
    is the ARN of the queue or topic that gets the payloads of those that fail. `versions` and `aliases` are those of the configuration
    file, by number and by name; the other fields are $LATEST.
    """

    name: str
    invoker: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    timeout_s: float | None = None
    max_concurrency: int | None = None
    arn: str | None = None
    role: str = ""
    rate: RatePolicy | None = None
    breaker: BreakerPolicy | None = None
    async_policies: Mapping[str, AsyncPolicy] = field(default_factory=dict)
    dead_letter: str | None = None
    versions: Mapping[str, VersionPlan] = field(default_factory=dict)
    aliases: Mapping[str, AliasPlan] = field(default_factory=dict)

    def async_policy(self, qualifier: str) -> AsyncPolicy:
        """How asynchronous calls of one qualifier are tried; an empty one and $LATEST are the same."""
        found = self.async_policies.get("" if qualifier == LATEST else qualifier)
        return AsyncPolicy(dead_letter=self.dead_letter, identity=self.identity) if found is None else found

    @property
    def identity(self) -> str | None:
        """As whom the function is called on AWS, if its invoker does that and an identity is named."""
        found = self.settings.get("identity")
        return found if isinstance(found, str) else None


@dataclass(frozen=True, slots=True)
class CallLimit:
    """How many calls of a function can run at once (None: any number), and why; one line for people.

    If it is not `known`, that shows when the function is opened. Then `calls` is the most that there can be, and `reason` says what
    is not known.
    """

    calls: int | None
    reason: str
    known: bool = True

    def within(self, max_concurrency: int | None) -> "CallLimit":
        """The smaller one of this limit and the function's own limit."""
        if max_concurrency is None or (self.calls is not None and self.calls <= max_concurrency):
            return self
        if not self.known and max_concurrency > 1:
            return CallLimit(max_concurrency, self.reason, known=False)
        return CallLimit(max_concurrency, f"max_concurrency: {max_concurrency}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Tuning:
    """Intervals and limits of the daemon, in seconds unless the name says otherwise."""

    idle_poll_s: float = 5.0
    """The longest wait before the next read of a shard that had no records. One that had some lately is read sooner."""
    discovery_s: float = 30.0
    """The interval between listings of a stream's shards. When a shard ends, the shards are listed at once."""
    checkpoint_s: float = 1.0
    """At most one checkpoint per shard is written in this time. A handover and a shutdown always write one."""
    grace_s: float = 30.0
    """How long running invocations may take at shutdown before they are cancelled."""
    read_records_max: int = 10_000
    """The number of records that one read asks for."""
    memory_mb: int | None = None
    """How many megabytes of records and messages the daemon may hold; None: half of the process' memory limit, 512 without one."""
    look_ahead_records_max: int = 10_000
    """With several lanes, how many records of a shard are held beyond the first unsettled one."""
    port_backoff: Backoff = Backoff(base_s=0.5, cap_s=30.0)
    """The back-off after failed calls to sources, destinations and the store."""
    lease_s: float = 10.0
    """A worker whose heartbeat stands still for this long counts as dead, also for itself."""
    heartbeat_s: float = 1.0
    """The interval between two heartbeats. Each heartbeat also reads the rows of the other workers."""
    async_retry_s: tuple[float, ...] = RETRY_WAITS_S
    """The waits before the second and the third attempt of an asynchronous call."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ResourcePlan:
    """Where custom resources are followed: by which plug-in, with which settings.

    Mappings that were made of resources in the namespace with the UID `forget_namespace` are deleted.
    """

    plugin: str = "kubernetes"
    settings: Mapping[str, Any] = field(default_factory=dict)
    forget_namespace: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class DaemonPlan:
    """Everything that one daemon runs.

    `documents` has the mappings' parameters in AWS's names as they were written. `default_invoker` calls functions that
    are not in `functions`. `on_destination_failure` is the default of mappings made through the API or of custom resources.
    `resources` says where custom resources are followed; None: nowhere.
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
    resources: ResourcePlan | None = None

    def as_started(self, running: "DaemonPlan") -> "DaemonPlan":
        """The same with what stays as it is in `running` as long as a daemon runs."""
        return replace(
            self,
            worker=running.worker,
            store=running.store,
            store_settings=running.store_settings,
            resources=running.resources,
        )
