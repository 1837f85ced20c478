"""Owns the reading of lease tables of the Kinesis Client Library, versions 1 to 3, and the positions in them.

A lease is a row whose `leaseKey` is the shard's id, or `ACCOUNT:STREAM:CREATED:SHARD` if the application reads several
streams. Its `checkpoint` is a sequence number or one of TRIM_HORIZON, LATEST, AT_TIMESTAMP, SHARD_END. Rows without a
checkpoint are not leases: since version 3.5 the table may also have the rows of the workers.
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
PART_MAX = 9_999_999
"""The highest part that a position can name. A record has fewer."""

type Item = dict[str, Any]


class Inside(StrEnum):
    """What to do with a checkpoint inside a record.

    The Producer Library puts several records into one. A mapping that takes it apart can go on inside of it; other mappings deliver it as
    a whole.
    """

    REFUSE = "refuse"
    DONE = "done"
    """The record counts as processed: what follows the checkpoint inside it is not delivered."""
    AGAIN = "again"
    """The record is delivered again as a whole."""
    PART = "part"
    """The mapping goes on behind the part at which the checkpoint stands."""


class KclTable:
    """One application's lease table."""

    def __init__(self, client: Any, table: str, inside: Inside) -> None:
        self._client = client
        self._table = table
        self._inside = inside

    async def leases(self, source_arn: str) -> Sequence[Lease]:
        """Returns the leases of one stream; raises InvalidConfiguration that names each row that cannot be used."""
        stream = source_arn.partition(":stream/")[2].partition("/")[0]
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
    """Makes leases of the rows of one stream. An empty `stream` accepts only rows that name no stream."""
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
    """Returns the rows of one stream with their shards. If the stream was deleted and made again, only those of the newest one."""
    named = [(_parse_key(row["leaseKey"]["S"]), row) for row in rows]
    of_stream = [(name, row) for name, row in named if name.stream in ("", stream)]
    newest = max((name.created for name, _ in of_stream), default=0)
    return [(name.shard, row) for name, row in of_stream if name.created in (0, newest)]


def _is_lease(item: Item) -> bool:
    return "checkpoint" in item and "leaseKey" in item


@dataclass(frozen=True, slots=True)
class _LeaseKey:
    """The parts of a lease key. If it names only a shard, `stream` is empty and `created` (epoch seconds) is 0."""

    shard: ShardId
    stream: str = ""
    created: int = 0


def _parse_key(key: str) -> _LeaseKey:
    parts = key.split(":")
    if len(parts) < 4:
        return _LeaseKey(ShardId(key))
    return _LeaseKey(ShardId(parts[-1]), parts[1], numbers.whole(parts[2], most=CREATED_MAX, default=0))


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
    if inside is Inside.PART and within <= PART_MAX:
        # The table does not say whether a record was taken apart: 0 may be its first part or the whole record.
        return Position.decode(f"AFTER:{checkpoint}:{within}")
    if within == 0 or inside is Inside.DONE:
        return Position.after(checkpoint)
    if inside is Inside.AGAIN:
        before = int(checkpoint) - 1
        return Position.after(f"{before:0{len(checkpoint)}d}")
    raise ValueError(
        f"the checkpoint is inside record {checkpoint}, which holds several; --inside-record part goes on there, "
        "if the mapping takes such records apart (source: {deaggregate: true}, or a consumer); "
        "--inside-record done skips the rest of the record, --inside-record again delivers all of it again"
    )


class KclSettings(BaseModel):
    """The table, which the library names after the application by default; `region` None: the daemon's own."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    table: str = Field(pattern=r"^[A-Za-z0-9_.-]{3,255}$")
    region: str | None = None
    inside_record: Inside = Inside.REFUSE


@asynccontextmanager
async def open_kcl(settings: KclSettings, env: Environment) -> AsyncGenerator[KclTable]:
    """Yields the table. Nothing is read yet."""
    client = await clients.client(env, "dynamodb", settings.region, purpose="kcl")
    yield KclTable(client, settings.table, settings.inside_record)


plugin = Plugin("kcl", KclSettings, open_kcl)
