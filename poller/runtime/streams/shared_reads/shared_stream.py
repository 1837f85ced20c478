"""Owns how mappings of one stream share their reads.

Each shard has windows. Readers at the end of one window share its next read: one of them calls the source, and the others wait for what
comes. A reader that is a little behind takes the records from the window. One that is far behind reads for itself, in a window of its
own, until it comes into the window of the others. No reader waits for another one to take its records.

Two windows that are read by turns could pass each other for ever: each read goes on from the end of its own window, and is beyond the
other's end when it is over. So no read begins while another window's read goes on from a place inside of this one. When that is over,
one of the two windows has what the other's readers need.
"""

import asyncio
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field

from poller.domain.errors import CursorExpired, PortError, PositionTrimmed, ResourceMissing, ServiceThrottled
from poller.domain.records import SHARD_END, Cursor, Monotonic, Page, Position, ShardId
from poller.memory.answers import AnswerTooLarge, make_room
from poller.ports import Clock, StreamSource
from poller.rules.streams.shared_reads.read_window import ReadWindow, WindowPage
from poller.rules.streams.shared_reads.rhythm import Rhythm
from poller.runtime.memory.pool import MemoryAccount
from poller.runtime.stopping import wait_until

KEPT_BYTES_MAX = 64 * 1024 * 1024
"""What all windows of a daemon may take together, for readers that are behind."""

KEPT_PART = 8
"""The windows may take no more than this part, an eighth, of what the daemon may hold."""

SHORT_S = 0.001
"""A wait that is shorter is over: timers do not measure so exactly."""


@dataclass(frozen=True, slots=True)
class _Place:
    """Where reading goes on: behind a position, and the source's own cursor there if it is known."""

    position: Position
    own: Cursor | None = None

    def cursor(self) -> Cursor:
        return Cursor(f"{self.position.encode()} {self.own or ''}")

    @classmethod
    def of(cls, cursor: Cursor) -> "_Place":
        position, _, own = cursor.partition(" ")
        return cls(Position.decode(position), Cursor(own) if own else None)


@dataclass(slots=True)
class _Reading:
    """One call of the source that readers share. It ends with a page, an error, or neither if its reader was stopped."""

    began: Monotonic
    page: Page | None = None
    kept: WindowPage | None = None
    """Its records, if there are other readers."""
    error: PortError | None = None
    over: asyncio.Event = field(default_factory=asyncio.Event)


class _OpenWindow(ReadWindow):
    """A window, and how it is read on."""

    def __init__(self, place: _Place, rhythm: Rhythm) -> None:
        super().__init__(place.position)
        self.cursor = place.own
        self.behind_ms: int | None = None
        self.reading: _Reading | None = None
        self.rhythm = rhythm
        self.due: Monotonic = rhythm.began
        """When the source is asked again."""
        self.begun = asyncio.Event()
        """Set when the next read begins."""

    def begin(self, now: Monotonic) -> _Reading:
        """Begins a read. Only its reader ends it."""
        self.begun.set()
        self.begun = asyncio.Event()
        self.reading = _Reading(now)
        return self.reading

    def take_page(self, page: Page, now: Monotonic, *, kept: bool) -> WindowPage | None:
        """Takes what the source has brought at the end of the window, and returns it if it is kept for other readers."""
        self.cursor, self.behind_ms = page.cursor, page.behind_ms
        self.rhythm.found(now, records=bool(page.records))
        more = bool(page.records or page.behind_ms) or page.cursor is None
        self.due = Monotonic(now + self.rhythm.wait_s(now, more=more))
        return self.take(page.records, kept=kept)

    def throttled(self, now: Monotonic) -> None:
        """The source has refused a read because there were too many."""
        self.rhythm.throttled(now)


@dataclass(slots=True)
class WindowTally:
    """How many windows there are, and about how many bytes they take."""

    windows: int = 0
    size: int = 0
    memory: MemoryAccount | None = None
    """Where the bytes are counted for the daemon as a whole."""

    def change(self, windows: int, size: int) -> None:
        """Counts windows and bytes that came, or went."""
        self.windows += windows
        self.size += size
        if size and self.memory is not None:
            self.memory.hold(self.size)


class SharedShard:
    """The windows of one shard, and where its readers are. They are counted in `tally`, which all shards have in common."""

    def __init__(self, tally: WindowTally) -> None:
        self.places: dict[Hashable, Position] = {}
        self._windows: list[_OpenWindow] = []
        self._tally = tally
        self._counted = WindowTally()
        """What of the tally is this shard's."""

    def window(self, place: _Place, rhythm: Callable[[], Rhythm], *, size_max: int) -> _OpenWindow:
        """The window that covers a place, the furthest one if there are several; a new one if there is none."""
        self._tidy(size_max)
        found = [each for each in self._windows if each.covers(place.position)]
        if not found:
            found = [_OpenWindow(place, rhythm())]
            self._windows += found
        self.count()
        return max(found, key=lambda each: each.end)

    def meeting(self, window: _OpenWindow) -> _Reading | None:
        """The read of another window that goes on from a place inside this one."""
        for each in self._windows:
            if each is not window and each.reading is not None and window.covers(each.end):
                return each.reading
        return None

    def covers(self, position: Position) -> bool:
        """Whether a window covers a position."""
        return any(each.covers(position) for each in self._windows)

    def drop(self, window: _OpenWindow) -> None:
        """Drops a window. Its readers ask the source for their places."""
        if window in self._windows:
            self._windows.remove(window)
            self.count()

    def empty(self) -> None:
        """Drops all records, and keeps the windows' ends, from which reading goes on."""
        for each in self._windows:
            each.drop_beyond(0)
        self.count()

    def forget(self) -> None:
        """Drops all windows."""
        self._windows.clear()
        self.count()

    def count(self) -> None:
        """Brings the tally up to date. It is called when windows come, go or have taken a page."""
        before, now = self._counted, WindowTally(len(self._windows), sum(each.size for each in self._windows))
        self._tally.change(now.windows - before.windows, now.size - before.size)
        self._counted = now

    def _tidy(self, size_max: int) -> None:
        """Drops what no reader needs any more, and what is too much."""
        slowest = min(self.places.values(), default=SHARD_END)
        for each in self._windows:
            each.drop_passed(slowest)
            each.drop_beyond(size_max)
        places = set(self.places.values())
        self._windows = [
            each
            for each in self._windows
            if each.reading is not None or any(each.covers(place) for place in places)
        ]


class SharedReads:
    """The shards that mappings of this daemon read together."""

    def __init__(
        self, clock: Clock, *, kept_bytes_max: int = KEPT_BYTES_MAX, memory: MemoryAccount | None = None
    ) -> None:
        self._clock = clock
        self._memory = memory
        self._kept_bytes_max = kept_bytes_max
        self._shards: dict[tuple[Hashable, ShardId], SharedShard] = {}
        self._kept: dict[SharedShard, None] = {}
        """The shards whose windows have records, the one first that has waited longest for another page."""
        self.tally = WindowTally(memory=memory)
        """All windows of all shards."""

    def view(self, key: Hashable, source: StreamSource, *, idle_s: float) -> "SharedSource":
        """A stream as one mapping reads it. Mappings with the same key read the same stream in the same way.

        `idle_s` is the longest wait before the next read of a shard that had no records.
        """
        return SharedSource(self, key, source, self._clock, idle_s=idle_s)

    def entered(self, key: Hashable, shard: ShardId, reader: Hashable, position: Position) -> SharedShard:
        """The shard, with where a reader of it is."""
        found = self._shards.get((key, shard))
        if found is None:
            found = self._shards[key, shard] = SharedShard(self.tally)
        found.places[reader] = position
        return found

    def left(self, key: Hashable, shard: ShardId, reader: Hashable) -> None:
        """A reader does not read a shard any more."""
        found = self._shards.get((key, shard))
        if found is not None:
            found.places.pop(reader, None)
            if not found.places:
                found.forget()
                self._kept.pop(found, None)
                del self._shards[key, shard]

    def has_taken(self, shard: SharedShard) -> None:
        """A window of a shard has taken a page. Windows that got none for longest are emptied while all together take too much.

        Their readers may be blocked for hours. They ask the source for what they need then.
        """
        shard.count()
        self._kept.pop(shard, None)
        self._kept[shard] = None
        while self.tally.size > self._most and self._kept:
            oldest = next(iter(self._kept))
            del self._kept[oldest]
            oldest.empty()

    def forget(self, key: Hashable) -> None:
        """Drops all windows of a stream. Its readers ask the source for their places."""
        for (each, _), shard in self._shards.items():
            if each == key:
                shard.forget()

    @property
    def shards(self) -> int:
        """How many shards have readers."""
        return len(self._shards)

    @property
    def size_max(self) -> int:
        """What one window may take."""
        return self._most // max(1, self.tally.windows)

    @property
    def _most(self) -> int:
        """What all windows may take together."""
        if self._memory is None:
            return self._kept_bytes_max
        return min(self._kept_bytes_max, self._memory.total // KEPT_PART)


class SharedSource:
    """A stream as one mapping reads it. Each shard has one reader of the mapping, which leaves it when it ends."""

    def __init__(
        self, shared: SharedReads, key: Hashable, source: StreamSource, clock: Clock, *, idle_s: float
    ) -> None:
        self._shared = shared
        self._key = key
        self._source = source
        self._clock = clock
        self._idle_s = idle_s

    def leave(self, shard: ShardId) -> None:
        """The shard's reader has ended."""
        self._shared.left(self._key, shard, self)

    def forget(self) -> None:
        """The stream was recreated: what was read is of no use any more, for no mapping."""
        self._shared.forget(self._key)

    async def cursor(self, shard: ShardId, position: Position) -> Cursor:
        """As of the source, which is asked only if nobody has read on from this place."""
        shared = self._shared.entered(self._key, shard, self, position)
        if shared.covers(position):
            return _Place(position).cursor()
        return _Place(position, await self._source.cursor(shard, position)).cursor()

    async def read(self, shard: ShardId, cursor: Cursor, *, records_max: int) -> Page:
        """The next records. Waits before the source is asked again for records that it did not have."""
        place, asked = _Place.of(cursor), self._clock.monotonic()
        while True:
            shared = self._shared.entered(self._key, shard, self, place.position)
            window = shared.window(place, self._rhythm, size_max=self._shared.size_max)
            found = window.behind(place.position, records_max)
            if found is not None:
                return await _given(found, _older(window.behind_ms))
            reading = window.reading
            if reading is not None:
                await reading.over.wait()
                page = await _page_of(reading, asked, place.position, records_max)
                if page is not None:
                    return page
                continue
            wait_s = window.due - self._clock.monotonic()
            if wait_s > SHORT_S:
                await wait_until(window.begun, wait_s)
                continue
            meeting = shared.meeting(window)
            if meeting is not None:
                await meeting.over.wait()
                continue
            return await self._lead(shared, window, shard, records_max)

    def _rhythm(self) -> Rhythm:
        return Rhythm(self._clock.monotonic(), self._idle_s)

    async def _lead(self, shared: SharedShard, window: _OpenWindow, shard: ShardId, records_max: int) -> Page:
        """Reads on at the end of a window, for all readers there."""
        reading = window.begin(self._clock.monotonic())
        try:
            if window.cursor is None:
                window.cursor = await self._source.cursor(shard, window.end)
            reading.began = self._clock.monotonic()
            page = await self._source.read(shard, window.cursor, records_max=records_max)
        except AnswerTooLarge:
            # It is this reader that has no room. The others read for themselves.
            raise
        except PortError as error:
            reading.error = error
            if isinstance(error, CursorExpired):
                window.cursor = None
            elif isinstance(error, (PositionTrimmed, ResourceMissing)):
                # What was read does not say any more where reading can go on.
                shared.drop(window)
            elif isinstance(error, ServiceThrottled):
                window.throttled(self._clock.monotonic())
            raise
        else:
            reading.kept = window.take_page(page, self._clock.monotonic(), kept=len(shared.places) > 1)
            reading.page = page
            self._shared.has_taken(shared)
            following = None if page.cursor is None else _Place(window.end).cursor()
            return Page(page.records, following, page.behind_ms, page.ended, waited=True)
        finally:
            window.reading = None
            reading.over.set()


async def _page_of(reading: _Reading, asked: Monotonic, position: Position, records_max: int) -> Page | None:
    """What a shared read has brought for a reader that waited for it; None if it has to be read again for this reader.

    A read that began before the reader asked does not show that there is nothing more. Raises the error of the read.
    """
    if reading.error is not None:
        raise reading.error
    page, kept = reading.page, reading.kept
    if page is None:
        return None
    late = reading.began < asked or page.cursor is None
    if kept is None:
        return (
            None if late or page.records else Page((), _Place(position).cursor(), page.behind_ms, waited=True)
        )
    first = kept.first_behind(position, records_max)
    return await _given(first, _older(page.behind_ms) if late or first is not kept else page.behind_ms)


async def _given(found: WindowPage, behind_ms: int | None) -> Page:
    """Records that were read already, once this reader has room for them, too. Raises AnswerTooLarge."""
    await make_room(found.size)
    return Page(found.records, _Place(found.end).cursor(), behind_ms, waited=True)


def _older(behind_ms: int | None) -> int | None:
    """How far a page is behind that was read a while ago: more may have come since."""
    return None if behind_ms is None else max(1, behind_ms)
