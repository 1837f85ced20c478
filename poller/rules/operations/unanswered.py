"""Owns what a worker has written of operations without an answer, until it learns whether that is stored.

The store may have done what it was asked for although its answer was lost. Then there is nothing to repeat when the operation is read
again. It was this worker that accepted the operation or ended it, and nobody else says so.
"""

from collections.abc import Callable, Sequence

from poller.domain.operations import Operation, OperationId

TRIED_MAX = 20
"""Writes of one operation that are remembered, each with its own time. Later ones, while the store is away for long, are not."""


class UnansweredWrites:
    """Writes of one kind. `fact` is what of an operation shows whose write is stored."""

    def __init__(self, fact: Callable[[Operation], object]) -> None:
        self._fact = fact
        self._tried: dict[OperationId, list[Operation]] = {}

    @property
    def operations(self) -> Sequence[OperationId]:
        """The operations to look up."""
        return tuple(self._tried)

    def note(self, tried: Operation) -> None:
        """The operation was to be stored like this, and there was no answer."""
        writes = self._tried.setdefault(tried.operation, [])
        if len(writes) < TRIED_MAX:
            writes.append(tried)

    def forget(self, operation: OperationId) -> None:
        """There was an answer to a repeated write."""
        self._tried.pop(operation, None)

    def stored(self, operation: OperationId, found: Operation | None) -> bool:
        """Whether what is stored was written by this worker. That is said once. A change that is not stored may be on its way still."""
        tried = self._tried.get(operation, ())
        if found is not None and not found.state.over and any(each.state.over for each in tried):
            return False
        self._tried.pop(operation, None)
        return found is not None and any(self._fact(found) == self._fact(each) for each in tried)


def beginning(operation: Operation) -> object:
    """What shows who has accepted an operation."""
    return operation.created, operation.request, operation.by


def end(operation: Operation) -> object:
    """What shows who has ended an operation."""
    return operation.created, operation.state, operation.ended, operation.result
