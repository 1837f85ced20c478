"""Owns the moves of a seek on one mapping: it plans where each shard goes, waits until nobody reads it, and moves its lease."""

import asyncio
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager

from poller.domain.errors import (
    LeaseLost,
    PortError,
    PositionTrimmed,
    RecordUnreadable,
    ResourceMissing,
    ServiceUnavailable,
)
from poller.domain.records import Cursor, Position, Rank, Record, ShardId
from poller.domain.rows import Lease
from poller.domain.streams.places import name_of
from poller.domain.telemetry.labels import TaskKind
from poller.operator_ports import RecordStart
from poller.rules.streams.operations.seeking import (
    Direction,
    SeekRefused,
    ShardMove,
    left_to_move,
    moves,
    parents_first,
)
from poller.rules.streams.tracking import EMPTY_PAGES
from poller.runtime.operations.long.long_run import SeekPlan, SeekStep
from poller.runtime.stopping import Stop
from poller.runtime.streams.context import StreamContext
from poller.runtime.watched_tasks import WatchedTasks
from poller.runtime.workers.membership import Membership

LOOKS_AT_ONCE = 32
"""Shards that are read at the same time to see whether a seek leaves out records."""
LOOK_READS_S = 1.0
"""The time between two reads for that. A shard allows five reads a second, and the mappings that process it need them."""
LOOK_RECORDS_MAX = 100
"""Records of one read from a time on. A source that cannot start at a time reads past all records before it."""


class StreamSeek:
    """The seeks of one stream mapping on this worker. `changed` is called when other shards are held back than before."""

    def __init__(self, parts: StreamContext, changed: Callable[[], None]) -> None:
        self.held_back: frozenset[ShardId] = frozenset()
        """Shards that are about to be moved. They and those that come from them drain, and this worker does not take them."""
        self._parts = parts
        self._changed = changed
        self._membership: Membership | None = None

    @contextmanager
    def among(self, membership: Membership) -> Iterator[None]:
        """Makes steps possible until the block ends, while the mapping is one of this worker's."""
        self._membership = membership
        try:
            yield
        finally:
            self._membership = None

    def hold_back(self, shards: frozenset[ShardId]) -> None:
        """Makes these shards, those that come from them, and no others, drain and stay free."""
        if shards != self.held_back:
            self.held_back = shards
            self._changed()

    async def plan(self, to: Position, chosen: Collection[ShardId]) -> SeekPlan:
        """Where a seek puts each shard. Raises SeekRefused, and what the ports of store and source raise."""
        parts = self._parts
        shards = await parts.source.shards()
        leases = await parts.store.leases(parts.plan.mapping, memos=False)
        found = moves(shards, leases, to, chosen)
        await _check_number(parts, found, to)
        turns = asyncio.Semaphore(LOOKS_AT_ONCE)

        async def look(move: ShardMove) -> str | PortError:
            async with turns:
                try:
                    return await _left_out(parts, move)
                except PortError as error:
                    # Raised in a task, it would count as a fault of this worker.
                    return error

        async with WatchedTasks(parts.observer, parts.plan.mapping) as group:
            looks = {
                move.shard: group.start(TaskKind.SEEK, look(move), of=move.shard)
                for move in found
                if move.direction is Direction.FORWARD
            }
        skipping = {}
        for shard, task in looks.items():
            left_out = task.result()
            if isinstance(left_out, PortError):
                raise left_out
            if left_out:
                skipping[shard] = left_out
        return SeekPlan(found, skipping, {shard.shard_id: shard.parents for shard in shards})

    async def step(self, planned: Sequence[ShardMove], moved: Mapping[ShardId, int], stop: Stop) -> SeekStep:
        """Moves what is left when nobody reads any of it. The lease of a worker that does not run the mapping counts as free. Raises PortError.

        After a stop it moves no further shard: the seek may be cancelled.

        A move is fenced: if a worker takes the shard meanwhile, it waits with all that come after it, and an owner that is gone writes
        nothing more. A worker that knows of no seek yet may take a child while its parent is moved, or just before, when the parent has
        ended. The next step finds it, and puts it back when that worker has let it go. Parents are moved before their children.
        """
        if self._membership is None:
            raise ServiceUnavailable("the mapping does not run here")
        parts, mapping = self._parts, self._parts.plan.mapping
        alive = {parts.worker, *await self._membership.workers_of(mapping)}
        leases = await parts.store.leases(mapping, memos=False)
        goals = left_to_move(planned, moved, leases)
        if not goals:
            return SeekStep(moved, {}, done=True)
        # The source may have removed a shard since, so that its lease was of no use any more.
        there = {lease.shard for lease in leases}
        moved = {**moved, **{shard: 0 for shard in goals if shard not in there}}
        left = [lease for lease in leases if lease.shard in goals]
        waiting = {
            lease.shard: lease.owner for lease in left if lease.owner is not None and lease.owner in alive
        }
        if waiting:
            # A parent that is moved while somebody reads its child could be processed again beside records that come after its own.
            return SeekStep(moved, waiting)
        return SeekStep(await self._moved(left, goals, moved, stop), {})

    async def _moved(
        self,
        left: Sequence[Lease],
        goals: Mapping[ShardId, Position],
        before: Mapping[ShardId, int],
        stop: Stop,
    ) -> Mapping[ShardId, int]:
        """Moves these leases, parents first, until one cannot be moved. Returns what is moved by then. Raises PortError if that is nothing more than `before`."""
        moved = dict(before)
        for lease in parents_first(left):
            if stop.requested:
                break
            try:
                put = await self._parts.store.move(self._parts.plan.mapping, lease, goals[lease.shard])
            except LeaseLost:
                # A child that is moved before its parent could be read between the two moves, and so before its parent's records.
                break
            except PortError:
                # What was moved counts, or a seek of many shards would begin again after each fault of the store.
                if len(moved) == len(before):
                    raise
                break
            moved[lease.shard] = put.epoch
        return moved


async def _check_number(parts: StreamContext, found: Sequence[ShardMove], to: Position) -> None:
    """Refuses a sequence number that the shard of a move never had, such as one of another shard. A shard that is moved there could not be read.

    A record that was removed since may be named: reading begins at the first one that is left.
    """
    if to.rank is not Rank.AFTER or not isinstance(parts.source, RecordStart):
        return
    for move in found:
        if move.to != to:
            continue
        remedy = "write that of one of its records, TRIM_HORIZON, LATEST or a time"
        wrong = f"to: {to.sequence_number} is no sequence number of shard {move.shard}; {remedy}"
        try:
            cursor = await parts.source.cursor_at(move.shard, to.sequence_number)
            first = await _first_record(parts, move.shard, cursor)
        except (PositionTrimmed, ResourceMissing) as error:
            # The source has just listed the shard, so that it is the number that is not there.
            raise SeekRefused(wrong) from error
        if first is None:
            raise SeekRefused(f"to: shard {move.shard} has no record {to.sequence_number} or later; {remedy}")


async def _left_out(parts: StreamContext, move: ShardMove) -> str:
    """The first record that the move leaves out, for people; empty if it leaves out none."""
    asked = parts.clock.now()
    try:
        found = await _first_behind(parts, move.shard, move.before)
    except PositionTrimmed:
        found = await _first_behind(parts, move.shard, Position.horizon())
    match found:
        case None:
            return ""
        case str():
            return found
        case _:
            skips = move.skips(found, asked=asked)
            if skips is None:
                skips = not await _begins_by(parts, move, found)
            return f"record {name_of(found.sequence_number)}" if skips else ""


async def _begins_by(parts: StreamContext, move: ShardMove, record: Record) -> bool:
    """Whether the source begins with this record, or with an earlier one, where the move puts the shard. False if that did not show."""
    first = await _first_behind(parts, move.shard, move.to, records_max=LOOK_RECORDS_MAX)
    if first is None or isinstance(first, str):
        return False
    return Position.after(first.sequence_number) <= Position.after(record.sequence_number)


async def _first_behind(
    parts: StreamContext, shard: ShardId, position: Position, *, records_max: int = 1
) -> Record | str | None:
    """The first record behind a position, as `_first_record`."""
    cursor = await parts.source.cursor(shard, position)
    return await _first_record(parts, shard, cursor, records_max=records_max)


async def _first_record(
    parts: StreamContext, shard: ShardId, cursor: Cursor, *, records_max: int = 1
) -> Record | str | None:
    """The first record at a cursor or behind it. None: there is none now. A text: that did not show.

    Empty pages in a row show the end of a source that does not say how far behind it is. One that says that it is behind has more.
    """
    behind = False
    for number in range(EMPTY_PAGES):
        if number:
            await asyncio.sleep(LOOK_READS_S)
        try:
            page = await parts.source.read(shard, cursor, records_max=records_max)
        except RecordUnreadable:
            return "a record that cannot be read"
        if page.records:
            return page.records[0]
        if page.ended or page.cursor is None or page.behind_ms == 0:
            return None
        cursor, behind = page.cursor, page.behind_ms is not None
    return "records that a few reads did not find" if behind else None
