"""Enhanced fan-out on virtual time, with a service that follows a script: renewed, refused and cut subscriptions, and odd events."""

import asyncio
import base64
import itertools
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

import pytest
from botocore.exceptions import ClientError, EventStreamError

from adapters.sources.kinesis.consumers import GivenConsumer
from adapters.sources.kinesis.fan_out import (
    AGAIN_S,
    KEPT_S_MAX,
    ON_THE_WAY_S,
    SUBSCRIBED_S_MAX,
    WAIT_S,
    PushedStream,
)
from adapters.sources.kinesis.stream import KinesisStream
from poller.clock import LoopClock
from poller.domain.errors import CursorExpired, PositionTrimmed, RecordUnreadable
from poller.domain.records import Cursor, JsonObject, KinesisRecord, Page, Position, ShardId
from poller.domain.telemetry.labels import SourceCall
from poller.loop_turns import LoopTurns
from tests.virtual import run_virtual

SHARD = ShardId("shardId-000000000000")
CONSUMER = "arn:aws:kinesis:eu-west-1:111122223333:stream/orders/consumer/poller:1700000000"
BEAT_S = 12.0
"""How often this service sends an event without records."""
CUT = ConnectionResetError("the connection is gone")


def record(number: int) -> JsonObject:
    data = base64.b64encode(str(number).encode()).decode()
    return {
        "SequenceNumber": str(number),
        "Data": data,
        "PartitionKey": "k",
        "ApproximateArrivalTimestamp": 1_700_000_000.0 + number,
    }


def event(*numbers: int, then: int | None = None, **more: Any) -> JsonObject:
    """An event with these records. `then`: where reading goes on behind it."""
    members: JsonObject = {"Records": [record(each) for each in numbers], "MillisBehindLatest": 0, **more}
    last = then if then is not None else max(numbers, default=None)
    return {
        "SubscribeToShardEvent": members | ({} if last is None else {"ContinuationSequenceNumber": str(last)})
    }


LAST: JsonObject = {
    "SubscribeToShardEvent": {"Records": [], "MillisBehindLatest": 0, "ChildShards": [{}, {}]}
}


@dataclass(eq=False)
class Connection:
    """What one subscription sends: events, waits in seconds, and errors. Then it ends, unless it `stays`; it `beats` as the service does."""

    script: list[JsonObject | float | Exception]
    stays: bool = True
    beats: bool = True
    sent: int = 0
    closed: bool = False

    async def __aiter__(self) -> AsyncIterator[JsonObject]:
        for each in self.script:
            match each:
                case Exception():
                    raise each
                case float():
                    await asyncio.sleep(each)
                case _:
                    self.sent += 1
                    yield each
        while self.stays and self.beats:
            await asyncio.sleep(BEAT_S)
            self.sent += 1
            yield event()
        if self.stays:
            await asyncio.Event().wait()

    def close(self) -> None:
        self.closed = True


@dataclass
class Service:
    """The two calls. Each subscription gets the next script, or an error; without one more there are no events."""

    scripts: list[Connection | Exception] = field(default_factory=list)
    asked: list[tuple[float, JsonObject]] = field(default_factory=list)
    opened: list[Connection] = field(default_factory=list)

    async def subscribe_to_shard(self, **parameters: Any) -> JsonObject:
        assert (parameters["ConsumerARN"], parameters["ShardId"]) == (CONSUMER, SHARD)
        self.asked.append((asyncio.get_running_loop().time(), parameters["StartingPosition"]))
        found = self.scripts.pop(0) if self.scripts else Connection([])
        if isinstance(found, Exception):
            raise found
        self.opened.append(found)
        return {"EventStream": found}


class Polled(KinesisStream):
    """The stream by GetRecords. It has the records of `stored`; positions below `horizon` are gone."""

    def __init__(self, stored: list[int]) -> None:
        self.stored = stored
        self.horizon = 0
        self.reads = 0

    async def cursor(self, shard: ShardId, position: Position) -> Cursor:
        if 0 < position.sequence < self.horizon:
            raise PositionTrimmed("gone")
        return Cursor(f"0;{position.sequence}")

    async def read(self, shard: ShardId, cursor: Cursor, *, records_max: int) -> Page:
        self.reads += 1
        behind = int(cursor.partition(";")[2])
        found = [each for each in self.stored if each > behind][:records_max]
        return Page([known(each) for each in found], Cursor(f"0;{max(found, default=behind)}"), 0)


def known(number: int) -> KinesisRecord:
    wire = record(number)
    return KinesisRecord(str(number), wire["ApproximateArrivalTimestamp"], wire["Data"], "k", dated=True)


@dataclass
class Reading:
    """One reader of the shard."""

    service: Service
    polled: Polled
    source: PushedStream
    cursor: Cursor = Cursor("")
    ended: bool = False
    got: list[int] = field(default_factory=list)
    behind_ms: int | None = None

    async def begin(self, position: Position = Position.horizon()) -> None:
        self.cursor = await self.source.cursor(SHARD, position)

    async def read(self, records_max: int = 100) -> list[int]:
        """The numbers of the records of one more page."""
        page = await self.source.read(SHARD, self.cursor, records_max=records_max)
        found = [int(each.sequence_number) for each in page.records]
        self.got += found
        self.behind_ms = page.behind_ms
        if page.cursor is None:
            self.ended = page.ended
        else:
            self.cursor = page.cursor
        return found


def play(
    scripts: list[Connection | Exception],
    scenario: Callable[[Reading], Coroutine[Any, Any, None]],
    stored: tuple[int, ...] = (),
) -> Service:
    """Runs a scenario on virtual time; returns the service."""
    service = Service(list(scripts))

    async def run() -> None:
        polled = Polled(list(stored))
        consumer, clock = GivenConsumer(CONSUMER), LoopClock()
        source = PushedStream(polled, service, LoopTurns(), consumer=consumer, clock=clock)  # type: ignore[arg-type]
        counted: list[SourceCall] = []
        source.count_calls(counted.append)
        await scenario(Reading(service, polled, source))
        source.close()
        assert counted == [SourceCall.SUBSCRIBE_TO_SHARD] * len(service.asked)
        assert all(each.closed for each in service.opened)

    run_virtual(run())
    return service


def refusal(code: str) -> ClientError:
    return ClientError({"Error": {"Code": code, "Message": "no"}}, "SubscribeToShard")


def starts(service: Service) -> list[str]:
    """Where the subscriptions begin."""
    return [str(each.get("SequenceNumber", each["Type"])) for _, each in service.asked]


def test_events_become_pages_and_a_page_is_no_larger_than_asked_for() -> None:
    async def scenario(reading: Reading) -> None:
        await reading.begin()
        assert [await reading.read(2) for _ in range(3)] == [[1, 2], [3], [7]]
        assert reading.polled.reads == 0
        assert reading.source.polled_because(SHARD) == ""

    assert starts(play([Connection([event(1, 2, 3), event(7)])], scenario)) == ["TRIM_HORIZON"]


def test_a_read_waits_for_records_and_answers_without_any_after_a_while() -> None:
    async def scenario(reading: Reading) -> None:
        await reading.begin(Position.after("4"))
        loop = asyncio.get_running_loop()
        assert await reading.read() == []
        assert loop.time() == pytest.approx(WAIT_S)
        assert await reading.read() == [5]
        assert loop.time() == pytest.approx(9.0)

    service = play([Connection([9.0, event(5)])], scenario)
    assert service.asked == [(0.0, {"Type": "AFTER_SEQUENCE_NUMBER", "SequenceNumber": "4"})]


def test_only_an_event_that_was_sent_after_a_read_began_says_that_nothing_more_is_there() -> None:
    """Each event says that nothing is behind it. It may have been on its way for long when it is read."""
    sent: list[JsonObject | float | Exception] = [
        event(1),
        event(),
        ON_THE_WAY_S - 0.1,
        event(),
        ON_THE_WAY_S + 0.1,
        event(2),
        3 * WAIT_S,
        event(),
    ]

    async def scenario(reading: Reading) -> None:
        await reading.begin()
        told = [(await reading.read(), reading.behind_ms) for _ in range(4)]
        assert told == [([1], 1), ([], 1), ([], 1), ([2], 0)]
        assert [(await reading.read(), reading.behind_ms) for _ in range(2)] == [([], 1), ([], 1)]

    play([Connection(sent)], scenario)


@pytest.mark.parametrize("script", [[], [WAIT_S + 1.0, event(1)]], ids=["ended", "no event yet"])
def test_a_subscription_without_an_event_does_not_say_that_nothing_is_there(
    script: list[JsonObject | float | Exception],
) -> None:
    async def scenario(reading: Reading) -> None:
        await reading.begin()
        assert (await reading.read(), reading.behind_ms) == ([], 1)

    play([Connection(script, stays=False)], scenario)


def test_a_wait_for_an_event_that_is_cancelled_from_outside_ends_the_subscription_and_not_its_reader() -> (
    None
):
    async def scenario(reading: Reading) -> None:
        await reading.begin()
        before = asyncio.all_tasks()

        def cancel() -> None:
            waiting = asyncio.all_tasks() - before
            assert len(waiting) == 1
            waiting.pop().cancel()

        asyncio.get_running_loop().call_later(1.0, cancel)
        assert await reading.read() == [1, 2]
        assert "cancelled" in reading.source.polled_because(SHARD)

    play([Connection([])], scenario, stored=(1, 2))


def test_no_more_than_one_event_is_fetched_before_it_is_asked_for() -> None:
    connection = Connection([event(each) for each in range(1, 100)])

    async def scenario(reading: Reading) -> None:
        await reading.begin()
        for number in range(1, 6):
            assert await reading.read() == [number]
            await asyncio.sleep(20)
            assert connection.sent <= number + 1

    play([connection], scenario)


def test_a_subscription_is_renewed_where_it_was_before_the_service_ends_it() -> None:
    async def scenario(reading: Reading) -> None:
        await reading.begin()
        while asyncio.get_running_loop().time() < 2.5 * SUBSCRIBED_S_MAX:
            await reading.read()
        assert reading.got == [3]

    scripts = [Connection([event(3), 20.0, event(then=8)]), Connection([event(then=9)]), Connection([])]
    service = play([*scripts], scenario)
    assert starts(service) == ["TRIM_HORIZON", "8", "9"]
    renewed = service.asked[1][0]
    assert SUBSCRIBED_S_MAX <= renewed < 300
    assert [each.closed for each in service.opened] == [True] * 3


def test_a_subscription_that_the_service_ended_goes_on_behind_its_last_event() -> None:
    async def scenario(reading: Reading) -> None:
        await reading.begin()
        for _ in range(5):
            await reading.read()
        assert reading.got == [1, 2, 3]

    scripts = [Connection([event(1, 2), 8.0], stays=False), Connection([event(3)])]
    assert starts(play([*scripts], scenario))[:2] == ["TRIM_HORIZON", "2"]


@pytest.mark.parametrize(
    "error",
    [
        CUT,
        EventStreamError(
            {"Error": {"Code": "InternalFailureException", "Message": "no"}}, "SubscribeToShard"
        ),
        EventStreamError({"Error": {"Code": "ResourceInUseException", "Message": "no"}}, "SubscribeToShard"),
        EventStreamError({"Error": {"Code": "KMSThrottlingException", "Message": "no"}}, "SubscribeToShard"),
        TimeoutError(),
    ],
    ids=["connection", "failure", "taken over", "key", "silence"],
)
def test_a_connection_that_is_cut_loses_nothing_and_the_rest_is_polled_until_another_try(
    error: Exception,
) -> None:
    async def scenario(reading: Reading) -> None:
        await reading.begin()
        assert await reading.read(1) == [1]
        assert await reading.read() == [2]
        assert await reading.read() == [3, 4]
        assert reading.source.polled_because(SHARD) != ""
        await asyncio.sleep(AGAIN_S)
        assert await reading.read() == [5]
        assert reading.source.polled_because(SHARD) == ""

    service = play([Connection([event(1, 2), error]), Connection([event(5)])], scenario, stored=(1, 2, 3, 4))
    assert starts(service) == ["TRIM_HORIZON", "4"]


def test_a_silent_connection_is_given_up() -> None:
    async def scenario(reading: Reading) -> None:
        await reading.begin()
        for _ in range(8):
            await reading.read()
        assert "no event within 30 s" in reading.source.polled_because(SHARD)
        assert reading.got == [1]

    play([Connection([], beats=False)], scenario, stored=(1,))


@pytest.mark.parametrize(
    "code",
    [
        "ResourceInUseException",
        "LimitExceededException",
        "AccessDeniedException",
        "ResourceNotFoundException",
    ],
)
def test_a_refused_subscription_is_tried_again_and_records_are_polled_meanwhile(code: str) -> None:
    async def scenario(reading: Reading) -> None:
        await reading.begin()
        while asyncio.get_running_loop().time() < 300:
            await reading.read()
            await asyncio.sleep(1)
        assert reading.got == [1, 2, 3]
        assert code in reading.source.polled_because(SHARD)

    service = play([refusal(code)] * 50, scenario, stored=(1, 2, 3))
    moments = [at for at, _ in service.asked]
    waits = [after - before for before, after in itertools.pairwise(moments)]
    assert all(AGAIN_S <= each < 62 for each in waits)
    assert waits[-1] > 50


def test_the_last_event_of_a_shard_ends_it() -> None:
    async def scenario(reading: Reading) -> None:
        await reading.begin()
        while not reading.ended:
            await reading.read(1)
        assert reading.got == [1, 2, 3]

    last = event(3)
    last["SubscribeToShardEvent"] |= {"ChildShards": [{}, {}], "ContinuationSequenceNumber": None}
    play([Connection([event(1, 2), last])], scenario)
    play([Connection([event(1, 2, 3), LAST])], scenario)


def test_a_place_that_nobody_read_from_for_long_is_looked_up_again() -> None:
    async def scenario(reading: Reading) -> None:
        await reading.begin()
        assert await reading.read() == [1]
        await asyncio.sleep(KEPT_S_MAX + 1)
        with pytest.raises(CursorExpired):
            await reading.read()
        reading.polled.horizon = 7
        with pytest.raises(PositionTrimmed):
            await reading.begin(Position.after("1"))

    play([Connection([event(1)])], scenario)


def test_a_record_that_cannot_be_read_blocks_behind_those_before_it() -> None:
    odd = event(1, 2, 3)
    odd["SubscribeToShardEvent"]["Records"][1]["Data"] = "no base64!"

    async def scenario(reading: Reading) -> None:
        await reading.begin()
        assert await reading.read() == [1]
        with pytest.raises(RecordUnreadable, match="record 2 cannot be read"):
            await reading.read()
        with pytest.raises(RecordUnreadable):
            await reading.read()
        assert await reading.read() == [2, 3]

    again = event(2, 3)
    again["SubscribeToShardEvent"]["Records"][0]["Data"] = None
    service = play([Connection([odd]), Connection([again]), Connection([event(2, 3)])], scenario)
    assert starts(service) == ["TRIM_HORIZON", "1", "1"]


@pytest.mark.parametrize(
    "odd",
    [
        {"SubscribeToShardEvent": {}},
        {"SubscribeToShardEvent": {"Records": 3}},
        {"SubscribeToShardEvent": {"Records": "x"}},
    ],
    ids=str,
)
def test_an_event_without_records_is_no_event_and_the_records_are_polled(odd: JsonObject) -> None:
    async def scenario(reading: Reading) -> None:
        await reading.begin()
        assert await reading.read() == [1]
        assert "not as documented" in reading.source.polled_because(SHARD)

    play([Connection([odd])], scenario, stored=(1,))


@pytest.mark.parametrize("number", ["", "x", None, 5, "-1", "9" * 500])
def test_an_odd_place_to_go_on_is_that_of_the_last_record(number: object) -> None:
    strange = event(1, 2)
    strange["SubscribeToShardEvent"]["ContinuationSequenceNumber"] = number

    async def scenario(reading: Reading) -> None:
        await reading.begin()
        assert await reading.read() == [1, 2]
        await reading.read()

    assert starts(play([Connection([strange], stays=False)], scenario))[:2] in (
        ["TRIM_HORIZON", "2"],
        ["TRIM_HORIZON"],
    )


def test_events_of_other_names_are_passed_over() -> None:
    async def scenario(reading: Reading) -> None:
        await reading.begin()
        while not reading.got:
            await reading.read()
        assert reading.got == [1]

    play([Connection([{"InternalNote": {}}, {}, event(1)])], scenario)


def test_a_start_by_time_leaves_out_what_is_older_also_behind_an_event_without_records() -> None:
    async def scenario(reading: Reading) -> None:
        await reading.begin(Position(Position.horizon().rank, since_ms=1_700_000_003_000))
        while not reading.got:
            await reading.read()
        assert reading.got == [3, 4]

    service = play([Connection([event(then=1), event(2), event(2, 3, 4)])], scenario)
    assert service.asked[0][1] == {"Type": "AT_TIMESTAMP", "Timestamp": 1_700_000_003.0}


def test_a_read_that_is_cancelled_ends_the_subscription() -> None:
    async def scenario(reading: Reading) -> None:
        await reading.begin()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1):
                await reading.read()
        assert [each.closed for each in reading.service.opened] == [True]

    play([Connection([])], scenario)


def test_reading_from_another_place_begins_another_subscription() -> None:
    async def scenario(reading: Reading) -> None:
        await reading.begin()
        assert await reading.read(1) == [1]
        await reading.begin(Position.after("7"))
        assert await reading.read() == [8]

    assert starts(play([Connection([event(1, 2)]), Connection([event(8)])], scenario)) == [
        "TRIM_HORIZON",
        "7",
    ]
