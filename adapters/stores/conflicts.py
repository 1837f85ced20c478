"""Owns what a refused conditional write means: a repeated call that had succeeded before, or a conflict, and its error text.

A write whose answer was lost is sent again, and its condition no longer holds because of the first one. So the stored row is
compared with what the write wanted. An epoch never has more than one owner, so owner and epoch are enough for `take` and
`release`. `update` and `change` compare the whole row, and `replace` everything but the payload.
"""

from dataclasses import replace

from adapters.stores.stored_operations import content
from poller.domain.errors import LeaseLost, ResourceMissing, RowChanged
from poller.domain.functions.queued_calls import QueuedCall
from poller.domain.operations import Operation, OperationId
from poller.domain.records import Position, ShardId, WorkerId
from poller.domain.rows import Checkpoint, Lease, MappingRow


def following(row: MappingRow) -> MappingRow:
    """Returns the row that is stored by an update with `row`."""
    return replace(row, revision=row.revision + 1)


def updated_before(stored: MappingRow | None, row: MappingRow) -> None:
    """Returns if this `update` has already succeeded; raises ResourceMissing or RowChanged otherwise."""
    if stored is None:
        raise ResourceMissing(f"mapping {row.mapping} is not in the store")
    if stored != following(row):
        standing = f"mapping {row.mapping} is at revision {stored.revision}"
        raise RowChanged(f"{standing}; an update wanted revision {row.revision}")


def next_revision(operation: Operation) -> Operation:
    """Returns the operation that is stored by a change with `operation`."""
    return replace(operation, revision=operation.revision + 1)


def changed_before(stored: Operation | None, operation: Operation) -> Operation:
    """Returns the stored operation if this `change` has already succeeded; raises ResourceMissing or RowChanged otherwise."""
    if stored is None:
        raise missing(operation.operation)
    if stored.revision == operation.revision + 1 and content(stored) == content(operation):
        return stored
    standing = f"operation {operation.operation} is {stored.state} at revision {stored.revision}"
    raise RowChanged(f"{standing}; a change wanted revision {operation.revision}")


def missing(operation: OperationId) -> ResourceMissing:
    """Returns the error for an operation that is not stored."""
    return ResourceMissing(f"operation {operation} is not in the store")


def next_call(call: QueuedCall) -> QueuedCall:
    """Returns the call that is stored by a replacement with `call`."""
    return replace(call, revision=call.revision + 1)


def without_bytes(call: QueuedCall) -> QueuedCall:
    """Returns the call without its payload and the answer of its function."""
    ended = call.ended
    if ended is not None:
        ended = replace(ended, answer=replace(ended.answer, payload=b""))
    return replace(call, payload=b"", ended=ended)


def replaced_before(stored: QueuedCall | None, call: QueuedCall) -> QueuedCall:
    """Returns the call at its next revision if this `replace` has already succeeded; raises ResourceMissing or RowChanged otherwise."""
    if stored is None:
        raise missing_call(call)
    written = next_call(call)
    if replace(stored, payload=b"") != replace(written, payload=b""):
        raise changed_since(stored.revision, call)
    return written


def missing_call(call: QueuedCall) -> ResourceMissing:
    """Returns the error for a call that is not stored."""
    return ResourceMissing(f"call {call.call} of function {call.function} is not in the store")


def changed_since(revision: int, call: QueuedCall) -> RowChanged:
    """Returns the error for a write to a call that is stored at another `revision`."""
    return RowChanged(f"call {call.call} is at revision {revision}; a write wanted revision {call.revision}")


def taken_before(stored: Lease | None, lease: Lease, *, owner: WorkerId) -> Lease:
    """Returns the stored lease if this `take` has already succeeded; raises LeaseLost otherwise."""
    if stored is not None and stored.owner == owner and stored.epoch == lease.epoch + 1:
        return stored
    raise LeaseLost(f"{_standing(stored, lease.shard)}; {owner} wanted to take epoch {lease.epoch}")


def released_before(stored: Lease | None, lease: Lease) -> None:
    """Returns if this `release` has already succeeded; raises LeaseLost otherwise."""
    if stored is not None and lease.owner and stored.owner is None and stored.epoch == lease.epoch:
        return
    raise lost(stored, lease)


def moved_before(stored: Lease | None, lease: Lease, position: Position) -> Lease:
    """Returns the stored lease if this `move` has already succeeded; raises LeaseLost otherwise."""
    unlike = stored is None or (stored.owner, stored.epoch) != (None, lease.epoch + 1)
    if stored is not None and not unlike and stored.checkpoint.position == position:
        return stored
    raise LeaseLost(
        f"{_standing(stored, lease.shard)}; a move to {position.encode()} wanted epoch {lease.epoch}"
    )


def lost(stored: Lease | None, lease: Lease) -> LeaseLost:
    """Returns the error for a write with `lease` whose owner or epoch is not the stored one."""
    return LeaseLost(f"{_standing(stored, lease.shard)}; {lease.owner} holds epoch {lease.epoch}")


def unsaved(stored: Lease | None, lease: Lease, checkpoint: Checkpoint) -> LeaseLost:
    """Returns the error for a refused checkpoint: owner or epoch differ, or its position is before the stored one."""
    if stored is None or (stored.owner, stored.epoch) != (lease.owner, lease.epoch):
        return lost(stored, lease)
    there, wanted = stored.checkpoint.position.encode(), checkpoint.position.encode()
    return LeaseLost(
        f"shard {lease.shard} is at {there} already; {lease.owner} wanted to go back to {wanted}"
    )


def _standing(stored: Lease | None, shard: ShardId) -> str:
    if stored is None:
        return f"shard {shard} has no lease (any more)"
    return f"shard {shard} belongs to {stored.owner or 'nobody'} at epoch {stored.epoch}"
