"""The fake service pushes as Kinesis does, as far as a subscriber relies on it."""

import asyncio
import itertools
from collections.abc import Sequence
from contextlib import suppress
from random import Random
from typing import Any

import pytest
from botocore.exceptions import ClientError

from adapters.sources.kinesis.aggregates import taken_apart
from adapters.sources.kinesis.stream import read_record
from poller.domain.plan import SourceKind
from poller.domain.records import Epoch, JsonObject, ShardId
from poller.domain.streams.places import name_of
from poller.loop_turns import LoopTurns
from tests.simulation.pushing.service import (
    CALLS_PER_S,
    GIVEN,
    TOO_SOON_S,
    Code,
    Connection,
    FakeConsumers,
    Pushes,
)
from tests.simulation.services.contents import Content
from tests.simulation.services.streams import FakeStream, Held
from tests.virtual import EPOCH_BASE

T = EPOCH_BASE
ARN = "arn:aws:kinesis:eu-west-1:111122223333:stream/orders"
FIRST = ShardId("shardId-000000000000")
HORIZON = {"Type": "TRIM_HORIZON"}


def service(records_max: int = 100, *, seed: int = 1) -> FakeConsumers:
    pushes = Pushes(records_max=records_max)
    return FakeConsumers(FakeStream(SourceKind.KINESIS), ARN, pushes, Random(seed))


def filled(made: FakeConsumers, count: int) -> list[Held]:
    return [made.stream.put(T + number, "k", Content(number))[1] for number in range(count)]


def subscribed(
    made: FakeConsumers, now: float, starting: JsonObject = HORIZON, *, by: str = "worker"
) -> Connection:
    return made.subscribe(now, made.given, FIRST, starting, by=by)[0]


def refused_with(made: FakeConsumers, now: float, **parameters: Any) -> str:
    with pytest.raises(ClientError) as caught:
        made.subscribe(
            now, **{"arn": made.given, "shard": FIRST, "starting": HORIZON, "by": "w", **parameters}
        )
    return str(caught.value.response["Error"]["Code"])


def events(made: FakeConsumers, connection: Connection, now: float) -> list[JsonObject]:
    """The members of all events that are sent by now."""
    found = []
    while not connection.over and (event := made.push(now, connection)) is not None:
        found.append(event.get("SubscribeToShardEvent", {}))
    return found


def numbers(sent: Sequence[JsonObject]) -> list[int]:
    return [int(record["SequenceNumber"]) for each in sent for record in each.get("Records", [])]


def test_all_records_are_sent_once_and_in_order() -> None:
    made = service(records_max=5)
    put = filled(made, 30)
    sent = events(made, subscribed(made, T + 40), T + 40)
    assert numbers(sent) == [each.sequence for each in put]
    assert sent[-1]["MillisBehindLatest"] == 0


@pytest.mark.parametrize(("kind", "first"), [("AT_SEQUENCE_NUMBER", 2), ("AFTER_SEQUENCE_NUMBER", 3)])
def test_a_subscription_begins_at_a_record_or_behind_it(kind: str, first: int) -> None:
    made = service()
    put = filled(made, 6)
    starting = {"Type": kind, "SequenceNumber": str(put[2].sequence)}
    sent = events(made, subscribed(made, T + 10, starting), T + 10)
    assert numbers(sent) == [each.sequence for each in put[first:]]


def test_a_subscription_begins_at_a_time() -> None:
    made = service()
    put = filled(made, 6)
    sent = events(made, subscribed(made, T + 10, {"Type": "AT_TIMESTAMP", "Timestamp": T + 4.0}), T + 10)
    assert numbers(sent) == [each.sequence for each in put[4:]]


def test_a_second_subscription_within_five_seconds_is_refused_and_a_later_one_ends_the_first() -> None:
    made = service()
    first = subscribed(made, T)
    assert refused_with(made, T + TOO_SOON_S - 0.1) == Code.IN_USE
    made.disconnect(first)
    assert refused_with(made, T + TOO_SOON_S - 0.1) == Code.IN_USE
    second = subscribed(made, T + TOO_SOON_S, by="second")
    _, ended = made.subscribe(T + 2 * TOO_SOON_S, made.given, FIRST, HORIZON, by="third")
    assert ended is second
    filled(made, 20)
    with suppress(ClientError):
        # Now and then the subscription ends with an error.
        assert numbers(events(made, second, T + 60)) == []
    assert second.over


def test_a_subscription_ends_after_its_time() -> None:
    made = service()
    connection = subscribed(made, T)
    assert events(made, connection, T + 299.9) != []
    assert not connection.over
    events(made, connection, T + 300.0)
    assert connection.over


def test_an_idle_shard_has_an_event_without_records_now_and_then() -> None:
    made = service()
    (held,) = filled(made, 1)
    connection = subscribed(made, T + 1)
    events(made, connection, T + 1)
    assert events(made, connection, T + 5) == []
    (beat,) = [each for each in events(made, connection, T + 6) if each]
    assert beat["Records"] == []
    assert int(beat["ContinuationSequenceNumber"]) >= held.sequence


def test_the_last_event_of_a_shard_has_its_children() -> None:
    made = service()
    put = filled(made, 3)
    children = made.stream.split(T + 5, FIRST)
    connection = subscribed(made, T + 6)
    sent = events(made, connection, T + 6)
    assert numbers(sent) == [each.sequence for each in put]
    assert [each["ShardId"] for each in sent[-1]["ChildShards"]] == list(children)
    assert connection.over


def test_too_many_calls_are_refused() -> None:
    made = service()
    codes = [refused_with(made, T, arn="another") for _ in range(CALLS_PER_S + 1)]
    assert codes == [*itertools.repeat(Code.MISSING, CALLS_PER_S), Code.LIMIT]


def test_a_consumer_is_registered_removed_and_registered_again_with_another_arn() -> None:
    made = service()
    first = made.register(T, "own")["Consumer"]
    assert first["ConsumerStatus"] == "CREATING"
    assert refused_with(made, T + 1, arn=first["ConsumerARN"]) == Code.IN_USE
    assert made.describe(T + 2, "own")["ConsumerDescription"]["ConsumerStatus"] == "ACTIVE"
    connection, _ = made.subscribe(T + 2, first["ConsumerARN"], FIRST, HORIZON, by="w")
    made.remove(T + 3, "own")
    assert made.describe(T + 4, "own")["ConsumerDescription"]["ConsumerStatus"] == "DELETING"
    with pytest.raises(ClientError):
        made.describe(T + 5, "own")
    with pytest.raises(ClientError):
        made.push(T + 5, connection)
    assert made.register(T + 6, "own")["Consumer"]["ConsumerARN"] != first["ConsumerARN"]
    assert made.names() == [GIVEN, "own"]


def test_an_aggregated_record_is_sent_as_one_that_the_source_takes_apart() -> None:
    made = service(records_max=1)
    inside = [(f"é-{number % 2}", Content(number)) for number in range(200)]
    _, parts = made.stream.put_aggregated(T, inside)
    (sent,) = events(made, subscribed(made, T + 1), T + 1)
    (wire,) = sent["Records"]
    found = asyncio.run(_apart(wire))
    assert found == [(each.name, each.key) for each in parts]


async def _apart(wire: JsonObject) -> list[tuple[str, str | None]]:
    records = await taken_apart([read_record(wire, Epoch(T))], LoopTurns())
    return [(name_of(each.sequence_number), each.key) for each in records]
