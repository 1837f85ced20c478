"""Owns one subscription of a shard: the events that the service sends, and what of them was not read yet.

At most one event is fetched before it is asked for. What is not fetched stays with the service, which is how a reader without room
holds it back. A connection that ends, or ends in the middle of an event, loses nothing: the next subscription begins behind the
last whole event.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Protocol

from adapters.aws.calls import calling, understood
from adapters.sources.kinesis.aggregates import taken_apart
from adapters.sources.kinesis.stream import read_record
from adapters.sources.odd_answers import Read, are_numbers, read_members
from adapters.sources.service_calls import records_since
from poller.domain.errors import PortError, RecordUnreadable, ServiceUnavailable
from poller.domain.records import Epoch, JsonObject, KinesisRecord, Position
from poller.loop_turns import LoopTurns
from poller.ports import Clock

SILENT_S_MAX = 30.0
"""The service sends events without records too, every few seconds. A longer silence is a dead connection."""
EVENT = "SubscribeToShardEvent"
OPERATION = "kinesis SubscribeToShard"
_NOTHING: Mapping[str, type[PortError]] = MappingProxyType({})


class Events(Protocol):
    """The events of one subscription, as the library gives them."""

    def __aiter__(self) -> AsyncIterator[JsonObject]:
        """The events, each a member by its name."""
        ...

    def close(self) -> Any:
        """Ends the connection."""
        ...


@dataclass(frozen=True, slots=True)
class _Event:
    """One event: its records, taken apart, what was read of it, and the place behind it if that is known."""

    records: Sequence[KinesisRecord]
    found: Read[KinesisRecord]
    then: Position | None


class Subscription:
    """One subscription. `at` is the place behind which its next unread record is. `began_s` is by the monotonic clock."""

    def __init__(
        self, events: Events, at: Position, turns: LoopTurns, *, clock: Clock, began_s: float
    ) -> None:
        self.at = at
        self.began_s = began_s
        self.over = False
        """Whether no more events come: the service has ended it, or the shard has ended."""
        self.ended = False
        """Whether the shard has ended, and all of its records are read."""
        self.told = False
        """Whether any event has come."""
        self.behind_ms: int | None = None
        self._turns = turns
        self._clock = clock
        self._connection = events
        self._events = aiter(events)
        self._coming: asyncio.Task[_Event | None] | None = None
        self._unread: list[KinesisRecord] = []
        self._then: Position | None = None
        """The place behind the event whose records are being read."""
        self._trouble = ""
        self._last = False

    @property
    def unread(self) -> int:
        """How many records have come and are not read."""
        return len(self._unread)

    async def wait(self, wait_s: float) -> bool:
        """Waits up to `wait_s` for an event, unless there are unread records. Returns whether one came.

        Raises PortError if the connection is no good.
        A cancelled wait leaves the subscription as it was.
        """
        if self._unread or self.over or self._trouble:
            return False
        if self._coming is None:
            self._coming = asyncio.ensure_future(self._next())
        await asyncio.wait({self._coming}, timeout=wait_s)
        if not self._coming.done():
            return False
        coming, self._coming = self._coming, None
        if coming.cancelled():
            # Somebody has cancelled a task that is not theirs. The reader goes on.
            raise ServiceUnavailable(f"{OPERATION}: the wait for an event was cancelled")
        event = coming.result()
        if event is None:
            self.over = True
        else:
            self._take_in(event)
        return event is not None

    async def _next(self) -> "_Event | None":
        """The next event that has members, with aggregated records taken apart; None if no more come."""
        while True:
            try:
                async with asyncio.timeout(SILENT_S_MAX):
                    with calling(OPERATION):
                        event = await anext(self._events, None)
            except TimeoutError:
                raise ServiceUnavailable(f"{OPERATION}: no event within {SILENT_S_MAX:g} s") from None
            if event is None:
                return None
            with understood(OPERATION):
                members = event.get(EVENT)
                if not isinstance(members, dict):
                    # Events of later versions of the service may say other things.
                    continue
                found = _read(members, self._clock.now())
            records = await taken_apart(found.records, self._turns, behind=self.at)
            return _Event(records, found, None if found.trouble else _behind(members, found.records))

    def _take_in(self, event: "_Event") -> None:
        records, found = event.records, event.found
        self.told = True
        if self.at.since_ms:
            # The service may cut the time of the start to its second.
            records = records_since(records, self.at.since_ms)
        self._unread, self.behind_ms, self._trouble = list(records), found.behind_ms, found.trouble
        self._last = found.ended and not found.trouble
        self._then = event.then
        if not records:
            self._finish()

    def read(self, records_max: int) -> list[KinesisRecord]:
        """The next unread records. Raises RecordUnreadable if the next one cannot be read; then the subscription is over."""
        records, self._unread = self._unread[:records_max], self._unread[records_max:]
        if records:
            self.at = Position.after(records[-1].sequence_number)
            if not self._unread:
                self._finish()
            return records
        if self._trouble:
            self.over = True
            raise RecordUnreadable(f"{OPERATION}: {self._trouble}")
        return records

    def _finish(self) -> None:
        """The event's records are read. A start by time stays until a record is read, since the next one may still be too old.

        So does a place inside of an aggregated record whose rest has not come: an event without records may name the record itself.
        """
        then, at = self._then, self.at
        rest = then is not None and at.partial and then.sequence == at.sequence
        if then is not None and then > at and not at.since_ms and not rest:
            self.at = then
        self.ended = self._last
        self.over = self.over or self._last

    def close(self) -> None:
        """Ends the connection."""
        if self._coming is not None:
            self._coming.cancel()
            # Its result is of no use to anybody.
            self._coming.add_done_callback(_forgotten)
            self._coming = None
        with suppress(Exception):
            self._connection.close()


def _read(members: JsonObject, now: Epoch) -> Read[KinesisRecord]:
    return read_members(members, lambda wire: read_record(wire, now))


def _behind(members: JsonObject, records: list[KinesisRecord]) -> Position | None:
    """The place behind an event, which may be further than its last record; None if only the records say it."""
    number = members.get("ContinuationSequenceNumber")
    if isinstance(number, str) and are_numbers([number]):
        return Position.after(number)
    return Position.after(records[-1].sequence_number) if records else None


def _forgotten(task: asyncio.Task[Any]) -> None:
    if not task.cancelled():
        task.exception()
