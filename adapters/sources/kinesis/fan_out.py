"""Owns enhanced fan-out: a stream whose records are pushed to a consumer of its own (aws-behaviour#enhanced-fan-out).

Each shard has one subscription, of five minutes at most. While none can be had, its records are read by GetRecords, which has the
same records at the same positions, and a subscription is tried again after a while.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from adapters.aws.calls import calling, understood
from adapters.sources.checks import probe_consumer
from adapters.sources.kinesis.consumers import OwnConsumer, StreamConsumer
from adapters.sources.kinesis.stream import KinesisApi, KinesisStream
from adapters.sources.kinesis.subscription import OPERATION, Events, Subscription
from adapters.sources.listings.shared_listing import SharedListing
from poller.domain.errors import CursorExpired, PortError, RecordUnreadable, ResourceMissing
from poller.domain.findings import Finding
from poller.domain.records import Cursor, JsonObject, Page, Position, Rank, Record, Shard, ShardId
from poller.domain.telemetry.labels import SourceCall
from poller.loop_turns import LoopTurns
from poller.ports import Clock, Pacer
from poller.source_ports.calls import CallCounter, uncounted

SUBSCRIBED_S_MAX = 285.0
"""A subscription is renewed then. The service ends it after five minutes."""
AGAIN_S = 5.5
"""The service refuses a second subscription of a shard within five seconds of the last one."""
AGAIN_S_MAX = 60.0
"""Longest time between two tries to subscribe."""
KEPT_S_MAX = 290.0
"""A place that was not read from for so long is looked up again, as an iterator is: its record may be gone."""
WAIT_S = 7.0
"""How long a read waits for records. An idle shard has an event every five seconds, so that one comes in nearly each read."""
ON_THE_WAY_S = 1.0
"""An event that comes this long after a read has begun was sent after that. One that comes earlier may have been on its way, or held back."""


class FanOutApi(KinesisApi, Protocol):
    """The operations that are used in addition."""

    async def subscribe_to_shard(self, **parameters: Any) -> JsonObject:
        """SubscribeToShard. The member EventStream has the events."""
        ...


@dataclass(frozen=True, slots=True)
class _Place:
    """Where reading goes on: behind a position, since when that is known (monotonic), and the cursor of GetRecords there, if there is one.

    The position may be one that only an event has named, where no record is. `record` is the last record that was read, or where
    reading began. GetRecords goes on there, since it would take the next record for a sign that the one of the position was lost.
    """

    position: Position
    record: Position
    known_s: float
    polled: Cursor | None = None

    def cursor(self) -> Cursor:
        places = f"{self.position.encode()} {self.record.encode()}"
        return Cursor(f"{places} {self.known_s:.3f} {self.polled or ''}")

    @classmethod
    def of(cls, cursor: Cursor) -> "_Place":
        position, record, known_s, polled = cursor.split(" ", 3)
        places = Position.decode(position), Position.decode(record)
        return cls(*places, float(known_s), Cursor(polled) if polled else None)

    def behind(self, records: Sequence[Record]) -> Position:
        """The last one of these records, which were read from here, as a position; if there are none, the one of before."""
        return Position.after(records[-1].sequence_number) if records else self.record


@dataclass(slots=True)
class _Refused:
    """Why a shard has no subscription, and when (monotonic) one is tried again."""

    again_s: float
    tries: int = 0
    reason: str = ""


class FannedOutStream(KinesisStream):
    """A stream with a consumer. As it is, it is read by GetRecords; `pushing` is for the one reader of each shard."""

    def __init__(
        self,
        api: Any,
        pacer: Pacer,
        turns: LoopTurns,
        *,
        arn: str,
        consumer: StreamConsumer,
        clock: Clock,
        pushing: FanOutApi | None = None,
        listing: SharedListing | None = None,
    ) -> None:
        """`pushing` is the client of the subscriptions, whose connections are in use for minutes; None: that of all calls."""
        super().__init__(api, pacer, turns, arn=arn, deaggregate=True, listing=listing)
        self._consumer = consumer
        self._pushed = PushedStream(self, pushing or api, turns, consumer=consumer, clock=clock)

    def count_calls(self, count: CallCounter) -> None:
        """From now on `count` gets each call as it is sent, those for the consumer and the subscriptions too."""
        super().count_calls(count)
        self._consumer.count_calls(count)
        self._pushed.count_calls(count)

    def pushing(self) -> "PushedStream":
        """The stream as its records are pushed."""
        return self._pushed

    async def event_arn(self) -> str:
        """The ARN of a consumer of the mapping's own, once it is known; empty for one that the mapping names."""
        return await self._consumer.named()

    async def probe(self) -> Sequence[Finding]:
        """Tries the permissions that a stream needs, and looks whether there is a consumer. Registers none, and subscribes to nothing."""
        own = isinstance(self._consumer, OwnConsumer)
        consumer = await probe_consumer(self._api, self._consumer.parameters, made=own)
        return [*await super().probe(), *consumer]

    async def close(self) -> None:
        """Ends all subscriptions."""
        self._pushed.close()


class PushedStream:
    """StreamSource of a stream whose records are pushed to a consumer. Each shard has one reader."""

    def __init__(
        self,
        stream: KinesisStream,
        api: FanOutApi,
        turns: LoopTurns,
        *,
        consumer: StreamConsumer,
        clock: Clock,
    ) -> None:
        self._stream = stream
        self._api = api
        self._turns = turns
        self._consumer = consumer
        self._clock = clock
        self._subscriptions: dict[ShardId, Subscription] = {}
        self._refused: dict[ShardId, _Refused] = {}
        self._count: CallCounter = uncounted

    def count_calls(self, count: CallCounter) -> None:
        """From now on `count` gets each subscription as it is asked for."""
        self._count = count

    def polled_because(self, shard: ShardId) -> str:
        """Why the shard is read by GetRecords; empty while its records are pushed."""
        refused = self._refused.get(shard)
        return "" if refused is None else refused.reason

    async def shards(self) -> Sequence[Shard]:
        """As the stream lists them."""
        return await self._stream.shards()

    async def retention_s(self) -> float | None:
        """As the stream says."""
        return await self._stream.retention_s()

    async def cursor(self, shard: ShardId, position: Position) -> Cursor:
        """As of the stream: it finds out whether the position's record is still there."""
        polled = await self._stream.cursor(shard, position)
        return _Place(position, position, self._clock.monotonic(), polled).cursor()

    async def read(self, shard: ShardId, cursor: Cursor, *, records_max: int) -> Page:
        """The next records. Waits a few seconds for them, unless they are read by GetRecords.

        Raises CursorExpired for a place that nothing was read from for five minutes.
        """
        place = _Place.of(cursor)
        subscription = await self._subscribed(shard, place)
        if subscription is None:
            return await self._poll(shard, place, records_max)
        began = self._clock.monotonic()
        try:
            came = await subscription.wait(WAIT_S)
            records = subscription.read(records_max)
        except RecordUnreadable:
            self.leave(shard)
            raise
        except PortError as error:
            self.leave(shard)
            self._refuse(shard, error)
            return await self._poll(shard, place, records_max)
        except asyncio.CancelledError:
            self.leave(shard)
            raise
        if subscription.over:
            self.leave(shard)
            self._wait_after(shard, subscription)
        if subscription.ended:
            return Page(records, None, subscription.behind_ms, ended=True)
        after = _Place(subscription.at, place.behind(records), self._clock.monotonic())
        behind_ms = None if subscription.unread else subscription.behind_ms
        if not subscription.unread and not (came and after.known_s - began >= ON_THE_WAY_S):
            # The last event says nothing about what was sent since.
            behind_ms = max(1, behind_ms or 0)
        return Page(records, after.cursor(), behind_ms, waited=True)

    async def _subscribed(self, shard: ShardId, place: _Place) -> Subscription | None:
        """The shard's subscription at this place; None if there can be none now."""
        now = self._clock.monotonic()
        found = self._subscriptions.get(shard)
        if found is not None:
            if found.at == place.position and (found.unread or now - found.began_s < SUBSCRIBED_S_MAX):
                return found
            self.leave(shard)
        refused = self._refused.get(shard)
        if refused is not None and now < refused.again_s:
            return None
        if now - place.known_s > KEPT_S_MAX:
            raise CursorExpired(f"{OPERATION}: nothing was read from this place for {KEPT_S_MAX:g} s")
        try:
            consumer = await self._consumer.active()
        except PortError as error:
            # The consumer is asked again at the next read. It says itself when it makes a call.
            self._refused.setdefault(shard, _Refused(0.0)).reason = error.reason
            return None
        try:
            events = await self._subscribe(shard, place.position, consumer)
        except PortError as error:
            self._refuse(shard, error)
            return None
        self._refused.pop(shard, None)
        found = Subscription(events, place.position, self._turns, clock=self._clock, began_s=now)
        self._subscriptions[shard] = found
        return found

    async def _subscribe(self, shard: ShardId, position: Position, consumer: str) -> Events:
        self._count(SourceCall.SUBSCRIBE_TO_SHARD)
        with calling(OPERATION):
            reply = await self._api.subscribe_to_shard(
                ConsumerARN=consumer, ShardId=shard, StartingPosition=_starting(position)
            )
        with understood(OPERATION):
            events: Events = reply["EventStream"]
            # What has no events is found here, and not by the shard's reader.
            aiter(events)
            return events

    def _refuse(self, shard: ShardId, error: PortError) -> None:
        if isinstance(error, ResourceMissing):
            self._consumer.lost()
        refused = self._refused.setdefault(shard, _Refused(0.0))
        wait_s = min(AGAIN_S * 2.0**refused.tries, AGAIN_S_MAX)
        refused.tries = min(refused.tries + 1, 8)
        refused.again_s = self._clock.monotonic() + wait_s
        refused.reason = error.reason

    def _wait_after(self, shard: ShardId, subscription: Subscription) -> None:
        """Leaves time before the next one if a subscription was over at once, or said nothing. The shard is polled meanwhile.

        The service would refuse a next one at once; another one may go on so for ever. And where nothing is said, only a poll shows
        that there is nothing more.
        """
        now, again_s = self._clock.monotonic(), subscription.began_s + AGAIN_S
        if now < again_s:
            reason = f"{OPERATION}: the subscription was over within {AGAIN_S:g} s"
            self._refused[shard] = _Refused(again_s, reason=reason)
        elif not subscription.told:
            reason = f"{OPERATION}: the subscription was over before any event came"
            self._refused[shard] = _Refused(now + AGAIN_S, reason=reason)

    async def _poll(self, shard: ShardId, place: _Place, records_max: int) -> Page:
        polled = place.polled or await self._stream.cursor(shard, place.record)
        page = await self._stream.read(shard, polled, records_max=records_max)
        if page.cursor is None:
            return page
        record = place.behind(page.records)
        position = record if page.records else place.position
        after = _Place(position, record, self._clock.monotonic(), page.cursor)
        return Page(page.records, after.cursor(), page.behind_ms, page.ended)

    def leave(self, shard: ShardId) -> None:
        """Ends the shard's subscription. Nobody reads the shard here any more, or reading goes on from another place."""
        found = self._subscriptions.pop(shard, None)
        if found is not None:
            found.close()

    def close(self) -> None:
        """Ends all subscriptions."""
        for shard in list(self._subscriptions):
            self.leave(shard)


def _starting(position: Position) -> JsonObject:
    if position.partial:
        # The parts up to the position are left out.
        return {"Type": "AT_SEQUENCE_NUMBER", "SequenceNumber": position.sequence_number}
    if position.rank is Rank.AFTER:
        return {"Type": "AFTER_SEQUENCE_NUMBER", "SequenceNumber": position.sequence_number}
    if position.since is not None:
        return {"Type": "AT_TIMESTAMP", "Timestamp": position.since}
    return {"Type": "TRIM_HORIZON"}
