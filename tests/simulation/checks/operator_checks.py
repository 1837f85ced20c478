"""Owns what operators asked of a stream mapping, as the checkers must know it: which records may be skipped, and what is paused."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from poller.domain.operations import Action, Operation, OperationId, OperationState, OperationTarget
from poller.domain.plan import MappingPlan, SourceKind
from poller.domain.records import ShardId
from poller.rules.streams.lanes import lane_of
from poller.rules.streams.operations.on_batch import CLOSING_PREFIX
from tests.simulation.checks.ledger import Violation, names
from tests.simulation.services.contents import number_of
from tests.simulation.services.streams import Held


@dataclass(slots=True)
class Confirmed:
    """A pause that a worker has stored as applied to a shard, and when it was over."""

    target: OperationTarget
    worker: str
    since: float
    until: float = float("inf")


@dataclass(frozen=True, slots=True)
class Skip:
    """What a skip means in a shard: records, and the ends of windows whose closing call it means."""

    shard: ShardId
    records: frozenset[int]
    ends: frozenset[float]
    send: bool
    over: bool


@dataclass(slots=True)
class OperatorChecks:
    """What operators asked of one mapping, as the store has it.

    `gone` has the records of skips that are done: they never run again. `noticed` has those that are in a notice of a skip.
    """

    plan: MappingPlan
    gone: set[int] = field(default_factory=set)
    noticed: set[int] = field(default_factory=set)
    _skips: dict[OperationId, Skip] = field(default_factory=dict)
    """Those that may still have an effect. A seek ends that of skips which are over: what it takes up again is not skipped by them."""
    _pauses: dict[tuple[OperationId, str], Confirmed] = field(default_factory=dict)

    def stored(self, worker: str, operation: Operation, now: float) -> None:
        """A worker has stored an operation."""
        match operation.request.action:
            case Action.SKIP:
                self._stored_skip(operation)
            case Action.PAUSE:
                self._stored_pause(worker, operation, now)

    @property
    def asked(self) -> set[int]:
        """The records that some skip means."""
        return {sequence for each in self._skips.values() for sequence in each.records}

    @property
    def dropped(self) -> set[int]:
        """The records that some skip means to be dropped without a notice."""
        return {sequence for each in self._skips.values() if not each.send for sequence in each.records}

    def moved(self, shard: ShardId, sequences: Iterable[int]) -> None:
        """A seek moves a shard and takes these records up again, also those that were skipped."""
        self.gone.difference_update(sequences)
        self._skips = {
            name: each for name, each in self._skips.items() if each.shard != shard or not each.over
        }

    def skipped(self, sequences: Iterable[int], *, noticed: bool) -> None:
        """The engine skips these records."""
        sequences = list(sequences)
        may = self.asked if noticed else self.dropped
        if wrong := [each for each in sequences if each not in may]:
            raise Violation("skip", f"{names(wrong)} skipped, and nobody has asked for it")
        if noticed:
            self.noticed.update(sequences)

    def skipped_windows(self, shard: ShardId) -> set[float]:
        """The engine skips a closing call: the ends of windows for which that was asked."""
        ends = {end for each in self._skips.values() if each.shard == shard for end in each.ends}
        if not ends:
            raise Violation("skip", f"a closing call of {shard} skipped, and nobody has asked for it")
        return ends

    def begins(
        self, worker: str, shard: ShardId, records: Sequence[Held], *, at: float, rightful: bool
    ) -> None:
        """A worker calls the function, as it decided at epoch seconds `at`."""
        again = [each.sequence for each in records if each.sequence in self.gone]
        if again and rightful:
            raise Violation("skip", f"{names(again)} called again, their skip was done")
        for (_, paused), pause in self._pauses.items():
            if paused == shard and (rightful or worker == pause.worker) and pause.since < at < pause.until:
                self._not_paused(pause.target, shard, records)

    def holds_all(self, worker: str, at: float) -> bool:
        """Whether this worker had stored before that time that it applies a pause of the whole mapping, which was not over then."""
        return any(
            pause.worker == worker and pause.target == OperationTarget() and pause.since < at < pause.until
            for pause in self._pauses.values()
        )

    def _not_paused(self, target: OperationTarget, shard: ShardId, records: Sequence[Held]) -> None:
        for lanes in [self._lanes_of(each) for each in records] or [{0}]:
            if all(target.covers(OperationTarget(shard=shard, lane=lane)) for lane in lanes):
                raise Violation("pause", f"the function is called in a paused lane of {shard}")

    def _lanes_of(self, held: Held) -> set[int]:
        """The lane of a record; several if it may have another key than it was put with."""
        lanes = self.plan.stream.lanes
        if self.plan.kind is not SourceKind.KINESIS:
            return set(range(lanes))
        return {lane_of(held.key, lanes), lane_of(str(held.sequence), lanes)}

    def _stored_skip(self, operation: Operation) -> None:
        shard, records = ShardId(operation.wanted[0]), operation.notes.get("records", ())
        numbers = frozenset(number_of(each) for each in records if not each.startswith(CLOSING_PREFIX))
        ends = frozenset(
            float(each.removeprefix(CLOSING_PREFIX).partition(":")[0])
            for each in records
            if each.startswith(CLOSING_PREFIX)
        )
        send = operation.request.members["send"]
        self._skips[operation.operation] = Skip(shard, numbers, ends, send, operation.state.over)
        if operation.state is OperationState.DONE:
            self.gone |= numbers

    def _stored_pause(self, worker: str, operation: Operation, now: float) -> None:
        target = operation.request.target
        for part, result in operation.parts.items():
            if result.state is OperationState.DONE:
                self._pauses.setdefault((operation.operation, part), Confirmed(target, worker, now))
        if operation.state.over:
            for (each, _), pause in self._pauses.items():
                if each == operation.operation:
                    pause.until = min(pause.until, now)
