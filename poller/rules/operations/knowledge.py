"""Owns what a worker knows of the operations that are not over, while the store's answers arrive in any order.

What is known of an operation only goes on: it is open, with growing revisions, and then it is over. Each call of the store has a
number; one with a higher number began later.

- What was learned of an operation during a read, such as by a write of this worker, is not lost when the read ends, which may be older.
- A read says that an operation is over if it was known when the read began, and is not in it.
- What is over does not come back by the answer to a call that began before that was known.
- An answer that there is no such operation says nothing: it may have been added meanwhile.
"""

from collections.abc import Iterable

from poller.domain.operations import Operation, OperationId
from poller.domain.records import Epoch

type _Same = tuple[OperationId, Epoch]
"""Which operation it is: an id may be used again once the history has lost the operation that had it, with another time."""


class OperationKnowledge:
    """The operations that are not over, as far as they are known.

    The runtime calls `ask` before each call of the store, `answered` when it has ended, and then what it has learned by it: `learn` or
    `read`. `over` may be called at any time.
    """

    def __init__(self) -> None:
        self.operations: dict[OperationId, Operation] | None = None
        """By their ids, oldest first; None before the first read."""
        self.asked = 0
        """The number of the newest call that has begun."""
        self.newest = 0
        """The number of the newest read that was taken over."""
        self._asking: set[int] = set()
        self._learned: dict[int, dict[OperationId, Operation]] = {}
        """The open operations that were learned of since a read began, by its number."""
        self._over: dict[_Same, int] = {}
        """Operations that are over, each with the number of the newest call that had begun when that was learned."""

    def ask(self, *, everything: bool = False) -> int:
        """A call begins, of all open operations or about one of them. Returns its number."""
        self.asked += 1
        self._asking.add(self.asked)
        if everything:
            self._learned[self.asked] = {}
        return self.asked

    def answered(self, number: int) -> None:
        """The call has ended, with an answer or without."""
        self._asking.remove(number)

    def learn(self, found: Operation, *, asked: int) -> None:
        """One operation was like this after the call with this number had begun."""
        if found.state.over:
            self.over(found)
        elif not self._is_over(found, asked):
            for learned in self._learned.values():
                _put(learned, found)
            if self.operations is not None:
                # Otherwise the first read brings it, together with all the others.
                _put(self.operations, found)

    def over(self, operation: Operation) -> None:
        """The operation is over, or the history has lost it since then."""
        self._over[_same(operation)] = self.asked
        for there in (*self._learned.values(), self.operations or {}):
            known = there.get(operation.operation)
            if known is not None and _same(known) == _same(operation):
                del there[operation.operation]

    def read(self, found: Iterable[Operation] | None, *, asked: int) -> None:
        """These were the open operations after the call with this number had begun; None: it has failed."""
        learned = self._learned.pop(asked)
        if found is None or asked < self.newest:
            # A read that began later was faster.
            return
        self.newest = asked
        before, self.operations = self.operations or {}, {}
        for each in found:
            if not self._is_over(each, asked):
                _put(self.operations, each)
        for each in learned.values():
            _put(self.operations, each)
        for each in before.values():
            if each.operation not in self.operations:
                self.over(each)
        for each in self.operations.values():
            # The store may have made the answer to another read before this one, whichever of them began first.
            for others in self._learned.values():
                _put(others, each)
        oldest = min(self._asking, default=self.asked + 1)
        self._over = {each: newest for each, newest in self._over.items() if newest >= oldest}

    def _is_over(self, operation: Operation, asked: int) -> bool:
        """Whether it was learned after this call had begun that the operation is over."""
        return asked <= self._over.get(_same(operation), 0)


def _same(operation: Operation) -> _Same:
    return operation.operation, operation.created


def _put(there: dict[OperationId, Operation], found: Operation) -> None:
    """Puts an operation, unless a later revision of it is there."""
    known = there.get(found.operation)
    if known is None or known.revision <= found.revision:
        there[found.operation] = found
