"""Owns the file format of exported checkpoints, lines of JSON, and the steps of an import into a store."""

import base64
import binascii
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

import msgspec

from poller.domain.errors import InvalidConfiguration
from poller.domain.records import Epoch, MappingId, Position, Rank, Shard, ShardId
from poller.domain.rows import Checkpoint, Lease, MappingRow
from poller.domain.streams.places import is_name

LINES_MAX = 1_000_000
PROBLEMS_MAX = 20
"""Wrong lines that are told. A file of another kind has nothing but wrong lines."""
SEQUENCE_DIGITS_MAX = 128
SECONDS_MIN, SECONDS_MAX = 100_000_000, 4_102_444_800
"""Epoch seconds of moments between 1973 and 2100. The same moments in milliseconds are larger than all of these."""
_SCALE_MS = 1000
_HOW = (
    "write epoch milliseconds (AT_TIMESTAMP:1767225600000), epoch seconds (AT_TIMESTAMP:1767225600) or a time with its zone "
    "(AT_TIMESTAMP:2026-01-01T00:00:00Z), between 1973 and 2100; TRIM_HORIZON is the oldest record that there is"
)


class Line(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """One line: a mapping (with `fixed`, epoch seconds, the moment that LATEST stands for) or one of its shards.

    `position` is TRIM_HORIZON, AT_TIMESTAMP:<moment>, AFTER:<sequence number>, AFTER:<sequence number>:<part> or SHARD_END. `memo` is the engine's memo in
    base64. It is used only if `memo_at` is the line's position: with another position the memo would skip records.
    """

    mapping: str
    fixed: float | None = None
    shard: str | None = None
    parents: tuple[str, ...] = ()
    position: str | None = None
    memo: str = ""
    memo_at: str = ""


@dataclass(slots=True)
class Kept:
    """The content of a file for one mapping."""

    fixed: Epoch | None
    leases: dict[ShardId, Lease]


def mapping_lines(row: MappingRow, leases: Iterable[Lease]) -> Iterator[str]:
    """The lines for one mapping: one for the mapping, then one for each shard."""
    yield _text(Line(row.mapping, fixed=row.fixed))
    for lease in sorted(leases, key=lambda each: each.shard):
        checkpoint = lease.checkpoint
        memo, position = base64.b64encode(checkpoint.memo).decode(), checkpoint.position.encode()
        line = Line(
            row.mapping,
            shard=lease.shard,
            parents=lease.parents,
            position=position,
            memo=memo,
            memo_at=position if memo else "",
        )
        yield _text(line)


def read(text: str) -> dict[MappingId, Kept]:
    """Reads the lines of any number of mappings. Raises InvalidConfiguration, which names each wrong line."""
    found: dict[MappingId, Kept] = {}
    problems = []
    for number, each in enumerate(text.split("\n"), start=1):
        if not each.strip():
            continue
        if number > LINES_MAX:
            raise InvalidConfiguration([f"FILE: more than {LINES_MAX} lines; import one mapping at a time"])
        try:
            _add(found, msgspec.json.decode(each, type=Line))
        except (msgspec.MsgspecError, ValueError) as error:
            problems.append(f"FILE: line {number}: {error}; write it as `poller checkpoints export` does")
            if len(problems) == PROBLEMS_MAX:
                problems.append("FILE: no further line was read; mend these first")
                break
    if problems:
        raise InvalidConfiguration(problems)
    return found


def _add(found: dict[MappingId, Kept], line: Line) -> None:
    kept = found.setdefault(MappingId(line.mapping), Kept(None, {}))
    if line.shard is None:
        if line.fixed is None:
            raise ValueError("neither fixed nor shard is given")
        kept.fixed = Epoch(_seconds("fixed", line.fixed))
        return
    if line.position is None or len(line.position) > SEQUENCE_DIGITS_MAX:
        raise ValueError("no position is given, or one that is too long")
    shard = ShardId(line.shard)
    if shard in kept.leases:
        raise ValueError(f"shard {shard} is given twice")
    try:
        memo = base64.b64decode(line.memo, validate=True)
    except binascii.Error:
        raise ValueError("memo is not base64") from None
    parents = tuple(map(ShardId, line.parents))
    position = _position(line.position)
    if line.memo_at != line.position:
        memo = b""
    kept.leases[shard] = Lease(shard, parents, Checkpoint(position, memo))


def _position(text: str) -> Position:
    """The position that a person or `export` wrote. Raises ValueError, which says what to write."""
    kind, _, rest = text.partition(":")
    if kind == "AFTER" and not is_name(rest):
        raise ValueError(
            f"position {text!r}: the sequence number is not decimal digits, with or without a part such as :2"
        )
    if kind != "AT_TIMESTAMP":
        return Position.decode(text)
    try:
        seconds = _moment(rest)
    except ValueError as error:
        raise ValueError(f"position {text!r}: {error}; {_HOW}") from None
    return Position(Rank.START, since_ms=round(seconds * _SCALE_MS))


def _moment(text: str) -> float:
    """Epoch seconds of a moment, which is given in seconds, in milliseconds or as ISO 8601."""
    try:
        number = float(text)
    except ValueError:
        try:
            found = datetime.fromisoformat(text)
        except ValueError:
            raise ValueError("the moment is neither a number nor a time of ISO 8601") from None
        if found.tzinfo is None:
            raise ValueError("its zone is missing") from None
        return _seconds("the moment", found.timestamp())
    return _seconds("the moment", number)


def _seconds(name: str, number: float) -> float:
    """Epoch seconds of a number in seconds or milliseconds. Raises ValueError for a moment outside 1973 to 2100."""
    seconds = number / _SCALE_MS if number >= SECONDS_MIN * _SCALE_MS else number
    if not SECONDS_MIN <= seconds <= SECONDS_MAX:
        raise ValueError(f"{name} is {number:g}, which is neither epoch seconds nor milliseconds since 1973")
    return seconds


def _text(line: Line) -> str:
    return msgspec.json.encode(line).decode()


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportSteps:
    """The steps of an import: leases to `seed`, to move on (`advance`: stored lease and new checkpoint), and to move back (`rewind`).

    `refused` are reasons not to begin the import, one line each. `same` counts shards that have the wanted position already.
    """

    seed: tuple[Lease, ...] = ()
    advance: tuple[tuple[Lease, Checkpoint], ...] = ()
    rewind: tuple[tuple[Lease, Checkpoint], ...] = ()
    same: int = 0
    refused: tuple[str, ...] = ()


def steps(
    wanted: Mapping[ShardId, Lease], stored: Mapping[ShardId, Lease], *, busy: Collection[str], force: bool
) -> ImportSteps:
    """The steps that change the store from `stored` to `wanted`. `busy` are owners that are alive. Other shards stay as they are.

    A shard that is moved back loses its memo, so that all records behind its position are delivered again.
    """
    seed, advance, rewind, refused = [], [], [], []
    same = 0
    for shard, lease in sorted(wanted.items()):
        there = stored.get(shard)
        if there is None:
            seed.append(lease)
        elif there.checkpoint.position == lease.checkpoint.position and not (force and _skips(there, lease)):
            same += 1
        elif there.owner in busy:
            refused.append(f"shard {shard}: worker {there.owner} works on it; stop it or disable the mapping")
        elif there.checkpoint.position < lease.checkpoint.position:
            advance.append((there, lease.checkpoint))
        elif force:
            # The memo would skip records that must be delivered again.
            rewind.append((there, Checkpoint(lease.checkpoint.position)))
        else:
            refused.append(
                f"shard {shard}: is at {there.checkpoint.position.encode()} already; "
                f"{lease.checkpoint.position.encode()} would go back: --force does so"
            )
    return ImportSteps(
        seed=tuple(seed), advance=tuple(advance), rewind=tuple(rewind), same=same, refused=tuple(refused)
    )


def _skips(there: Lease, wanted: Lease) -> bool:
    """Whether the stored memo may skip records behind the position that the wanted memo does not skip."""
    return there.checkpoint.memo not in (b"", wanted.checkpoint.memo)


def with_ancestors(leases: Mapping[ShardId, Lease], listed: Sequence[Shard]) -> dict[ShardId, Lease]:
    """Adds a lease at SHARD_END for each ancestor without one: a consumer that has begun a child has finished the child's parents.

    Without these leases the parents would be read as new shards.
    """
    parents = {shard.shard_id: shard.parents for shard in listed}
    found = dict(leases)
    todo = [parent for lease in leases.values() for parent in (*lease.parents, *parents.get(lease.shard, ()))]
    while todo:
        shard = todo.pop()
        if shard not in found:
            found[shard] = Lease(shard, parents.get(shard, ()), Checkpoint(Position.decode("SHARD_END")))
            todo += parents.get(shard, ())
    return {
        shard: lease if shard not in parents else replace(lease, parents=parents[shard])
        for shard, lease in found.items()
    }
