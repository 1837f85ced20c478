"""Owns how one shard is read: page by page while there is room, with waits after failures, up to its end. Reports lost records."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial

from poller.domain.errors import (
    AccessDenied,
    CursorExpired,
    PortError,
    PositionTrimmed,
    RecordUnreadable,
    ResourceMissing,
    ServiceThrottled,
    ServiceUnavailable,
)
from poller.domain.records import Cursor, Epoch, Monotonic, Page, Position, Shard, ShardId
from poller.domain.telemetry.labels import Loss
from poller.domain.telemetry.mapping_events import Filtered, Polled, RecordsLost
from poller.ports import PushingSource, StreamSource
from poller.rules.filtering.pages import Matches, judged
from poller.rules.streams.flow import ShardFlow
from poller.rules.streams.lineage import has_ended
from poller.rules.streams.shared_reads.rhythm import Rhythm
from poller.rules.streams.tracking import SETTLED_THROUGH_STEP_S
from poller.runtime.port_failures import report_failure
from poller.runtime.stopping import Stop, unless_stopped, wait_until
from poller.runtime.streams.bounded.shard_memory import ShardMemory
from poller.runtime.streams.context import StreamContext
from poller.runtime.streams.discovery.known_shards import listing_about
from poller.runtime.streams.recreated_stream import RECHECK_S
from poller.runtime.streams.shared_reads.shared_stream import SharedSource

UNREADABLE_RETRY_S = 10.0
"""Wait before a record that cannot be read is read again. It is short enough for the alert on failing calls."""
GONE_S = 60.0
"""A shard that is in no listing for so long, and that is not known or whose answers have no cursor, is gone."""
REFUSED_PAUSE_S = 1.0
"""Shortest wait after an answer that a moment will not change."""


@dataclass(slots=True)
class ReadState:
    """How reading goes. The status of the shard shows it."""

    cursor: Cursor | None = None
    records: int = 0
    """How many were read so far. The load is measured by it."""
    behind_ms: int | None = None
    failures: int = 0
    unended: int = 0
    """Answers in a row that had no cursor although the shard is open."""
    closed: bool = False
    """Whether a listing has shown that the shard gets no more records."""
    unlisted_since: Monotonic | None = None
    """Since when no listing has the shard; None if it is listed, or if nobody asked."""
    reason: str = ""
    started: bool = False
    losses: int = 0
    loss_reported_at: Position | None = None
    missing: bool = False
    """Whether the source did not know the stream or the shard. It may be another stream when it is there again."""
    back_at: Monotonic | None = None
    """When it was there again."""

    def ended(self, shard: ShardId, listed: Sequence[Shard], now: Monotonic) -> bool:
        """Whether the shard has ended by this listing, or by several that do not have it."""
        ended = has_ended(shard, listed)
        if ended is not None:
            self.unlisted_since = None
            return ended
        if self.unlisted_since is None:
            self.unlisted_since = now
        return now >= self.unlisted_since + GONE_S


class ShardReader:
    """Reads one shard into its flow.

    `room` is set when there is room for another page. `touch` is called when the checkpoint may have changed, and `wake` when the
    lanes may have something to do. `recreated` says whether the stream was recreated.
    """

    def __init__(
        self,
        shard: ShardId,
        flow: ShardFlow,
        parts: StreamContext,
        stop: Stop,
        *,
        matches: Matches | None,
        recreated: Callable[[], Awaitable[bool]],
        touch: Callable[[], None],
        wake: Callable[[], None],
    ) -> None:
        self.state = ReadState()
        self.room = asyncio.Event()
        plan = parts.plan
        self.memory = ShardMemory(
            parts.memory, flow, batch_records=plan.batch.records_max * plan.stream.lanes
        )
        self._shard = shard
        self._flow = flow
        self._parts = parts
        source = parts.source
        self._pushed = source.pushing() if isinstance(source, PushingSource) else None
        self._source: StreamSource | SharedSource = self._pushed or parts.shared or source
        self._rhythm = Rhythm(parts.clock.monotonic(), parts.tuning.idle_poll_s)
        self._stop = stop
        self._matches = matches
        self._recreated = recreated
        self._touch = touch
        self._wake = wake
        self._again = asyncio.Event()
        """Set when a wait after a failure is to end."""

    @property
    def reason(self) -> str:
        """Why reading fails, or else why records are polled although the source can push them; empty if neither is so."""
        because = "" if self._pushed is None else self._pushed.polled_because(self._shard)
        return self.state.reason or (because and f"its records are polled, not pushed: {because}")

    def may_end(self) -> bool:
        """Whether nothing is left to read."""
        return self._stop.requested or self._flow.read_out

    async def run(self) -> None:
        """Reads until the scope stops or the shard ends."""
        try:
            with self._stop.waking(self.room), self._stop.waking(self._again):
                await self._read_on()
        finally:
            for each in (self._pushed, self._parts.shared):
                if each is not None:
                    each.leave(self._shard)

    async def _read_on(self) -> None:
        while not self._stop.requested and not self._flow.done:
            self.room.clear()
            if not self._flow.hungry:
                await self.room.wait()
                continue
            wait_s = await self._read_once()
            if wait_s is None:
                return
            if wait_s:
                await self._stop.sleep(wait_s)

    async def _read_once(self) -> float | None:
        """Reads a page and takes it in. Returns how long to wait before the next one, None behind the last one.

        When it returns, only the flow has the page's records. A page that a reader kept while it waits for the next one would be
        in memory although its records are settled.
        """
        asked = self._parts.clock.now()
        page = await self._page()
        return 0.0 if page is None else await self._take(page, asked)

    def retry(self) -> bool:
        """Reads again at once if reading fails, and begins the back-off again. Returns whether reading fails."""
        if not self.state.reason:
            return False
        self.state.failures = 0
        self._again.set()
        return True

    async def _take(self, page: Page, asked: Epoch) -> float | None:
        """Takes in a page. Returns how long to wait before the next one is read; None if it was the last page."""
        passing = None
        if self._matches is not None:
            passing = await self._parts.turns.slices(judged(page.records, self._matches))
        if page.records and self._stop.requested:
            # A stop came while the page was filtered. Its records are not tracked yet, and will be read again.
            return 0.0
        fresh = self._accept(page, asked, passing)
        if page.cursor is None:
            return None if await self._is_last(page, fresh=fresh) else 0.0
        self.state.unended, self.state.unlisted_since = 0, None
        now = self._parts.clock.monotonic()
        self._rhythm.found(now, records=bool(page.records))
        wait_s = self._rhythm.wait_s(now, more=bool(page.records or page.behind_ms))
        return 0.0 if page.waited else wait_s

    def _accept(self, page: Page, asked: Epoch, passing: Sequence[bool] | None) -> bool:
        """Takes in a page that was asked for at `asked`. Returns whether it had records that were not read before."""
        accept = partial(self._flow.accept, page.records, asked=asked, passing=passing)
        intake = self.memory.accept(partial(accept, caught_up=_caught_up(page)))
        self.state.records += len(page.records)
        self.state.cursor = page.cursor
        self.state.behind_ms = page.behind_ms
        self._emit_polled(page, intake.filtered, intake.filtered + intake.taken)
        self._touch()
        if page.records:
            self._wake()
        return intake.repeated < len(page.records)

    async def _is_last(self, page: Page, *, fresh: bool) -> bool:
        """Whether a page without a cursor was the last one. If not, reading goes on behind its records.

        Some services leave out the cursor now and then although the shard is open, and an end cannot be taken back. So a listing
        must show that the shard is closed, and a read that begins after the listing must find nothing more.
        """
        reading = self.state
        if page.ended or (reading.closed and not fresh):
            self._end()
            return True
        if not reading.closed and not await self._wait_for_listing():
            await self._wait_for_cursor()
        return False

    async def _wait_for_listing(self) -> bool:
        """Lists the source until it answers. Returns whether the listing shows that the shard has ended; False after a stop."""
        while not self._stop.requested:
            try:
                listed = await unless_stopped(self._stop, listing_about(self._parts.source, self._shard))
            except PortError as error:
                await self._wait_out(error)
                continue
            if listed is not None:
                self.state.failures, self.state.reason = 0, ""
                self.state.closed = self.state.ended(self._shard, listed, self._parts.clock.monotonic())
                return self.state.closed
        return False

    async def _wait_for_cursor(self) -> None:
        """Waits before the next try, and reports the missing cursor once.

        The source may list a shard as open for a while after it was closed.
        """
        if self._stop.requested:
            return
        wait_s = max(self._parts.port_wait_s(self.state.unended), REFUSED_PAUSE_S)
        if not self.state.unended:
            reason = "an answer without an iterator for an open shard; reading goes on with a new one"
            self._emit_failed(ServiceUnavailable(reason), wait_s)
        self.state.unended += 1
        await self._stop.sleep(wait_s)

    def _end(self) -> None:
        self._flow.end()
        self._touch()
        self._wake()

    async def _page(self) -> Page | None:
        """The next page; None after a failure and its wait, or when a stop came first."""
        try:
            page = await unless_stopped(self._stop, self._call())
        except CursorExpired:
            self.state.cursor = None
        except PositionTrimmed:
            if not await self._recreated_meanwhile():
                self._lose(Loss.TRIMMED)
        except ResourceMissing as error:
            self.state.missing, self.state.back_at = True, None
            if not await self._recreated_meanwhile():
                await self._missing(error)
        except PortError as error:
            await self._wait_out(error)
        else:
            if page is None or (self.state.missing and await self._another_stream()):
                return None
            self.state.failures, self.state.reason, self.state.started = 0, "", True
            return page
        return None

    async def _another_stream(self) -> bool:
        """Whether a stream that was missing is another one, some of which go on with cursors of the one before. True after a stop, too.

        An answer of while it was missing counts for RECHECK_S. So it is asked for until it has been back for that long.
        """
        if await self._recreated_meanwhile():
            return True
        now = self._parts.clock.monotonic()
        if self.state.back_at is None:
            self.state.back_at = now
        self.state.missing = now - self.state.back_at < RECHECK_S
        return False

    async def _recreated_meanwhile(self) -> bool:
        """Whether the source refuses a position because the stream was recreated, or a stop came while that was checked.

        On a recreated stream this run is of no use any more. The next review of the leases stops it.
        """
        recreated = await unless_stopped(self._stop, self._recreated())
        if recreated:
            await self._stop.wait()
        return recreated is not False

    async def _call(self) -> Page:
        shard, reading = self._shard, self.state
        if reading.cursor is None:
            reading.cursor = await self._source.cursor(shard, self._flow.read_to)
        read = partial(self._source.read, shard, reading.cursor)
        return await self.memory.read(
            lambda most: read(records_max=most), self._parts.tuning.read_records_max
        )

    def _lose(self, loss: Loss) -> None:
        """Reports that records are gone that were never read, and goes on at the first record that the source still has."""
        if loss is not Loss.TRIMMED or self._may_be_lost():
            self._emit_lost(loss)
        self.state.cursor = None
        self._flow.restart_at(Position.horizon())

    def _emit_lost(self, loss: Loss) -> None:
        self.state.losses += 1
        self.state.loss_reported_at = self._flow.read_to
        self._parts.observer.on(
            RecordsLost(
                mapping=self._parts.plan.mapping,
                shard=self._shard,
                loss=loss,
                position=self._flow.read_to,
            )
        )

    def check_retention(self) -> None:
        """Reports a loss when the position is older than the source's retention, because not every source refuses such a position."""
        if (
            self._flow.settled_through is not None
            and self._parts.retention.seconds is not None
            and self._may_be_lost()
        ):
            self._emit_lost(Loss.TRIMMED)

    def _may_be_lost(self) -> bool:
        """Whether the source may have dropped unread records behind a position that it refuses as trimmed.

        It cannot have dropped any if everything was settled up to a moment within the retention: then the shard was idle. A loss
        is reported once for each position.
        """
        if self.state.loss_reported_at == self._flow.read_to:
            return False
        settled_through, retention_s = self._flow.settled_through, self._parts.retention.seconds
        if settled_through is None or retention_s is None:
            return True
        return self._parts.clock.now() - settled_through > retention_s + SETTLED_THROUGH_STEP_S

    async def _missing(self, error: ResourceMissing) -> None:
        """Handles that the source does not know the shard. If the stream exists without the shard for long, it is gone for good."""
        try:
            listed = await unless_stopped(self._stop, self._parts.source.shards())
        except PortError:
            await self._wait_out(error)
            return
        if listed is None:
            return
        if any(shard.shard_id == self._shard for shard in listed):
            # The shard exists, so the source does not know the cursor.
            self.state.cursor = None
            self.state.unlisted_since = None
            await self._wait_out(error)
            return
        if not self.state.ended(self._shard, listed, self._parts.clock.monotonic()):
            await self._wait_out(error)
            return
        if not self.state.unended:
            self._lose(Loss.SHARD_GONE)
        self._end()

    async def _wait_out(self, error: PortError) -> None:
        wait_s = self._parts.port_wait_s(self.state.failures)
        if isinstance(error, (AccessDenied, ResourceMissing)):
            wait_s = max(wait_s, REFUSED_PAUSE_S)
        elif isinstance(error, RecordUnreadable):
            wait_s = UNREADABLE_RETRY_S
        elif isinstance(error, ServiceThrottled):
            self._rhythm.throttled(self._parts.clock.monotonic())
        self.state.failures += 1
        self.state.reason = error.reason
        self._emit_failed(error, wait_s)
        if not self._stop.requested:
            self._again.clear()
        await wait_until(self._again, wait_s)

    def _emit_failed(self, error: PortError, wait_s: float) -> None:
        report_failure(
            self._parts.observer,
            error,
            mapping=self._parts.plan.mapping,
            port="source",
            shard=self._shard,
            wait_s=wait_s,
        )

    def _emit_polled(self, page: Page, filtered: int, evaluated: int) -> None:
        mapping, shard = self._parts.plan.mapping, self._shard
        self._parts.observer.on(
            Polled(mapping=mapping, shard=shard, records=len(page.records), behind_ms=page.behind_ms)
        )
        if self._parts.plan.filters:
            self._parts.observer.on(
                Filtered(mapping=mapping, shard=shard, records=filtered, evaluated=evaluated)
            )


def _caught_up(page: Page) -> bool:
    """Whether the source had nothing more. If it does not say how far behind a page is, an empty page shows that."""
    return not page.records if page.behind_ms is None else page.behind_ms == 0
