"""Owns what a mapping sees of the workers that share its work, and the worker that has no others."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Protocol

from poller.domain.records import MappingId, ShardId, WorkerId
from poller.rules.workers import assignment
from poller.rules.workers.assignment import Move, WorkerGroup

type Rates = Callable[[], Mapping[ShardId, float]]
"""Returns the records a second of every shard of the mapping that this worker reads."""


@dataclass(frozen=True, slots=True)
class Maximum:
    """What all workers of a mapping together may have in use (`value`), and how much of it this worker has in use (`used`)."""

    value: int
    used: Callable[[], int]


class Membership(Protocol):
    """This worker as a member of the group of workers that run one mapping."""

    able: bool
    """Whether this worker can take leases of the mapping."""
    held: int
    """How many leases of the mapping this worker has."""

    async def group(self, *, new_listing: bool = False) -> WorkerGroup:
        """The workers of the mapping. Waits until a heartbeat has reported that this worker runs it.

        With `new_listing` it also waits for a listing of the workers that begins after this call. Raises PortError.
        """
        ...

    async def workers_of(self, mapping: MappingId) -> frozenset[WorkerId]:
        """Live workers that run another mapping; this worker is among them if it does.

        Waits for a listing of the workers that begins after this call. Raises PortError.
        """
        ...

    def request(self, moves: Sequence[Move]) -> None:
        """Requests these moves from now on, instead of those of the call before."""
        ...

    def announce_change(self) -> None:
        """Moves the mapping's change counter, so that the other workers check its leases."""
        ...

    def holding(self) -> Callable[[], bool]:
        """Returns a function that says whether a lease that is taken now still holds.

        The function returns False from the start if this worker's last heartbeat is late.
        """
        ...

    def allowed(self) -> int:
        """How much of the mapping's maximum this worker may have in use. It changes as workers come and go, and can be 0."""
        ...


class Workers(Protocol):
    """The workers that share the work."""

    def join(
        self, mapping: MappingId, *, wake: Callable[[], None], rates: Rates, maximum: Maximum | None = None
    ) -> AbstractContextManager[Membership]:
        """Makes the mapping one that this worker runs, until the block ends.

        `wake` is called when the mapping should check its leases.
        """
        ...


class Alone:
    """A worker without others, for a mapping that runs without a daemon. Leases of other owners are out of date and free."""

    def __init__(self, worker: WorkerId) -> None:
        self._worker = worker

    @contextmanager
    def join(
        self, mapping: MappingId, *, wake: Callable[[], None], rates: Rates, maximum: Maximum | None = None
    ) -> Iterator[Membership]:
        """Makes the mapping one that this worker runs, until the block ends."""
        yield _LoneMembership(self._worker, maximum)


class _LoneMembership:
    def __init__(self, worker: WorkerId, maximum: Maximum | None) -> None:
        self.able = True
        self.held = 0
        self._maximum = maximum
        self._group = WorkerGroup(me=worker, peers={worker: assignment.Peer()}, certain=False)

    async def group(self, *, new_listing: bool = False) -> WorkerGroup:
        return self._group

    async def workers_of(self, mapping: MappingId) -> frozenset[WorkerId]:
        return frozenset()

    def request(self, moves: Sequence[Move]) -> None:
        return

    def announce_change(self) -> None:
        return

    def holding(self) -> Callable[[], bool]:
        return _always

    def allowed(self) -> int:
        assert self._maximum is not None, "only a mapping with a maximum is asked"
        return self._maximum.value


def _always() -> bool:
    return True
