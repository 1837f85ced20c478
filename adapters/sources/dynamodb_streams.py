"""Owns the DynamoDB Streams source: DescribeStream, GetShardIterator, GetRecords.

The service cannot start at a time. Such a position starts at the trim horizon, and older records are skipped while reading.
"""

import json
import time
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from types import MappingProxyType
from typing import Annotated, Any, Protocol

import msgspec
from pydantic import AfterValidator, BaseModel, ConfigDict

from adapters.aws.calls import calling, text_of, understood
from adapters.aws.clients import checked_arn, client
from adapters.aws.pacing import shared_pacer
from adapters.aws.request_templates import FastOperation
from adapters.sources.checks import probe_stream, still_written
from adapters.sources.listings.shared_listing import shared_by
from adapters.sources.listings.table_listing import TableListing
from adapters.sources.odd_answers import Read, are_numbers, member, moment, read_singly, sequence_number, text
from adapters.sources.service_calls import TURN_BYTES, from_cursor, records_since, to_cursor
from poller.config.field_types import AS_WHOM, IdentityName
from poller.domain.arns import Arn
from poller.domain.errors import CursorExpired, PositionTrimmed
from poller.domain.findings import Finding
from poller.domain.records import (
    EVENT_VERSION,
    Cursor,
    DynamoChange,
    DynamoIdentity,
    DynamoRecord,
    Epoch,
    JsonObject,
    Monotonic,
    Page,
    Position,
    Rank,
    Shard,
    ShardId,
)
from poller.domain.telemetry.labels import SourceCall
from poller.loop_turns import LoopTurns
from poller.plugins import Environment, Plugin
from poller.ports import Pacer
from poller.source_ports.calls import CallCounter, uncounted
from poller.source_ports.listing import ShardListing

READ_RECORDS_MAX = 1_000
SKIPS_MAX = 20
"""Reads in one call whose records are all before the start time. This bounds a call to about five seconds."""
_SECOND_MS = 1_000
_RAW = MappingProxyType(
    {"Keys": "keys", "NewImage": "new_image", "OldImage": "old_image", "SizeBytes": "size_bytes"}
)
"""Members that are kept as raw JSON."""
_SEQUENCE_REFUSED = MappingProxyType({"ValidationException": PositionTrimmed})


def _stream_arn(text: str) -> str:
    form = "the ARN of a DynamoDB stream; write arn:aws:dynamodb:REGION:ACCOUNT:table/NAME/stream/LABEL"
    resource = r"table/[A-Za-z0-9_.-]{3,255}/stream/[0-9TZ:.+-]{1,40}"
    return checked_arn(text, service="dynamodb", resource=resource, form=form)


RETENTION_S = 24 * 3600.0


class DynamoSettings(BaseModel):
    """Which table stream to read."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    arn: Annotated[str, AfterValidator(_stream_arn)]
    identity: IdentityName | None = AS_WHOM


class DynamoStreamsApi(Protocol):
    """The operations that are used. They return AWS's JSON, with binary values as base64 text and times as numbers."""

    async def describe_stream(self, **parameters: Any) -> JsonObject:
        """DescribeStream."""
        ...

    async def get_shard_iterator(self, **parameters: Any) -> JsonObject:
        """GetShardIterator."""
        ...


class _Answer(msgspec.Struct, frozen=True, gc=False, rename="pascal"):
    """The members of GetRecords' answer that are used."""

    records: list[DynamoRecord]
    next_shard_iterator: str | None = None


_ANSWER = msgspec.json.Decoder(_Answer)


class DynamoStream:
    """StreamSource over one table's stream.

    AWS gives creation times in whole seconds, so a start at a time includes all records of that second.
    """

    def __init__(
        self,
        api: DynamoStreamsApi,
        pacer: Pacer,
        turns: LoopTurns,
        *,
        arn: str,
        listing: TableListing | None = None,
    ) -> None:
        self._api = api
        self._records = FastOperation(api, "GetRecords", named=None)
        self._pacer = pacer
        self._turns = turns
        self._arn = arn
        self._listing = listing or TableListing(api, pacer, arn=arn)
        self._count: CallCounter = uncounted

    def count_calls(self, count: CallCounter) -> None:
        """From now on `count` gets each call as it is sent."""
        self._count = count

    @property
    def over(self) -> str:
        """Why no more records come, by the last listing."""
        return self._listing.over

    async def shards(self) -> Sequence[Shard]:
        """Lists all shards of the last 24 hours, open and closed."""
        return await self._listing.listed(self._count)

    async def shards_since(self, moment: Monotonic) -> ShardListing:
        """The same, by a listing that began at `moment` or later, for whichever mapping."""
        return await self._listing.since(moment, self._count)

    async def children(self, shards: Collection[ShardId]) -> Sequence[Shard] | None:
        """The children of these shards; None if the service does not take the filter for it."""
        return await self._listing.children(shards, self._count)

    async def cursor(self, shard: ShardId, position: Position) -> Cursor:
        """Returns a cursor for the first record after `position`; raises PositionTrimmed if it was removed."""
        iterator = await self._iterator(shard, position)
        return to_cursor(iterator, position.since_ms // _SECOND_MS * _SECOND_MS)

    async def cursor_at(self, shard: ShardId, sequence_number: str) -> Cursor:
        """Returns a cursor for the record with this sequence number, or for the first one behind it. Raises PositionTrimmed."""
        place = {"ShardIteratorType": "AT_SEQUENCE_NUMBER", "SequenceNumber": sequence_number}
        return to_cursor(await self._iterator_at(shard, place, _SEQUENCE_REFUSED))

    async def _iterator(self, shard: ShardId, position: Position) -> str:
        return await self._iterator_at(shard, _place(position), _special_errors(position))

    async def _iterator_at(
        self, shard: ShardId, place: Mapping[str, str], special: Mapping[str, type[PositionTrimmed]]
    ) -> str:
        await self._pacer.pace(f"dynamodbstreams GetShardIterator {self._arn} {shard}")
        self._count(SourceCall.GET_SHARD_ITERATOR)
        with calling("dynamodbstreams GetShardIterator", special):
            reply = await self._api.get_shard_iterator(StreamArn=self._arn, ShardId=shard, **place)
        with understood("dynamodbstreams GetShardIterator"):
            return text_of(reply, "ShardIterator")

    async def retention_s(self) -> float | None:
        """Always 24 hours for a DynamoDB stream (aws-behaviour#retention)."""
        return RETENTION_S

    async def read(self, shard: ShardId, cursor: Cursor, *, records_max: int) -> Page:
        """Reads the next records, at most 1,000. The service does not say how far behind they are, so `behind_ms` is None."""
        page, skipped = await self._page(shard, cursor, records_max=records_max)
        for _ in range(SKIPS_MAX):
            if page.cursor is None or not skipped:
                break
            page, skipped = await self._page(shard, page.cursor, records_max=records_max)
        return page

    async def probe(self) -> Sequence[Finding]:
        """Tries every permission of this source; reads one record, which stays in the stream."""
        guess = "shardId-00000000000000000000-00000000"
        found = await probe_stream(
            self, arn=self._arn, service="dynamodb", listing="DescribeStream", guess=guess
        )
        return [*found, *still_written(self.over, on=self._arn)]

    async def _page(self, shard: ShardId, cursor: Cursor, *, records_max: int) -> tuple[Page, bool]:
        """Reads one page; also returns whether it had records and all of them were before the start time."""
        since_ms, iterator = from_cursor(cursor)
        answer = await self._get_records(shard, iterator, min(records_max, READ_RECORDS_MAX))
        answer.check("dynamodbstreams GetRecords")
        records = records_since(answer.records, since_ms) if since_ms else answer.records
        following = answer.following
        if answer.trouble:
            following = await self._before_trouble(shard, iterator, answer)
        after = None if following is None else to_cursor(following, 0 if records else since_ms)
        return Page(records, after), bool(answer.records) and not records

    async def _before_trouble(self, shard: ShardId, iterator: str, answer: Read[DynamoRecord]) -> str:
        """Returns an iterator just before an unreadable record, whose own sequence number cannot be trusted."""
        again = await self._get_records(shard, iterator, len(answer.records))
        if following := answer.followed_by(again):
            return following
        return await self._iterator(shard, Position.after(answer.records[-1].sequence_number))

    async def _get_records(self, shard: ShardId, iterator: str, limit: int) -> Read[DynamoRecord]:
        await self._pacer.pace(f"dynamodbstreams GetRecords {self._arn} {shard}")
        self._count(SourceCall.GET_RECORDS)
        with calling("dynamodbstreams GetRecords", {"ValidationException": CursorExpired}):
            body = await self._records({"ShardIterator": iterator, "Limit": limit})
        if len(body) > TURN_BYTES:
            await self._turns.turn()
        with understood("dynamodbstreams GetRecords"):
            return read_answer(body, Epoch(time.time()))


def read_answer(body: bytes, now: Epoch) -> Read[DynamoRecord]:
    """Reads an answer of GetRecords that came at `now`; raises ValueError if it is none.

    A record without a time has this moment, and is marked as not dated.
    """
    if not body.isascii():
        # msgspec does not check the text inside raw JSON, and its readers rely on UTF-8.
        body.decode()
    try:
        answer = _ANSWER.decode(body)
    except msgspec.MsgspecError:
        return read_singly(body, lambda wire: read_record(wire, now))
    if are_numbers([each.change.sequence_number for each in answer.records]):
        return Read(answer.records, answer.next_shard_iterator)
    return read_singly(body, lambda wire: read_record(wire, now))


def read_record(wire: JsonObject, now: Epoch) -> DynamoRecord:
    """Makes a record from an object of GetRecords' form; raises ValueError if it is unreadable."""
    change = member(wire, "dynamodb")
    number = sequence_number(change)
    changed = moment(change, "ApproximateCreationDateTime")
    raw = {field: msgspec.Raw(_compact(change[name])) for name, field in _RAW.items() if name in change}
    identity = member(wire, "userIdentity")
    return DynamoRecord(
        change=DynamoChange(
            arrived=now if changed is None else changed,
            sequence_number=number,
            view_type=text(change, "StreamViewType") if "StreamViewType" in change else msgspec.UNSET,
            dated=changed is not None,
            **raw,
        ),
        event_id=text(wire, "eventID"),
        event_name=text(wire, "eventName"),
        event_version=text(wire, "eventVersion") if "eventVersion" in wire else EVENT_VERSION,
        identity=None if identity is None else _identity(identity),
    )


def _identity(wire: JsonObject) -> DynamoIdentity:
    return DynamoIdentity(text(wire, "Type"), text(wire, "PrincipalId"))


def _compact(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":"), allow_nan=False).encode()


def _special_errors(position: Position) -> Mapping[str, type[PositionTrimmed]]:
    """Returns how errors of GetShardIterator are mapped. A sequence number that the shard never had is refused as invalid."""
    return _SEQUENCE_REFUSED if position.rank is Rank.AFTER else MappingProxyType({})


def _place(position: Position) -> dict[str, str]:
    match position.rank:
        case Rank.START:
            return {"ShardIteratorType": "TRIM_HORIZON"}
        case Rank.AFTER:
            return {"ShardIteratorType": "AFTER_SEQUENCE_NUMBER", "SequenceNumber": position.sequence_number}
        case Rank.END:
            raise AssertionError("a shard that has ended has no cursor")


@asynccontextmanager
async def _open(settings: DynamoSettings, env: Environment) -> AsyncIterator[DynamoStream]:
    acting = env.acting_as(settings.identity)
    api: DynamoStreamsApi = await client(acting, "dynamodbstreams", Arn.parse(settings.arn).region)
    pacer = await shared_pacer(env)
    listing = await shared_by(
        acting,
        "dynamodbstreams",
        settings.arn,
        lambda: TableListing(api, pacer, arn=settings.arn, clock=env.clock),
    )
    yield DynamoStream(api, pacer, env.turns, arn=settings.arn, listing=listing)


plugin = Plugin("dynamodb", DynamoSettings, _open)
