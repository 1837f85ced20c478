"""Owns how many pollers a queue mapping runs (aws-behaviour#queue-scaling): `ready` at once, more at a limited rate, fewer when idle.

One poller holds one slot of the function and has one batch at a time. So the number of pollers bounds the concurrent invocations.
"""

from dataclasses import dataclass, replace

from poller.domain.policies import ScalingPolicy
from poller.domain.records import Monotonic

IDLE_POLLERS = 2
START_POLLERS = 5
POLLERS_MAX = 1_250
POLLERS_PER_MINUTE = 300
PROVISIONED_CONCURRENCY = 10
"""Concurrent invocations of one provisioned poller on AWS (aws-behaviour#queue-scaling). A poller here has one."""
PROVISIONED_PER_MINUTE = 1_000
TICK_S = 1.0
"""Seconds between two steps."""
IDLE_S = 20.0
"""A poller that found no message for this long is stopped."""
CALM_S = 10.0
"""No poller is added for this long after failures."""
SHRINK_PART = 4
"""After failures, one of this many pollers (a quarter) is stopped at each step."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """The bounds for the number of pollers: `floor` when idle, `ready` at once, and up to `ceiling`, growing by `per_minute`."""

    floor: int
    ready: int
    ceiling: int
    per_minute: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PollStats:
    """What happened since the last step.

    `full`, `some`, `empty`: receives that got all messages that they asked for, fewer, or none. `idle`: pollers without messages for
    IDLE_S. `done`, `failed`: invocations that succeeded or failed. `refused`: refusals by the queue, and by the function for new
    batches or while it refuses everything. `deferred`: the function's refusals for other batches. `waiting`: pollers that now wait
    for messages, for a slot, for the end of a pause, or for a function that refuses everything.
    """

    full: int = 0
    some: int = 0
    empty: int = 0
    idle: int = 0
    done: int = 0
    failed: int = 0
    refused: int = 0
    deferred: int = 0
    waiting: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Scaling:
    """How many pollers there should be. `hungry`: the queue seems to have more messages than the pollers receive.

    `credit` is the fraction of a poller that the limited rate allows so far. Until `calm_at` no poller is added.
    """

    target: int
    at: Monotonic
    hungry: bool = False
    credit: float = 0.0
    calm_at: Monotonic = Monotonic(0.0)


def bounds(policy: ScalingPolicy, function_limit: int | None) -> Bounds:
    """The bounds of a mapping whose function runs at most `function_limit` invocations at once (None: no limit)."""
    if policy.provisioned_min is not None and policy.provisioned_max is not None:
        ceiling = policy.provisioned_max * PROVISIONED_CONCURRENCY
        ready = min(policy.provisioned_min * PROVISIONED_CONCURRENCY, ceiling)
        wanted = (policy.provisioned_min, ready, ceiling, PROVISIONED_PER_MINUTE)
    else:
        wanted = (IDLE_POLLERS, START_POLLERS, POLLERS_MAX, POLLERS_PER_MINUTE)
    floor, ready, ceiling, per_minute = wanted
    for limit in (policy.concurrency_max, function_limit):
        if limit is not None:
            floor, ready, ceiling = min(floor, limit), min(ready, limit), min(ceiling, limit)
    return Bounds(floor=floor, ready=ready, ceiling=ceiling, per_minute=per_minute)


def maximum(policy: ScalingPolicy) -> int | None:
    """How many pollers all workers together may run for the mapping. None: no limit."""
    if policy.provisioned_max is not None:
        return policy.provisioned_max * PROVISIONED_CONCURRENCY
    return policy.concurrency_max


def start(limits: Bounds, *, now: Monotonic) -> Scaling:
    """The state of a mapping that starts."""
    return Scaling(target=limits.ready, at=now)


def resume(scaling: Scaling, *, now: Monotonic) -> Scaling:
    """The state when a pause ends: no poller is added for the time in which none could receive."""
    return replace(scaling, at=now, credit=0.0)


def step(scaling: Scaling, seen: PollStats, limits: Bounds, *, tolerant: bool, now: Monotonic) -> Scaling:
    """The state after `seen`. `tolerant`: failed messages do not reduce the number of pollers (ReportBatchItemFailures)."""
    hungry = _hungry(scaling, seen)
    elapsed_s = now - scaling.at
    kept = replace(scaling, at=now, hungry=hungry, credit=0.0)
    if seen.refused or (seen.failed > seen.done and not tolerant):
        fewer = scaling.target - max(1, scaling.target // SHRINK_PART)
        return replace(kept, target=max(limits.floor, fewer), calm_at=Monotonic(now + CALM_S))
    if seen.deferred > seen.done:
        kept = replace(kept, calm_at=Monotonic(now + CALM_S))
    if not hungry:
        return replace(kept, target=max(limits.floor, scaling.target - seen.idle))
    if seen.waiting or now < kept.calm_at:
        return kept
    if scaling.target < limits.ready:
        return replace(kept, target=limits.ready)
    earned = scaling.credit + elapsed_s * limits.per_minute / 60.0
    whole = int(earned + 1e-9)
    return replace(kept, target=min(limits.ceiling, scaling.target + whole), credit=max(0.0, earned - whole))


def _hungry(scaling: Scaling, seen: PollStats) -> bool:
    if seen.full > seen.empty + seen.some:
        return True
    if seen.full or seen.empty or seen.some:
        return False
    return scaling.hungry
