"""Owns where a seek puts the shards of a mapping, and whether it leaves out records that nobody has processed.

All shards that are moved stand still meanwhile. Children of a moved shard are moved with it: their records come after its
records, so they must wait for it again. That is also true of children that begin after the moves were planned. Parents are moved
only if they are named, or if the whole mapping is moved.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from graphlib import CycleError, TopologicalSorter

from poller.domain.records import SHARD_END, Epoch, Position, Rank, Record, Shard, ShardId
from poller.domain.rows import Lease
from poller.domain.streams.places import begin_of, is_name
from poller.domain.untrusted.numbers import date_of, iso_moment
from poller.domain.untrusted.texts import line_of
from poller.domain.wording.numbers_of import number_of
from poller.rules.streams.lineage import descendants
from poller.rules.target_names import ShardNames, UnknownTarget

MOVES_MAX = 1_000
"""Shards that one seek moves. The row of its operation has two positions for each."""
CHARS_MAX = 100
ARRIVAL_STEP_S = 0.001
"""Times of arrival are rounded to this."""
HORIZON, LATEST = "TRIM_HORIZON", "LATEST"
WHERE = "TRIM_HORIZON, LATEST, a time such as 2026-11-29T08:00:00Z, or a sequence number"


class SeekRefused(Exception):
    """A seek that cannot be done as it was asked for. The text says why, with the remedy."""


class Direction(StrEnum):
    """Which way a shard moves."""

    BACK = "back"
    """Records that were processed are processed once more."""
    FORWARD = "forward"
    """It may leave out records that were not processed."""
    NOWHERE = "nowhere"


@dataclass(frozen=True, slots=True)
class ShardMove:
    """One shard's move."""

    shard: ShardId
    before: Position
    to: Position

    @property
    def direction(self) -> Direction:
        """Which way it goes, as far as the two positions tell. FORWARD stands for a way that they do not tell, too."""
        if self.before == self.to:
            return Direction.NOWHERE
        if self.to == Position.horizon() or self.before == SHARD_END:
            return Direction.BACK
        if self.before.rank is self.to.rank and self.to < self.before:
            return Direction.BACK
        return Direction.FORWARD

    def skips(self, first: Record, *, asked: Epoch) -> bool | None:
        """Whether it leaves out this record, the first one that was not processed. The source was asked for it at `asked`.

        None: only the source can tell. A record that lacks its time of arrival has the moment of the read, which is after `asked`,
        and the source may know of an earlier time.
        """
        if self.to.rank is Rank.AFTER:
            return begin_of(first.sequence_number) <= self.to.end
        if self.to.since is None:
            return False
        if first.arrived < self.to.since:
            return True
        return None if first.arrived >= asked - ARRIVAL_STEP_S else False

    def __str__(self) -> str:
        return f"from {_shown(self.before)} to {_shown(self.to)}"


def _shown(position: Position) -> str:
    """A position for people: a moment as a time, all others as they are stored."""
    since = position.since
    return position.encode() if since is None else date_of(since).isoformat()


def goal(to: str | float, *, now: Epoch) -> Position:
    """The position that `to` names. LATEST is the moment `now`. Raises SeekRefused.

    A sequence number stands for the place behind its record, as in a checkpoint. One with a part stands for the place behind that part.
    """
    if to == HORIZON:
        return Position.horizon()
    if to == LATEST:
        return Position.at(now)
    if isinstance(to, str) and is_name(to):
        return Position.after(to)
    since = to if isinstance(to, int | float) else iso_moment(to, default=None)
    if since is None:
        raise SeekRefused(f"to: {line_of(str(to), chars_max=CHARS_MAX)!r} is no position; give {WHERE}")
    if not 0 <= since <= now:
        raise SeekRefused(f"to: {to} is not between 1970 and now; LATEST is now")
    return Position.at(Epoch(since))


def moves(
    shards: Sequence[Shard], leases: Sequence[Lease], to: Position, chosen: Collection[ShardId] = ()
) -> tuple[ShardMove, ...]:
    """Where each shard goes, by shard id. `chosen` are the named shards, by id or number; none: all that the source lists.

    A shard that has no lease yet is new. It begins at its beginning, as new shards do.

    Raises SeekRefused for shards that the source does not list, for a sequence number without exactly one shard, and for too many shards.
    """
    listed = {shard.shard_id: shard for shard in shards}
    known = {lease.shard: lease.checkpoint.position for lease in leases}
    try:
        named_shards = frozenset(map(ShardNames(listed).find, chosen)) or frozenset(listed)
    except UnknownTarget as unknown:
        raise SeekRefused(f"shards: {unknown}") from None
    if to.rank is Rank.AFTER and (not chosen or len(named_shards) != 1):
        raise SeekRefused("to: a sequence number belongs to one shard; name it in shards")
    below = descendants({shard.shard_id: shard.parents for shard in shards}, named_shards)
    found = tuple(
        ShardMove(shard, known[shard], to if shard in named_shards else _behind_parents(to))
        for shard in sorted(listed)
        if shard in known and (shard in named_shards or shard in below)
    )
    if len(found) > MOVES_MAX:
        remedy = "name some of them in shards, one part after the other"
        raise SeekRefused(
            f"shards: {number_of(len(found), 'shard')} would move, the limit is {MOVES_MAX}; {remedy}"
        )
    return found


def left_to_move(
    planned: Sequence[ShardMove], moved: Mapping[ShardId, int], leases: Sequence[Lease]
) -> dict[ShardId, Position]:
    """Where the shards go that are still to be moved. `moved` has the epoch that each lease got by its move.

    A child that is new since the plan was made goes to its beginning, whatever it has processed: its parents had ended, and are taken up
    again. A move of one that nobody has taken yet keeps out a worker that has seen the end of its parents.
    """
    goals = {move.shard: move.to for move in planned}
    below = descendants({lease.shard: lease.parents for lease in leases}, goals.keys())
    new = {
        lease.shard: Position.horizon()
        for lease in leases
        if lease.shard in below and lease.epoch != moved.get(lease.shard)
    }
    return {**{shard: to for shard, to in goals.items() if shard not in moved}, **new}


def parents_first(leases: Sequence[Lease]) -> list[Lease]:
    """The leases in an order in which each stands behind those of its parents, as far as these are among them.

    In a circle, which no stream has, the order is as given.
    """
    by_shard = {lease.shard: lease for lease in leases}
    above = {lease.shard: [each for each in lease.parents if each in by_shard] for lease in leases}
    try:
        return [by_shard[shard] for shard in TopologicalSorter(above).static_order()]
    except CycleError:
        return list(leases)


def _behind_parents(to: Position) -> Position:
    """Where a child of a moved shard begins. A moment counts for it, too: all records before it are left out."""
    return Position.horizon() if to.rank is Rank.AFTER else to
