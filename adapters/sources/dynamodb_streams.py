"""Owns the DynamoDB Streams source: DescribeStream, GetShardIterator, GetRecords."""

import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from types import MappingProxyType
from typing import Annotated, Any, Protocol

import msgspec
from pydantic import AfterValidator, BaseModel, ConfigDict

from adapters.aws import Arn, checked_arn, client
from adapters.hot import Hot
from adapters.pacing import shared_pacer
from adapters.sources.probing import probe_stream
from adapters.sources.wire import TURN_BYTES, begun, calling, from_cursor, to_cursor, understood
from poller.errors import CursorExpired, PositionTrimmed, ServiceUnavailable
from poller.findings import Finding
from poller.plugins import Environment, Plugin
from poller.ports import Pacer
from poller.records import (
    Cursor,
    DynamoChange,
    DynamoIdentity,
    DynamoRecord,
    Epoch,
    JsonObject,
    Page,
    Position,
    Rank,
    Shard,
    ShardId,
)
from poller.turns import Turns

PAGE_SHARDS = 100
PAGES_MAX = 1_000
READ_RECORDS_MAX = 1_000
SKIPS_MAX = 20
"""Reads in one call that pass over records from before the start; bounds a call to about five seconds."""
_SECOND_MS = 1_000
_RAW = MappingProxyType(
    {"Keys": "keys", "NewImage": "new_image", "OldImage": "old_image", "SizeBytes": "size_bytes"}
)
"""Members that stay JSON."""


def _stream_arn(text: str) -> str:
    form = "the ARN of a DynamoDB stream; write arn:aws:dynamodb:REGION:ACCOUNT:table/NAME/stream/LABEL"
    resource = r"table/[A-Za-z0-9_.-]{3,255}/stream/[0-9TZ:.+-]{1,40}"
    return checked_arn(text, service="dynamodb", resource=resource, form=form)


RETENTION_S = 24 * 3600.0


class DynamoSettings(BaseModel):
    """Which table stream to read."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    arn: Annotated[str, AfterValidator(_stream_arn)]


class DynamoStreamsApi(Protocol):
    """The operations, answered as AWS's JSON with binary values as base64 text and times as numbers."""

    async def describe_stream(self, **parameters: Any) -> JsonObject:
        """DescribeStream."""
        ...

    async def get_shard_iterator(self, **parameters: Any) -> JsonObject:
        """GetShardIterator."""
        ...


class _Answer(msgspec.Struct, frozen=True, gc=False, rename="pascal"):
    """What GetRecords answers."""

    records: list[DynamoRecord]
    next_shard_iterator: str | None = None


_ANSWER = msgspec.json.Decoder(_Answer)


class DynamoStream:
    """StreamSource over one table's stream.

    The service has no start by time. Such a position reads from the horizon and passes over what was created before it,
    to the whole second that AWS gives: a record of the same second is included.
    """

    def __init__(self, api: DynamoStreamsApi, pacer: Pacer, turns: Turns, *, arn: str) -> None:
        self._api = api
        self._records = Hot(api, "GetRecords", named=None)
        self._pacer = pacer
        self._turns = turns
        self._arn = arn
        self._region = Arn.of(arn).region

    async def shards(self) -> Sequence[Shard]:
        """All shards of the last 24 hours, open and closed."""
        shards: list[Shard] = []
        place: dict[str, str] = {}
        for _ in range(PAGES_MAX):
            described = await self._describe(place)
            with understood("dynamodbstreams DescribeStream"):
                shards += [_shard(each) for each in described["Shards"]]
            last = described.get("LastEvaluatedShardId")
            if not last:
                return shards
            place = {"ExclusiveStartShardId": last}
        raise ServiceUnavailable(
            f"dynamodbstreams DescribeStream: more than {PAGES_MAX * PAGE_SHARDS} shards"
        )

    async def _describe(self, place: Mapping[str, str]) -> JsonObject:
        # AWS allows ten of these a second for the whole account.
        await self._pacer.pace(f"dynamodbstreams DescribeStream {self._region}")
        with calling("dynamodbstreams DescribeStream"):
            reply = await self._api.describe_stream(StreamArn=self._arn, Limit=PAGE_SHARDS, **place)
        with understood("dynamodbstreams DescribeStream"):
            described: JsonObject = reply["StreamDescription"]
            return described

    async def cursor(self, shard: ShardId, position: Position) -> Cursor:
        """A read token for the first record behind `position`; raises PositionTrimmed when that is gone."""
        await self._pacer.pace(f"dynamodbstreams GetShardIterator {self._arn} {shard}")
        with calling("dynamodbstreams GetShardIterator", _special(position)):
            reply = await self._api.get_shard_iterator(StreamArn=self._arn, ShardId=shard, **_place(position))
        with understood("dynamodbstreams GetShardIterator"):
            return to_cursor(reply["ShardIterator"], position.since_ms // _SECOND_MS * _SECOND_MS)

    async def retention_s(self) -> float | None:
        """DynamoDB keeps stream records for 24 hours, always (spec 5.1)."""
        return RETENTION_S

    async def read(self, shard: ShardId, cursor: Cursor, *, records_max: int) -> Page:
        """The next records, at most 1,000; `behind_ms` is None, the service does not say."""
        page, skipped = await self._page(shard, cursor, records_max=records_max)
        for _ in range(SKIPS_MAX):
            if page.cursor is None or not skipped:
                break
            page, skipped = await self._page(shard, page.cursor, records_max=records_max)
        return page

    async def probe(self) -> Sequence[Finding]:
        """Tries every permission of this source; one record is read and stays where it is."""
        guess = "shardId-00000000000000000000-00000000"
        return await probe_stream(
            self, arn=self._arn, service="dynamodb", listing="DescribeStream", guess=guess
        )

    async def _page(self, shard: ShardId, cursor: Cursor, *, records_max: int) -> tuple[Page, bool]:
        """One read, and whether it had records of which all are from before the start."""
        since_ms, iterator = from_cursor(cursor)
        await self._pacer.pace(f"dynamodbstreams GetRecords {self._arn} {shard}")
        limit = min(records_max, READ_RECORDS_MAX)
        with calling("dynamodbstreams GetRecords", {"ValidationException": CursorExpired}):
            body = await self._records({"ShardIterator": iterator, "Limit": limit})
        if len(body) > TURN_BYTES:
            await self._turns.turn()
        with understood("dynamodbstreams GetRecords"):
            answer = _answer(body)
        records = begun(answer.records, since_ms) if since_ms else answer.records
        following = answer.next_shard_iterator
        after = None if following is None else to_cursor(following, 0 if records else since_ms)
        return Page(records, after), bool(answer.records) and not records


def _answer(body: bytes) -> _Answer:
    """The answer; raises ValueError or KeyError when it is none. msgspec refuses lone surrogates, which JSON may have."""
    if not body.isascii():
        # msgspec looks into no text of the members that stay JSON, whose readers rely on its being UTF-8.
        body.decode()
    try:
        return _ANSWER.decode(body)
    except msgspec.ValidationError:
        raise
    except msgspec.DecodeError:
        found = json.loads(body)
        return _Answer([read_by_hand(each) for each in found["Records"]], found.get("NextShardIterator"))


def read_by_hand(wire: JsonObject) -> DynamoRecord:
    """A record from an object of the form that GetRecords sends."""
    change = wire["dynamodb"]
    raw = {field: msgspec.Raw(_compact(change[name])) for name, field in _RAW.items() if name in change}
    identity = wire.get("userIdentity")
    return DynamoRecord(
        event_id=wire["eventID"],
        event_name=wire["eventName"],
        change=DynamoChange(
            arrived=Epoch(float(change["ApproximateCreationDateTime"])),
            sequence_number=change["SequenceNumber"],
            view_type=change.get("StreamViewType"),
            **raw,
        ),
        event_version=wire.get("eventVersion", "1.1"),
        identity=None if identity is None else DynamoIdentity(identity["Type"], identity["PrincipalId"]),
    )


def _compact(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def _special(position: Position) -> Mapping[str, type[PositionTrimmed]]:
    """A sequence number that the shard never had is refused as invalid: nothing behind it is there either."""
    refused = {"ValidationException": PositionTrimmed} if position.rank is Rank.AFTER else {}
    return MappingProxyType(refused)


def _place(position: Position) -> dict[str, str]:
    match position.rank:
        case Rank.START:
            return {"ShardIteratorType": "TRIM_HORIZON"}
        case Rank.AFTER:
            return {"ShardIteratorType": "AFTER_SEQUENCE_NUMBER", "SequenceNumber": position.sequence_number}
        case Rank.END:
            raise AssertionError("a shard that has ended has no cursor")


def _shard(wire: JsonObject) -> Shard:
    parent = wire.get("ParentShardId")
    return Shard(
        ShardId(wire["ShardId"]),
        (ShardId(parent),) if parent else (),
        closed="EndingSequenceNumber" in wire["SequenceNumberRange"],
    )


@asynccontextmanager
async def _open(settings: DynamoSettings, env: Environment) -> AsyncIterator[DynamoStream]:
    api: DynamoStreamsApi = await client(env, "dynamodbstreams", Arn.of(settings.arn).region)
    yield DynamoStream(api, await shared_pacer(env), env.turns, arn=settings.arn)


plugin = Plugin("dynamodb", DynamoSettings, _open)
