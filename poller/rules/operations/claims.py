"""Owns which worker carries out an operation that takes long: the one that has claimed it, for as long as it runs the mapping.

A worker that cannot begin hands it over: another one may have the access that it lacks.
"""

from collections.abc import Collection
from dataclasses import replace

from poller.domain.operations import Operation, OperationState
from poller.domain.records import WorkerId

_WORKER = "worker"


def claimed_by(operation: Operation) -> WorkerId | None:
    """The worker that carries the operation out; None if there is none yet."""
    name = operation.notes.get(_WORKER)
    return WorkerId(name) if isinstance(name, str) and name else None


def claimable(operation: Operation, worker: WorkerId, alive: Collection[WorkerId]) -> bool:
    """Whether this worker may carry it out: nobody does, or somebody who is not one of those that are `alive` and run the mapping."""
    owner = claimed_by(operation)
    return not operation.state.over and (owner in {None, worker} or owner not in alive)


def claim(operation: Operation, worker: WorkerId, alive: Collection[WorkerId]) -> Operation:
    """This worker carries the operation out from now on, if it may."""
    if claimed_by(operation) == worker or not claimable(operation, worker, alive):
        return operation
    notes = {**operation.notes, _WORKER: worker}
    return replace(operation, state=OperationState.RUNNING, notes=notes)


def hand_over(operation: Operation, worker: WorkerId, alive: Collection[WorkerId]) -> Operation:
    """The next worker by name carries the operation out from now on, if this one does and there is another."""
    names = sorted({*alive, worker})
    following = names[(names.index(worker) + 1) % len(names)]
    if operation.state.over or claimed_by(operation) != worker or following == worker:
        return operation
    return replace(operation, notes={**operation.notes, _WORKER: following})
