"""Owns which mapping of the store a new mapping of the configuration file continues (docs/decisions/0008).

A mapping's id is made from its source and its function's ARN. So another qualifier, or an ARN in place of a name, gives another
id. With AWS such a change is an update, which keeps the positions; so it must keep them here too.

Mappings of one source and one function name are called siblings. The row of each running sibling has the siblings of its file and
the change that led to this file. Changes are numbered, so the row with the greatest number describes the last file that ran. If
exactly one sibling has left the file since then and exactly one is new, the new one goes on where the other stopped. Siblings that
left the file earlier do not count. In all other cases it is not clear which one the new mapping continues. Then it begins where
the sibling that is furthest behind stopped.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from poller.domain.records import MappingId, Position, ShardId
from poller.domain.rows import Checkpoint, Lease, MappingRow

_KEY = "file"


@dataclass(frozen=True, slots=True)
class Connection:
    """The two ends of a mapping of the file: its source, and its function by name and by ARN with qualifier."""

    source: str
    name: str
    function: str

    def beside(self, other: "Connection") -> bool:
        """Whether both have the same source and the same function name."""
        return (self.source, self.name) == (other.source, other.name)


class Change(msgspec.Struct, frozen=True):
    """A change of the file's siblings. Ids are sorted. The number grows with each change."""

    number: int
    file: tuple[str, ...]
    """All siblings in the file after the change."""
    left: tuple[str, ...]
    """Siblings with positions that were in the file before the change and are not any more."""
    new: tuple[str, ...]
    """Siblings of `file` that had no positions."""


class _Kept(msgspec.Struct, frozen=True, omit_defaults=True):
    source: str
    name: str
    function: str
    change: Change | None = None
    """The change that led to the file with which this mapping last ran; None before it begins."""
    continued: str = ""
    """Id of the mapping whose positions were taken over, until that mapping is removed."""
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
    """Any of `rows` could be meant. Begin where the one that is furthest behind stopped: records may come twice, but none is lost."""

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
    return _document(kept)


def refreshed(row: MappingRow, connection: Connection, change: Change) -> Mapping[str, Any]:
    """The row's document with the mapping's present connection and the change that led to its file. Other members stay."""
    return described(connection, change=change, continued=continued_by(row))


def completed(row: MappingRow) -> Mapping[str, Any]:
    """The row's document after the mapping whose positions it took over was removed."""
    kept = _kept(row)
    assert kept is not None, "only a mapping of the file continues another"
    return {**row.document, **_document(msgspec.structs.replace(kept, continued=""))}


def connection_of(row: MappingRow) -> Connection | None:
    """The connection of a mapping of the file; None for other rows."""
    kept = _kept(row)
    return _connection(kept) if kept else None


def continued_by(row: MappingRow) -> MappingId | None:
    """The mapping whose positions `row` took over and that has not been removed yet; None if there is none."""
    kept = _kept(row)
    return MappingId(kept.continued) if kept and kept.continued else None


def claimed_by(row: MappingRow) -> MappingId | None:
    """The mapping that is about to take over the positions of `row`."""
    kept = _kept(row)
    return MappingId(kept.claimed) if kept and kept.claimed else None


def claimed(row: MappingRow, mapping: MappingId | None) -> Mapping[str, Any]:
    """The row's document when `mapping` is about to take over its positions; None: no mapping is."""
    kept = _kept(row)
    assert kept is not None, "only a mapping of the file can be continued"
    return {**row.document, **_document(msgspec.structs.replace(kept, claimed=mapping or ""))}


def change_to(
    file: Mapping[MappingId, Connection], connection: Connection, rows: Sequence[MappingRow]
) -> Change:
    """The change that led to this file, for siblings of `connection`: the last change in the store, or a new one."""
    known = _siblings(connection, rows)
    ours = tuple(sorted(name for name, each in file.items() if each.beside(connection)))
    changes = [kept.change for kept in known.values() if kept.change is not None]
    last = max(changes, key=lambda each: (each.number, each.file), default=None)
    if last is not None and last.file == ours:
        return last
    placed = {row.mapping for row in rows if row.seeded}
    before = {*known} if last is None else {*last.file}
    if last is not None and not placed.issuperset(last.new):
        # A new sibling of that file never began. The siblings that it could have continued can still be continued.
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
    """How a mapping of the file begins that has no positions in the store yet."""
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
    """Leases without owners. Each begins at the earliest position that any mapping has in its shard; `places` has each mapping's leases.

    If a mapping has no lease for a shard, the shard begins at its start. Mappings without any lease were removed, and are ignored.
    """
    by_shard = [{lease.shard: lease for lease in each} for each in places if each]
    found: dict[ShardId, Lease] = {}
    for lease in (lease for each in by_shard for lease in each.values()):
        known = found.get(lease.shard)
        if known is None or lease.checkpoint.position < known.checkpoint.position:
            found[lease.shard] = Lease(lease.shard, lease.parents, lease.checkpoint)
    start = Checkpoint(Position.horizon())
    return [
        lease if all(shard in each for each in by_shard) else Lease(shard, lease.parents, start)
        for shard, lease in found.items()
    ]


def _siblings(connection: Connection, rows: Sequence[MappingRow]) -> Mapping[str, _Kept]:
    known = {row.mapping: kept for row in rows if (kept := _kept(row)) is not None}
    return {name: kept for name, kept in known.items() if _connection(kept).beside(connection)}


def _connection(kept: _Kept) -> Connection:
    return Connection(kept.source, kept.name, kept.function)


def _document(kept: _Kept) -> dict[str, Any]:
    """The document as a store gives it back, with lists for tuples, so that an unchanged one is known as such."""
    return {_KEY: json.loads(json.dumps(msgspec.to_builtins(kept)))}


def _kept(row: MappingRow) -> _Kept | None:
    """The document of a row of the file; None for other rows, and for documents of other versions that cannot be read."""
    try:
        return msgspec.convert(row.document.get(_KEY), _Kept)
    except msgspec.ValidationError:
        return None
