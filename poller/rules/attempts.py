"""Owns what happens to one lane's batch until all of it is settled (spec 7.1).

A batch is a list of parts: one at first; a bisect puts two in the place of one. The first part is at work. `step`
says what to do with it now, `settle` takes the verdict on an invocation, `drop` confirms that a discard was carried out.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import assert_never

from poller.invocations import Condition
from poller.records import Epoch, Monotonic
from poller.rules.backoff import Chance, wait_s
from poller.rules.batching import Entry
from poller.rules.policies import RetryPolicy
from poller.rules.responses import Accepted, Deferred, Partial, Rejected, Response, Verdict


@dataclass(frozen=True, slots=True)
class Part:
    """Records that are invoked together under one request id.

    `failures` counts the invocations that used up a retry, `deferrals` those in a row that did not happen. A part that
    closes a tumbling window is `final` and has no entries, and its age counts from the window's end, `ends`; it is `early`
    when the window's state grew too large. One that an earlier run left behind is `resumed` until it was tried: its
    settings may be others since, which may save its records.
    """

    entries: tuple[Entry, ...]
    request_id: str
    failures: int = 0
    deferrals: int = 0
    response: Response | None = None
    final: bool = False
    early: bool = False
    ends: Epoch | None = None
    resumed: bool = False


@dataclass(frozen=True, slots=True)
class Work:
    """A lane's batch: the part at work, then the parts behind it; nothing is invoked before `resume_at`."""

    parts: tuple[Part, ...]
    resume_at: Monotonic


@dataclass(frozen=True, slots=True)
class Invoke:
    """Call the function with this part."""

    part: Part


@dataclass(frozen=True, slots=True)
class Wait:
    """Nothing to do before `until`."""

    until: Monotonic


@dataclass(frozen=True, slots=True)
class Discard:
    """Give these entries up: notify the destination, then settle them. `part` is what they were tried as."""

    part: Part
    entries: tuple[Entry, ...]
    condition: Condition
    invoke_count: int
    request_id: str
    response: Response | None


@dataclass(frozen=True, slots=True)
class Advance:
    """These entries are settled."""

    entries: tuple[Entry, ...]


@dataclass(frozen=True, slots=True)
class Retry:
    """The part at work failed and is tried again after `wait_s`; `free` when no retry was used up."""

    attempt: int
    wait_s: float
    free: bool


@dataclass(frozen=True, slots=True)
class Split:
    """The part at work failed and was split in two."""

    records: int


type Step = Invoke | Wait | Discard
type Effect = Advance | Retry | Split
type NewId = Callable[[], str]


def start(entries: tuple[Entry, ...], *, new_id: NewId, now: Monotonic) -> Work:
    """Work for a fresh batch."""
    assert entries, "an empty batch"
    return Work((Part(entries, new_id()),), now)


def finish(*, early: bool, ends: Epoch | None, new_id: NewId, now: Monotonic) -> Work:
    """Work that closes a tumbling window, whose time is over at `ends`."""
    return Work((Part((), new_id(), final=True, early=early, ends=ends),), now)


def interpose(work: Work, *, ends: Epoch | None, new_id: NewId) -> Work:
    """Work whose tumbling window ends early, before what is left of its batch."""
    return replace(work, parts=(Part((), new_id(), final=True, early=True, ends=ends), *work.parts))


def resume(parts: Sequence[tuple[tuple[Entry, ...], int]], *, new_id: NewId, now: Monotonic) -> Work | None:
    """Work that an earlier run left behind: the entries of each part and its failures so far. None if nothing is left."""
    kept = tuple(Part(entries, new_id(), failures, resumed=True) for entries, failures in parts if entries)
    return Work(kept, now) if kept else None


def step(work: Work, policy: RetryPolicy, *, now: Monotonic, epoch: Epoch) -> Step:
    """What to do now: a part that is used up goes (one of an earlier run is tried once before), then records that are too old, then comes the wait, then the call."""
    part = work.parts[0]
    if policy.retries_max is not None and part.failures > policy.retries_max and not part.resumed:
        return Discard(part, part.entries, Condition.RETRIES, part.failures, part.request_id, part.response)
    for age_max_s, condition in (
        (policy.retention_s, Condition.RETENTION),
        (policy.age_max_s, Condition.AGE),
    ):
        expired = _expired(part, age_max_s, epoch)
        if expired or _outlived(part, age_max_s, epoch):
            entries = part.entries[:expired]
            return Discard(part, entries, condition, max(1, part.failures), part.request_id, None)
    return Wait(work.resume_at) if now < work.resume_at else Invoke(part)


def expires_at(work: Work, policy: RetryPolicy) -> Epoch | None:
    """When the first record at work, or the call that closes a window, gets too old; None when age does not count."""
    ages = [age for age in (policy.age_max_s, policy.retention_s) if age is not None]
    part = work.parts[0]
    since = part.entries[0].record.arrived if part.entries else _tried_since(part)
    return Epoch(since + min(ages)) if ages and since is not None else None


def settle(
    work: Work, verdict: Verdict, policy: RetryPolicy, *, new_id: NewId, now: Monotonic, rng: Chance
) -> tuple[Work | None, list[Effect]]:
    """Takes the verdict on the part at work; returns the work that is left and what to carry out."""
    part, behind = work.parts[0], work.parts[1:]
    match verdict:
        case Accepted():
            return _work(behind, now), [Advance(part.entries)]
        case Partial(failed, response) if min(failed) > 0:
            first = min(failed)
            suffix = Part(part.entries[first:], new_id(), response=response)
            return Work((suffix, *behind), now), [Advance(part.entries[:first])]
        case Partial(_, response) | Rejected(response=response):
            return _failed(part, behind, response, policy, new_id=new_id, now=now, rng=rng)
        case Deferred(retry_after_s=retry_after_s):
            delay = max(wait_s(policy.backoff, part.deferrals, rng), retry_after_s or 0.0)
            again = replace(part, deferrals=part.deferrals + 1)
            retry = Retry(part.failures, delay, free=True)
            return Work((again, *behind), Monotonic(now + delay)), [retry]
        case _:
            assert_never(verdict)


def drop(work: Work, discard: Discard, *, new_id: NewId, now: Monotonic) -> tuple[Work | None, Advance]:
    """The discard was carried out: its entries are settled. What is left of the part is a new batch (spec 7.1, step 1)."""
    part, behind = work.parts[0], work.parts[1:]
    count = len(discard.entries)
    assert part.entries[:count] == discard.entries, "a discard of something else"
    rest = part.entries[count:]
    if not rest:
        return _work(behind, now), Advance(discard.entries)
    left = replace(part, entries=rest, request_id=new_id(), response=None)
    return replace(work, parts=(left, *behind)), Advance(discard.entries)


def halve(work: Work, *, new_id: NewId, now: Monotonic) -> tuple[Work, list[Effect]]:
    """Splits the part at work, which has several entries, without using up a retry: its event is too big for one call."""
    return _halved(work.parts[0], work.parts[1:], new_id=new_id, now=now)


def _halved(
    part: Part, behind: tuple[Part, ...], *, new_id: NewId, now: Monotonic
) -> tuple[Work, list[Effect]]:
    size = len(part.entries)
    assert size > 1, "half a record"
    halves = (Part(part.entries[: size // 2], new_id()), Part(part.entries[size // 2 :], new_id()))
    return Work((*halves, *behind), now), [Split(size)]


def _failed(
    part: Part,
    behind: tuple[Part, ...],
    response: Response | None,
    policy: RetryPolicy,
    *,
    new_id: NewId,
    now: Monotonic,
    rng: Chance,
) -> tuple[Work, list[Effect]]:
    if policy.bisect and len(part.entries) > 1:
        return _halved(part, behind, new_id=new_id, now=now)
    failures = _counted(part, policy) + 1
    again = replace(part, failures=failures, deferrals=0, response=response, resumed=False)
    if policy.retries_max is not None and failures > policy.retries_max:
        return Work((again, *behind), now), []
    delay = wait_s(policy.backoff, part.failures, rng)
    return Work((again, *behind), Monotonic(now + delay)), [Retry(failures, delay, free=False)]


def _counted(part: Part, policy: RetryPolicy) -> int:
    """The failures so far; of an earlier run only as many as leave one try under the present settings."""
    if policy.retries_max is None or not part.resumed:
        return part.failures
    return min(part.failures, policy.retries_max)


def _expired(part: Part, age_max_s: float | None, epoch: Epoch) -> int:
    """How many records at the front are older than this."""
    if age_max_s is None:
        return 0
    oldest = epoch - age_max_s
    for count, entry in enumerate(part.entries):
        if entry.record.arrived >= oldest:
            return count
    return len(part.entries)


def _outlived(part: Part, age_max_s: float | None, epoch: Epoch) -> bool:
    """Whether a call that closes a window is too old. Its records are settled, so that it is tried once in any case."""
    since = _tried_since(part)
    return age_max_s is not None and since is not None and since < epoch - age_max_s


def _tried_since(part: Part) -> Epoch | None:
    return part.ends if part.failures else None


def _work(parts: tuple[Part, ...], now: Monotonic) -> Work | None:
    return Work(parts, now) if parts else None
