"""Owns what a mapping sees of the workers that share its work, and the worker that works alone."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Protocol

from poller.domain.records import MappingId, ShardId, WorkerId
from poller.rules.workers import assignment
from poller.rules.workers.assignment import Move, WorkerGroup

type Rates = Callable[[], Mapping[ShardId, float]]
"""Records a second of every shard that is worked on here."""


@dataclass(frozen=True, slots=True)
class Maximum:
    """What all workers of a mapping together may have in use, and how much of it is in use here."""

    value: int
    used: Callable[[], int]


class Membership(Protocol):
    """One mapping's place among the workers."""

    able: bool
    """Whether this worker can take leases of the mapping."""
    held: int
    """Leases of the mapping that are held here."""

    async def team(self, *, anew: bool = False) -> WorkerGroup:
        """The workers of the mapping, once the others know that it runs here.

        `anew`: wait for a listing of the workers that begins after this call. Raises PortError.
        """
        ...

    async def elsewhere(self, mapping: MappingId) -> frozenset[WorkerId]:
        """Live workers, this one included, that run another mapping. Waits for a listing that begins after this call.

        Raises PortError.
        """
        ...

    def wish(self, moves: Sequence[Move]) -> None:
        """Asks for these leases instead of those before."""
        ...

    def tell(self) -> None:
        """Makes the other workers look at the mapping's leases."""
        ...

    def holding(self) -> Callable[[], bool]:
        """Returns a function that says whether a lease that is asked for now still holds.

        It says no from the start while this worker's heartbeats are late.
        """
        ...

    def allowed(self) -> int:
        """How much of the mapping's maximum may be in use here. It changes as workers come and go, and can be 0."""
        ...


class Workers(Protocol):
    """The workers that share the work."""

    def seat(
        self, mapping: MappingId, *, wake: Callable[[], None], rates: Rates, maximum: Maximum | None = None
    ) -> AbstractContextManager[Membership]:
        """The mapping's place among the workers, for as long as it runs here. `wake` is called when it should look again."""
        ...


class Alone:
    """A worker without others, for a mapping that runs without a daemon. Leases of other owners are old and free."""

    def __init__(self, worker: WorkerId) -> None:
        self._worker = worker

    @contextmanager
    def seat(
        self, mapping: MappingId, *, wake: Callable[[], None], rates: Rates, maximum: Maximum | None = None
    ) -> Iterator[Membership]:
        """The mapping's place, with no other worker."""
        yield _LoneSeat(self._worker, maximum)


class _LoneSeat:
    def __init__(self, worker: WorkerId, maximum: Maximum | None) -> None:
        self.able = True
        self.held = 0
        self._maximum = maximum
        self._team = WorkerGroup(me=worker, peers={worker: assignment.Peer()}, certain=False)

    async def team(self, *, anew: bool = False) -> WorkerGroup:
        return self._team

    async def elsewhere(self, mapping: MappingId) -> frozenset[WorkerId]:
        return frozenset()

    def wish(self, moves: Sequence[Move]) -> None:
        return

    def tell(self) -> None:
        return

    def holding(self) -> Callable[[], bool]:
        return _always

    def allowed(self) -> int:
        assert self._maximum is not None, "only a seat with a maximum is asked"
        return self._maximum.value


def _always() -> bool:
    return True
