"""Owns what a mapping sees of the workers that share the work, and the worker that has nobody beside it."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Protocol

from poller.records import MappingId, ShardId, WorkerId
from poller.rules import leasing
from poller.rules.leasing import Move, Team

type Rates = Callable[[], Mapping[ShardId, float]]
"""Records a second of every shard that is at work here."""


@dataclass(frozen=True, slots=True)
class Maximum:
    """What all workers of a mapping together may have in use, and how much of it is in use here."""

    value: int
    used: Callable[[], int]


class Seat(Protocol):
    """One mapping's place among the workers."""

    able: bool
    """Whether this worker can take leases of the mapping."""
    held: int
    """Leases of the mapping that are held here."""

    async def team(self, *, anew: bool = False) -> Team:
        """The team, once the others know of this seat; `anew`: as a listing shows it that begins now. Raises PortErrors."""
        ...

    def wish(self, moves: Sequence[Move]) -> None:
        """Asks for these leases instead of those before."""
        ...

    def tell(self) -> None:
        """Lets the others look at the mapping's leases."""
        ...

    def holding(self) -> Callable[[], bool]:
        """Whether leases that are taken from now on are still held."""
        ...

    def allowed(self) -> int:
        """How much of the seat's maximum may be in use here; changes as workers come and go, 0 is possible."""
        ...


class Workers(Protocol):
    """Who shares the work."""

    def seat(
        self, mapping: MappingId, *, wake: Callable[[], None], rates: Rates, maximum: Maximum | None = None
    ) -> AbstractContextManager[Seat]:
        """The mapping's seat, for as long as it runs here; `wake` is called when there is something to look at."""
        ...


class Alone:
    """The only worker there is, as for a mapping that runs without a daemon: leases of others are old ones."""

    def __init__(self, worker: WorkerId) -> None:
        self._worker = worker

    @contextmanager
    def seat(
        self, mapping: MappingId, *, wake: Callable[[], None], rates: Rates, maximum: Maximum | None = None
    ) -> Iterator[Seat]:
        """A seat with nobody beside it."""
        yield _LoneSeat(self._worker, maximum)


class _LoneSeat:
    def __init__(self, worker: WorkerId, maximum: Maximum | None) -> None:
        self.able = True
        self.held = 0
        self._maximum = maximum
        self._team = Team(me=worker, peers={worker: leasing.Peer()}, certain=False)

    async def team(self, *, anew: bool = False) -> Team:
        return self._team

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
