"""Owns what happens to one lane's batch until every record of it is settled (aws-behaviour#failed-batch).

A batch is a list of parts. It starts with one part; a bisect replaces a part by two. Only the first part is in flight. `step`
returns what to do with that part now, `settle` takes the verdict on its invocation, and `drop` confirms that a discard was carried out.
"""

from collections.abc import Callable, Sequence
from copy import replace
from dataclasses import dataclass
from typing import assert_never

import msgspec

from poller.domain.invocations import Condition
from poller.domain.policies import RetryPolicy
from poller.domain.records import Epoch, Monotonic
from poller.rules.backoff import Chance, retry_wait_s
from poller.rules.responses import Accepted, Deferred, Partial, Rejected, Response, Verdict
from poller.rules.streams.batching import Entry

EXPIRY_MARGIN_S = 0.001
"""A wait for a record's expiry ends this much later, so that the age is exceeded and not just reached."""


class BatchPart(msgspec.Struct, frozen=True, gc=False):
    """Records that are invoked together under one request id.

    `failures` counts the invocations that used up a retry. `deferrals` counts the refused calls since the last one that reached
    the function. A part that closes a tumbling window is `final`: it has no entries, and its age counts from the window's end,
    `ends`; `counted` is the last record in the window's state. It is `early` when the window's state grew too large. A part that was restored from a checkpoint is `resumed` until
    its first attempt: the mapping's settings may have changed since, so it gets one attempt under the new ones. So is a part of
    which an operator skipped records. `begun` is when
    its batch began.

    Two fields are set by operators. The back-off counts the failures beyond `eased` only. The age of what arrived before `since`
    counts from then.
    """

    entries: tuple[Entry, ...]
    request_id: str
    failures: int = 0
    deferrals: int = 0
    response: Response | None = None
    final: bool = False
    early: bool = False
    ends: Epoch | None = None
    counted: str = ""
    resumed: bool = False
    begun: Epoch = Epoch(0.0)
    eased: int = 0
    since: Epoch = Epoch(0.0)


class BatchState(msgspec.Struct, frozen=True, gc=False):
    """A lane's batch: the part in flight, then the parts that wait. Nothing is invoked before `resume_at`."""

    parts: tuple[BatchPart, ...]
    resume_at: Monotonic


class Invoke(msgspec.Struct, frozen=True, gc=False):
    """Call the function with this part."""

    part: BatchPart


@dataclass(frozen=True, slots=True)
class Wait:
    """Nothing to do before `until`."""

    until: Monotonic


@dataclass(frozen=True, slots=True)
class Discard:
    """Discard these entries: notify the destination, then settle them. They were invoked as `part`."""

    part: BatchPart
    entries: tuple[Entry, ...]
    condition: Condition
    invoke_count: int
    request_id: str
    response: Response | None


class Advance(msgspec.Struct, frozen=True, gc=False):
    """These entries are settled."""

    entries: tuple[Entry, ...]


@dataclass(frozen=True, slots=True)
class Retry:
    """The part failed and is invoked again after `wait_s`. `free`: no retry was used up."""

    attempt: int
    wait_s: float
    free: bool


@dataclass(frozen=True, slots=True)
class Split:
    """The part failed and was split in two."""

    records: int


def first_run(discard: Discard) -> Discard:
    """The discard of its first entries without a gap between them. What is left is discarded next."""
    for place, entry in enumerate(discard.entries):
        if place and entry.behind_gap:
            return replace(discard, entries=discard.entries[:place])
    return discard


type BatchStep = Invoke | Wait | Discard
type Effect = Advance | Retry | Split
type NewId = Callable[[], str]


def start(entries: tuple[Entry, ...], *, new_id: NewId, now: Monotonic, epoch: Epoch) -> BatchState:
    """The state of a new batch, which begins at `epoch`."""
    assert entries, "an empty batch"
    return BatchState((BatchPart(entries, new_id(), begun=epoch),), now)


def finish(
    *, early: bool, ends: Epoch | None, counted: str = "", new_id: NewId, now: Monotonic
) -> BatchState:
    """The state of a batch without records whose call closes a tumbling window, which ends at `ends`."""
    return BatchState((_closing(early=early, ends=ends, counted=counted, new_id=new_id),), now)


def interpose(work: BatchState, *, ends: Epoch | None, counted: str = "", new_id: NewId) -> BatchState:
    """The batch with a call before it that ends its tumbling window early."""
    closing = _closing(early=True, ends=ends, counted=counted, new_id=new_id)
    return replace(work, parts=(closing, *work.parts))


def _closing(*, early: bool, ends: Epoch | None, counted: str, new_id: NewId) -> BatchPart:
    return BatchPart((), new_id(), final=True, early=early, ends=ends, counted=counted)


def resume(
    parts: Sequence[tuple[tuple[Entry, ...], int, Epoch]],
    *,
    new_id: NewId,
    now: Monotonic,
    epoch: Epoch,
) -> BatchState | None:
    """A batch restored from a checkpoint, which begins again at `epoch`; None if no entry is left.

    `parts` are each part's entries, its failures, and from when its age counts.
    """
    kept = tuple(
        BatchPart(entries, new_id(), failures, resumed=True, begun=epoch, since=since)
        for entries, failures, since in parts
        if entries
    )
    return BatchState(kept, now) if kept else None


def retained_until(part: BatchPart, entry: Entry, retention_s: float) -> Epoch:
    """When the source drops a record of a part. It is never before the part began, and then its time tells nothing.

    A record that seems older than the retention when it is read was there to be read: its time is wrong, this host's clock is, or
    the service keeps records longer than it says. So it counts from then.
    """
    until = entry.record.arrived + retention_s
    return Epoch(until if until >= part.begun else part.begun + retention_s)


def step(work: BatchState, policy: RetryPolicy, *, now: Monotonic, epoch: Epoch) -> BatchStep:
    """What to do now, in this order of precedence.

    1. Retries exhausted: discard. A part restored from a checkpoint gets one attempt first.
    2. Records at the front are too old: discard these.
    3. Back-off is not over: wait.
    4. Invoke.
    """
    part = work.parts[0]
    if policy.retries_max is not None and part.failures > policy.retries_max and not part.resumed:
        return Discard(part, part.entries, Condition.RETRIES, part.failures, part.request_id, part.response)
    for expired, age_max_s, condition in (
        (_dropped(part, policy.retention_s, epoch), policy.retention_s, Condition.RETENTION),
        (_expired(part, policy.age_max_s, epoch), policy.age_max_s, Condition.AGE),
    ):
        if expired or _outlived(part, age_max_s, epoch):
            entries = part.entries[:expired]
            return Discard(part, entries, condition, max(1, part.failures), part.request_id, None)
    return Wait(work.resume_at) if now < work.resume_at else Invoke(part)


def expires_at(work: BatchState, policy: RetryPolicy) -> Epoch | None:
    """When the part's first record, or its call that closes a window, gets too old. None without a limit of age."""
    part = work.parts[0]
    since = part.entries[0].record.arrived if part.entries else _tried_since(part)
    if since is None:
        return None
    ends = [] if policy.age_max_s is None else [max(since, part.since) + policy.age_max_s]
    if policy.retention_s is not None:
        kept = since + policy.retention_s
        ends.append(retained_until(part, part.entries[0], policy.retention_s) if part.entries else kept)
    return Epoch(min(ends)) if ends else None


def sooner(
    until: Monotonic, work: BatchState, policy: RetryPolicy, *, now: Monotonic, epoch: Epoch
) -> Monotonic:
    """`until`, or just after the first part gets too old if that is sooner."""
    expires = expires_at(work, policy)
    if expires is None:
        return until
    return min(until, Monotonic(now + max(0.0, expires - epoch) + EXPIRY_MARGIN_S))


def settle(
    work: BatchState, verdict: Verdict, policy: RetryPolicy, *, new_id: NewId, now: Monotonic, rng: Chance
) -> tuple[BatchState | None, list[Effect]]:
    """Takes the verdict on the first part. Returns what is left of the batch, and the effects."""
    part, behind = work.parts[0], work.parts[1:]
    match verdict:
        case Accepted():
            return _work(behind, now), [Advance(part.entries)]
        case Partial(failed, response) if min(failed) > 0:
            first = min(failed)
            suffix = BatchPart(
                part.entries[first:], new_id(), response=response, begun=part.begun, since=part.since
            )
            return BatchState((suffix, *behind), now), [Advance(part.entries[:first])]
        case Partial(_, response) | Rejected(response=response):
            return _failed(part, behind, response, policy, new_id=new_id, now=now, rng=rng)
        case Deferred(retry_after_s=retry_after_s):
            delay = max(retry_wait_s(policy.backoff, part.deferrals, rng), retry_after_s or 0.0)
            again = replace(part, deferrals=part.deferrals + 1)
            retry = Retry(part.failures, delay, free=True)
            return BatchState((again, *behind), Monotonic(now + delay)), [retry]
        case _:
            assert_never(verdict)


def drop(
    work: BatchState, discard: Discard, *, new_id: NewId, now: Monotonic
) -> tuple[BatchState | None, Advance]:
    """The discard was carried out: its entries are settled. The rest of the part is invoked under a new request id.

    If the retries are used up, it is discarded next, as what the last call had.
    """
    part, behind = work.parts[0], work.parts[1:]
    count = len(discard.entries)
    assert part.entries[:count] == discard.entries, "a discard of something else"
    rest = part.entries[count:]
    if not rest:
        return _work(behind, now), Advance(discard.entries)
    left = replace(part, entries=rest)
    if discard.condition is not Condition.RETRIES:
        left = replace(left, request_id=new_id(), response=None)
    return replace(work, parts=(left, *behind)), Advance(discard.entries)


def halve(work: BatchState, *, new_id: NewId, now: Monotonic) -> tuple[BatchState, list[Effect]]:
    """Splits the first part, whose event is too large for one call. It must have several entries. No retry is used up."""
    return _halved(work.parts[0], work.parts[1:], new_id=new_id, now=now)


def _halved(
    part: BatchPart, behind: tuple[BatchPart, ...], *, new_id: NewId, now: Monotonic
) -> tuple[BatchState, list[Effect]]:
    """The first part as two parts, the smaller half first (aws-behaviour#bisect)."""
    size = len(part.entries)
    assert size > 1, "one record cannot be split"
    halves = (part.entries[: size // 2], part.entries[size // 2 :])
    parts = [BatchPart(half, new_id(), begun=part.begun, since=part.since) for half in halves]
    return BatchState((*parts, *behind), now), [Split(size)]


def _failed(
    part: BatchPart,
    behind: tuple[BatchPart, ...],
    response: Response | None,
    policy: RetryPolicy,
    *,
    new_id: NewId,
    now: Monotonic,
    rng: Chance,
) -> tuple[BatchState, list[Effect]]:
    if policy.bisect and len(part.entries) > 1:
        return _halved(part, behind, new_id=new_id, now=now)
    failures = _counted(part, policy) + 1
    again = replace(part, failures=failures, deferrals=0, response=response, resumed=False)
    if policy.retries_max is not None and failures > policy.retries_max:
        return BatchState((again, *behind), now), []
    delay = retry_wait_s(policy.backoff, part.failures - part.eased, rng)
    return BatchState((again, *behind), Monotonic(now + delay)), [Retry(failures, delay, free=False)]


def _counted(part: BatchPart, policy: RetryPolicy) -> int:
    """The failures so far. A restored part counts as having one attempt left under the present settings."""
    if policy.retries_max is None or not part.resumed:
        return part.failures
    return min(part.failures, policy.retries_max)


def _expired(part: BatchPart, age_max_s: float | None, epoch: Epoch) -> int:
    """How many records at the front are older than `age_max_s` (aws-behaviour#record-age)."""
    if age_max_s is None:
        return 0
    oldest = epoch - age_max_s
    if part.since >= oldest:
        return 0
    for count, entry in enumerate(part.entries):
        if entry.record.arrived >= oldest:
            return count
    return len(part.entries)


def _dropped(part: BatchPart, retention_s: float | None, epoch: Epoch) -> int:
    """How many records at the front the source has dropped."""
    if retention_s is None:
        return 0
    for count, entry in enumerate(part.entries):
        if retained_until(part, entry, retention_s) >= epoch:
            return count
    return len(part.entries)


def _outlived(part: BatchPart, age_max_s: float | None, epoch: Epoch) -> bool:
    """Whether a call that closes a window is too old. It always gets one attempt: its records are settled, and only the state counts."""
    since = _tried_since(part)
    return age_max_s is not None and since is not None and since < epoch - age_max_s


def _tried_since(part: BatchPart) -> Epoch | None:
    if part.ends is None or not part.failures:
        return None
    return max(part.ends, part.since)


def _work(parts: tuple[BatchPart, ...], now: Monotonic) -> BatchState | None:
    return BatchState(parts, now) if parts else None
