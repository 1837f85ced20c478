"""Places that only an event names. The service counts on while nothing is written, so that no record is there, and others give odd numbers."""

import asyncio

from hypothesis import given, settings
from hypothesis import strategies as st

from poller.domain.errors import PositionTrimmed
from poller.domain.records import Cursor, Position, Rank, ShardId
from tests.adapters.sources.test_fan_out import CUT, SHARD, Connection, Polled, Reading, event, play

ROUNDS = 40


def as_of_the_stream(stored: list[int], position: Position) -> None:
    """Finds the record of a position as `KinesisStream` does, which takes a later one in its place for a loss."""
    first = min((each for each in stored if each >= position.sequence), default=None)
    if position.rank is Rank.AFTER and first not in (None, position.sequence):
        raise PositionTrimmed("the position's record is gone")


class Exact(Polled):
    """The stream by GetRecords, where a position has to be that of a record."""

    async def cursor(self, shard: ShardId, position: Position) -> Cursor:
        as_of_the_stream(self.stored, position)
        return await super().cursor(shard, position)


def exactly(reading: Reading) -> None:
    """Has the stream of a reading look for the records of positions."""
    reading.polled.__class__ = Exact


def test_records_behind_a_place_without_a_record_are_polled_and_none_counts_as_lost() -> None:
    async def scenario(reading: Reading) -> None:
        exactly(reading)
        await reading.begin()
        assert await reading.read() == [1]
        assert await reading.read() == []
        assert await reading.read() == [9], "what was written while the connection broke"

    play([Connection([event(1), event(then=5), CUT])], scenario, stored=(1, 9))


def test_a_place_that_was_never_in_the_stream_is_not_where_polling_begins() -> None:
    """Some services count each event without records as 0."""

    async def scenario(reading: Reading) -> None:
        exactly(reading)
        await reading.begin()
        assert await reading.read() == []
        assert await reading.read() == [7]

    play([Connection([event(then=0), CUT])], scenario, stored=(7,))


EVENTS = st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2), st.booleans()), min_size=1, max_size=6)


@given(EVENTS, st.integers(1, 4))
@settings(max_examples=150, deadline=None)
def test_whatever_places_events_name_each_record_comes_once_in_order(
    plan: list[tuple[int, int, bool]], records_max: int
) -> None:
    """Each step: so many records, a place so far behind the last one, and whether the connection breaks there."""
    scripts, script, stored, at = [], list[object](), list[int](), 0
    for count, beyond, cut in plan:
        numbers = [at + 10 * (each + 1) for each in range(count)]
        stored += numbers
        at = max(numbers, default=at)
        script += [6.0, event(*numbers, then=at + beyond)]
        if cut:
            # Written while nobody is subscribed.
            at += 10
            stored.append(at)
            scripts.append(Connection([*script, CUT]))  # type: ignore[list-item]
            script = []
    scripts.append(Connection(script))  # type: ignore[arg-type]

    async def scenario(reading: Reading) -> None:
        exactly(reading)
        await reading.begin()
        for _ in range(ROUNDS):
            if reading.source.polled_because(SHARD):
                await asyncio.sleep(0.2)
            await reading.read(records_max)
        assert sorted(set(reading.got)) == stored[: len(set(reading.got))]

    play(list(scripts), scenario, stored=tuple(stored))
