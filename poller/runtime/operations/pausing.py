"""Owns how running mappings learn which of their parts are paused.

What starts here must not begin on what was read before: a pause may have been confirmed since then by the worker that had it until now.
So a mapping that starts, and one that takes over a shard, waits for a read that begins after that. Only while the store is in trouble a
mapping starts with the pauses that were read last; its shards wait even then.
"""

from collections.abc import Iterable, Mapping, Sequence
from functools import partial

from poller.domain.operations import Action, Operation, OperationState, OperatorPause, PartResult
from poller.domain.records import Epoch, MappingId
from poller.domain.telemetry.observers import Observer
from poller.domain.telemetry.operation_events import PausesChanged
from poller.ports import Clock
from poller.rules.operations import lifecycle
from poller.rules.operations.pauses import by_mapping, in_force
from poller.runtime.operations.open_operations import OpenOperations
from poller.runtime.operations.operable import Operable
from poller.runtime.operations.operable_mappings import OperableMappings

PAUSED = "paused"


class Pausing:
    """Gives pauses to the mappings of this worker."""

    def __init__(self, operations: OpenOperations, *, clock: Clock, observer: Observer) -> None:
        self._operations = operations
        self._clock = clock
        self._observer = observer
        self._given: dict[MappingId, tuple[Operable, Sequence[OperatorPause] | None]] = {}
        self._emitted: dict[MappingId, Sequence[OperatorPause]] = {}
        self._outdated: dict[MappingId, int] = {}
        """Mappings that wait for a read with a higher number than this."""

    def of(self, mapping: MappingId) -> tuple[OperatorPause, ...] | None:
        """The pauses of a mapping that are in force; None while they are not known."""
        known = self._operations.known
        return None if known is None else in_force(known.values(), mapping)

    def introduce(self, mapping: MappingId, operable: Operable, *, troubled: bool) -> None:
        """A mapping is about to start here. If the store is troubled, the pauses that were read last hold."""
        operable.apply_pauses(self.of(mapping) if troubled else None)
        self.read_again(mapping)

    def read_again(self, mapping: MappingId) -> None:
        """A mapping needs the pauses of a read that begins from now on."""
        self._outdated[mapping] = self._operations.begun
        self._given.pop(mapping, None)

    def apply(self, running: OperableMappings) -> None:
        """Gives each mapping its pauses if they changed. Call it after each read of the operations, and after each change."""
        operables, known = running.operables(), self._operations.known
        in_force = by_mapping((known or {}).values())
        for gone in self._given.keys() - operables.keys():
            del self._given[gone]
        for mapping, operable in operables.items():
            if not self.up_to_date(mapping):
                continue
            self._outdated.pop(mapping, None)
            pauses = None if known is None else in_force.get(mapping, ())
            if self._given.get(mapping) != (operable, pauses):
                operable.apply_pauses(pauses)
                self._given[mapping] = operable, pauses
        self._emit_changes(in_force)

    async def confirm(self, running: OperableMappings) -> None:
        """Stores which units of this worker are paused now; raises PortError. Then those who asked know that it has happened."""
        operables = running.operables()
        for operation in tuple((self._operations.known or {}).values()):
            operable = operables.get(operation.mapping)
            if operation.request.action is not Action.PAUSE or operable is None:
                continue
            if not self.up_to_date(operation.mapping):
                # It has not been given all of its pauses yet.
                continue
            units = lifecycle.due(operation, operable.units())
            if units:
                await self._operations.change(operation, partial(_paused, units=units, now=self._clock.now()))

    def up_to_date(self, mapping: MappingId) -> bool:
        """Whether the operations were read since the mapping asked for that."""
        needed = self._outdated.get(mapping)
        return needed is None or self._operations.newest > needed

    def answered(self, mapping: MappingId) -> bool:
        """Whether a mapping that is not one of those given to `apply` had asked for a read which there was by now. Says so once."""
        asked = mapping in self._outdated and self.up_to_date(mapping)
        if asked:
            del self._outdated[mapping]
        return asked

    def forget(self, mapping: MappingId) -> None:
        """Such a mapping has ended."""
        self._outdated.pop(mapping, None)

    def _emit_changes(self, in_force: Mapping[MappingId, Sequence[OperatorPause]]) -> None:
        """Emits the pauses of each mapping whose pauses have changed, also of mappings that do not run here."""
        for mapping in sorted(in_force.keys() | self._emitted.keys()):
            pauses = in_force.get(mapping, ())
            if self._emitted.get(mapping, ()) != pauses:
                since = pauses[0].since if pauses else None
                self._observer.on(PausesChanged(mapping=mapping, pauses=len(pauses), since=since))
            self._emitted[mapping] = pauses
            if not pauses:
                del self._emitted[mapping]


def _paused(operation: Operation, *, units: Iterable[str], now: Epoch) -> Operation:
    for unit in units:
        result = PartResult(state=OperationState.DONE, result=PAUSED)
        operation = lifecycle.finish_part(operation, unit, result, now=now)
    return operation
