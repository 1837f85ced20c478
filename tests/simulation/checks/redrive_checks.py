"""Owns the promises about redrives: what is removed was settled before, what is called is the batch that was given up, and nothing twice in vain."""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from poller.domain.invocations import Outcome
from poller.domain.operations import Operation, OperationId, OperationState
from poller.domain.records import MappingId
from poller.rules.operations.claims import claimed_by
from tests.simulation.checks.ledger import Flight, Violation, done_by, names
from tests.simulation.services.contents import number_of
from tests.simulation.services.faults import Marks
from tests.simulation.services.notices import InWork, Kept, NoticePlace, Reader, in_work
from tests.simulation.services.queues import FakeQueue

REASONS = (
    "the stream does not have",
    "it is of another stream",
    "it is no JSON",
    "last call of a window",
    "it cannot be read",
    "another reader holds it back",
)
"""Parts of the reasons why notices stay. Each that is seen has a mark.

Two reasons have tests of their own, since no world shows them: filters that changed meanwhile, and a message of a group that comes
although an earlier one is still held.
"""


@dataclass(frozen=True, slots=True)
class _Accepted:
    """The function accepted a whole batch, which a reader had called it with; `faults` are those of its worker by then."""

    reader: Reader
    faults: int


@dataclass(slots=True)
class RedriveChecks:
    """The redrives of one world. `paused` says whether a worker knew at a time that a whole mapping was paused.

    `cut_off`: workers in which tasks were cancelled from inside.
    """

    marks: Marks
    paused: Callable[[str, MappingId, float], bool]
    notices: NoticePlace | None = None
    dead: Mapping[str, FakeQueue] = field(default_factory=dict)
    """The dead-letter queues, by their ARNs."""
    cut_off: set[str] = field(default_factory=set)
    _running: dict[int, tuple[Reader, InWork, Flight]] = field(default_factory=dict)
    _accepted: dict[str, list[_Accepted]] = field(default_factory=dict)
    """Batches that the function accepted, by what they were read from."""
    _removed: Counter[MappingId] = field(default_factory=Counter)
    _claims: dict[OperationId, str] = field(default_factory=dict)

    def batch_of(self, kept: Kept) -> list[int]:
        """The records of a notice's batch; none for the last call of a window, and for what is no notice."""
        return [number_of(each) for each in in_work(kept).identifiers]

    def begins(self, flight: Flight, reader: Reader, payload: bytes) -> None:
        """A redrive calls the function."""
        work = reader.work
        if work is None:
            raise Violation("redrive", f"{flight.worker} calls {flight.function} and has read nothing")
        self.marks.saw(f"redrive: {work.kind}")
        called = tuple(each.identifier for each in flight.delivery.records)
        if called != work.identifiers:
            raise Violation("redrive", f"{names(called)} called for {work.name} of {names(work.identifiers)}")
        if work.payload is not None and payload != work.payload:
            raise Violation("redrive", f"another event than that of {work.name}")
        if self.paused(flight.worker, flight.mapping, flight.issued):
            raise Violation("pause", f"{work.name} is redriven although its mapping is paused")
        self._alone(reader, work)
        self._not_in_vain(reader, work)
        self._in_group_order(reader, work)
        self._running[flight.number] = reader, work, flight

    def ends(self, number: int, outcome: Outcome | None, *, reports: bool) -> bool:
        """The worker has the outcome of a call, or never will. Returns whether it was one of a redrive."""
        if number not in self._running:
            return False
        reader, work, flight = self._running.pop(number)
        if outcome is None:
            self.marks.saw("redrive: call without an outcome")
            return True
        stream = reader.place not in self.dead
        done = done_by(outcome, flight.delivery, reports=reports, stream=stream)
        if len(done) == len(work.identifiers):
            self._accepted.setdefault(work.name, []).append(_Accepted(reader, reader.line.faults))
        else:
            self.marks.saw("redrive: failed again")
        return True

    def removes(self, reader: Reader, name: str) -> None:
        """A notice, or a message of a dead-letter queue, was removed."""
        if all(each.reader is not reader for each in self._accepted.get(name, ())):
            raise Violation("redrive", f"{name} removed, and its batch is not settled")
        self.marks.saw("redrive: settled")
        self._removed[reader.mapping] += 1

    def stored(self, operation: Operation) -> None:
        """The store has a redrive."""
        members, state = operation.request.members, operation.state
        claimed = claimed_by(operation)
        if claimed is not None and self._claims.setdefault(operation.operation, claimed) != claimed:
            self._claims[operation.operation] = claimed
            self.marks.saw("redrive: claimed by another")
        if (settled := operation.progress.get("settled", 0)) > self._removed[operation.mapping]:
            raise Violation(
                "redrive",
                f"{settled} are said to be settled, {self._removed[operation.mapping]} were removed",
            )
        if not state.over:
            return
        self.marks.saw("redrive: dry run" if members.get("dry_run") else f"redrive: {state}")
        for each in REASONS:
            if each in operation.result:
                self.marks.saw(f"redrive: {each}")
        if state is OperationState.DONE and not (members.get("dry_run") or "limit" in members):
            self._nothing_left(operation)

    def _nothing_left(self, operation: Operation) -> None:
        """What was there when the redrive was asked for is gone when it is done."""
        place = operation.request.members["from"]
        if (queue := self.dead.get(place)) is not None:
            left = [
                each.message_id
                for each in queue.letters.values()
                if each.here and each.sent < operation.created
            ]
        else:
            assert self.notices is not None
            left = [each.name for each in self.notices.left() if each.arrived < operation.created]
        if left:
            raise Violation("redrive", f"done, and {names(left)} are left")

    def _alone(self, reader: Reader, work: InWork) -> None:
        for other, its, _ in self._running.values():
            if its.name == work.name and other is not reader and not self._hindered(other, 0):
                raise Violation("redrive", f"{work.name} is called twice at once")

    def _not_in_vain(self, reader: Reader, work: InWork) -> None:
        """A batch that the function accepted is called again only by another one, if the first was hindered to remove its notice."""
        for before in self._accepted.get(work.name, ()):
            if before.reader is reader:
                raise Violation("redrive", f"{work.name} is called again, it was accepted")
            if not (self._hindered(before.reader, before.faults) or self._hindered(reader, 0)):
                raise Violation(
                    "redrive", f"{work.name} was accepted, and nothing kept it from being removed"
                )
            self.marks.saw("redrive: called again")

    def _hindered(self, reader: Reader, faults: int) -> bool:
        line = reader.line
        return line.crashed or line.stopping or line.faults > faults or line.name in self.cut_off

    def _in_group_order(self, reader: Reader, work: InWork) -> None:
        queue = self.dead.get(reader.place)
        if queue is None:
            return
        letter = queue.letters[work.name]
        for each in queue.letters.values():
            earlier = (
                letter.group is not None and each.group == letter.group and each.sequence < letter.sequence
            )
            if earlier and each.here and not self._hindered(reader, 0):
                raise Violation("redrive", f"{work.name} before {each.message_id} of its group")
