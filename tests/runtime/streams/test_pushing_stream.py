"""A stream that can push its records: what events and notices name as their source, and what the status shows while records are polled."""

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from adapters.stores.memory import MemoryStore
from poller.domain.invocations import Invocation, Outcome, Succeeded
from poller.domain.policies import Backoff, BatchPolicy, RetryPolicy
from poller.domain.records import Position, ShardId
from poller.domain.telemetry.mapping_events import LeaseMoved
from poller.runtime.stopping import Stop
from poller.runtime.streams.context import StreamContext
from poller.runtime.streams.stream_mapping import StreamMapping
from tests.runtime.fakes import (
    SHARD,
    STREAM_ARN,
    Answer,
    FakeDestination,
    FakeFunction,
    FakeStream,
    Seen,
    mapping,
    poison,
    records,
    stream_parts,
)
from tests.runtime.streams.test_stream_mapping import run_mapping, stored

OWN = f"{STREAM_ARN}/consumer/poller-x:1700000001"
LATER = f"{STREAM_ARN}/consumer/poller-x:1700000002"


@dataclass
class PushingStream(FakeStream):
    """A stream whose records are pushed, or polled for the reason `because`."""

    arn: str = ""
    because: str = ""
    left: list[ShardId] = field(default_factory=list)

    def pushing(self) -> "PushingStream":
        return self

    async def event_arn(self) -> str:
        return self.arn

    def polled_because(self, shard: ShardId) -> str:
        return self.because

    def leave(self, shard: ShardId) -> None:
        self.left.append(shard)


class NamingFunction(FakeFunction):
    """A function that notes what the events name as their source."""

    def __init__(self, answer: Answer | None = None) -> None:
        super().__init__(answer)
        self.named: list[set[str]] = []

    async def invoke(self, invocation: Invocation) -> Outcome:
        event: dict[str, Any] = json.loads(invocation.payload)
        named = {each["eventSourceARN"] for each in event["Records"]}
        self.named.append(named | ({event["eventSourceARN"]} if "eventSourceARN" in event else set()))
        assert len(invocation.payload) == len(json.dumps(event, separators=(",", ":")))
        return await super().invoke(invocation)


def making(stream: FakeStream, function: FakeFunction, **more: Any) -> Callable[[], StreamContext]:
    return lambda: stream_parts(stream, function, **more)


def test_events_name_the_consumer_and_notices_the_source_of_the_mapping() -> None:
    stream, function, destination = PushingStream(arn=OWN), NamingFunction(poison(1)), FakeDestination()
    stream.put(*records(1, 2))
    plan = mapping(
        batch=BatchPolicy(records_max=1),
        retry=RetryPolicy(retries_max=0, backoff=Backoff(base_s=0.0, cap_s=0.0)),
    )
    run_mapping(making(stream, function, plan=plan, destination=destination), for_s=5)
    assert function.named == [{OWN}, {OWN}]
    (notice,) = destination.notices
    assert json.loads(notice.document)["KinesisBatchInfo"]["streamArn"] == STREAM_ARN
    assert stream.left == [SHARD]


def test_without_a_consumer_of_its_own_events_name_the_source_of_the_mapping() -> None:
    for stream in (PushingStream(), FakeStream()):
        function = NamingFunction()
        stream.put(*records(1))
        run_mapping(making(stream, function), for_s=5)
        assert function.named == [{STREAM_ARN}]


def _counting(_: list[int]) -> Outcome:
    return Succeeded(b'{"state": {"n": 1}}')


def test_events_of_a_window_name_the_consumer_too() -> None:
    stream, function = PushingStream(arn=OWN), NamingFunction(_counting)
    stream.put(*records(1, 2))
    run_mapping(making(stream, function, plan=mapping(tumbling_window_s=5)), for_s=20)
    assert function.calls
    assert set.union(*function.named) == {OWN}


def test_a_consumer_that_becomes_known_later_restarts_its_shards_where_they_are() -> None:
    stream, function, store, seen = PushingStream(), NamingFunction(), MemoryStore(), Seen()
    stream.put(*records(1))

    async def become_known(_: StreamMapping, __: Stop) -> None:
        await asyncio.sleep(5)
        for number, arn in ((2, OWN), (3, LATER), (4, LATER)):
            stream.arn = arn
            await asyncio.sleep(120)
            stream.put(*records(number))

    run_mapping(making(stream, function, store=store, seen=seen), for_s=60, during=become_known)
    assert function.calls == [[1], [2], [3], [4]]
    assert function.named == [{STREAM_ARN}, {OWN}, {LATER}, {LATER}]
    assert [each.held for each in seen.of(LeaseMoved)].count(True) == 3
    assert stored(store) == Position.after("4")


def test_the_status_shows_why_records_are_polled_and_that_the_shard_is_read() -> None:
    stream, function = PushingStream(because="kinesis SubscribeToShard: AccessDenied"), FakeFunction()
    shown: list[tuple[str, str]] = []

    async def look(runner: StreamMapping, _: Stop) -> None:
        for because in (stream.because, ""):
            stream.because = because
            await asyncio.sleep(2)
            shown.extend((each.state, each.reason) for each in runner.shards())

    run_mapping(making(stream, function), for_s=1, during=look)
    assert shown == [
        ("reading", "its records are polled, not pushed: kinesis SubscribeToShard: AccessDenied"),
        ("reading", ""),
    ]
