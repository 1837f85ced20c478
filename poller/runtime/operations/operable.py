"""Owns what a running mapping offers to operations."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from poller.domain.operations import Operation, OperatorPause, PartResult


@dataclass(frozen=True, slots=True)
class ResolvedRecords:
    """The records that a skip means, by their ids. They are stored before the skip is carried out, so that it skips no others after a crash."""

    records: tuple[str, ...]


class Operable(Protocol):
    """A running mapping, as operations see it."""

    def units(self) -> Sequence[str]:
        """The parts that this worker holds now: the shards of a stream, or the worker itself for a queue."""
        ...

    def apply_pauses(self, pauses: Sequence[OperatorPause] | None) -> None:
        """Takes all pauses of the mapping that are in force. None: they are not known yet, so nothing may be called."""
        ...

    async def carry_out(self, unit: str, operation: Operation) -> PartResult | ResolvedRecords:
        """Carries out a retry, reset or skip on one unit. Returns when the effect has happened.

        A skip whose notes have no `records` returns ResolvedRecords. Raises LeaseLost if this worker does not hold the unit
        any more, or stops: then nothing has happened that the next holder must not do again.
        """
        ...
