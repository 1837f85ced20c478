"""Owns how far a replay is: what its workers have counted, when everything is read, and what is said in the end.

Each worker keeps its own counts in the operation and replaces only these. So a write that is repeated counts nothing twice. After
a crash the counts may lack the last seconds, and records that are processed again count again.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from poller.domain.operations import Operation, OperationState
from poller.domain.records import SHARD_END, Epoch, Position, Shard, WorkerId
from poller.domain.rows import Lease
from poller.domain.untrusted.texts import line_of
from poller.domain.wording.numbers_of import number_of
from poller.rules.replays.asking import range_of, shown
from poller.rules.streams.lineage import trace

UNDATED = "undated"
COUNTS = ("records", "filtered", "failed", "skipped", "losses", UNDATED)
"""Records that the function has accepted, that no filter matched, of tries that failed, and that were given up; times that the
source no longer had records of the range; and records that were read without a time of arrival."""
COUNT_S = 5.0
"""At most one write of the counts of a worker in this time. All have written theirs a little later than this after the last record."""
SPARE_S = 1.0
TURN_S = 10.0
"""So much later than the worker before it by name, another one ends a replay that is still not over."""
WORKERS_MAX = 50
"""Workers whose counts are kept apart. Those that are gone are added up when there are more."""
TROUBLE_CHARS_MAX = 200
_NOTED, _GONE = "workers", "gone"


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayCounts:
    """What one worker has counted. `at` is when the last record arrived that it read from the shard that is furthest behind."""

    counts: Mapping[str, int]
    at: Epoch | None = None
    trouble: str = ""


def counted(
    operation: Operation,
    worker: WorkerId,
    found: ReplayCounts,
    *,
    shards: int,
    ended: int,
    alive: Collection[WorkerId],
) -> Operation:
    """The operation with the counts of a worker. `alive` are the workers that carry it out, `shards` those that it has begun."""
    if operation.state.over:
        return operation
    mine: dict[str, Any] = {name: found.counts.get(name, 0) for name in COUNTS}
    if found.at is not None:
        mine["at"] = int(found.at)
    if found.trouble:
        mine["trouble"] = line_of(found.trouble, chars_max=TROUBLE_CHARS_MAX)
    others = _workers(operation)
    for name in others.keys() - set(alive):
        # What troubled a worker that is gone holds nothing back any more.
        others[name].pop("trouble", None)
    noted = _folded({**others, worker: mine}, {*alive, worker})
    progress = {"shards": shards, "ended": ended, **_totals(noted)}
    places = [each["at"] for name, each in noted.items() if "at" in each and name in {*alive, worker}]
    if places:
        progress["at"] = min(places)
    notes = {**operation.notes, _NOTED: noted}
    changed = replace(operation, state=OperationState.RUNNING, notes=notes, progress=progress)
    return operation if changed == operation else changed


def counts_of(operation: Operation, worker: WorkerId) -> dict[str, int]:
    """What a worker of this name has counted before."""
    mine = _workers(operation).get(worker, {})
    return {name: mine[name] for name in COUNTS if isinstance(mine.get(name), int)}


def all_read(shards: Sequence[Shard], leases: Collection[Lease]) -> bool:
    """Whether every shard was read to the end of the range: each has a lease, and all leases have ended."""
    if not leases or any(each.checkpoint.position != SHARD_END for each in leases):
        return False
    return not trace(shards, leases, start=Position.horizon(), seeded=True).seeds


def turn_s(worker: WorkerId, alive: Collection[WorkerId]) -> float:
    """How long after all leases have ended this worker looks whether that is everything, and ends the replay.

    One worker is enough, and the others have their turns for the case that it cannot. Nobody waits for counts of others if it is alone.
    """
    names = sorted({*alive, worker})
    return 0.0 if len(names) == 1 else COUNT_S + SPARE_S + names.index(worker) * TURN_S


def outcome(operation: Operation, *, kept_s: float | None) -> tuple[bool, str]:
    """Whether a replay that has read everything failed, and what is said of it. `kept_s` is how long the source keeps records."""
    found = range_of(operation.request.members, created=operation.created)
    totals = _totals(_workers(operation))
    seen = totals["records"] + totals["filtered"] + totals["skipped"]
    gone = kept_s is not None and found.until < operation.created - kept_s
    if not seen and (totals["losses"] or gone):
        kept = "" if kept_s is None else f", which keeps records for {kept_s / 3600:g} h"
        return True, f"nothing of the range {found} is left in the stream{kept}"
    parts = [f"{number_of(totals['records'], 'record')} replayed, from {found}"]
    parts += [f"{totals[name]} {name}" for name in ("filtered", "skipped") if totals[name]]
    if kept_s is not None and found.since is not None and found.since < operation.created - kept_s:
        parts.append(
            f"records before {shown(Epoch(operation.created - kept_s))} were not in the stream any more"
        )
    if totals["losses"]:
        times = "once" if totals["losses"] == 1 else number_of(totals["losses"], "time")
        parts.append(f"records were removed from the stream before they were read, {times}")
    if count := totals[UNDATED]:
        parts.append(
            f"{count} without a time of arrival were read, which may be from after {shown(found.until)}"
        )
    return False, "; ".join(parts)


def _workers(operation: Operation) -> dict[str, dict[str, Any]]:
    noted = operation.notes.get(_NOTED)
    return {name: dict(each) for name, each in noted.items()} if isinstance(noted, Mapping) else {}


def _totals(noted: Mapping[str, Mapping[str, Any]]) -> dict[str, int]:
    return {name: sum(each.get(name, 0) for each in noted.values()) for name in COUNTS}


def _folded(noted: dict[str, dict[str, Any]], alive: Collection[str]) -> dict[str, dict[str, Any]]:
    """Adds up the counts of workers that are gone if there are too many."""
    if len(noted) <= WORKERS_MAX:
        return noted
    gone = {name: each for name, each in noted.items() if name not in alive}
    kept = {name: each for name, each in noted.items() if name in alive}
    return {**kept, _GONE: _totals(gone)} if gone else kept
