"""Owns which pauses are in force. A pause is an operation that is not over: it survives restarts, handovers and dead workers."""

from collections.abc import Iterable, Sequence

from poller.domain.operations import Action, Operation, OperationTarget, OperatorPause
from poller.domain.records import MappingId

LANES = "lanes"
"""The name of the note that says how many lanes there were."""


def in_force(operations: Iterable[Operation], mapping: MappingId) -> tuple[OperatorPause, ...]:
    """The pauses of a mapping, oldest first."""
    return by_mapping(each for each in operations if each.mapping == mapping).get(mapping, ())


def by_mapping(operations: Iterable[Operation]) -> dict[MappingId, tuple[OperatorPause, ...]]:
    """The pauses of each mapping that has some, oldest first."""
    found: dict[MappingId, list[OperatorPause]] = {}
    open_pauses = (each for each in operations if each.request.action is Action.PAUSE and not each.state.over)
    for each in sorted(open_pauses, key=lambda each: (each.created, each.operation)):
        pause = OperatorPause(
            operation=each.operation,
            target=each.request.target,
            by=each.by,
            since=each.created,
            reason=each.request.reason,
            lanes=lanes_of(each),
        )
        found.setdefault(each.mapping, []).append(pause)
    return {mapping: tuple(pauses) for mapping, pauses in found.items()}


def lanes_of(operation: Operation) -> int | None:
    """How many lanes the shard had when an operation on one of them was accepted; None if that is not known, or no lane is meant.

    With another number of lanes a lane has other keys.
    """
    noted = operation.notes.get(LANES)
    return noted if isinstance(noted, int) else None


def holding(pauses: Sequence[OperatorPause], target: OperationTarget) -> OperatorPause | None:
    """The oldest pause that holds a shard, a lane or a group; None if it may go on."""
    return next((each for each in pauses if each.target.covers(target)), None)


def still_to_end(resume: Operation, operations: Iterable[Operation]) -> tuple[Operation, ...]:
    """The pauses that a resume has not ended yet. They were fixed when it was accepted, so it never ends a later one.

    A resume may be carried out by any worker, and by several. It is done when nothing is left to end.
    """
    noted = resume.notes.get("pauses", ())
    wanted = set(noted) if isinstance(noted, list | tuple) else set()
    return tuple(
        each
        for each in operations
        if each.operation in wanted
        and each.mapping == resume.mapping
        and each.request.action is Action.PAUSE
        and not each.state.over
    )


def described(target: OperationTarget) -> str:
    """A target in words: `lane 2 of shard shardId-000000000003`."""
    if target.group is not None:
        return f"group {target.group}"
    if target.shard is None:
        return "the whole mapping"
    lane = "" if target.lane is None else f"lane {target.lane} of "
    return f"{lane}shard {target.shard}"
