"""Owns how a memo of any size is kept in DynamoDB: compressed, and split into parts if it does not fit into its lease row.

A part is an item under `memos#MAPPING` that never changes. The parts of one memo are called a generation. Their keys begin with
the shard, the epoch and the turn of the writer, so that generations sort by age. A turn is a number that grows with each save.
The lease row names the valid generation. It is written last, and only if the fence holds. Parts that no row names were left by
a writer that was interrupted.
"""

import asyncio
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Self

from adapters.stores.dynamodb.calls import Table, each
from adapters.stores.dynamodb.table import Item, key
from poller.domain.errors import ServiceUnavailable
from poller.domain.records import MappingId, ShardId
from poller.domain.untrusted import numbers

MEMO_BYTES_MAX = 8 * 1024 * 1024
"""A longer memo is refused. A function's answer, and so the state of a window, has 6 MB at most."""
PLAIN_BYTES_MAX = 1024
"""A memo up to this size costs one write unit uncompressed. A longer one is compressed if that makes it shorter."""
LOOP_BYTES_MAX = 64 * 1024
"""A longer memo is compressed and unpacked in a thread, since it would block the event loop for milliseconds."""
LEVEL = 1
"""zlib's fastest: about 10 ms for 1 MB of JSON."""
ZLIB = "zlib"
PLAIN = "plain"
POINTER = ("memo_generation", "memo_parts")
"""The attributes of a row whose memo is in parts."""
CAUSE_CHARS_MAX = 100
_DIGITS = 20


@dataclass(frozen=True, slots=True, order=True)
class Generation:
    """Identifies the parts of one save. Epoch and turn sort in the order of the saves that the fence admits."""

    epoch: int
    turn: int

    def __str__(self) -> str:
        return f"{self.epoch:0{_DIGITS}}-{self.turn:0{_DIGITS}}"

    @classmethod
    def of(cls, row: Item) -> Self | None:
        """Returns the generation that a lease row names, or None if the memo is in the row itself."""
        if "memo_generation" not in row:
            return None
        with _parsed(row):
            epoch, _, turn = row["memo_generation"]["S"].partition("-")
            return cls(_whole(epoch), _whole(turn))


@dataclass(frozen=True, slots=True)
class Packed:
    """A memo in the form in which it is stored."""

    form: str
    content: bytes

    def inline(self) -> Item:
        """Returns the attributes of a row that contains the memo itself."""
        return {"memo": {"B": self.content}, "memo_form": {"S": self.form}}

    def pointer(self, generation: Generation, parts: int) -> Item:
        """Returns the attributes of a row whose memo is in parts."""
        return {
            "memo_form": {"S": self.form},
            "memo_generation": {"S": str(generation)},
            "memo_parts": {"N": str(parts)},
        }


async def pack(memo: bytes, shard: ShardId) -> Packed:
    """Returns the shorter form of `memo`. Raises ServiceUnavailable for one that is too long, since a later one may be shorter."""
    if len(memo) > MEMO_BYTES_MAX:
        raise ServiceUnavailable(
            f"the memo of shard {shard} has {len(memo)} bytes; DynamoDB keeps {MEMO_BYTES_MAX} at most"
        )
    if len(memo) <= PLAIN_BYTES_MAX:
        return Packed(PLAIN, memo)
    if len(memo) <= LOOP_BYTES_MAX:
        return _shorter(memo)
    return await asyncio.to_thread(_shorter, memo)


def _shorter(memo: bytes) -> Packed:
    compressed = zlib.compress(memo, LEVEL)
    return Packed(ZLIB, compressed) if len(compressed) < len(memo) else Packed(PLAIN, memo)


def light(row: Item) -> bool:
    """Whether the row contains its memo, and the memo is short enough to be unpacked on the event loop."""
    return "memo_generation" not in row and len(_content(row)) <= LOOP_BYTES_MAX


def unpacked(row: Item, content: bytes | None = None) -> bytes:
    """Unpacks the memo of a row, from `content` if its parts were read; raises ServiceUnavailable if it cannot be unpacked."""
    packed = _content(row) if content is None else content
    with _parsed(row):
        form = row.get("memo_form", {"S": PLAIN})["S"]
    if form == PLAIN:
        return packed
    inflater = zlib.decompressobj()
    try:
        memo = inflater.decompress(packed, MEMO_BYTES_MAX)
    except zlib.error as error:
        raise _unreadable(row, str(error)) from error
    if not inflater.eof:
        raise _unreadable(row, f"it is cut, or has more than {MEMO_BYTES_MAX} bytes")
    return memo


async def unpack(row: Item, content: bytes | None = None) -> bytes:
    """As `unpacked`, but in a thread: for rows that are not light."""
    return await asyncio.to_thread(unpacked, row, content)


def _content(row: Item) -> bytes:
    with _parsed(row):
        return bytes(row["memo"]["B"]) if "memo" in row else b""


def _whole(text: str) -> int:
    found = numbers.whole(text, most=10**_DIGITS, default=None)
    if found is None:
        raise ValueError("no whole number")
    return found


@contextmanager
def _parsed(row: Item) -> Iterator[None]:
    """Turns parse errors into ServiceUnavailable: poller did not write such values."""
    try:
        yield
    except (LookupError, TypeError, ValueError) as error:
        raise _unreadable(row, f"{type(error).__name__}: {error}"[:CAUSE_CHARS_MAX]) from error


def _unreadable(row: Item, why: str) -> ServiceUnavailable:
    shard = row["sk"]["S"]
    remedy = "remove memo, memo_form, memo_generation and memo_parts from its row to go on without it"
    return ServiceUnavailable(f"the memo of shard {shard} cannot be read: {why}; {remedy}")


def incomplete(row: Item) -> ServiceUnavailable:
    """Returns the error for a row that names parts that are missing after several reads."""
    return _unreadable(row, f"parts of {row['memo_generation']['S']} are missing")


def memos_of(mapping: MappingId) -> str:
    """Returns the partition of the parts of a mapping's memos.

    They are not in the partition of the leases, so that reading leases does not read parts that no row names, and because DynamoDB
    limits writes by partition.
    """
    return f"memos#{mapping}"


class Parts:
    """The parts of memos in one table, each of `room` bytes at most."""

    def __init__(self, table: Table, room: int) -> None:
        self._table = table
        self._room = room

    async def write(self, mapping: MappingId, shard: ShardId, generation: Generation, content: bytes) -> int:
        """Writes all parts of one generation; returns how many there are."""
        parts = [content[at : at + self._room] for at in range(0, len(content), self._room)]
        await each(
            self._table.call(
                "put_item",
                Item={**key(memos_of(mapping), f"{shard}#{generation}#{number:04}"), "part": {"B": part}},
            )
            for number, part in enumerate(parts)
        )
        return len(parts)

    async def read(self, mapping: MappingId, row: Item) -> bytes | None:
        """Reads the content of the generation that a lease row names; returns None if a part is missing."""
        span = _span(f"{row['sk']['S']}#{row['memo_generation']['S']}")
        items = await self._table.query(memos_of(mapping), between=span)
        with _parsed(row):
            if len(items) != _whole(row["memo_parts"]["N"]):
                return None
            return b"".join(bytes(item["part"]["B"]) for item in items)

    async def keys(
        self, mapping: MappingId, shard: ShardId, *, below: Generation | None = None
    ) -> list[Item]:
        """Returns the keys of a shard's parts, of all generations or of those older than `below`."""
        first, last = _span(shard)
        return await self._keys(mapping, (first, f"{shard}#{below}" if below else last))

    async def sweep(
        self, mapping: MappingId, shard: ShardId, *, below: Generation, keep: Generation | None = None
    ) -> None:
        """Removes the parts of generations older than `below`, except those of `keep`."""
        found = await self.keys(mapping, shard, below=below)
        if keep is not None:
            found = [part for part in found if not part["sk"]["S"].startswith(f"{shard}#{keep}#")]
        await self.remove(found)

    async def discard(self, mapping: MappingId, shard: ShardId, generation: Generation) -> None:
        """Removes the parts of one generation, which no row names."""
        await self.remove(await self._keys(mapping, _span(f"{shard}#{generation}")))

    async def clear(self, mapping: MappingId) -> None:
        """Removes all parts of all shards."""
        await self.remove(await self._keys(mapping, None))

    async def remove(self, keys: Iterable[Item]) -> None:
        """Removes the parts with these keys; no error for parts that do not exist."""
        await each(self._table.call("delete_item", Key=part) for part in keys)

    async def _keys(self, mapping: MappingId, between: tuple[str, str] | None) -> list[Item]:
        return await self._table.query(memos_of(mapping), "pk", "sk", between=between)


def _span(prefix: str) -> tuple[str, str]:
    """Returns the lowest and the highest sort key that begin with `prefix` and #. Only digits, - and # follow."""
    return f"{prefix}#", f"{prefix}#~"
