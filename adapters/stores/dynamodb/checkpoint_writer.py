"""Owns how a checkpoint is written to its lease row, together with a memo that may need parts of its own.

Every write of a row has a condition: owner and epoch are those of the writer (the fence), the stored position is not later,
and the stored turn is lower. A turn is a number that grows within a process, so that a save that the network delayed cannot
replace a later one of the same owner.

A memo that fits into its row is written with the position in one call. One that does not fit takes three steps: mark the row
with `parted` and the new turn, write the parts, and write the row that names them. The mark stays while the shard may have
parts. So the next save knows that it has to remove them.
"""

from collections.abc import Callable, Sequence

from adapters.stores import conflicts
from adapters.stores.dynamodb.calls import Refused, Table
from adapters.stores.dynamodb.memo_parts import POINTER, Generation, Packed, Parts, pack
from adapters.stores.dynamodb.table import Item, key, lease_of, leases_of, place
from poller.domain.records import MappingId, Position, ShardId, WorkerId
from poller.domain.rows import Checkpoint, Lease

HELD = "#owner = :owner AND #epoch = :epoch"
_FORWARD = f"{HELD} AND #position_key <= :position_key AND (attribute_not_exists(#turn) OR #turn < :turn)"
_NO_PARTS = "attribute_not_exists(#parted)"


class CheckpointWriter:
    """Writes checkpoints to the lease rows of one table; `room` is how many bytes of a memo fit into a row."""

    def __init__(self, table: Table, parts: Parts, *, room: int, turn: Callable[[], int]) -> None:
        self._table = table
        self._parts = parts
        self._room = room
        self._turn = turn

    async def save(self, mapping: MappingId, lease: Lease, checkpoint: Checkpoint) -> None:
        """Writes `checkpoint`; raises LeaseLost if another owner or epoch is stored, or a later position.

        Raises ServiceUnavailable for a memo that is too long.
        """
        packed = await pack(checkpoint.memo, lease.shard)
        try:
            if len(packed.content) > self._room:
                await self._save_parts(mapping, lease, checkpoint, packed=packed)
            elif not await self._save_whole(mapping, lease, checkpoint, packed=packed):
                await self._save_last(mapping, lease, checkpoint, packed=packed)
        except Refused:
            _superseded(without_memo(await self._row(mapping, lease.shard)), lease, checkpoint)

    async def _save_whole(
        self, mapping: MappingId, lease: Lease, checkpoint: Checkpoint, *, packed: Packed
    ) -> bool:
        """Writes position and memo in one call; returns False if the shard may have parts, which must be removed then."""
        new = {**place(checkpoint.position), **packed.inline()}
        try:
            await self._move(mapping, lease, new, to=checkpoint.position, turn=self._turn(), whole=True)
        except Refused:
            row = await self._row(mapping, lease.shard)
            if row is not None and "parted" in row:
                return False
            raise
        return True

    async def _save_last(
        self, mapping: MappingId, lease: Lease, checkpoint: Checkpoint, *, packed: Packed
    ) -> None:
        """Writes position and memo, then removes the parts of earlier memos, then the mark that there may be some."""
        turn = self._turn()
        new = {**place(checkpoint.position), **packed.inline()}
        await self._move(mapping, lease, new, to=checkpoint.position, turn=turn, without=POINTER)
        await self._parts.sweep(mapping, lease.shard, below=Generation(lease.epoch, turn))
        try:
            await self._table.update(
                key(leases_of(mapping), lease.shard),
                change="REMOVE #parted",
                condition=f"{HELD} AND #turn = :turn",
                values={**fence(lease.owner, lease.epoch), "turn": {"N": str(turn)}},
                names=("owner", "epoch", "turn", "parted"),
            )
        except Refused:
            return  # The checkpoint is saved. Another save came between, and finds the mark.

    async def _save_parts(
        self, mapping: MappingId, lease: Lease, checkpoint: Checkpoint, *, packed: Packed
    ) -> None:
        """Marks the row, removes left-over parts, writes the new parts, and then the row that names them.

        The turn of the mark makes earlier saves fail that are still under way. So the generation that the row names now is valid
        until this save ends, and everything older can be removed. The named generation is kept even then, until the next
        save, for readers that have just read the row.
        """
        mark, to, turn = {"parted": {"BOOL": True}}, checkpoint.position, self._turn()
        row = await self._move(mapping, lease, mark, to=to, turn=turn, returned="ALL_NEW")
        left_over = Generation(lease.epoch, turn)
        await self._parts.sweep(mapping, lease.shard, below=left_over, keep=Generation.of(row))
        generation = Generation(lease.epoch, self._turn())
        count = await self._parts.write(mapping, lease.shard, generation, packed.content)
        new = {**place(to), **packed.pointer(generation, count)}
        try:
            await self._move(mapping, lease, new, to=to, turn=generation.turn, without=("memo",))
        except Refused:
            row = await self._row(mapping, lease.shard) or {}
            if Generation.of(row) != generation:
                await self._parts.discard(mapping, lease.shard, generation)
            raise

    async def _move(
        self,
        mapping: MappingId,
        lease: Lease,
        new: Item,
        *,
        to: Position,
        turn: int,
        without: Sequence[str] = (),
        whole: bool = False,
        returned: str = "NONE",
    ) -> Item:
        """Sets the attributes `new` and the turn, if `lease` holds the row and the row is not ahead of `to` or `turn`.

        `whole`: only if the shard has no parts. `without`: attributes to remove.
        """
        new = {**new, "turn": {"N": str(turn)}}
        used = {**new, "position_key": {"S": to.sort_key()}, **fence(lease.owner, lease.epoch)}
        removed = " REMOVE " + ", ".join(f"#{name}" for name in without) if without else ""
        return await self._table.update(
            key(leases_of(mapping), lease.shard),
            change="SET " + ", ".join(f"#{name} = :{name}" for name in new) + removed,
            condition=f"{_FORWARD} AND {_NO_PARTS}" if whole else _FORWARD,
            values=used,
            names={*used, *without, *(("parted",) if whole else ())},
            returned=returned,
        )

    async def _row(self, mapping: MappingId, shard: ShardId) -> Item | None:
        return await self._table.get(key(leases_of(mapping), shard))


def fence(owner: WorkerId | None, epoch: int) -> Item:
    """Returns the values of the fence. No worker has an empty name, so a lease without an owner passes no fence."""
    return {"owner": {"S": owner or ""}, "epoch": {"N": str(epoch)}}


def without_memo(row: Item | None) -> Lease | None:
    """Makes a lease of a row without its memo."""
    return None if row is None else lease_of(row)


def _superseded(stored: Lease | None, lease: Lease, checkpoint: Checkpoint) -> None:
    """Returns if the same owner has saved this position later; raises LeaseLost otherwise."""
    unlike = stored is None or (stored.owner, stored.epoch) != (lease.owner, lease.epoch)
    if unlike or stored is None or stored.checkpoint.position != checkpoint.position:
        raise conflicts.unsaved(stored, lease, checkpoint)
