"""Owns which mapping of the store a new mapping of the file continues (docs/decisions/0008).

A mapping's id is made from its source and its function's ARN, so that another qualifier, or an ARN instead of a name,
makes another id. Where AWS's update would keep the place, so does the file. Mappings of one source and one function name are
siblings. The row of each sibling that runs says which siblings its file had, and what the change was that led to that file; changes
are numbered. So the row with the greatest number describes the last file that ran. A mapping that has no positions yet goes on
where that one stopped that has left the file since, if exactly one has left and exactly one is new. What left the file earlier
never counts. Otherwise it is not clear which one it continues, and it begins where the one stopped that is furthest behind.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from poller.domain.records import MappingId, Position, ShardId
from poller.domain.rows import Checkpoint, Lease, MappingRow

_KEY = "file"


@dataclass(frozen=True, slots=True)
class Connection:
    """What a mapping of the file connects: its source, and its function by name and by ARN with qualifier."""

    source: str
    name: str
    function: str

    def beside(self, other: "Connection") -> bool:
        """Whether both have one source and one function name."""
        return (self.source, self.name) == (other.source, other.name)


class Change(msgspec.Struct, frozen=True):
    """A change of the siblings that the file has; ids are sorted. Numbers grow with every change."""

    number: int
    file: tuple[str, ...]
    """All siblings that the file has since."""
    left: tuple[str, ...]
    """Siblings with positions that the file before had."""
    new: tuple[str, ...]
    """Siblings of `file` that had no positions."""


class _Kept(msgspec.Struct, frozen=True, omit_defaults=True):
    source: str
    name: str
    function: str
    change: Change | None = None
    """What led to the file that this mapping ran with last; None before it begins."""
    continued: str = ""
    """Id of the mapping whose positions were taken over, until it is forgotten."""
    claimed: str = ""
    """Id of the mapping that is about to take over the positions of this one."""


@dataclass(frozen=True, slots=True)
class Continue:
    """Go on where this mapping stopped."""

    row: MappingRow
    function: str


@dataclass(frozen=True, slots=True)
class Begin:
    """Begin at the starting position."""


@dataclass(frozen=True, slots=True)
class Unclear:
    """Any of `rows` could be meant. Begin where the one stopped that is furthest behind: records come twice, none is lost."""

    rows: tuple[MappingRow, ...]
    functions: tuple[str, ...]

    @property
    def reason(self) -> str:
        """One line for people."""
        return f"it is not clear which mapping it continues ({', '.join(self.functions)})"


def described(
    connection: Connection, *, change: Change | None = None, continued: MappingId | None = None
) -> Mapping[str, Any]:
    """The document of a mapping's row."""
    kept = _Kept(connection.source, connection.name, connection.function, change, continued or "")
    return {_KEY: msgspec.to_builtins(kept)}


def refreshed(row: MappingRow, connection: Connection, change: Change) -> Mapping[str, Any]:
    """The row's document with what the mapping connects now, and the change that led to its file; the rest stays."""
    return described(connection, change=change, continued=continued_by(row))


def completed(row: MappingRow) -> Mapping[str, Any]:
    """The row's document once the mapping is forgotten whose positions it has taken over."""
    kept = _kept(row)
    assert kept is not None, "only a mapping of the file continues another"
    return {**row.document, _KEY: msgspec.to_builtins(msgspec.structs.replace(kept, continued=""))}


def connection_of(row: MappingRow) -> Connection | None:
    """What a mapping of the file connects; None for other rows."""
    kept = _kept(row)
    return _connection(kept) if kept else None


def continued_by(row: MappingRow) -> MappingId | None:
    """The mapping whose positions `row` has taken over and that is still to be forgotten."""
    kept = _kept(row)
    return MappingId(kept.continued) if kept and kept.continued else None


def claimed_by(row: MappingRow) -> MappingId | None:
    """The mapping that is about to take over the positions of `row`."""
    kept = _kept(row)
    return MappingId(kept.claimed) if kept and kept.claimed else None


def claimed(row: MappingRow, mapping: MappingId | None) -> Mapping[str, Any]:
    """The row's document when `mapping` is to take over its positions; None: nobody."""
    kept = _kept(row)
    assert kept is not None, "only a mapping of the file can be continued"
    return {**row.document, _KEY: msgspec.to_builtins(msgspec.structs.replace(kept, claimed=mapping or ""))}


def change_to(
    file: Mapping[MappingId, Connection], connection: Connection, rows: Sequence[MappingRow]
) -> Change:
    """The change that led to this file, for siblings of `connection`: the last one of the store, or the one after it."""
    known = _siblings(connection, rows)
    ours = tuple(sorted(name for name, each in file.items() if each.beside(connection)))
    changes = [kept.change for kept in known.values() if kept.change is not None]
    last = max(changes, key=lambda each: (each.number, each.file), default=None)
    if last is not None and last.file == ours:
        return last
    placed = {row.mapping for row in rows if row.seeded}
    before = {*known} if last is None else {*last.file}
    if last is not None and not placed.issuperset(last.new):
        # A new one of that file never began: those that it could have continued are still to be continued.
        before |= {*last.left}
    return Change(
        number=last.number + 1 if last is not None else 1,
        file=ours,
        left=tuple(sorted(name for name in before if name in placed and name not in ours)),
        new=tuple(name for name in ours if name not in placed),
    )


def decide(
    mapping: MappingId,
    connection: Connection,
    rows: Sequence[MappingRow],
    *,
    file: Mapping[MappingId, Connection],
) -> Continue | Begin | Unclear:
    """How `mapping` of the file begins, which has no positions in the store yet."""
    known = _siblings(connection, rows)
    change = change_to(file, connection, rows)
    taken = {kept.continued for kept in known.values()}
    left = sorted(
        (row for row in rows if row.seeded and row.mapping in change.left and row.mapping not in taken),
        key=lambda row: row.mapping,
    )
    if not left:
        return Begin()
    functions = tuple(known[row.mapping].function for row in left)
    if len(left) == len({*change.new, mapping}) == 1:
        return Continue(left[0], functions[0])
    return Unclear(tuple(left), functions)


def earliest(places: Sequence[Sequence[Lease]]) -> list[Lease]:
    """Leases without owners that begin, in every shard, where the one stopped that is furthest behind; `places` are leases of each.

    A shard that one of them does not know begins at its start. Those without any lease are gone meanwhile and say nothing.
    """
    told = [{lease.shard: lease for lease in each} for each in places if each]
    found: dict[ShardId, Lease] = {}
    for lease in (lease for each in told for lease in each.values()):
        known = found.get(lease.shard)
        if known is None or lease.checkpoint.position < known.checkpoint.position:
            found[lease.shard] = Lease(lease.shard, lease.parents, lease.checkpoint)
    start = Checkpoint(Position.horizon())
    return [
        lease if all(shard in each for each in told) else Lease(shard, lease.parents, start)
        for shard, lease in found.items()
    ]


def _siblings(connection: Connection, rows: Sequence[MappingRow]) -> Mapping[str, _Kept]:
    known = {row.mapping: kept for row in rows if (kept := _kept(row)) is not None}
    return {name: kept for name, kept in known.items() if _connection(kept).beside(connection)}


def _connection(kept: _Kept) -> Connection:
    return Connection(kept.source, kept.name, kept.function)


def _kept(row: MappingRow) -> _Kept | None:
    """What the row says of a mapping of the file; None for others, and for what another version wrote in another way."""
    try:
        return msgspec.convert(row.document.get(_KEY), _Kept)
    except msgspec.ValidationError:
        return None
