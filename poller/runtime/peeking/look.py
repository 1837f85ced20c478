"""Owns one look at a shard: from a place to the records that are shown, and to the place at which to go on."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import assert_never

from poller.domain.errors import PositionTrimmed
from poller.domain.mapping_api import ApiError, ApiErrorType
from poller.domain.peeking.answers import BatchAtFault, FilterVerdict, PeekAnswer
from poller.domain.plan import MappingPlan, SourceKind
from poller.domain.records import SHARD_END, Cursor, Epoch, Position, Record, ShardId
from poller.domain.rows import Lease
from poller.domain.streams.places import end_of, is_called
from poller.operator_ports import RecordStart
from poller.plugins import Environment
from poller.ports import StreamSource
from poller.rules.events import DynamoEncoder
from poller.rules.filtering import Slices
from poller.rules.peeking.faults import StoredFaults, stored_faults
from poller.rules.peeking.showing import shown_records
from poller.rules.peeking.starts import (
    FromFault,
    FromLatest,
    FromPosition,
    FromRecord,
    FromStored,
    PeekStart,
)
from poller.rules.peeking.verdicts import RecordFilters
from poller.runtime.peeking.shard_reads import ShardPages, read_pages

FAULT_READ_MAX = 1000
"""Records of each read that looks for the records of a batch among those of other lanes."""
FAULT_RECORDS_MAX = 1000
"""Records of the lane that are filtered to find those of a batch."""
OTHERS_NAMED_MAX = 10
"""Other batches at fault that are named."""
MARGIN_MS = 1000
"""How much earlier than the reads came the next peek begins, if it begins at a time."""
LATEST_EMPTY = (
    "LATEST is behind the newest record, so nothing is there yet; write an earlier place, such as a time"
)
NOT_YET = "{position} is in the future, so nothing is there yet; write an earlier time"
NO_START = "the source of this mapping cannot be read from a certain record on; write TRIM_HORIZON or a time"
NO_STORED = "the store has no position of this shard yet; the oldest records follow"
DONE = "this shard was read and settled to its end; TRIM_HORIZON shows what it still has"
NOT_BLOCKED = "no batch of shard {shard} blocks it; leave `from` out to see what comes next"
WINDOW = "a call that closes a tumbling window is at fault; it has no records"
FAULT_GONE = "the source no longer has record {first}, at which the batch at fault begins; TRIM_HORIZON shows the oldest"
STORED_GONE = "the source no longer has the records behind {position}; the oldest that it has follow"
RECORD_GONE = (
    "the source refuses sequence number {number}: it removed the record, or this shard never had it; "
    "TRIM_HORIZON shows the oldest record"
)
RECORD_ABSENT = "the shard has no record {number}, or has removed it; the next ones follow"
LAST_UNKNOWN = (
    "the store does not know where the batch ends, because its call has not counted as an attempt yet; "
    "the records of its lane follow"
)
OTHER_FAULTS = "other batches block this shard, too; they begin at {others}"
UNREADABLE = "the next record cannot be read: {reason}"
STILL_FAR = "a few reads found nothing; go on at `next`"


@dataclass(frozen=True, slots=True, kw_only=True)
class LookContext:
    """What a look works with. `lease` is None if the store has none of the shard."""

    plan: MappingPlan
    source: StreamSource
    env: Environment
    shard: ShardId
    lease: Lease | None

    def answer(self, start: str, records: Sequence[Record] = ()) -> "Found":
        """An answer that has no records yet."""
        empty = PeekAnswer(
            mapping=self.plan.mapping,
            function=self.plan.function,
            source_arn=self.plan.source_arn,
            shard=self.shard,
            start=start,
            records=(),
        )
        return Found(empty, list(records))

    def filters(self) -> RecordFilters:
        """The mapping's filters."""
        kinesis = self.plan.kind is SourceKind.KINESIS
        encoder = DynamoEncoder(source_arn=self.plan.source_arn, region=self.plan.region)
        return RecordFilters(self.plan.filters, "kinesis" if kinesis else "dynamodb", encoder)


@dataclass(slots=True)
class Found:
    """An answer, and the records that are to be shown in it."""

    answer: PeekAnswer
    records: list[Record] = field(default_factory=list)

    def note(self, text: str) -> None:
        """Adds a note for people."""
        self.answer = replace(self.answer, notes=(*self.answer.notes, text))


async def look(context: LookContext, start: PeekStart, *, limit: int, payloads: bool) -> PeekAnswer:
    """Reads records at a place. Raises ApiError, and what the source raises."""
    filters = context.filters()
    match start:
        case FromFault(required):
            found = await _at_fault(context, filters, limit, required=required)
        case FromStored():
            found = await _stored(context, limit)
        case FromLatest():
            found = context.answer("LATEST")
            found.note(LATEST_EMPTY)
        case FromRecord(number):
            found = await _at_record(context, number, limit)
        case FromPosition(position):
            found = await _behind(context, position, limit)
        case _:
            assert_never(start)
    lanes = context.plan.stream.lanes
    showing = shown_records(found.records, filters, lanes=lanes, payloads=payloads)
    records = await context.env.turns.slices(showing)
    return replace(found.answer, records=records, payloads=payloads)


async def _behind(context: LookContext, position: Position, limit: int) -> Found:
    if (found := _not_yet(context, position)) is not None:
        return found
    try:
        cursor = await context.source.cursor(context.shard, position)
    except PositionTrimmed:
        number = position.sequence_number
        raise ApiError(ApiErrorType.PARAMETER, f"from: {RECORD_GONE.format(number=number)}") from None
    return await _from(context, cursor, position.encode(), limit)


def _not_yet(context: LookContext, position: Position) -> Found | None:
    """The answer for a time to come, which a source refuses; None for all other places."""
    if position.since is None or position.since <= context.env.clock.now():
        return None
    found = context.answer(position.encode())
    found.note(NOT_YET.format(position=position.encode()))
    return found


async def _at_record(context: LookContext, number: str, limit: int) -> Found:
    try:
        cursor = await _cursor_at(context, number)
    except PositionTrimmed:
        raise ApiError(ApiErrorType.PARAMETER, f"from: {RECORD_GONE.format(number=number)}") from None
    found = await _from(context, cursor, f"AT:{number}", limit)
    if found.records and not is_called(found.records[0].sequence_number, number):
        found.note(RECORD_ABSENT.format(number=number))
    return found


async def _stored(context: LookContext, limit: int) -> Found:
    """What comes next for the mapping: the records behind its stored position."""
    position = Position.horizon() if context.lease is None else context.lease.checkpoint.position
    if position == SHARD_END:
        found = context.answer(position.encode())
        found.note(DONE)
        found.answer = replace(found.answer, ended=True)
        return found
    if (found_none := _not_yet(context, position)) is not None:
        return found_none
    try:
        cursor = await context.source.cursor(context.shard, position)
    except PositionTrimmed:
        horizon = Position.horizon()
        found = await _from(
            context, await context.source.cursor(context.shard, horizon), horizon.encode(), limit
        )
        found.note(STORED_GONE.format(position=position.encode()))
        return found
    found = await _from(context, cursor, position.encode(), limit)
    if context.lease is None:
        found.note(NO_STORED)
    return found


async def _from(context: LookContext, cursor: Cursor, start: str, limit: int) -> Found:
    """Reads up to `limit` records from a cursor on."""
    asked = context.env.clock.now()
    pages = await read_pages(
        context.source,
        context.shard,
        cursor,
        records_max=limit,
        enough=lambda records: len(records) >= limit,
        clock=context.env.clock,
    )
    found = context.answer(start, pages.records[:limit])
    left = len(pages.records) > limit
    _finish(found, pages, asked, more=left or not pages.caught_up)
    return found


async def _at_fault(context: LookContext, filters: RecordFilters, limit: int, *, required: bool) -> Found:
    """The batch that blocks the shard. If nothing blocks it, what comes next, unless it is `required`."""
    faults = None if context.lease is None else stored_faults(context.lease.checkpoint)
    if faults is None or faults.first is None:
        if required:
            text = f"from: {NOT_BLOCKED.format(shard=context.shard)}"
            raise ApiError(ApiErrorType.CONFLICT, text)
        return await _stored(context, limit)
    if not faults.first:
        found = context.answer("fault")
        found.answer = replace(found.answer, fault=faults.batch(None))
        found.note(WINDOW)
        return found
    return await _batch(context, faults, filters, limit)


async def _batch(context: LookContext, faults: StoredFaults, filters: RecordFilters, limit: int) -> Found:
    """The records of the batch at fault: those of its lane, from its first to its last, that the filters let through."""
    first = faults.first
    assert first
    found = context.answer("fault")
    try:
        cursor = await _cursor_at(context, first)
    except PositionTrimmed:
        return _without_first(found, faults)
    asked = context.env.clock.now()
    alone = faults.lanes == 1 and not context.plan.filters
    pages = await read_pages(
        context.source,
        context.shard,
        cursor,
        records_max=limit if alone else FAULT_READ_MAX,
        enough=lambda records: _is_enough(faults, records, limit),
        clock=context.env.clock,
    )
    if not pages.records or not is_called(pages.records[0].sequence_number, first):
        return _without_first(found, faults)
    batch = faults.batch(pages.records[0])
    of_lane = faults.of_batch(pages.records, batch)
    passing = await context.env.turns.slices(_passing(of_lane[:FAULT_RECORDS_MAX], filters, limit + 1))
    found.records = passing[:limit]
    found.answer = replace(found.answer, fault=batch)
    if not batch.last:
        found.note(LAST_UNKNOWN)
    if others := faults.others():
        found.note(OTHER_FAULTS.format(others=", ".join(others[:OTHERS_NAMED_MAX])))
    complete = batch.last != "" and end_of(pages.records[-1].sequence_number) >= end_of(batch.last)
    _finish(found, pages, asked, more=len(passing) > limit or not (complete or pages.caught_up))
    return found


def _is_enough(faults: StoredFaults, records: Sequence[Record], limit: int) -> bool:
    """Whether the batch was read to its end, or has more records than are shown."""
    if not records:
        return False
    batch = faults.batch(records[0])
    return faults.is_behind(records[-1], batch) or len(faults.of_batch(records, batch)) > limit


def _passing(records: Sequence[Record], filters: RecordFilters, records_max: int) -> Slices[list[Record]]:
    """The first records that the filters let through."""
    found: list[Record] = []
    for record in records:
        verdict = yield from filters.judge(record)
        if verdict.verdict is FilterVerdict.PASSES:
            found.append(record)
        if len(found) >= records_max:
            break
        yield
    return found


def _without_first(found: Found, faults: StoredFaults) -> Found:
    batch: BatchAtFault = faults.batch(None)
    found.answer = replace(found.answer, fault=batch)
    found.note(FAULT_GONE.format(first=batch.first))
    return found


def _finish(found: Found, pages: ShardPages, asked: Epoch, *, more: bool) -> None:
    """Adds what the reads said, and where to go on."""
    found.answer = replace(
        found.answer,
        behind_ms=pages.behind_ms,
        ended=pages.ended and not more,
        next=_next(found, pages, asked) if more else "",
    )
    if pages.unreadable:
        found.note(UNREADABLE.format(reason=pages.unreadable))
    elif more and not found.records:
        found.note(STILL_FAR)


def _next(found: Found, pages: ShardPages, asked: Epoch) -> str:
    """Behind the last record that is shown. Without one it is the time to which the reads came, and never later."""
    if found.records:
        return Position.after(found.records[-1].sequence_number).encode()
    if pages.behind_ms:
        return Position.at(Epoch(asked - (pages.behind_ms + MARGIN_MS) / 1000)).encode()
    return found.answer.start


async def _cursor_at(context: LookContext, number: str) -> Cursor:
    if not isinstance(context.source, RecordStart):
        raise ApiError(ApiErrorType.PARAMETER, f"from: {NO_START}")
    return await context.source.cursor_at(context.shard, number)
