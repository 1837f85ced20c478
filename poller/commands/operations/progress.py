"""Owns how commands show how far an operation is, and what a dry run found."""

from collections.abc import Mapping

from poller.domain.operations import Action, OperationView
from poller.domain.untrusted.numbers import date_of
from poller.domain.untrusted.texts import line_of
from poller.domain.wording.numbers_of import number_of

TEXT_CHARS_MAX = 500
WAITING_SHOWN_MAX = 2


def missing(operation: OperationView) -> list[str]:
    """The parts without a final result."""
    return [
        part
        for part in operation.wanted
        if part not in operation.parts or not operation.parts[part].state.over
    ]


def progress(operation: OperationView) -> str:
    """How far an operation is, in one line."""
    counts = operation.progress
    wanted = len(operation.wanted)
    done = f", {number_of(wanted - len(missing(operation)), 'part', of=wanted)}" if wanted > 1 else ""
    if "moved" in counts:
        done = f", {number_of(counts['moved'], 'shard', of=counts.get('shards', 0))} moved"
    elif "settled" in counts:
        done = f", {counts['settled']} settled"
        done += "".join(f", {counts[name]} {name}" for name in ("failed", "refused") if counts.get(name))
    elif counts:
        counted = [f"{value} {name}" for name, value in counts.items() if value and name != "at"]
        at = counts.get("at")
        place = f", at {date_of(at).isoformat()}" if at is not None else ""
        done += f": {', '.join(counted)}{place}" if counted else ""
    waiting = waits(operation)
    if waiting:
        more = len(waiting) - WAITING_SHOWN_MAX
        done += f"; {'; '.join(waiting[:WAITING_SHOWN_MAX])}" + (f"; and {more} more" if more > 0 else "")
    return line_of(f"{operation.id} {operation.state}{done}", chars_max=TEXT_CHARS_MAX)


def waits(operation: OperationView) -> list[str]:
    """What an operation that is not over waits for, one line each, as workers have noted it."""
    if operation.state.over:
        return []
    workers = operation.notes.get("workers")
    shares = workers.items() if isinstance(workers, Mapping) else ()
    troubles = [(name, share.get("trouble")) for name, share in shares if isinstance(share, Mapping)]
    found = [line_of(f"{name}: {trouble}", chars_max=TEXT_CHARS_MAX) for name, trouble in troubles if trouble]
    return [*_lines(operation, "waiting"), *found]


def plan(operation: OperationView) -> list[str]:
    """What the dry run of an operation found, one line each; empty for one that is no dry run, or has nothing to list."""
    if not operation.members.get("dry_run") or not operation.state.over:
        return []
    lines = [f"- {each}" for each in _lines(operation, "plan")]
    whole = operation.action is Action.REDRIVE or not lines
    return [*lines, *([line_of(operation.result, chars_max=TEXT_CHARS_MAX)] if whole else [])]


def _lines(operation: OperationView, name: str) -> list[str]:
    """Lines for people in the notes of an operation."""
    found = operation.notes.get(name)
    if not isinstance(found, list):
        return []
    return [line_of(str(each), chars_max=TEXT_CHARS_MAX) for each in found]
