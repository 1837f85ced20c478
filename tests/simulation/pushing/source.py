"""Owns how a worker has a simulated stream's records pushed: the real `PushedStream` over calls and connections of its line."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from contextvars import Context
from typing import Any, cast

import aiohttp
from botocore.exceptions import ClientError

from adapters.sources.kinesis.consumers import GivenConsumer, OwnConsumer, StreamConsumer
from adapters.sources.kinesis.fan_out import SUBSCRIBED_S_MAX, PushedStream
from adapters.sources.kinesis.stream import KinesisStream
from poller.domain.records import Cursor, JsonObject, MappingId, Page, ShardId
from poller.loop_turns import LoopTurns
from tests.simulation.pushing.service import Connection, FakeConsumers
from tests.simulation.services.fake_plugins import SimStream, Witness
from tests.simulation.services.faults import Line, Port, epoch
from tests.simulation.services.streams import FakeStream
from tests.virtual import virtual_clock

LOOK_S = 0.1
"""How often the service looks for records to push."""
HELD_S_MAX = 3.0
"""How long after an event another one may come that nobody has asked for yet."""
SHOWN_CHARS = 300
"""Of an event in the account."""
SILENT_S = 90.0
"""How long a connection says nothing that is dead."""
OWN = "own"
GIVEN = "given"


class SimPushedStream(SimStream):
    """PushingSource: the stream with a consumer of the mapping's own, or with one that somebody has registered."""

    def __init__(
        self,
        stream: FakeStream,
        line: Line,
        witness: Witness,
        *,
        source_arn: str,
        consumers: FakeConsumers,
        own: MappingId | None,
    ) -> None:
        super().__init__(stream, line, witness, source_arn=source_arn)
        api = _Api(consumers, line, witness, source_arn=source_arn)
        clock = virtual_clock()
        self._consumer: StreamConsumer = GivenConsumer(consumers.given)
        if own is not None:
            self._consumer = OwnConsumer(api, stream=source_arn, mapping=own, clock=clock)
        polled = _Polled(stream, line, witness, source_arn=source_arn)
        polled.gone_over = api.polled.add
        self._pushed = PushedStream(
            cast("KinesisStream", polled), cast("Any", api), LoopTurns(), consumer=self._consumer, clock=clock
        )

    def pushing(self) -> PushedStream:
        """The stream as its records are pushed."""
        return self._pushed

    async def event_arn(self) -> str:
        """The ARN of the mapping's own consumer."""
        return await self._consumer.named()

    def close(self) -> None:
        """Ends all subscriptions."""
        self._pushed.close()


class _Polled(SimStream):
    """What is read while there is no subscription."""

    gone_over: Callable[[ShardId], None]

    async def read(self, shard: ShardId, cursor: Cursor, *, records_max: int) -> Page:
        """The next records."""
        page = await super().read(shard, cursor, records_max=records_max)
        self._line.marks.saw("push: polled meanwhile")
        self.gone_over(shard)
        return page


class _Api:
    """The calls of a worker, as AWS's client has them."""

    def __init__(self, consumers: FakeConsumers, line: Line, witness: Witness, *, source_arn: str) -> None:
        self.polled: set[ShardId] = set()
        """Shards that were polled and not pushed since."""
        self._consumers = consumers
        self._line = line
        self._witness = witness
        self._arn = source_arn
        self._last: dict[ShardId, Connection] = {}

    async def describe_stream_consumer(self, **parameters: Any) -> JsonObject:
        """DescribeStreamConsumer of a name."""
        name = parameters["ConsumerName"]
        return await self._call(f"describe consumer {name}", lambda: self._consumers.describe(epoch(), name))

    async def register_stream_consumer(self, **parameters: Any) -> JsonObject:
        """RegisterStreamConsumer."""
        name = parameters["ConsumerName"]

        def effect() -> JsonObject:
            again = self._line.marks["push: consumer removed"] > 0
            self._line.marks.saw("push: registered again" if again else "push: registered")
            return self._consumers.register(epoch(), name)

        return await self._call(f"register consumer {name}", effect)

    async def subscribe_to_shard(self, **parameters: Any) -> JsonObject:
        """SubscribeToShard."""
        shard, starting = parameters["ShardId"], parameters["StartingPosition"]

        def effect() -> Connection:
            line = self._line
            try:
                made, before = self._consumers.subscribe(
                    epoch(), parameters["ConsumerARN"], shard, starting, by=line.name
                )
            except ClientError as error:
                line.marks.saw(f"push: {error.response['Error']['Code']}")
                raise
            if before is not None:
                whose = "its own" if before.by == line.name else "another worker's"
                line.marks.saw(f"push: ended {whose} subscription")
            return made

        made = await self._call(f"subscribe {shard} {starting}", effect)
        self._note(shard, made)
        return {"EventStream": _Connected(self._consumers, made, self._line, lambda: self._read(shard))}

    def _note(self, shard: ShardId, made: Connection) -> None:
        before, self._last[shard] = self._last.get(shard), made
        self._line.marks.saw("push: subscribed")
        if before is not None and made.began - before.began >= SUBSCRIBED_S_MAX:
            self._line.marks.saw("push: renewed before its five minutes were over")
        if shard in self.polled:
            self.polled.remove(shard)
            self._line.marks.saw("push: pushed again")

    def _read(self, shard: ShardId) -> None:
        self._witness.reads(self._line, self._arn, shard)

    async def _call[T](self, what: str, effect: Callable[[], T]) -> T:
        return await self._line.call(Port.SOURCE, what, effect)


class _Connected:
    """The events of one subscription, on their way to the worker: `Events`."""

    def __init__(
        self, consumers: FakeConsumers, connection: Connection, line: Line, reads: Callable[[], None]
    ) -> None:
        self._consumers = consumers
        self._connection = connection
        self._line = line
        self._reads = reads
        self._held: JsonObject | None = None
        """An event that came before it was asked for."""
        self._asked = False

    def __aiter__(self) -> AsyncIterator[JsonObject]:
        return self

    async def __anext__(self) -> JsonObject:
        await self._line.ready()
        if self._held is not None:
            event, self._held = self._held, None
            self._line.marks.saw("push: event before it was asked for")
            return event
        if self._line.chance(self._line.plan.silent):
            self._saw("silent connection")
            await asyncio.sleep(SILENT_S)
            raise ConnectionResetError("the other side has been gone for long")
        if self._line.chance(self._line.plan.cut):
            self._cut("cut between events")
        self._asked = True
        try:
            event = await self._sent()
        finally:
            self._asked = False
        name = next(iter(event))
        if self._line.chance(self._line.plan.cut):
            records = len(event[name].get("Records", ()))
            self._cut("cut in an event with records" if records else "cut in an event")
        await self._line.travels()
        self._saw_event(event.get("SubscribeToShardEvent", {}))
        if self._line.either():
            # The service does not wait until the worker asks.
            loop, later_s = asyncio.get_running_loop(), self._line.between(0.0, HELD_S_MAX)
            loop.call_later(later_s, self._hold, context=Context())
        return event

    def _hold(self) -> None:
        if self._connection.over or self._held is not None or self._line.crashed or self._asked:
            return
        with suppress(ClientError):
            self._held = self._consumers.push(epoch(), self._connection)
        if self._held is not None:
            self._saw_event(self._held.get("SubscribeToShardEvent", {}))

    async def _sent(self) -> JsonObject:
        while True:
            await self._line.ready()
            if self._line.out(Port.SOURCE):
                self._cut("cut by an outage")
            if self._connection.over:
                raise StopAsyncIteration
            event = self._next()
            if event is not None:
                return event
            if not self._connection.over:
                await asyncio.sleep(LOOK_S)

    def _next(self) -> JsonObject | None:
        try:
            event = self._consumers.push(epoch(), self._connection)
        finally:
            self._note_end()
        if event is not None:
            self._reads()
            shard = self._connection.shard
            self._line.history.tell(self._line.name, lambda: f"{shard} pushed {event}"[:SHOWN_CHARS])
        return event

    def _note_end(self) -> None:
        if self._connection.over:
            taken_over = self._connection.taken_over
            self._saw(
                "heard that another subscription has ended this one" if taken_over else "ended by the service"
            )

    def _cut(self, mark: str) -> None:
        """The connection is gone, which the client sees as an error, or as if the service had ended it."""
        self._saw(mark)
        self._consumers.disconnect(self._connection)
        if self._line.either():
            raise StopAsyncIteration
        raise aiohttp.ClientPayloadError("the response is not complete")

    def _saw_event(self, members: JsonObject) -> None:
        if members.get("Records"):
            self._line.marks.saw("push: event")
        if members.get("ChildShards"):
            self._line.marks.saw(f"push: last event with {len(members['ChildShards'])} child shards")

    def _saw(self, mark: str) -> None:
        self._line.marks.saw(f"push: {mark}")
        self._line.history.tell(self._line.name, lambda: f"{self._connection.shard} push: {mark}")

    def close(self) -> None:
        """Ends the connection."""
        if self._line.stopping and not self._connection.over:
            self._line.marks.saw("push: closed by a stop")
        self._consumers.disconnect(self._connection)
