"""Owns what a running mapping offers to operations."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from poller.domain.operations import Operation, OperationId, OperatorPause, PartResult


@dataclass(frozen=True, slots=True)
class ResolvedRecords:
    """The records that a skip means, by their ids. They are stored before the skip is carried out, so that it skips no others after a crash."""

    records: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class SettledRecords:
    """Records of a skip that this part has settled. Several workers of a queue may each settle some, so they are stored.

    They are added to the list in `notes["settled"]`, and then the skip is carried out again. `result` is one line for people, which is
    added to the list in `notes["results"]`.
    """

    records: tuple[str, ...]
    result: str


type WaitsFor = Callable[[str, Operation], str]
"""Returns what an operation waits for now on a unit, for people; empty if that is not known."""


@runtime_checkable
class SaysWhatItWaitsFor(Protocol):
    """A running mapping that knows what its operations wait for. It is asked while `carry_out` takes long, and when nothing can be done now."""

    waits_for: WaitsFor


@runtime_checkable
class RemembersOperations(Protocol):
    """A running mapping that goes on with an operation between two calls of `carry_out`."""

    def withdraw(self, operation: OperationId) -> None:
        """The operation is not carried out here any more, as when it was cancelled: nothing more of it begins."""
        ...


@runtime_checkable
class Operable(Protocol):
    """A running mapping, as operations see it."""

    def units(self) -> Sequence[str]:
        """The parts that this worker holds now: the shards of a stream, or the worker itself for a queue."""
        ...

    def apply_pauses(self, pauses: Sequence[OperatorPause] | None) -> None:
        """Takes all pauses of the mapping that are in force. None: they are not known yet, so nothing may be called."""
        ...

    async def carry_out(
        self, unit: str, operation: Operation
    ) -> PartResult | ResolvedRecords | SettledRecords | None:
        """Carries out a retry, reset or skip on one unit. Returns when the effect has happened.

        A skip whose notes have no `records` returns ResolvedRecords. None: nothing more can be done now. Then it is called again with
        the newest form of the operation when the open operations have been read next. A skip on a queue returns None until all
        its records are in `notes["settled"]`, because any worker may receive them next. Raises LeaseLost if this worker does not hold the unit
        any more, or stops: then nothing has happened that the next holder must not do again.
        """
        ...
