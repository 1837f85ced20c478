"""Owns the redrive of one notice of a stream: it finds the records of the batch, and calls the function with them once more."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from poller.domain.errors import CursorExpired, PositionTrimmed, ResourceMissing
from poller.domain.invocations import EncodedEvent, Event, StoredNotice
from poller.domain.plan import url_scheme
from poller.domain.records import Cursor, Position, Record
from poller.domain.streams.places import end_of, name_of, sequence_of
from poller.operator_ports import NoticeSource, RecordStart
from poller.rules.events import RecordsEvent
from poller.rules.filtering.pages import Matches, judged
from poller.rules.operations.redriving import NoticeRefused
from poller.rules.responses import ResponseReading
from poller.rules.streams.operations.notice_reading import (
    StreamNotice,
    chosen,
    described,
    identifiers,
    narrowed,
    payload_of,
    read_notice,
)
from poller.runtime.invoking import BatchInvoker, InvocationBatch
from poller.runtime.operations.long.long_run import OpenPlace, PlaceOpener
from poller.runtime.operations.long.redriving import Called
from poller.runtime.stopping import Stop
from poller.runtime.streams.context import StreamContext
from poller.runtime.streams.operations.held_records import HeldRecords
from poller.runtime.streams.record_views import encoder, event_arn, matcher

READ_RECORDS_MAX = 1_000
EMPTY_READS_MAX = 100
"""Reads in a row without records after which the end of a batch counts as gone. A stream may have long gaps between records."""


class StreamRedrive:
    """Calls the function of one stream mapping with batches that were given up."""

    def __init__(self, parts: StreamContext) -> None:
        self._parts = parts
        self._matches: Matches | None = matcher(parts)
        self._held = HeldRecords()

    def look(self, stored: StoredNotice) -> str:
        """What a redrive of this notice would call, for people; raises NoticeRefused."""
        return described(self._read(stored))

    async def again(self, stored: StoredNotice, source: NoticeSource, stop: Stop) -> Called | None:
        """Calls the function with the batch of a notice. None: a stop came before the call.

        Raises NoticeRefused if the batch cannot be called from it, and what the ports of the notices and of the stream raise.
        """
        notice = self._read(stored)
        found = await self._event(notice, source, stop)
        if found is None:
            return None
        event, names = found
        batch = InvocationBatch(
            event=event, identifiers=names, request_id=self._parts.new_id(), attempt=1, newest=notice.since
        )
        invoker = BatchInvoker(
            self._parts.function,
            self._parts.plan,
            ResponseReading(report_failures=self._parts.plan.retry.report_failures),
            clock=self._parts.clock,
            observer=self._parts.observer,
            shard=notice.shard,
        )
        verdict = await invoker.invoke_in_slot(batch, stop)
        return None if verdict is None else Called(verdict, len(names))

    def _read(self, stored: StoredNotice) -> StreamNotice:
        plan = self._parts.plan
        if stored.unreadable:
            raise NoticeRefused(f"it cannot be read: {stored.unreadable}")
        return read_notice(stored.document, source_arn=plan.source_arn, function_arn=plan.function_arn)

    async def _event(
        self, notice: StreamNotice, source: NoticeSource, stop: Stop
    ) -> tuple[Event, Sequence[str]] | None:
        """The event and the sequence numbers of its records. None: a stop came first."""
        payload = notice.payload
        if payload is None and notice.stored is not None:
            payload = payload_of(await source.payload(notice.stored.bucket, notice.stored.key))
        if payload is not None:
            return EncodedEvent(payload), identifiers(payload)
        plan = self._parts.plan
        found = await self._range(notice, stop)
        if found is None:
            return None
        records = chosen(found, notice, lanes=plan.stream.lanes)
        arn = await event_arn(self._parts)
        made = encoder(plan, notice.shard, role_arn=self._parts.role_arn, source_arn=arn)
        event = RecordsEvent(made, records, sum(made.sizes(records)))
        return event, [name_of(each.sequence_number) for each in records]

    async def _range(self, notice: StreamNotice, stop: Stop) -> Sequence[Record] | None:
        """The records of the notice's range that the stream still has and the filters let through, no more than may be of its batch.

        None: a stop came first. Raises NoticeRefused as soon as they cannot be the batch, since a range may be as long as its shard.
        """
        held = self._held.of(notice)
        if held is not None:
            return await self._passing(held)
        found: Sequence[Record] = []
        lanes = self._parts.plan.stream.lanes
        position, empty = None, 0
        try:
            cursor = await self._cursor(notice, position)
            while empty < EMPTY_READS_MAX:
                if stop.requested:
                    return None
                try:
                    page = await self._parts.source.read(notice.shard, cursor, records_max=READ_RECORDS_MAX)
                except CursorExpired:
                    cursor = await self._cursor(notice, position)
                    continue
                within = [each for each in page.records if notice.has(each.sequence_number)]
                found = narrowed([*found, *await self._passing(within)], notice, lanes=lanes)
                if page.records:
                    self._held.keep(notice.shard, page.records)
                    position, empty = Position.after(page.records[-1].sequence_number), 0
                    if position.end >= end_of(notice.last):
                        break
                else:
                    empty += 1
                if page.cursor is None or (not page.records and page.behind_ms == 0):
                    break
                cursor = page.cursor
        except (PositionTrimmed, ResourceMissing):
            raise NoticeRefused(
                f"the stream does not have shard {notice.shard} or this range of it any more"
            ) from None
        return found

    async def _cursor(self, notice: StreamNotice, position: Position | None) -> Cursor:
        """Behind this position, or at the first record of the batch. Its number is better than its time, which a source may not have given."""
        source = self._parts.source
        if position is not None:
            return await source.cursor(notice.shard, position)
        if isinstance(source, RecordStart):
            return await source.cursor_at(notice.shard, sequence_of(notice.first))
        return await source.cursor(notice.shard, Position.at(notice.since))

    async def _passing(self, records: Sequence[Record]) -> Sequence[Record]:
        if self._matches is None or not records:
            return records
        passing = await self._parts.turns.slices(judged(records, self._matches))
        return [record for record, passes in zip(records, passing, strict=True) if passes]


@asynccontextmanager
async def opened_notices(
    parts: StreamContext, place: str, opener: PlaceOpener, *, hold_s: float, look: bool
) -> AsyncIterator[OpenPlace]:
    """The notices of a place, and the mapping that can call its function with them. Raises InvalidConfiguration and PortError."""
    kind = url_scheme(place) or "sqs"
    settings = {"place": place, "mapping": parts.plan.mapping, "hold_s": hold_s}
    async with opener("notices", kind, settings, look=look) as source:
        yield OpenPlace(StreamRedrive(parts), source)
