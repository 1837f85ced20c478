"""Subscriptions of services that are not as AWS's: over at once, again and again, and with odd places and numbers in their events."""

import asyncio
import base64
import itertools
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adapters.sources.kinesis.consumers import GivenConsumer
from adapters.sources.kinesis.fan_out import AGAIN_S, ON_THE_WAY_S, PushedStream
from adapters.sources.odd_answers import BEHIND_MS_MAX, behind_of
from poller.clock import LoopClock
from poller.domain.records import JsonObject, Position
from poller.loop_turns import LoopTurns
from tests.adapters.sources.test_aggregates import packed
from tests.adapters.sources.test_fan_out import (
    CONSUMER,
    LAST,
    SHARD,
    Connection,
    Polled,
    Reading,
    Service,
    event,
    play,
    record,
)
from tests.virtual import run_virtual

PARTS = 3
SPAN_S = 300.0


@pytest.mark.parametrize("script", [[], [event(5)], [event(then=5)]], ids=["nothing", "a record", "a place"])
def test_a_subscription_that_is_over_at_once_is_no_reason_for_calls_without_end(script: list[Any]) -> None:
    async def scenario(reading: Reading) -> None:
        await reading.begin(Position.after("4"))
        reads, reasons = 0, set()
        while asyncio.get_running_loop().time() < SPAN_S:
            reads += 1
            await reading.read()
            reasons.add(reading.source.polled_because(SHARD))
            if reading.source.polled_because(SHARD):
                # The reader waits between polls.
                await asyncio.sleep(1)
        assert reads < 2 * SPAN_S
        assert reasons <= {"", "kinesis SubscribeToShard: the subscription was over within 5.5 s"}

    service = play([Connection(list(script), stays=False) for _ in range(1_000)], scenario)
    moments = [at for at, _ in service.asked]
    assert len(moments) > SPAN_S / 10
    assert all(after - before >= AGAIN_S for before, after in itertools.pairwise(moments))


def test_records_are_polled_while_a_subscription_that_was_over_at_once_has_to_wait() -> None:
    async def scenario(reading: Reading) -> None:
        await reading.begin()
        assert await reading.read() == []
        assert await reading.read() == [1, 2]
        await asyncio.sleep(AGAIN_S)
        assert await reading.read() == [3]
        assert reading.source.polled_because(SHARD) == ""

    play([Connection([], stays=False), Connection([event(3)])], scenario, stored=(1, 2))


def test_where_subscriptions_say_nothing_a_poll_shows_that_there_is_nothing_more() -> None:
    async def scenario(reading: Reading) -> None:
        await reading.begin()
        told = []
        while asyncio.get_running_loop().time() < SPAN_S:
            await reading.read()
            told.append(reading.behind_ms == 0)
            if reading.source.polled_because(SHARD):
                await asyncio.sleep(1)
        longest = max((len(list(group)) for caught_up, group in itertools.groupby(told) if not caught_up))
        assert longest <= 2, "reads of one subscription"
        assert any(told)

    silent: list[JsonObject | float | Exception] = [12.0, {"EventOfALaterVersion": {"Records": []}}, 0.5]
    play([Connection(list(silent), stays=False) for _ in range(100)], scenario)


def test_a_shard_that_ends_at_once_has_nothing_to_wait_for() -> None:
    async def scenario(reading: Reading) -> None:
        await reading.begin()
        await reading.read()
        assert reading.ended

    play([Connection([LAST], stays=False)], scenario)


def parts(number: int) -> JsonObject:
    """A record of the stream that holds some."""
    data = packed([(f"key{part}", None, b"x") for part in range(PARTS)])
    return {**record(number), "Data": base64.b64encode(data).decode()}


NUMBERS = range(4, 8)
EVENTS = st.lists(
    st.tuples(st.booleans(), st.integers(0, 3), st.sampled_from(["", None, "own", "last"])), min_size=1
)


@given(st.integers(0, PARTS - 1), EVENTS, st.integers(1, 4))
@settings(max_examples=150, deadline=None)
def test_each_part_behind_the_place_comes_once_in_order_whatever_the_events_say(
    settled: int, plan: Sequence[tuple[bool, int, str | None]], records_max: int
) -> None:
    """Each subscription sends what follows on its start: events with some records or none, whose place is that of the last record sent, or odd."""
    got: list[str] = []

    class Service:
        """Follows the plan, and then sends all that is left."""

        def __init__(self) -> None:
            self.plan = list(plan)

        def opened(self, start: JsonObject) -> Connection:
            number = int(start["SequenceNumber"])
            sent = number - 1 if start["Type"] == "AT_SEQUENCE_NUMBER" else number
            script: list[Any] = []
            place = str(number)
            while self.plan:
                cut, count, then = self.plan.pop(0)
                chosen = [each for each in NUMBERS if each > sent][:count]
                sent = max(chosen, default=sent)
                place = str(chosen[-1]) if chosen else place
                members: JsonObject = {"Records": [parts(each) for each in chosen], "MillisBehindLatest": 0}
                if then != "own":
                    members["ContinuationSequenceNumber"] = place if then == "last" else then
                script += [6.0, {"SubscribeToShardEvent": members}]
                if cut:
                    return Connection(script, stays=False)
            rest = [each for each in NUMBERS if each > sent]
            script.append({"SubscribeToShardEvent": {"Records": [parts(each) for each in rest]}})
            return Connection(script)

    async def scenario(reading: Reading) -> None:
        service = Service()

        async def subscribe_to_shard(**parameters: Any) -> JsonObject:
            found = service.opened(parameters["StartingPosition"])
            reading.service.asked.append((0.0, parameters["StartingPosition"]))
            reading.service.opened.append(found)
            return {"EventStream": found}

        reading.service.subscribe_to_shard = subscribe_to_shard  # type: ignore[method-assign]
        await reading.begin(Position.after(f"{NUMBERS[0]}:{settled}/{PARTS}"))
        while asyncio.get_running_loop().time() < SPAN_S:
            page = await reading.source.read(SHARD, reading.cursor, records_max=records_max)
            assert page.cursor is not None
            reading.cursor = page.cursor
            got.extend(each.sequence_number for each in page.records)

    play([], scenario)
    every = [f"{number}:{part}/{PARTS}" for number in NUMBERS for part in range(PARTS)]
    assert got == every[settled + 1 :]


@pytest.mark.parametrize(
    ("said", "known"),
    [(0, 0), (7, 7), (-5, 0), (-(10**30), 0), (10**30, BEHIND_MS_MAX), (None, None), ([], None), ("x", None)],
    ids=str,
)
def test_a_reader_is_never_less_than_nothing_behind(said: object, known: int | None) -> None:
    assert behind_of(said) == known

    async def scenario(reading: Reading) -> None:
        await reading.begin()
        page = await reading.source.read(SHARD, reading.cursor, records_max=10)
        assert page.behind_ms == known

    play([Connection([2 * ON_THE_WAY_S, event(5, MillisBehindLatest=said)])], scenario)


NO_EVENTS: tuple[object, ...] = (None, 0, "", [], {}, True)


@pytest.mark.parametrize("reply", [{}, *({"EventStream": odd} for odd in NO_EVENTS)], ids=str)
def test_an_answer_without_events_is_as_a_refused_subscription(reply: JsonObject) -> None:
    class Odd(Service):
        async def subscribe_to_shard(self, **parameters: Any) -> JsonObject:
            await super().subscribe_to_shard(**parameters)
            return reply

    async def run() -> None:
        polled, service = Polled([1, 2]), Odd()
        consumer, clock = GivenConsumer(CONSUMER), LoopClock()
        source = PushedStream(polled, service, LoopTurns(), consumer=consumer, clock=clock)  # type: ignore[arg-type]
        reading = Reading(service, polled, source)
        await reading.begin()
        assert await reading.read() == [1, 2]
        assert "not as documented" in source.polled_because(SHARD)

    run_virtual(run())
