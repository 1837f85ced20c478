"""Owns what operations need to know of the mappings of this worker, and of the workers that run them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from poller.domain.operations import OperatorPause
from poller.domain.plan import MappingPlan
from poller.domain.records import MappingId, WorkerId
from poller.runtime.operations.operable import Operable


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownMapping:
    """A mapping as this worker's configuration or the store has it. `runs`: it should run."""

    plan: MappingPlan
    runs: bool
    deleting: bool


class OperableMappings(Protocol):
    """The mappings of this worker."""

    def operables(self) -> Mapping[MappingId, Operable]:
        """Those that run here now."""
        ...

    def known(self, mapping: MappingId) -> KnownMapping | None:
        """A mapping that should run or is disabled; None if this worker knows none with this id."""
        ...


class PauseSource(Protocol):
    """What knows the pauses of mappings."""

    def introduce(self, mapping: MappingId, operable: Operable) -> None:
        """Gives a mapping its pauses before it begins anything."""
        ...

    def read_again(self, mapping: MappingId) -> None:
        """Gives a mapping the pauses of a read that begins after this call, also if they are the same as before."""
        ...

    def pauses(self, mapping: MappingId) -> Sequence[OperatorPause] | None:
        """The pauses of a mapping that are in force; None while they are not known."""
        ...


class Peers(Protocol):
    """The workers of the store."""

    async def listed(self) -> None:
        """Returns when the workers were listed once."""
        ...

    def workers_of(self, mapping: MappingId) -> frozenset[WorkerId]:
        """Live workers that run a mapping, as far as this worker knows."""
        ...
