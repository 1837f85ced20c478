"""Owns what seeks do to the truth about a stream mapping: what was processed must be processed again, or may be left out.

A move that nobody asked for is a violation, and so is one that leaves records out without leave.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field

from poller.domain.operations import Operation, OperationState
from poller.domain.records import Position, Rank, ShardId
from poller.rules.operations.claims import claimed_by
from poller.runtime.operations.long.seek_run import moves_of
from tests.simulation.checks.ledger import Tenure, Violation, names
from tests.simulation.services.faults import Marks
from tests.simulation.services.streams import Held


@dataclass(slots=True)
class SeekChecks:
    """The seeks of one mapping, as the store has them. `moved_at` has when each shard was moved last."""

    marks: Marks
    moved_at: dict[ShardId, float] = field(default_factory=dict)
    starts: dict[ShardId, Position] = field(default_factory=dict)
    """Where each shard that was moved has begun since then."""
    _asked: dict[ShardId, dict[Position, bool]] = field(default_factory=dict)
    """Where seeks put each shard, and whether they may leave records out."""
    _claims: dict[str, str] = field(default_factory=dict)
    _done: set[ShardId] = field(default_factory=set)
    """Shards whose seek was done since they were moved: it has found that nobody has their children."""

    def stored(self, operation: Operation) -> None:
        """A worker has stored a seek."""
        moves, members = moves_of(operation), operation.request.members
        for move in moves:
            asked = self._asked.setdefault(move.shard, {})
            asked[move.to] = asked.get(move.to, False) or bool(members.get("skip"))
        if operation.state is OperationState.DONE and not members.get("dry_run"):
            self._done.update(move.shard for move in moves)
        if moves and operation.state is OperationState.RUNNING:
            self.marks.saw("seek: planned")
        if operation.notes.get("waiting"):
            self.marks.saw("seek: draining")
        if 0 < operation.progress.get("moved", 0) < operation.progress.get("shards", 0):
            self.marks.saw("seek: partly moved")
        if members.get("dry_run") and operation.state.over:
            self.marks.saw("seek: dry run")
        elif operation.state is not OperationState.ACCEPTED:
            self.marks.saw(f"seek: {operation.state}")
        if 'add "skip": true' in operation.result:
            self.marks.saw("seek: refused to leave records out")
        claimed = claimed_by(operation)
        if claimed is not None and self._claims.setdefault(operation.operation, claimed) != claimed:
            self._claims[operation.operation] = claimed
            self.marks.saw("seek: claimed by another")

    def moves(
        self,
        shard: ShardId,
        to: Position,
        records: Iterable[Held],
        due: Collection[int],
        now: float,
        *,
        above: Collection[ShardId] = (),
    ) -> set[int]:
        """A shard is moved; returns the records that it leaves out from now on. `due` are those that nobody has settled yet.

        `above` are the shards that it came from: with them it may go to its beginning, although its seek did not know it.
        """
        asked = self._asked.get(shard, {})
        if to not in asked:
            if to != Position.horizon() or self._asked.keys().isdisjoint(above):
                raise Violation("seek", f"{shard} moved to {to.encode()}, and nobody has asked for it")
            self.marks.saw("seek: new child moved")
        before = {held.sequence for held in records if lies_before(held, to)}
        lost = before.intersection(due)
        if lost and not asked.get(to, False):
            raise Violation("seek", f"{names(sorted(lost))} of {shard} left out without leave")
        self.marks.saw("seek: left out" if lost else "seek: moved")
        self.moved_at[shard], self.starts[shard] = now, to
        self._done.discard(shard)
        return before

    def takes(self, shard: ShardId) -> None:
        """A worker takes a shard."""
        if shard in self.moved_at:
            self.marks.saw("seek: taken up again")

    def excused(self, parent: ShardId, tenure: Tenure | None) -> bool:
        """Whether who has a child need not wait for this parent: it decided to take the child before the parent was moved.

        That ends when the seek is done, which waits for it.
        """
        before = tenure is not None and tenure.decided <= self.moved_at.get(parent, float("-inf"))
        return before and parent not in self._done


def may_come_too(held: Held, position: Position) -> bool:
    """Whether a mapping that begins at this position may deliver a record that lies before: DynamoDB has whole seconds only."""
    return position.since is not None and held.arrived == int(position.since)


def lies_before(held: Held, position: Position) -> bool:
    """Whether a mapping that begins at this position leaves the record out."""
    match position.rank:
        case Rank.START:
            return position.since is not None and held.arrived < position.since
        case Rank.AFTER:
            return held.up_to(position)
        case Rank.END:
            return True
