"""Owns the Kinesis source: ListShards, GetShardIterator, GetRecords, DescribeStreamSummary.

Kinesis does not report that the record of a position was removed: an iterator for it silently starts at a later record. So a
cursor is found by reading the record of the position itself, and a later record in its place means that it was lost.
"""

import time
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, Protocol

import msgspec

from adapters.aws.calls import calling, text_of, understood
from adapters.aws.request_templates import FastOperation
from adapters.sources.checks import probe_kinesis, still_written
from adapters.sources.kinesis.aggregates import taken_apart
from adapters.sources.kinesis.listing import stream_listing
from adapters.sources.listings.shared_listing import SharedListing
from adapters.sources.odd_answers import (
    Read,
    are_numbers,
    behind_of,
    is_base64,
    moment,
    read_singly,
    sequence_number,
    text,
)
from adapters.sources.service_calls import TURN_BYTES, from_cursor, records_since, to_cursor
from poller.domain.errors import AccessDenied, CursorExpired, PortError, PositionTrimmed, ServiceUnavailable
from poller.domain.findings import Finding
from poller.domain.records import (
    Cursor,
    Epoch,
    JsonObject,
    KinesisRecord,
    Monotonic,
    Page,
    Position,
    Rank,
    Shard,
    ShardId,
)
from poller.domain.streams.places import before_part
from poller.domain.telemetry.labels import SourceCall
from poller.domain.untrusted import numbers
from poller.loop_turns import LoopTurns
from poller.ports import Pacer
from poller.source_ports.calls import CallCounter, uncounted
from poller.source_ports.listing import ShardListing

READ_RECORDS_MAX = 10_000
PROBES_MAX = 4
"""Reads that look for the record of a position. Kinesis may return no record although there are more."""
RETENTION_HOURS_MAX = 1_000_000.0
"""AWS keeps records for a year at most; other services may keep them longer."""
DELETING = (
    "the stream is being deleted (StreamStatus DELETING); make it again under its name, or write another ARN"
)
_SECOND_MS = 1_000.0
_TO_WHOLE = 2.0**52
"""A sum with it has no room for fractions, so adding and subtracting it rounds a smaller number, half to even."""
_ITERATOR_REFUSED = MappingProxyType({"InvalidArgumentException": CursorExpired})
_SEQUENCE_REFUSED = MappingProxyType({"InvalidArgumentException": PositionTrimmed})
_MOMENT_REFUSED = MappingProxyType({"InvalidArgumentException": ServiceUnavailable})


class KinesisApi(Protocol):
    """The operations that are used. They return AWS's JSON, with data as base64 text and times as numbers."""

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
    """The members of GetRecords' answer that are used."""

    records: list[KinesisRecord]
    next_shard_iterator: str | None = None
    millis_behind_latest: int | None = None
    child_shards: list[msgspec.Raw] | None = None


_ANSWER = msgspec.json.Decoder(_Answer)


def read_answer(body: bytes, now: Epoch) -> Read[KinesisRecord]:
    """Reads an answer of GetRecords that came at `now`; raises ValueError if it is none.

    A record without a time has this moment, and is marked as not dated. Data and sequence numbers go into events as they are, so they are checked.
    Data that could break the JSON of an event needs an escape in the answer, so without a backslash data is not checked.
    """
    try:
        answer = _ANSWER.decode(body)
    except msgspec.MsgspecError:
        return read_singly(body, lambda wire: read_record(wire, now))
    records = answer.records
    if are_numbers([each.sequence_number for each in records]) and (
        b"\\" not in body or all(is_base64(each.data) for each in records)
    ):
        following = answer.next_shard_iterator
        ended = following is None and bool(answer.child_shards)
        behind_ms = behind_of(answer.millis_behind_latest)
        return Read(to_the_millisecond(records), following, behind_ms, ended=ended)
    return read_singly(body, lambda wire: read_record(wire, now))


def read_record(wire: JsonObject, now: Epoch) -> KinesisRecord:
    data = text(wire, "Data")
    if data is None or not is_base64(data):
        raise ValueError("Data is no base64")
    arrived = moment(wire, "ApproximateArrivalTimestamp")
    return KinesisRecord(
        sequence_number(wire),
        _rounded(now if arrived is None else arrived),
        data,
        text(wire, "PartitionKey"),
        dated=arrived is not None,
    )


class KinesisStream:
    """StreamSource over one Kinesis stream. Calls on a shard are paced (aws-behaviour#read-limits).

    With `deaggregate` aggregated records are taken apart. Otherwise they are passed on as they are (aws-behaviour#aggregated-records).
    """

    def __init__(
        self,
        api: KinesisApi,
        pacer: Pacer,
        turns: LoopTurns,
        *,
        arn: str,
        deaggregate: bool = False,
        listing: SharedListing | None = None,
    ) -> None:
        self._api = api
        self._records = FastOperation(api, "GetRecords", named="StreamARN")
        self._pacer = pacer
        self._turns = turns
        self._arn = arn
        self._deaggregate = deaggregate
        self._listing = listing or stream_listing(api, pacer, arn=arn)
        self._count: CallCounter = uncounted
        self.over = ""

    def count_calls(self, count: CallCounter) -> None:
        """From now on `count` gets each call as it is sent."""
        self._count = count

    async def shards(self) -> Sequence[Shard]:
        """Lists all shards within the retention period, open and closed."""
        return await self._listing.listed(self._count)

    async def shards_since(self, moment: Monotonic) -> ShardListing:
        """The same, by a listing that began at `moment` or later, for whichever mapping."""
        return await self._listing.since(moment, self._count)

    async def cursor(self, shard: ShardId, position: Position) -> Cursor:
        """Returns a cursor for the first record after `position`.

        Raises PositionTrimmed if the stream no longer has the position's record, which Kinesis itself does not report. A shard
        that was idle for the whole retention period and then got a new record looks the same.
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
        # AWS refuses a time in its future, which happens when this host's clock is ahead. Waiting helps.
        place = {"ShardIteratorType": "AT_TIMESTAMP", "Timestamp": position.since}
        # A client or service may cut the time to its second. Records that are then too early are left out while reading.
        return to_cursor(await self._iterator(shard, place, _MOMENT_REFUSED), position.since_ms)

    async def _behind(self, shard: ShardId, position: Position) -> Cursor:
        iterator: str | None = await self._at(shard, "AT_SEQUENCE_NUMBER", position)
        for _ in range(PROBES_MAX):
            assert iterator is not None
            answer = await self._get_records(shard, iterator, 1)
            answer.check("kinesis GetRecords")
            found = int(answer.records[0].sequence_number) if answer.records else None
            if found is not None and found > position.sequence:
                raise PositionTrimmed(f"kinesis GetRecords: {shard}: the position's record is gone")
            iterator = answer.following
            if position.partial and found is not None:
                # Its record is read once more, for the parts behind the position.
                return _inside(position, await self._at(shard, "AT_SEQUENCE_NUMBER", position))
            if found is not None and iterator is not None:
                return to_cursor(iterator)
            if found is not None or iterator is None or not answer.behind_ms:
                break
        if position.partial:
            return _inside(position, await self._at(shard, "AT_SEQUENCE_NUMBER", position))
        return to_cursor(await self._at(shard, "AFTER_SEQUENCE_NUMBER", position))

    async def cursor_at(self, shard: ShardId, sequence_number: str) -> Cursor:
        """Returns a cursor for the record with this sequence number, or for the first one behind it. Raises PositionTrimmed.

        The name of a part of an aggregated record is a sequence number here, too.
        """
        iterator = await self._at(shard, "AT_SEQUENCE_NUMBER", Position.after(sequence_number))
        before = before_part(sequence_number)
        return to_cursor(iterator) if before is None else _inside(Position.after(before), iterator)

    async def _at(self, shard: ShardId, kind: str, position: Position) -> str:
        place = {"ShardIteratorType": kind, "StartingSequenceNumber": position.sequence_number}
        # A refused sequence number is from a stream that was deleted and made again, so all records after it are gone.
        return await self._iterator(shard, place, _SEQUENCE_REFUSED)

    async def _iterator(
        self,
        shard: ShardId,
        place: Mapping[str, Any],
        special: Mapping[str, type[PortError]] = MappingProxyType({}),
    ) -> str:
        await self._pacer.pace(f"kinesis GetShardIterator {self._arn} {shard}")
        self._count(SourceCall.GET_SHARD_ITERATOR)
        with calling("kinesis GetShardIterator", special):
            reply = await self._api.get_shard_iterator(StreamARN=self._arn, ShardId=shard, **place)
        with understood("kinesis GetShardIterator"):
            return text_of(reply, "ShardIterator")

    async def read(self, shard: ShardId, cursor: Cursor, *, records_max: int) -> Page:
        """Reads the next records, at most 10,000 or 10 MiB. An empty page with `behind_ms` above 0 is not the end: read on.

        Aggregated records that are taken apart may bring more of them.
        A page ends before a record that cannot be read; the next read raises RecordUnreadable.
        """
        behind, cursor = _split(cursor)
        since_ms, iterator = from_cursor(cursor)
        answer = await self._get_records(shard, iterator, records_max)
        answer.check("kinesis GetRecords")
        records = records_since(answer.records, since_ms) if since_ms else answer.records
        following = answer.following
        if answer.trouble:
            following = await self._before_trouble(shard, iterator, answer)
        after = None if following is None else to_cursor(following, 0 if records else since_ms)
        if behind is not None and after is not None and not records:
            after = Cursor(f"{behind.encode()};{after}")
        if self._deaggregate:
            records = await taken_apart(records, self._turns, behind=behind)
        return Page(records, after, answer.behind_ms, answer.ended and after is None)

    async def _before_trouble(self, shard: ShardId, iterator: str, answer: Read[KinesisRecord]) -> str:
        """Returns an iterator just before an unreadable record, whose own sequence number cannot be trusted."""
        again = await self._get_records(shard, iterator, len(answer.records))
        if following := answer.followed_by(again):
            return following
        last = Position.after(answer.records[-1].sequence_number)
        return await self._at(shard, "AFTER_SEQUENCE_NUMBER", last)

    async def retention_s(self) -> float | None:
        """Returns the stream's retention period in seconds; None if it may not be read or is no valid number."""
        summary = await self._summary()
        with understood("kinesis DescribeStreamSummary"):
            hours = 0 if summary is None else summary["RetentionPeriodHours"]
            kept = numbers.number(hours, most=RETENTION_HOURS_MAX, default=0.0)
            return kept * 3600.0 if kept > 0 else None

    async def created(self) -> Epoch | None:
        """When the stream was created that has the name now; None when the credentials may not ask for it."""
        summary = await self._summary()
        with understood("kinesis DescribeStreamSummary"):
            moment = None if summary is None else summary.get("StreamCreationTimestamp")
            found = numbers.moment(moment, default=None)
            return None if found is None else Epoch(found)

    async def _summary(self) -> JsonObject | None:
        self._count(SourceCall.DESCRIBE_STREAM_SUMMARY)
        try:
            with calling("kinesis DescribeStreamSummary"):
                reply = await self._api.describe_stream_summary(StreamARN=self._arn)
        except AccessDenied:
            return None
        with understood("kinesis DescribeStreamSummary"):
            summary: JsonObject = reply["StreamDescriptionSummary"]
            self.over = DELETING if summary.get("StreamStatus") == "DELETING" else ""
            return summary

    async def probe(self) -> Sequence[Finding]:
        """Tries every permission of this source; reads one record, which stays in the stream."""
        found = await probe_kinesis(self, arn=self._arn)
        return [*found, *still_written(self.over, on=self._arn)]

    async def _get_records(self, shard: ShardId, iterator: str, records_max: int) -> Read[KinesisRecord]:
        await self._pacer.pace(f"kinesis GetRecords {self._arn} {shard}")
        self._count(SourceCall.GET_RECORDS)
        limit = min(records_max, READ_RECORDS_MAX)
        with calling("kinesis GetRecords", _ITERATOR_REFUSED):
            parameters = {"StreamARN": self._arn, "ShardIterator": iterator, "Limit": limit}
            body = await self._records(parameters)
            if len(body) > TURN_BYTES:
                await self._turns.turn()
            return read_answer(body, Epoch(time.time()))


def _inside(position: Position, iterator: str) -> Cursor:
    """A cursor that reads from `iterator` on, and leaves out what is not behind a position inside of an aggregated record."""
    return Cursor(f"{position.encode()};{to_cursor(iterator)}")


def _split(cursor: Cursor) -> tuple[Position | None, Cursor]:
    """The position of a cursor that `_inside` made, None for any other, and the rest of the cursor."""
    head, _, rest = cursor.partition(";")
    return (None, cursor) if head.isdigit() else (Position.decode(head), Cursor(rest))


def to_the_millisecond(records: list[KinesisRecord]) -> list[KinesisRecord]:
    """Rounds arrival times to milliseconds, as the service has them. Nearly always they are."""
    for each in records:
        arrived = each.arrived
        # The same as `round(arrived * _SECOND_MS) / _SECOND_MS`, in less than half the time.
        if (arrived * _SECOND_MS + _TO_WHOLE - _TO_WHOLE) / _SECOND_MS != arrived:
            return [msgspec.structs.replace(each, arrived=_rounded(each.arrived)) for each in records]
    return records


def _rounded(moment: float) -> Epoch:
    return Epoch(round(moment * _SECOND_MS) / _SECOND_MS)
