"""Owns how an operation goes on: from accepted to its end, which is final.

Several workers carry out parts of one operation at the same time. Each writes the result of its part, on condition that nobody
changed the operation since it was read. If somebody did, it reads the operation and asks the same rule again. So every rule
here takes an operation as it is stored, and returns it as it should be stored. It returns the same operation if there is nothing
to write: the operation is over, or the part has its result already.

The results of parts may come in any order. The end is the same.

A pause has parts too, but it is not over when they have results. It lasts until `end_pause`.
"""

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import replace
from typing import Any

from poller.domain.operations import (
    Action,
    EndedOperation,
    Operation,
    OperationId,
    OperationState,
    PartResult,
)
from poller.domain.records import Epoch
from poller.domain.untrusted.texts import line_of
from poller.domain.wording.numbers_of import number_of
from poller.rules.operations.members import BATCH_COUNT, BATCH_FIRST, ID_CHARS_MAX

BEGIN_S_MAX = 600.0
"""A part that no worker has begun for so long fails, counted while some worker runs."""
PART_S_MAX = 86_400.0
"""A part that a worker has begun fails so long after the operation was accepted. A call of the function may take long before it."""
CLOCKS_APART_S_MAX = 86_400.0
"""How far the clocks of two workers may be apart. By less than that, no operation fails for its age on the clock of another worker."""
HISTORY_MAX = 1_000
HISTORY_S_MAX = 30 * 86_400.0
HISTORY_BYTES_MAX = 16_000_000
"""How many operations that are over are kept, for how long, and how much a store keeps of all of them together."""
PARTS_MAX = 1_000
"""Shards or workers of one operation. Its row in the store has a result for each. A pause of more holds without results."""
RESULT_CHARS_MAX = 500
PART_BYTES_MAX, PART_BYTES_MIN, PARTS_BYTES = 500, 40, 50_000
"""How long the results of parts may be: together about 50 kB, since the row of an operation has a limit in some stores."""
RESOLVED_MAX = 10_000
"""Records that `first` or `batch` may stand for: AWS's limit for BatchSize."""
LINES_MAX, LINE_CHARS_MAX = 50, 200
"""Lines about records that were settled, and how long each may be."""
NOT_FINISHED = "it was begun and not finished"
"""What is said of a part that has no result when its operation is over."""
RESULTS_SHOWN_MAX = 5
"""Parts whose results are repeated in the result of the operation."""
LONG = frozenset({Action.SEEK, Action.REPLAY, Action.REDRIVE})
"""Actions that may take any time."""


def due(operation: Operation, units: Iterable[str]) -> tuple[str, ...]:
    """The parts that somebody who holds `units` has to carry out now, in their order."""
    if operation.state.over:
        return ()
    held = set(units)
    return tuple(part for part in missing(operation) if part in held)


def missing(operation: Operation) -> tuple[str, ...]:
    """The parts without a final result, in their order."""
    return tuple(part for part in operation.wanted if not _has_result(operation, part))


def begin(operation: Operation, part: str = "", text: str = "") -> Operation:
    """A worker begins the operation, or one part of it. `text` says what it waits for, for people."""
    if operation.state.over or (part and (part not in operation.wanted or _has_result(operation, part))):
        return operation
    parts = operation.parts
    if part:
        begun = PartResult(state=OperationState.RUNNING, result=_part_text(text, operation))
        parts = {**parts, part: begun}
    return _next(operation, state=OperationState.RUNNING, parts=parts)


def resolve(operation: Operation, records: Sequence[str], *, part: str, now: Epoch) -> Operation:
    """Keeps which records a skip means, before they are skipped. The first worker that says so is right, also after a crash.

    If there are too many, or if they are not the batch that somebody agreed to, the part fails.
    """
    if operation.state.over or "records" in operation.notes:
        return operation
    named = list(dict.fromkeys(records))
    if len(named) > RESOLVED_MAX or any(len(each) > ID_CHARS_MAX for each in named):
        text = f"{number_of(len(named), 'record')} cannot be named in one operation; write the ids of fewer"
        return finish_part(operation, part, PartResult(state=OperationState.FAILED, result=text), now=now)
    if other := _another_batch(operation, named):
        return finish_part(operation, part, PartResult(state=OperationState.FAILED, result=other), now=now)
    notes = {**operation.notes, "records": named}
    return _next(operation, state=OperationState.RUNNING, notes=notes)


def settle(operation: Operation, records: Sequence[str], text: str = "") -> Operation:
    """Keeps which records of a skip are settled, when several workers of a queue settle them. `text` is a line about them.

    Records that the skip does not mean are left out.
    """
    noted, lines = settled(operation), operation.notes.get("results", [])
    left = set(operation.notes.get("records", [])) - set(noted)
    fresh = [each for each in dict.fromkeys(records) if each in left]
    if operation.state.over or not fresh:
        return operation
    line = line_of(text, chars_max=LINE_CHARS_MAX)
    if line and line not in lines:
        lines = [*lines, line][:LINES_MAX]
    notes = {**operation.notes, "settled": [*noted, *fresh], "results": lines}
    return _next(operation, state=OperationState.RUNNING, notes=notes)


def settled(operation: Operation) -> list[str]:
    """The records of a skip that workers of a queue have settled so far."""
    return list(operation.notes.get("settled", []))


def finish_part(operation: Operation, part: str, result: PartResult, *, now: Epoch) -> Operation:
    """A worker has carried out a part, or could not. The first result of a part is kept. The last part ends the operation."""
    return _with_results(operation, [part] if part in operation.wanted else [], lambda _: result, now)


def finish(operation: Operation, *, failed: bool = False, text: str = "", now: Epoch) -> Operation:
    """Ends an operation as a whole, such as a resume whose pauses are over, or a replay."""
    return _end(operation, OperationState.FAILED if failed else OperationState.DONE, text, now)


def count(operation: Operation, progress: dict[str, int]) -> Operation:
    """Replaces the counts of an operation that takes long."""
    if operation.state.over or progress == operation.progress:
        return operation
    return _next(operation, state=OperationState.RUNNING, progress=dict(progress))


def cancel(operation: Operation, *, by: str, now: Epoch) -> Operation:
    """Nothing more of the operation begins. What was done stays done. To cancel a pause is to end it."""
    if operation.request.action is Action.PAUSE:
        return end_pause(operation, by=by, now=now)
    done = len(operation.wanted) - len(missing(operation))
    parts = f" after {number_of(done, 'part', of=len(operation.wanted))}" if operation.wanted else ""
    return _end(operation, OperationState.CANCELLED, f"cancelled{_by(by)}{parts}", now)


def end_pause(operation: Operation, *, by: str, now: Epoch) -> Operation:
    """Ends a pause."""
    return _end(operation, OperationState.DONE, f"resumed{_by(by)}", now)


def mapping_deleted(operation: Operation, *, now: Epoch) -> Operation:
    """Ends an operation whose mapping is gone: a pause is over, and everything else has failed."""
    text = "the mapping was deleted"
    return finish(operation, failed=operation.request.action is not Action.PAUSE, text=text, now=now)


def mapping_disabled(operation: Operation, *, now: Epoch) -> Operation:
    """Ends what cannot be carried out while the mapping is disabled. Pauses last, and so does what takes long."""
    if operation.request.action in LONG | {Action.PAUSE, Action.RESUME}:
        return operation
    return finish(operation, failed=True, text="the mapping is disabled; enable it, then ask again", now=now)


def close_ended_shards(operation: Operation, ended: Collection[str], *, now: Epoch) -> Operation:
    """Gives the parts of shards that have ended a result: all of their records are settled.

    A pause of such a shard ends. Its children are not paused by it.
    """
    text = "the shard has ended: all of its records are settled"
    if operation.request.action is Action.PAUSE and operation.request.target.shard in ended:
        return _end(operation, OperationState.DONE, text, now)
    done = PartResult(state=OperationState.DONE, result=text)
    return _with_results(
        operation, [each for each in missing(operation) if each in ended], lambda _: done, now
    )


def close_gone_workers(
    operation: Operation, gone: Collection[str], present: Collection[str] = (), *, now: Epoch
) -> Operation:
    """Gives the parts of a queue's workers that are gone a result. Their messages come back to the queue, to the other workers.

    If those were the last parts of a skip, the workers that are `present` by now take it over. It has failed if there are none, or
    if it is not known which messages it means.
    """
    closed = [part for part in missing(operation) if part in gone]
    others = len(missing(operation)) - len(closed)
    lost = operation.request.action is Action.SKIP and not others and not _all_settled(operation)
    fresh = [each for each in sorted(present) if each not in operation.wanted]
    if closed and lost and fresh and "records" in operation.notes:
        return _taken_over(operation, closed, fresh[:PARTS_MAX])
    more = "; ask again when they have come back" if lost else ""
    text = f"the worker is gone, so its messages come back to the queue{more}"
    result = PartResult(state=OperationState.FAILED if lost else OperationState.DONE, result=text)
    return _with_results(operation, closed, lambda _: result, now)


def expire(operation: Operation, *, open_s: float, now: Epoch) -> Operation:
    """Fails the parts that took too long. A pause, and what takes long, has all the time.

    `open_s` is how long this worker has known the operation, by its monotonic clock. `created` is of the clock of the worker that was
    asked, so that it counts only where no difference of clocks explains it.
    """
    if operation.request.action in LONG | {Action.PAUSE, Action.RESUME}:
        return operation
    age_s = max(open_s, now - operation.created - CLOCKS_APART_S_MAX)
    late = [part for part in missing(operation) if age_s >= _limit_s(operation, part)]

    def failed(part: str) -> PartResult:
        begun = part in operation.parts
        text = (
            "it was begun and not finished within a day"
            if begun
            else "no worker carried it out within 10 minutes"
        )
        return PartResult(state=OperationState.FAILED, result=f"{text}; is the mapping running?")

    return _with_results(operation, late, failed, now)


def prunable(ended: Iterable[EndedOperation], *, now: Epoch) -> tuple[OperationId, ...]:
    """The operations that the history loses, oldest first: what has been over for 30 days, and what is too much of the rest."""
    kept_bytes, kept, lost = 0, 0, []
    for each in sorted(ended, key=lambda each: (each.ended, each.operation), reverse=True):
        kept_bytes += each.stored_bytes
        if kept >= HISTORY_MAX or kept_bytes > HISTORY_BYTES_MAX or now - each.ended >= HISTORY_S_MAX:
            lost.append(each.operation)
        else:
            kept += 1
    return tuple(reversed(lost))


def _taken_over(operation: Operation, closed: Sequence[str], fresh: Sequence[str]) -> Operation:
    """The operation with the parts of `fresh` in the place of those that are `closed`."""
    wanted = (*(part for part in operation.wanted if part not in closed), *fresh)
    begun = PartResult(state=OperationState.RUNNING, result="it takes over from a worker that is gone")
    kept = {part: found for part, found in operation.parts.items() if part not in closed}
    return _next(operation, wanted=wanted, parts=kept | dict.fromkeys(fresh, begun))


def _another_batch(operation: Operation, named: Sequence[str]) -> str:
    """What is at fault in place of the batch that is meant; empty if it is that one, or if no certain one is meant."""
    members = operation.request.members
    if BATCH_FIRST not in members or (named[:1], len(named)) == (
        [members[BATCH_FIRST]],
        members[BATCH_COUNT],
    ):
        return ""
    there = f"{number_of(len(named), 'record')} from {named[0]} on" if named else "one without records"
    return f"another batch is at fault by now: {there}; look at it, then ask again"


def _all_settled(operation: Operation) -> bool:
    return "records" in operation.notes and set(operation.notes["records"]) <= set(settled(operation))


def _has_result(operation: Operation, part: str) -> bool:
    found = operation.parts.get(part)
    return found is not None and found.state.over


def _limit_s(operation: Operation, part: str) -> float:
    return PART_S_MAX if part in operation.parts else BEGIN_S_MAX


def _by(name: str) -> str:
    return f" by {name}" if name else ""


def _with_results(
    operation: Operation, parts: Sequence[str], result: Callable[[str], PartResult], now: Epoch
) -> Operation:
    """Gives parts their final results, and ends the operation if no part is left."""
    fresh = [part for part in parts if not _has_result(operation, part)]
    if operation.state.over or not fresh:
        return operation
    found = dict(operation.parts)
    for part in fresh:
        final = result(part)
        state = final.state if final.state.over else OperationState.DONE
        found[part] = PartResult(state=state, result=_part_text(final.result, operation))
    changed = _next(operation, state=OperationState.RUNNING, parts=found)
    if missing(changed) or operation.request.action is Action.PAUSE:
        return changed
    failed = any(found[part].state is not OperationState.DONE for part in operation.wanted)
    return _end(changed, OperationState.FAILED if failed else OperationState.DONE, _summary(changed), now)


def _end(operation: Operation, state: OperationState, text: str, now: Epoch) -> Operation:
    if operation.state.over:
        return operation
    said = line_of(text, chars_max=RESULT_CHARS_MAX)
    # Nothing runs, or waits for anything, in an operation that is over.
    left = PartResult(
        state=OperationState.FAILED if state is OperationState.FAILED else OperationState.CANCELLED,
        result=NOT_FINISHED,
    )
    parts = {part: found if found.state.over else left for part, found in operation.parts.items()}
    return _next(operation, state=state, ended=max(now, operation.created), result=said, parts=parts)


def _summary(operation: Operation) -> str:
    """The results of parts in one line, failures first. The order of the parts is that in which they were wanted."""
    failed = [part for part in operation.wanted if operation.parts[part].state is not OperationState.DONE]
    others = [part for part in operation.wanted if part not in set(failed)]
    if len(operation.wanted) == 1:
        return operation.parts[operation.wanted[0]].result
    shown = [
        f"{part}: {operation.parts[part].result}"
        for part in (*failed, *others)
        if operation.parts[part].result
    ]
    more = len(shown) - RESULTS_SHOWN_MAX
    failures = f"{number_of(len(failed), 'part', of=len(operation.wanted))} failed; " if failed else ""
    return failures + "; ".join(shown[:RESULTS_SHOWN_MAX]) + (f"; and {more} more" if more > 0 else "")


def _part_text(text: str, operation: Operation) -> str:
    """A part's result as it is kept: the more parts there are, the shorter it is."""
    share = PARTS_BYTES // max(1, len(operation.wanted))
    size = max(PART_BYTES_MIN, min(PART_BYTES_MAX, share))
    return line_of(text, chars_max=size).encode()[:size].decode(errors="ignore")


def _next(operation: Operation, **changes: Any) -> Operation:
    """The operation with changes, or the same one if they change nothing."""
    changed = replace(operation, **changes)
    return operation if changed == operation else changed
