"""Owns policies, the small frozen values by which settings reach rules, and the limits that they name."""

from dataclasses import dataclass, field

PAYLOAD_BYTES_MAX = 6 * 1024 * 1024
"""The largest event of a synchronous invocation, with base64 and metadata (aws-behaviour#event-size)."""

RETRY_FACTOR = 2.0
"""The default factor of a queue's retry back-off."""
RETRY_CAP_S = 900.0
"""The default cap of a queue's retry back-off. A hidden message counts as in flight for SQS, and a FIFO group waits with it."""


@dataclass(frozen=True, slots=True)
class BatchPolicy:
    """When a batch closes: by count, by seconds since its first record (0: at once), by bytes of the finished event."""

    records_max: int = 100
    window_s: float = 0.0
    payload_bytes_max: int = PAYLOAD_BYTES_MAX


@dataclass(frozen=True, slots=True)
class Backoff:
    """Exponential back-off: the wait before try n is a random part of min(`cap_s`, `base_s` * 2**n) seconds."""

    base_s: float = 0.4
    cap_s: float = 30.0


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """What happens to a failing batch. None in `retries_max`, `age_max_s` or `retention_s`: no limit.

    `retention_s` is how long the source itself keeps records; a batch is not tried beyond that.
    """

    retries_max: int | None = None
    age_max_s: float | None = None
    retention_s: float | None = None
    bisect: bool = False
    report_failures: bool = False
    backoff: Backoff = field(default_factory=Backoff)


@dataclass(frozen=True, slots=True)
class ScalingPolicy:
    """How many pollers a queue mapping may run. `concurrency_max` None: AWS's own ceiling.

    `provisioned_min` and `provisioned_max` are set together, in provisioned mode only.
    """

    concurrency_max: int | None = None
    provisioned_min: int | None = None
    provisioned_max: int | None = None


@dataclass(frozen=True, slots=True)
class RetryBackoff:
    """How long a failed message waits in its queue: `base_s` * `factor` ** (receives - 1) seconds, at most `cap_s`."""

    base_s: float
    factor: float = RETRY_FACTOR
    cap_s: float = RETRY_CAP_S


@dataclass(frozen=True, slots=True)
class QueuePolicy:
    """The settings of a queue mapping that AWS does not have.

    With `extend_visibility` False there is at most one extension, for a batching window, as with AWS. `backoff` is used for
    batches that the function had no capacity for. `retry_backoff` is used for messages that failed; without it they are left to
    the queue's visibility timeout.
    """

    extend_visibility: bool = True
    one_group_per_batch: bool = False
    group_aware_failures: bool = False
    backoff: Backoff = field(default_factory=lambda: Backoff(base_s=0.2, cap_s=5.0))
    retry_backoff: RetryBackoff | None = None


@dataclass(frozen=True, slots=True)
class RatePolicy:
    """How fast all workers of a store together may call a function. None: no limit."""

    invocations_per_s: float | None = None
    records_per_s: float | None = None


@dataclass(frozen=True, slots=True)
class BreakerPolicy:
    """When a function is not called any more because its calls fail.

    The breaker opens when the share `failures` (above 0, at most 1) of the calls in the last `window_s` seconds failed. It stays
    open for `open_s` seconds. Then one batch tries.
    """

    failures: float = 0.5
    window_s: float = 60.0
    open_s: float = 30.0
