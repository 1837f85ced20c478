"""Owns the payloads and answers of queued calls that do not fit into the row of their call.

A content that is too long for its row is split into parts, items under `call-parts#TOKEN`, which never change. A token is random,
and belongs to one writing of one content. The row names the token.

Nobody could find parts again that no row names, so each token has a mark under `call-leftovers` while no row names it:

- the mark is written before the first part, and removed by the transaction that writes the row;
- it is written again by the transaction that removes the row, or that lets it name another token. Then the parts are removed, and
  the mark last.

So a mark means that no row names its parts. A mark that is left when a process ends in the middle is found by its age: the next
sweep removes its parts. The sweep flags the mark first, and a transaction that wants to name flagged parts is refused. So parts
that a row names are never removed, however late a write arrives.
"""

import asyncio
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from adapters.stores.dynamodb.calls import Refused, Table, Write, each
from adapters.stores.dynamodb.table import ROOM_BYTES, Item, key, plain_values
from poller.domain.untrusted import numbers

LEFTOVERS = "call-leftovers"
INLINE_BYTES_MAX = 16 * 1024
"""A content up to this size is in the row of its call. It is written again when the call becomes due at another time."""
PARTS_MAX = 64
LEFT_S = 3_600.0
"""Parts that no row names are removed when their mark is so old. Nobody works on them any more then."""
SWEEP_S = 60.0
SWEPT_MAX = 16
"""Marks that one sweep works on, once in so many seconds."""
_NAMED = ("token", "parts", "sha256")


@dataclass(frozen=True, slots=True)
class Kept:
    """Where a content is: in the row itself, or in parts that the row names."""

    content: bytes = b""
    token: str = ""
    parts: int = 0
    digest: str = ""
    mark: str = ""
    """The sort key of the mark of parts that no row names yet."""

    def attributes(self, name: str) -> Item:
        """Returns the attributes of a row that has the content, or names its parts."""
        if not self.token:
            return {name: {"B": self.content}}
        values = ({"S": self.token}, {"N": str(self.parts)}, {"S": self.digest})
        return dict(zip(_names(name), values, strict=True))

    @property
    def marked(self) -> list[Write]:
        """What a transaction must also do that writes a row with these new parts."""
        if not self.mark:
            return []
        condition: Item = {
            "Key": key(LEFTOVERS, self.mark),
            "ConditionExpression": "attribute_exists(pk) AND attribute_not_exists(swept)",
        }
        return [("Delete", condition)]


def kept_in(row: Item, name: str) -> Kept:
    """Returns where the content `name` of a row is; raises ValueError if the row does not say it as it should."""
    token_name, parts_name, digest_name = _names(name)
    if token_name not in row:
        content = row.get(name, {}).get("B")
        if not isinstance(content, bytes | bytearray):
            raise ValueError(f"its {name} is missing")
        return Kept(bytes(content))
    found = plain_values(row, "", (token_name, parts_name, digest_name))
    token, parts, digest = (found.get(each) for each in (token_name, parts_name, digest_name))
    count = numbers.whole(parts, least=1, most=PARTS_MAX, default=0)
    if not (isinstance(token, str) and token and isinstance(digest, str) and count):
        raise ValueError(f"the parts of its {name} are not named as they should")
    return Kept(token=token, parts=count, digest=digest)


class CallParts:
    """The parts in one table, each of `room` bytes at most. `now` returns epoch seconds."""

    def __init__(
        self,
        table: Table,
        *,
        room: int = ROOM_BYTES,
        inline: int = INLINE_BYTES_MAX,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._table = table
        self._room = room
        self._inline = inline
        self._now = now
        self._swept: float | None = None

    async def keep(self, content: bytes, known: Kept | None = None) -> Kept:
        """Returns where `content` will be, and writes its parts if it has some. `known` is returned if it is the same content."""
        if len(content) <= self._inline:
            return Kept(content)
        digest = await _digest(content)
        if known is not None and known.digest == digest:
            return known
        token = uuid.uuid4().hex
        pieces = [content[at : at + self._room] for at in range(0, len(content), self._room)]
        kept = Kept(token=token, parts=len(pieces), digest=digest, mark=self._mark(token))
        await self._table.call("put_item", Item=key(LEFTOVERS, kept.mark))
        await each(
            self._table.call("put_item", Item={**_part(token, number), "part": {"B": piece}})
            for number, piece in enumerate(pieces)
        )
        return kept

    async def read(self, kept: Kept) -> bytes | None:
        """Returns a content; None if its parts are not there as they were written."""
        if not kept.token:
            return kept.content
        items = await self._table.query(_parts_of(kept.token), "part")
        pieces = [item.get("part", {}).get("B") for item in items]
        if not all(isinstance(piece, bytes | bytearray) for piece in pieces):
            return None
        content = b"".join(pieces)
        return content if await _digest(content) == kept.digest else None

    async def has(self, kept: Kept, content: bytes) -> bool:
        """Whether this content is kept there."""
        if not kept.token:
            return kept.content == content
        return len(content) > self._inline and await _digest(content) == kept.digest

    def unnamed(self, *all_kept: Kept) -> list[tuple[Write, Kept]]:
        """Returns what a transaction must also do after which no row names these parts, and what is to be dropped after it."""
        found: list[tuple[Write, Kept]] = []
        for kept in all_kept:
            if kept.token:
                left = Kept(token=kept.token, parts=kept.parts, mark=self._mark(kept.token))
                found.append((("Put", {"Item": key(LEFTOVERS, left.mark)}), left))
        return found

    async def drop(self, kept: Kept) -> None:
        """Removes parts that no row names, and their mark."""
        if kept.mark:
            await each(
                self._table.call("delete_item", Key=_part(kept.token, number)) for number in range(kept.parts)
            )
            await self._table.call("delete_item", Key=key(LEFTOVERS, kept.mark))

    async def sweep(self) -> None:
        """Removes parts that were left long ago, a few marks at once and not too often."""
        now = self._now()
        if self._swept is not None and 0 <= now - self._swept < SWEEP_S:
            return
        self._swept = now
        marks, _ = await self._table.page(
            LEFTOVERS, "sk", between=("0", _moment(now - LEFT_S)), rows_max=SWEPT_MAX
        )
        for mark in marks:
            with suppress(Refused):
                await self._remove_left(mark["sk"]["S"])

    async def _remove_left(self, mark: str) -> None:
        _, _, token = mark.partition("#")
        await self._table.update(
            key(LEFTOVERS, mark),
            change="SET #swept = :swept",
            values={"swept": {"BOOL": True}},
            condition="attribute_exists(pk)",
        )
        found = await self._table.query(_parts_of(token), "pk", "sk") if token else []
        await each(self._table.call("delete_item", Key=part) for part in found)
        await self._table.call("delete_item", Key=key(LEFTOVERS, mark))

    def _mark(self, token: str) -> str:
        return f"{_moment(self._now())}#{token}"


async def _digest(content: bytes) -> str:
    return await asyncio.to_thread(lambda: sha256(content).hexdigest())


def _moment(now: float) -> str:
    return f"{int(max(now, 0.0) * 1000):015}"


def _names(name: str) -> tuple[str, ...]:
    return tuple(f"{name}_{each}" for each in _NAMED)


def _parts_of(token: str) -> str:
    return f"call-parts#{token}"


def _part(token: str, number: int) -> dict[str, Any]:
    return key(_parts_of(token), f"{number:04}")
