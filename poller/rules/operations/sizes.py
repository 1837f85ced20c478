"""Owns how large operations may be, one by one and all of those that are not over together.

Every worker reads all operations that are not over all the time, and a row has a limit in some stores: 400 KB in DynamoDB. So a request
is refused when its operation would be too large, or too large beside those that are not over. What workers note later can be long too,
such as the records of a batch: an operation that would become too large by that fails, and says so. It never waits for a
write that the store cannot make.
"""

import json
import zlib

from poller.domain.operations import Action, Operation
from poller.domain.records import Epoch
from poller.rules.operations import lifecycle
from poller.rules.operations.members import BATCH

OPERATION_BYTES_MAX = 390_000
"""What a store keeps of one operation. It leaves room for the result of one that fails because it is too large."""
OPEN_BYTES_MAX = 8_000_000
"""What a store keeps of all operations that are not over."""
PLAIN_BYTES_MAX = 64 * 1024
"""What is longer counts as it is when it is compressed. Stores whose rows have a limit compress it."""
BATCH_BYTES = 300_000
"""What the ids of the 10,000 records of the largest batch take, compressed."""
_LEVEL = 1


def kept_bytes(operation: Operation) -> int:
    """About how many bytes a store keeps of an operation."""
    request, target = operation.request, operation.request.target
    found = [
        operation.operation, operation.mapping, request.action, target.shard, target.lane, target.group, request.members,
        request.reason, operation.by, operation.created, operation.ended, operation.state, operation.wanted,
        {name: [part.state, part.result] for name, part in operation.parts.items()},
        operation.progress, operation.notes, operation.result,
    ]  # fmt: skip
    text = json.dumps(found, default=str, separators=(",", ":")).encode()
    return len(text) if len(text) <= PLAIN_BYTES_MAX else len(zlib.compress(text, _LEVEL))


def charged_bytes(operation: Operation) -> int:
    """How many bytes are reserved for an operation: what is kept of it, and what its workers may add."""
    return kept_bytes(_with_all_settled(operation)) + _results_bytes(operation)


def within_limit(operation: Operation, changed: Operation, *, now: Epoch) -> Operation:
    """The change, or an operation that has failed because the change would make it too large. What is over never fails."""
    if changed == operation or changed.state.over or kept_bytes(changed) <= OPERATION_BYTES_MAX:
        return changed
    text = f"what is noted of it would be longer than {OPERATION_BYTES_MAX} bytes, the limit of one operation; {remedy(operation)}"
    return lifecycle.finish(operation, failed=True, text=text, now=now)


def remedy(operation: Operation) -> str:
    """How to ask for less."""
    if operation.request.action is Action.SKIP:
        return "name fewer records at once"
    return "write one shard after the other"


def _with_all_settled(operation: Operation) -> Operation:
    """The operation when all records of a skip on a queue are settled one after the other, each noted twice."""
    records = operation.notes.get("records")
    if operation.request.action is not Action.SKIP or not isinstance(records, list) or operation.state.over:
        return operation
    for_queue = isinstance(operation.request.members.get("records"), list)
    return lifecycle.settle(operation, records) if for_queue else operation


def _results_bytes(operation: Operation) -> int:
    """What the results of parts may take that have none yet, and the records of a batch that is not known yet."""
    results = min(len(lifecycle.missing(operation)) * lifecycle.PART_BYTES_MAX, lifecycle.PARTS_BYTES)
    unknown = operation.request.members.get("records") == BATCH and "records" not in operation.notes
    return results + (BATCH_BYTES if unknown else 0)
