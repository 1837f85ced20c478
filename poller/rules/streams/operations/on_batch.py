"""Owns what an operator's action changes in one lane's batch."""

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from copy import replace
from itertools import compress, takewhile

from poller.domain.invocations import Condition
from poller.domain.policies import Backoff
from poller.domain.records import Epoch, Monotonic
from poller.domain.streams.places import begin_of, is_name, name_of
from poller.rules.backoff import ceiling_s
from poller.rules.streams.attempts import Advance, BatchPart, BatchState, Discard, NewId, first_run
from poller.rules.streams.batching import Entry

type Chosen = Callable[[int | str], bool]
"""Whether an id is to be skipped: where a record begins, or the text for a call that closes a window."""

CLOSING_PREFIX = "window:"


def closing_id(ends: Epoch | None, counted: str) -> str:
    """The id of the call that closes the window which ends then, when `counted` is the last record in its state."""
    return f"{CLOSING_PREFIX}{int(ends or 0)}:{counted}"


def may_close(closing: str, *, ends: Epoch | None, counted: str) -> bool:
    """Whether the call that closes this window may be the one with this id.

    It is not if the window has counted later records: a window that ended early begins anew with the same end. After a crash it may
    still have to count some again.
    """
    end, _, last = closing.removeprefix(CLOSING_PREFIX).partition(":")
    return end == str(int(ends or 0)) and _number(counted) <= _number(last)


def id_of(entry: Entry) -> int:
    """The id of a record: where it begins (see `places`)."""
    return begin_of(entry.record.sequence_number)


def ids_of(part: BatchPart) -> tuple[int | str, ...]:
    """The ids of a part: of its records, or of the call that closes a window."""
    return (closing_id(part.ends, part.counted),) if part.final else tuple(map(id_of, part.entries))


def names_of(part: BatchPart) -> tuple[str, ...]:
    """The ids of a part as texts, as people write them."""
    if part.final:
        return (closing_id(part.ends, part.counted),)
    return tuple(name_of(entry.record.sequence_number) for entry in part.entries)


def retried(work: BatchState, *, now: Monotonic) -> BatchState:
    """The batch with its next try now. The back-off begins again; the failures stay."""
    first = work.parts[0]
    first = replace(first, deferrals=0, eased=first.failures)
    return BatchState((first, *work.parts[1:]), now)


def reset(work: BatchState, backoff: Backoff, *, now: Monotonic, epoch: Epoch) -> BatchState:
    """The batch without failures; its age counts from `epoch`. It waits no longer than after a first failure."""
    parts = tuple(replace(part, failures=0, deferrals=0, eased=0, since=epoch) for part in work.parts)
    return BatchState(parts, Monotonic(min(work.resume_at, now + ceiling_s(backoff, 0))))


def skipped(work: BatchState, chosen: Chosen, *, in_runs: bool) -> Discard | None:
    """The discard of the chosen records of the first part that has any; None if none is chosen.

    With `in_runs` it has only the first of them that follow each other, without a gap: a notice names the first and the last record.
    """
    for part in work.parts:
        if part.final:
            if chosen(closing_id(part.ends, part.counted)):
                return _discard(part, ())
            continue
        marks = [chosen(id_of(entry)) for entry in part.entries]
        if True in marks:
            begin = marks.index(True)
            marked = compress(part.entries[begin:], marks[begin:])
            run = takewhile(lambda entry: chosen(id_of(entry)), part.entries[begin:])
            found = _discard(part, tuple(run if in_runs else marked))
            return first_run(found) if in_runs else found
    return None


def without(
    work: BatchState, discard: Discard, *, new_id: NewId, now: Monotonic
) -> tuple[BatchState | None, Advance]:
    """The batch after these records of any of its parts were discarded. The rest goes on in order, at once, as before in parts."""
    parts = tuple(_rests(work.parts, discard, new_id))
    left = BatchState(parts, min(work.resume_at, now)) if parts else None
    return left, Advance(discard.entries)


def leads(work: BatchState, discard: Discard) -> bool:
    """Whether the discard has the record, or the closing call, by which the lane is blocked: the first one."""
    first = work.parts[0]
    return discard.part is first and discard.entries[:1] == first.entries[:1]


def _rests(parts: Sequence[BatchPart], discard: Discard, new_id: NewId) -> list[BatchPart]:
    """The parts without the discarded entries.

    A part that changes gets a new request id. Its failures stay counted, but it is tried at least once without what was skipped.
    """
    rests: list[BatchPart] = []
    for part in parts:
        if part is not discard.part:
            rests.append(part)
            continue
        if rest := tuple(_rest(part.entries, {entry.index for entry in discard.entries})):
            rests.append(replace(part, entries=rest, request_id=new_id(), resumed=True))
    return rests


def _rest(entries: Iterable[Entry], gone: Collection[int]) -> Iterator[Entry]:
    """The entries but those with these indices. What stands behind such a one is behind a gap."""
    gap = False
    for entry in entries:
        if entry.index in gone:
            gap = True
            continue
        yield replace(entry, behind_gap=True) if gap else entry
        gap = False


def _number(name: str) -> int:
    """Where a record of this name begins; 0 for none. What is none comes from a damaged row."""
    return begin_of(name) if is_name(name) else 0


def _discard(part: BatchPart, entries: tuple[Entry, ...]) -> Discard:
    return Discard(part, entries, Condition.SKIPPED, max(1, part.failures), part.request_id, part.response)
