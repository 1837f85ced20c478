"""Owns the lease table of the Kinesis Client Library, versions 1 to 3: what its rows say of a shard's position.

One row a lease, under `leaseKey`: the shard's id, or `ACCOUNT:STREAM:CREATED:SHARD` when the application reads several
streams. `checkpoint` is a sequence number or one of TRIM_HORIZON, LATEST, AT_TIMESTAMP, SHARD_END. Rows without one are
no leases: since version 3.5 the workers' own rows may stand in the same table.
"""

from collections.abc import AsyncGenerator, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from adapters.aws import clients
from poller.domain.errors import InvalidConfiguration, ServiceUnavailable
from poller.domain.records import SEQUENCE_DIGITS_MAX, SHARD_END, Position, ShardId
from poller.domain.rows import Checkpoint, Lease
from poller.domain.untrusted import numbers
from poller.domain.untrusted.texts import cut
from poller.plugins import Environment, Plugin

PAGES_MAX = 10_000
CREATED_MAX = 10**18
SHOWN_CHARS_MAX = 80
SUB_SEQUENCE_MAX = 10**18

type Item = dict[str, Any]


class Inside(StrEnum):
    """What a checkpoint inside a record that holds several (of the Producer Library) means to functions, which get it whole."""

    REFUSE = "refuse"
    DONE = "done"
    """The record counts as processed: what came behind the checkpoint in it is not delivered."""
    AGAIN = "again"
    """The record is delivered again as a whole."""


class KclTable:
    """One application's lease table."""

    def __init__(self, client: Any, table: str, inside: Inside) -> None:
        self._client = client
        self._table = table
        self._inside = inside

    async def leases(self, source_arn: str) -> Sequence[Lease]:
        """The leases of one stream; raises InvalidConfiguration that names each row which cannot be taken over."""
        stream = source_arn.rpartition("/")[2] if ":stream/" in source_arn else ""
        rows = [item for item in await self._items() if _is_lease(item)]
        return leases_of(rows, stream, self._inside)

    async def _items(self) -> list[Item]:
        found: list[Item] = []
        start: Item = {}
        for _ in range(PAGES_MAX):
            with clients.mapped("dynamodb Scan"):
                page = await self._client.scan(TableName=self._table, ConsistentRead=True, **start)
            found += page["Items"]
            if not page.get("LastEvaluatedKey"):
                return found
            start = {"ExclusiveStartKey": page["LastEvaluatedKey"]}
        raise ServiceUnavailable(f"DynamoDB table {self._table} has more than {PAGES_MAX} pages")


def leases_of(rows: Iterable[Item], stream: str, inside: Inside) -> list[Lease]:
    """The leases that rows of a table mean for one stream (its name; empty: rows are not told apart by stream)."""
    found, problems = [], []
    for shard, row in _of_stream(rows, stream):
        try:
            position = _position_of(row, inside)
        except ValueError as error:
            problems.append(f"lease {row['leaseKey']['S']}: {error}")
            continue
        parents = tuple(ShardId(parent) for parent in sorted(row.get("parentShardId", {}).get("SS", ())))
        found.append(Lease(shard, parents, Checkpoint(position)))
    if problems:
        raise InvalidConfiguration(problems)
    return found


def _of_stream(rows: Iterable[Item], stream: str) -> list[tuple[ShardId, Item]]:
    """The rows of one stream with their shards; of a stream that was made again under its name only those of the newest one."""
    named = [(_named(row["leaseKey"]["S"]), row) for row in rows]
    mine = [(name, row) for name, row in named if name.stream in ("", stream)]
    newest = max((name.created for name, _ in mine), default=0)
    return [(name.shard, row) for name, row in mine if name.created in (0, newest)]


def _is_lease(item: Item) -> bool:
    return "checkpoint" in item and "leaseKey" in item


@dataclass(frozen=True, slots=True)
class _Name:
    """What a lease key says; `stream` is empty and `created` (epoch seconds) 0 where it names the shard alone."""

    shard: ShardId
    stream: str = ""
    created: int = 0


def _named(key: str) -> _Name:
    parts = key.split(":")
    if len(parts) < 4:
        return _Name(ShardId(key))
    return _Name(ShardId(parts[-1]), parts[1], numbers.whole(parts[2], most=CREATED_MAX, default=0))


def _position_of(row: Item, inside: Inside) -> Position:
    checkpoint = row["checkpoint"]["S"]
    if checkpoint == "TRIM_HORIZON":
        return Position.horizon()
    if checkpoint == "SHARD_END":
        return SHARD_END
    if not (checkpoint.isascii() and checkpoint.isdecimal() and len(checkpoint) <= SEQUENCE_DIGITS_MAX):
        raise ValueError(
            f"checkpoint {cut(checkpoint, SHOWN_CHARS_MAX)} says when it began but not where it is; let the application process "
            "a record of this shard, or delete the row to begin at the shard's first record"
        )
    within = numbers.whole(
        row.get("checkpointSubSequenceNumber", {}).get("N", "0"), most=SUB_SEQUENCE_MAX, default=None
    )
    if within is None:
        raise ValueError(
            "checkpointSubSequenceNumber is no number; let the application process a record of this shard"
        )
    if within == 0 or inside is Inside.DONE:
        return Position.after(checkpoint)
    if inside is Inside.AGAIN:
        before = int(checkpoint) - 1
        return Position.after(f"{before:0{len(checkpoint)}d}")
    raise ValueError(
        f"the checkpoint is inside record {checkpoint}, which holds several; --inside-record done skips the rest of it, "
        "--inside-record again delivers all of it again"
    )


class KclSettings(BaseModel):
    """Which table, which is the application's name by default; `region` None: the daemon's own."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    table: str = Field(pattern=r"^[A-Za-z0-9_.-]{3,255}$")
    region: str | None = None
    inside_record: Inside = Inside.REFUSE


@asynccontextmanager
async def open_kcl(settings: KclSettings, env: Environment) -> AsyncGenerator[KclTable]:
    """The table; nothing is asked yet."""
    client = await clients.client(env, "dynamodb", settings.region, purpose="kcl")
    yield KclTable(client, settings.table, settings.inside_record)


plugin = Plugin("kcl", KclSettings, open_kcl)
