"""Owns the Kinesis source: ListShards, GetShardIterator, GetRecords, DescribeStreamSummary."""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from types import MappingProxyType
from typing import Annotated, Any, Protocol

import msgspec
from pydantic import AfterValidator, BaseModel, ConfigDict

from adapters.aws import Arn, checked_arn, client
from adapters.hot import Hot, decoded
from adapters.pacing import shared_pacer
from adapters.sources.probing import probe_kinesis
from adapters.sources.wire import TURN_BYTES, begun, calling, from_cursor, to_cursor, understood
from poller.errors import AccessDenied, CursorExpired, PortError, PositionTrimmed, ServiceUnavailable
from poller.findings import Finding
from poller.plugins import Environment, Plugin
from poller.ports import Pacer
from poller.records import Cursor, JsonObject, KinesisRecord, Page, Position, Rank, Shard, ShardId
from poller.turns import Turns

PAGE_SHARDS = 1_000
PAGES_MAX = 100
LISTINGS_MAX = 3
"""Listings begun until one goes through before its page token expires (after five minutes)."""
READ_RECORDS_MAX = 10_000
PROBES_MAX = 4
"""Reads that look for the record of a position. Kinesis may answer with nothing although there is more."""
_SECOND_MS = 1_000
_TOKEN_EXPIRED = MappingProxyType({"ExpiredNextTokenException": CursorExpired})
_ITERATOR_REFUSED = MappingProxyType({"InvalidArgumentException": CursorExpired})
_SEQUENCE_REFUSED = MappingProxyType({"InvalidArgumentException": PositionTrimmed})
_MOMENT_REFUSED = MappingProxyType({"InvalidArgumentException": ServiceUnavailable})


def _stream_arn(text: str) -> str:
    if "/consumer/" in text:
        raise ValueError(
            f"{text!r} is an enhanced fan-out consumer, which is not supported; give the ARN of its stream"
        )
    form = "the ARN of a Kinesis stream; write arn:aws:kinesis:REGION:ACCOUNT:stream/NAME"
    return checked_arn(text, service="kinesis", resource=r"stream/[A-Za-z0-9_.-]{1,128}", form=form)


class KinesisSettings(BaseModel):
    """Which stream to read."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    arn: Annotated[str, AfterValidator(_stream_arn)]


class KinesisApi(Protocol):
    """The operations, answered as AWS's JSON with data as base64 text and times as numbers."""

    async def list_shards(self, **parameters: Any) -> JsonObject:
        """ListShards."""
        ...

    async def get_shard_iterator(self, **parameters: Any) -> JsonObject:
        """GetShardIterator."""
        ...

    async def describe_stream_summary(self, **parameters: Any) -> JsonObject:
        """DescribeStreamSummary."""
        ...


class _Answer(msgspec.Struct, frozen=True, gc=False, rename="pascal"):
    """What GetRecords answers, as far as anybody here looks at it."""

    records: list[KinesisRecord]
    next_shard_iterator: str | None = None
    millis_behind_latest: int | None = None


_ANSWER = msgspec.json.Decoder(_Answer)


class KinesisStream:
    """StreamSource over one Kinesis stream; calls on a shard are paced under AWS's five a second."""

    def __init__(self, api: KinesisApi, pacer: Pacer, turns: Turns, *, arn: str) -> None:
        self._api = api
        self._records = Hot(api, "GetRecords", named="StreamARN")
        self._pacer = pacer
        self._turns = turns
        self._arn = arn

    async def shards(self) -> Sequence[Shard]:
        """All shards within retention, open and closed."""
        for _ in range(LISTINGS_MAX):
            try:
                return await self._listing()
            except CursorExpired:
                continue
        raise ServiceUnavailable(f"kinesis ListShards: the page token expired {LISTINGS_MAX} times")

    async def _listing(self) -> list[Shard]:
        shards: list[Shard] = []
        parameters: dict[str, Any] = {"StreamARN": self._arn}
        for _ in range(PAGES_MAX):
            with calling("kinesis ListShards", _TOKEN_EXPIRED):
                reply = await self._api.list_shards(MaxResults=PAGE_SHARDS, **parameters)
            with understood("kinesis ListShards"):
                shards += [_shard(each) for each in reply["Shards"]]
            if not reply.get("NextToken"):
                return shards
            # AWS refuses a stream's name or ARN beside a token.
            parameters = {"NextToken": reply["NextToken"]}
        raise ServiceUnavailable(f"kinesis ListShards: more than {PAGES_MAX * PAGE_SHARDS} shards")

    async def cursor(self, shard: ShardId, position: Position) -> Cursor:
        """A read token for the first record behind `position`.

        Raises PositionTrimmed when the stream does not know the position's record any more, which Kinesis itself passes
        over in silence. That a shard was idle for all the retention looks the same when a new record has come.
        """
        match position.rank:
            case Rank.START:
                return await self._from_start(shard, position)
            case Rank.AFTER:
                return await self._behind(shard, position)
            case Rank.END:
                raise AssertionError("a shard that has ended has no cursor")

    async def _from_start(self, shard: ShardId, position: Position) -> Cursor:
        if position.since is None:
            return to_cursor(await self._iterator(shard, {"ShardIteratorType": "TRIM_HORIZON"}))
        # A moment may lie in AWS's future when this host's clock is ahead; that heals by waiting.
        place = {"ShardIteratorType": "AT_TIMESTAMP", "Timestamp": position.since}
        # Where a client or a service cuts the moment to its second, what comes too early is dropped while reading.
        return to_cursor(await self._iterator(shard, place, _MOMENT_REFUSED), position.since_ms)

    async def _behind(self, shard: ShardId, position: Position) -> Cursor:
        iterator: str | None = await self._at(shard, "AT_SEQUENCE_NUMBER", position)
        for _ in range(PROBES_MAX):
            assert iterator is not None
            answer = await self._get_records(shard, iterator, 1)
            found = int(answer.records[0].sequence_number) if answer.records else None
            if found is not None and found > position.sequence:
                raise PositionTrimmed(f"kinesis GetRecords: {shard}: the position's record is gone")
            iterator = answer.next_shard_iterator
            if found is not None and iterator is not None:
                return to_cursor(iterator)
            if found is not None or iterator is None or not answer.millis_behind_latest:
                break
        return to_cursor(await self._at(shard, "AFTER_SEQUENCE_NUMBER", position))

    async def _at(self, shard: ShardId, kind: str, position: Position) -> str:
        place = {"ShardIteratorType": kind, "StartingSequenceNumber": position.sequence_number}
        # A sequence number of another life of the stream is refused, so all that followed it is gone.
        return await self._iterator(shard, place, _SEQUENCE_REFUSED)

    async def _iterator(
        self,
        shard: ShardId,
        place: Mapping[str, Any],
        special: Mapping[str, type[PortError]] = MappingProxyType({}),
    ) -> str:
        await self._pacer.pace(f"kinesis GetShardIterator {self._arn} {shard}")
        with calling("kinesis GetShardIterator", special):
            reply = await self._api.get_shard_iterator(StreamARN=self._arn, ShardId=shard, **place)
        with understood("kinesis GetShardIterator"):
            return str(reply["ShardIterator"])

    async def read(self, shard: ShardId, cursor: Cursor, *, records_max: int) -> Page:
        """The next records, at most 10,000 or 10 MB; no records with `behind_ms` above 0 means: read on."""
        since_ms, iterator = from_cursor(cursor)
        answer = await self._get_records(shard, iterator, records_max)
        read = _to_the_millisecond(answer.records)
        records = begun(read, since_ms) if since_ms else read
        following = answer.next_shard_iterator
        after = None if following is None else to_cursor(following, 0 if records else since_ms)
        return Page(records, after, answer.millis_behind_latest)

    async def retention_s(self) -> float | None:
        """The stream's retention period; None when the credentials may not ask for it."""
        try:
            with calling("kinesis DescribeStreamSummary"):
                reply = await self._api.describe_stream_summary(StreamARN=self._arn)
        except AccessDenied:
            return None
        with understood("kinesis DescribeStreamSummary"):
            return float(reply["StreamDescriptionSummary"]["RetentionPeriodHours"]) * 3600.0

    async def probe(self) -> Sequence[Finding]:
        """Tries every permission of this source; one record is read and stays where it is."""
        return await probe_kinesis(self, arn=self._arn)

    async def _get_records(self, shard: ShardId, iterator: str, records_max: int) -> _Answer:
        await self._pacer.pace(f"kinesis GetRecords {self._arn} {shard}")
        limit = min(records_max, READ_RECORDS_MAX)
        with calling("kinesis GetRecords", _ITERATOR_REFUSED):
            parameters = {"StreamARN": self._arn, "ShardIterator": iterator, "Limit": limit}
            body = await self._records(parameters)
            if len(body) > TURN_BYTES:
                await self._turns.turn()
            return decoded(_ANSWER, body)


def _to_the_millisecond(records: list[KinesisRecord]) -> list[KinesisRecord]:
    """Records whose times are as fine as the service's; round(…, 3) would take twice as long."""
    if all(round(each.arrived * _SECOND_MS) / _SECOND_MS == each.arrived for each in records):
        return records
    return [
        msgspec.structs.replace(each, arrived=round(each.arrived * _SECOND_MS) / _SECOND_MS)
        for each in records
    ]


def _shard(wire: JsonObject) -> Shard:
    parents = (wire.get("ParentShardId"), wire.get("AdjacentParentShardId"))
    return Shard(
        ShardId(wire["ShardId"]),
        tuple(ShardId(parent) for parent in parents if parent),
        closed="EndingSequenceNumber" in wire["SequenceNumberRange"],
    )


@asynccontextmanager
async def _open(settings: KinesisSettings, env: Environment) -> AsyncIterator[KinesisStream]:
    api: KinesisApi = await client(env, "kinesis", Arn.of(settings.arn).region)
    yield KinesisStream(api, await shared_pacer(env), env.turns, arn=settings.arn)


plugin = Plugin("kinesis", KinesisSettings, _open)
