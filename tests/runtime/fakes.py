"""Owns small fakes for tests of one shell: a stream with scripted trouble, a function, a destination, an observer."""

import asyncio
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from random import Random

import msgspec

from adapters.stores.memory import MemoryStore
from poller.domain.errors import PortError, ResourceMissing
from poller.domain.functions.call_notices import CallNotice
from poller.domain.invocations import FunctionError, Invocation, Notice, Outcome, Succeeded
from poller.domain.plan import FunctionPlan, MappingPlan, SourceKind, Tuning
from poller.domain.records import (
    Cursor,
    KinesisRecord,
    MappingId,
    Page,
    Position,
    Record,
    Shard,
    ShardId,
    WorkerId,
)
from poller.domain.telemetry.observers import AnyTelemetryEvent
from poller.ports import Destination
from poller.runtime.invoking import Function
from poller.runtime.streams.context import StreamContext
from tests.plans import mapping_plan
from tests.rules.build import kinesis
from tests.virtual import EPOCH_BASE, virtual_clock

STREAM_ARN = "arn:aws:kinesis:eu-west-1:111122223333:stream/readings"
SHARD = ShardId("shardId-000000000000")


class Seen:
    """An observer that keeps every event."""

    def __init__(self) -> None:
        self.events: list[AnyTelemetryEvent] = []

    def on(self, event: AnyTelemetryEvent) -> None:
        self.events.append(event)

    def of[T](self, kind: type[T]) -> list[T]:
        """The events of one kind, in order."""
        return [event for event in self.events if isinstance(event, kind)]


@dataclass
class FakeStream:
    """A stream of a few shards. `trouble` is raised by the next reads, one each; `listing_trouble` by the next listings."""

    held: dict[ShardId, list[Record]] = field(default_factory=lambda: {SHARD: []})
    ended: set[ShardId] = field(default_factory=set)
    parents: dict[ShardId, tuple[ShardId, ...]] = field(default_factory=dict)
    trouble: list[PortError] = field(default_factory=list)
    listing_trouble: list[PortError] = field(default_factory=list)
    page_max: int = 1000
    reads: list[float] = field(default_factory=list)
    cursors: list[Position] = field(default_factory=list)
    behind_ms: int = 0
    kept_s: float | None = None
    cursors_lost: int = 0
    """How many of the next reads leave the cursor out although the shard is open."""
    listed_late: int = 0
    """Listings that do not show yet what has ended."""
    unlisted: set[ShardId] = field(default_factory=set)
    """Shards that listings do not have, as old ones do not have new shards."""
    listings: list[float] = field(default_factory=list)
    over: str = ""
    undated: set[str] = field(default_factory=set)
    """Sequence numbers of records that are sent without their times of arrival, so that they have the moment of the read."""

    def put(self, *records: Record, shard: ShardId = SHARD) -> None:
        """Adds records."""
        self.held[shard].extend(records)

    async def shards(self) -> Sequence[Shard]:
        if self.listing_trouble:
            raise self.listing_trouble.pop(0)
        self.listings.append(virtual_clock().monotonic())
        ended = () if self.listed_late else self.ended
        self.listed_late = max(0, self.listed_late - 1)
        return [
            Shard(shard, self.parents.get(shard, ()), shard in ended)
            for shard in self.held
            if shard not in self.unlisted
        ]

    async def cursor(self, shard: ShardId, position: Position) -> Cursor:
        if shard not in self.held:
            raise ResourceMissing("no such shard")
        self.cursors.append(position)
        records = self.held[shard]
        since = position.since or 0.0
        index = next(
            (
                at
                for at, record in enumerate(records)
                if Position.after(record.sequence_number) > position and record.arrived >= since
            ),
            len(records),
        )
        return Cursor(str(index))

    async def cursor_at(self, shard: ShardId, sequence_number: str) -> Cursor:
        return await self.cursor(shard, Position.after(str(int(sequence_number) - 1)))

    async def read(self, shard: ShardId, cursor: Cursor, *, records_max: int) -> Page:
        self.reads.append(virtual_clock().monotonic())
        await asyncio.sleep(0)
        if self.trouble:
            raise self.trouble.pop(0)
        at = int(cursor)
        page = [self._sent(each) for each in self.held[shard][at : at + min(records_max, self.page_max)]]
        after = at + len(page)
        if shard in self.ended and after == len(self.held[shard]):
            return Page(page, None, 0)
        if self.cursors_lost:
            self.cursors_lost -= 1
            return Page(page, None, self.behind_ms)
        return Page(page, Cursor(str(after)), self.behind_ms)

    def _sent(self, record: Record) -> Record:
        if record.sequence_number not in self.undated:
            return record
        assert isinstance(record, KinesisRecord)
        return msgspec.structs.replace(record, arrived=virtual_clock().now(), dated=False)

    async def retention_s(self) -> float | None:
        return self.kept_s


type Answer = Callable[[list[int]], Outcome]


class FakeFunction:
    """An invoker that notes the sequence numbers it got and when, and answers by `answer` after `takes_s`."""

    def __init__(self, answer: Answer | None = None, *, takes_s: float = 0.0) -> None:
        self.calls: list[list[int]] = []
        self.times: list[float] = []
        self.request_ids: list[str] = []
        self.in_flight = 0
        self.in_flight_max = 0
        self._answer = answer or (lambda _: Succeeded(b""))
        self._takes_s = takes_s

    async def invoke(self, invocation: Invocation) -> Outcome:
        records = json.loads(invocation.payload)["Records"]
        numbers = [int(record["kinesis"]["sequenceNumber"]) for record in records]
        self.calls.append(numbers)
        self.times.append(virtual_clock().monotonic())
        self.request_ids.append(invocation.request_id)
        self.in_flight += 1
        self.in_flight_max = max(self.in_flight_max, self.in_flight)
        try:
            await asyncio.sleep(self._takes_s)
        finally:
            self.in_flight -= 1
        return self._answer(numbers)


class FakeDestination:
    """A destination that keeps notices; `trouble` is raised by the next sends, one each."""

    def __init__(self, *trouble: PortError) -> None:
        self.notices: list[Notice] = []
        self.calls: list[tuple[CallNotice, bool]] = []
        self.tries: list[float] = []
        self._trouble = list(trouble)

    async def send(self, notice: Notice) -> None:
        self.tries.append(virtual_clock().monotonic())
        if self._trouble:
            raise self._trouble.pop(0)
        self.notices.append(notice)

    async def send_call(self, notice: CallNotice, *, dead_letter: bool) -> None:
        self.tries.append(virtual_clock().monotonic())
        if self._trouble:
            raise self._trouble.pop(0)
        self.calls.append((notice, dead_letter))


def poison(number: int) -> Answer:
    """Fails every batch that holds this record."""
    return lambda batch: FunctionError("ValueError", "poison") if number in batch else Succeeded(b"")


def mapping(**changes: object) -> MappingPlan:
    """A Kinesis mapping with these changes."""
    given: dict[str, object] = {
        "mapping": MappingId("0f4b8a5e-8b0c-4a56-9c0e-0d7d6b0c2b11"),
        "kind": SourceKind.KINESIS,
        "source_arn": STREAM_ARN,
        "function": "reader",
        "function_arn": "arn:aws:lambda:eu-west-1:111122223333:function:reader",
    }
    return mapping_plan(**(given | changes))


def stream_parts(
    source: FakeStream,
    function: FakeFunction,
    *,
    plan: MappingPlan | None = None,
    store: MemoryStore | None = None,
    destination: Destination | None = None,
    seen: Seen | None = None,
    tuning: Tuning | None = None,
    max_concurrency: int | None = None,
    worker: str = "worker-1",
) -> StreamContext:
    """The parts of a stream mapping over these fakes."""
    observer = seen or Seen()
    return StreamContext(
        plan=plan or mapping(),
        worker=WorkerId(worker),
        function=Function(
            FunctionPlan(name="reader", invoker="fake", timeout_s=30.0, max_concurrency=max_concurrency),
            function,
            observer,
        ),
        store=store or MemoryStore(),
        clock=virtual_clock(),
        rng=Random(11),
        observer=observer,
        tuning=tuning or Tuning(),
        source=source,
        destination=destination,
    )


def records(*numbers: int, key: str = "k", age_s: float = 0.0) -> list[KinesisRecord]:
    """Records with these sequence numbers that arrived `age_s` before virtual time 0."""
    return [kinesis(number, key=key, arrived=EPOCH_BASE - age_s) for number in numbers]
