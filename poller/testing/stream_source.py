"""Owns the contract of every StreamSource: scenarios on a `StreamWorld`. The name of each states the fact that it checks.

The tuples at the end group them by what a world can do. READING is for every world; the others are for worlds that can reshard,
trim or fail.
"""

from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Protocol

import pytest

from poller.domain.errors import (
    AccessDenied,
    CursorExpired,
    PortError,
    PositionTrimmed,
    ResourceMissing,
    ServiceThrottled,
    ServiceUnavailable,
)
from poller.domain.records import Cursor, Epoch, Position, Record, Shard, ShardId
from poller.ports import StreamSource

READS_MAX = 40
"""Reads after which a scenario stops waiting for what it put."""
NOWHERE = ShardId("shardId-00000000000000000000-00000099")


class StreamWorld(Protocol):
    """An empty stream with one open shard, a way to write to it, and a source that reads it."""

    @property
    def source(self) -> StreamSource:
        """The source under test."""
        ...

    def stranger(self) -> StreamSource:
        """A source of a stream that does not exist."""
        ...

    async def put(self, key: str, body: str) -> None:
        """Writes one record."""
        ...

    def body(self, record: Record) -> str:
        """The body that `put` wrote into a record."""
        ...

    async def later(self) -> None:
        """Lets enough time pass that the next record has a later arrival time than earlier ones."""
        ...


class ReshardingWorld(StreamWorld, Protocol):
    """A world whose shards can be split and merged. Both methods return when the listing shows the change."""

    async def split(self, shard: ShardId) -> None:
        """Splits a shard: it is closed, and two children share its keys."""
        ...

    async def merge(self, first: ShardId, second: ShardId) -> None:
        """Merges two neighbouring shards: they are closed and have one child."""
        ...


class TrimmingWorld(StreamWorld, Protocol):
    """A world that can remove old records."""

    async def trim(self) -> None:
        """Removes all records that are in the stream now, as at the end of the retention."""
        ...


class FailingWorld(StreamWorld, Protocol):
    """A world whose calls can be made to fail."""

    async def fail(self, error: type[PortError]) -> None:
        """Makes every call on the source fail from now on, in a way for which the port raises `error`."""
        ...

    async def heal(self) -> None:
        """Makes calls succeed again."""
        ...


type StreamScenario = Callable[[Any], Coroutine[Any, Any, None]]


async def only_shard(world: StreamWorld) -> ShardId:
    """The shard of a world that was not resharded."""
    (shard,) = await world.source.shards()
    return shard.shard_id


async def shard_named(world: StreamWorld, shard_id: ShardId) -> Shard:
    """The shard as the source lists it now."""
    return next(each for each in await world.source.shards() if each.shard_id == shard_id)


async def open_shards(world: StreamWorld) -> list[ShardId]:
    """Ids of the open shards, sorted."""
    return sorted(each.shard_id for each in await world.source.shards() if not each.closed)


async def put_all(world: StreamWorld, bodies: Sequence[str], key: str = "k") -> None:
    """Writes one record for each body, one after the other."""
    for body in bodies:
        await world.put(key, body)


async def read_on(
    world: StreamWorld, shard: ShardId, cursor: Cursor, *, count: int, records_max: int = 100
) -> tuple[list[Record], Cursor | None]:
    """Reads until it has `count` records or the shard has ended. Empty pages on the way are allowed."""
    records: list[Record] = []
    place: Cursor | None = cursor
    for _ in range(READS_MAX):
        if place is None or len(records) >= count:
            break
        page = await world.source.read(shard, place, records_max=records_max)
        assert len(page.records) <= records_max
        records += page.records
        place = page.cursor
    return records, place


async def drain(world: StreamWorld, shard: ShardId, position: Position) -> list[Record]:
    """All records of a closed shard from `position` to its end."""
    cursor = await world.source.cursor(shard, position)
    records, end = await read_on(world, shard, cursor, count=10**9)
    assert end is None, "a closed shard ends"
    return records


async def from_horizon(world: StreamWorld, shard: ShardId, count: int) -> list[Record]:
    """The first `count` records of a shard."""
    cursor = await world.source.cursor(shard, Position.horizon())
    records, _ = await read_on(world, shard, cursor, count=count)
    return records


def bodies(world: StreamWorld, records: Sequence[Record]) -> list[str]:
    """The bodies of records, in order."""
    return [world.body(record) for record in records]


async def a_new_stream_has_one_open_shard_without_parents(world: StreamWorld) -> None:
    (shard,) = await world.source.shards()
    assert shard.parents == ()
    assert not shard.closed


async def records_come_in_the_order_they_were_put(world: StreamWorld) -> None:
    await put_all(world, ["a", "b", "c", "d"])
    records = await from_horizon(world, await only_shard(world), 4)
    assert bodies(world, records) == ["a", "b", "c", "d"]
    numbers = [int(record.sequence_number) for record in records]
    assert numbers == sorted(set(numbers))
    arrivals = [record.arrived for record in records]
    assert arrivals == sorted(arrivals)


async def records_of_one_key_share_their_key_and_others_do_not(world: StreamWorld) -> None:
    await put_all(world, ["a", "b"], key="one")
    await put_all(world, ["c"], key="two")
    first, second, third = await from_horizon(world, await only_shard(world), 3)
    assert first.key == second.key != third.key


async def an_empty_shard_gives_an_empty_page_and_goes_on(world: StreamWorld) -> None:
    shard = await only_shard(world)
    cursor = await world.source.cursor(shard, Position.horizon())
    page = await world.source.read(shard, cursor, records_max=10)
    assert list(page.records) == []
    assert page.cursor is not None
    await put_all(world, ["late"])
    records, _ = await read_on(world, shard, page.cursor, count=1)
    assert bodies(world, records) == ["late"]


async def small_pages_leave_nothing_out(world: StreamWorld) -> None:
    await put_all(world, ["a", "b", "c", "d", "e"])
    shard = await only_shard(world)
    cursor = await world.source.cursor(shard, Position.horizon())
    records, after = await read_on(world, shard, cursor, count=5, records_max=2)
    assert bodies(world, records) == ["a", "b", "c", "d", "e"]
    assert after is not None


async def a_read_can_be_repeated(world: StreamWorld) -> None:
    await put_all(world, ["a", "b"])
    shard = await only_shard(world)
    await from_horizon(world, shard, 2)
    cursor = await world.source.cursor(shard, Position.horizon())
    first = await world.source.read(shard, cursor, records_max=1)
    again = await world.source.read(shard, cursor, records_max=1)
    assert bodies(world, first.records) == bodies(world, again.records) == ["a"]


async def reading_goes_on_behind_a_stored_position(world: StreamWorld) -> None:
    await put_all(world, ["a", "b", "c"])
    shard = await only_shard(world)
    first, second, _ = await from_horizon(world, shard, 3)
    for record, rest in ((first, ["b", "c"]), (second, ["c"])):
        stored = Position.after(record.sequence_number).encode()
        cursor = await world.source.cursor(shard, Position.decode(stored))
        records, _ = await read_on(world, shard, cursor, count=len(rest))
        assert bodies(world, records) == rest


async def behind_the_last_record_only_new_ones_come(world: StreamWorld) -> None:
    await put_all(world, ["a", "b"])
    shard = await only_shard(world)
    records = await from_horizon(world, shard, 2)
    cursor = await world.source.cursor(shard, Position.after(records[-1].sequence_number))
    page = await world.source.read(shard, cursor, records_max=10)
    assert list(page.records) == []
    assert page.cursor is not None
    await put_all(world, ["c"])
    new, _ = await read_on(world, shard, page.cursor, count=1)
    assert bodies(world, new) == ["c"]


async def a_shard_that_is_not_there_is_missing(world: StreamWorld) -> None:
    with pytest.raises(ResourceMissing):
        await world.source.cursor(NOWHERE, Position.horizon())


async def a_stream_that_is_not_there_is_missing(world: StreamWorld) -> None:
    with pytest.raises(ResourceMissing):
        await world.stranger().shards()


async def a_start_by_time_leaves_out_what_arrived_before(world: StreamWorld) -> None:
    await put_all(world, ["old", "older"])
    await world.later()
    await put_all(world, ["new", "newer"])
    shard = await only_shard(world)
    records = await from_horizon(world, shard, 4)
    cursor = await world.source.cursor(shard, Position.at(records[2].arrived))
    late, _ = await read_on(world, shard, cursor, count=2)
    assert bodies(world, late) == ["new", "newer"]


async def a_start_behind_everything_waits_for_the_first_new_record(world: StreamWorld) -> None:
    await put_all(world, ["old"])
    shard = await only_shard(world)
    (old,) = await from_horizon(world, shard, 1)
    await world.later()
    cursor = await world.source.cursor(shard, Position.at(Epoch(old.arrived + 0.001)))
    await put_all(world, ["new"])
    records, _ = await read_on(world, shard, cursor, count=1)
    assert world.body(records[-1]) == "new"


async def a_split_closes_the_parent_and_opens_two_children(world: ReshardingWorld) -> None:
    parent = await only_shard(world)
    await world.split(parent)
    shards = {each.shard_id: each for each in await world.source.shards()}
    assert shards[parent].closed
    children = [each for each in shards.values() if each.shard_id != parent]
    assert [(each.parents, each.closed) for each in children] == [((parent,), False)] * 2


async def a_closed_shard_keeps_its_backlog_and_ends(world: ReshardingWorld) -> None:
    parent = await only_shard(world)
    await put_all(world, ["a", "b", "c"])
    await world.split(parent)
    records = await drain(world, parent, Position.horizon())
    assert bodies(world, records) == ["a", "b", "c"]
    rest = await drain(world, parent, Position.after(records[0].sequence_number))
    assert bodies(world, rest) == ["b", "c"]


async def behind_the_last_record_of_a_closed_shard_is_its_end(world: ReshardingWorld) -> None:
    parent = await only_shard(world)
    await put_all(world, ["a"])
    await world.split(parent)
    (last,) = await drain(world, parent, Position.horizon())
    assert await drain(world, parent, Position.after(last.sequence_number)) == []


async def records_put_after_a_split_go_to_the_children(world: ReshardingWorld) -> None:
    parent = await only_shard(world)
    await put_all(world, ["before"])
    await world.split(parent)
    names = [f"after-{number}" for number in range(12)]
    for name in names:
        await world.put(name, name)
    seen: list[str] = []
    for child in await open_shards(world):
        cursor = await world.source.cursor(child, Position.horizon())
        for _ in range(3):
            page = await world.source.read(child, cursor, records_max=100)
            seen += bodies(world, page.records)
            assert page.cursor is not None
            cursor = page.cursor
    assert sorted(seen) == sorted(names)
    assert bodies(world, await drain(world, parent, Position.horizon())) == ["before"]


async def a_merge_child_has_both_parents(world: ReshardingWorld) -> None:
    await world.split(await only_shard(world))
    left, right = await open_shards(world)
    await world.merge(left, right)
    (child,) = await open_shards(world)
    assert set((await shard_named(world, child)).parents) == {left, right}
    assert (await shard_named(world, left)).closed
    assert (await shard_named(world, right)).closed


async def a_position_older_than_the_horizon_is_trimmed(world: TrimmingWorld) -> None:
    await put_all(world, ["a", "b"])
    shard = await only_shard(world)
    first, _ = await from_horizon(world, shard, 2)
    await world.trim()
    await put_all(world, ["c"])
    with pytest.raises(PositionTrimmed):
        await world.source.read(
            shard,
            await world.source.cursor(shard, Position.after(first.sequence_number)),
            records_max=10,
        )
    assert bodies(world, await from_horizon(world, shard, 1)) == ["c"]


async def each_call_says_what_is_wrong_and_goes_through_when_healed(world: FailingWorld) -> None:
    await put_all(world, ["a"])
    shard = await only_shard(world)
    cursor = await world.source.cursor(shard, Position.horizon())
    for error in (ServiceThrottled, ServiceUnavailable, AccessDenied):
        await world.fail(error)
        with pytest.raises(error):
            await world.source.shards()
        with pytest.raises(error):
            await world.source.cursor(shard, Position.horizon())
        with pytest.raises(error):
            await world.source.read(shard, cursor, records_max=10)
        await world.heal()
        assert bodies(world, await from_horizon(world, shard, 1)) == ["a"]


async def a_cursor_expires(world: FailingWorld) -> None:
    await put_all(world, ["a"])
    shard = await only_shard(world)
    cursor = await world.source.cursor(shard, Position.horizon())
    await world.fail(CursorExpired)
    with pytest.raises(CursorExpired):
        await world.source.read(shard, cursor, records_max=10)
    await world.heal()
    assert bodies(world, await from_horizon(world, shard, 1)) == ["a"]


READING: tuple[StreamScenario, ...] = (
    a_new_stream_has_one_open_shard_without_parents,
    records_come_in_the_order_they_were_put,
    records_of_one_key_share_their_key_and_others_do_not,
    an_empty_shard_gives_an_empty_page_and_goes_on,
    small_pages_leave_nothing_out,
    a_read_can_be_repeated,
    reading_goes_on_behind_a_stored_position,
    behind_the_last_record_only_new_ones_come,
    a_shard_that_is_not_there_is_missing,
    a_stream_that_is_not_there_is_missing,
    a_start_by_time_leaves_out_what_arrived_before,
    a_start_behind_everything_waits_for_the_first_new_record,
)
"""For every StreamWorld."""
RESHARDING: tuple[StreamScenario, ...] = (
    a_split_closes_the_parent_and_opens_two_children,
    a_closed_shard_keeps_its_backlog_and_ends,
    behind_the_last_record_of_a_closed_shard_is_its_end,
    records_put_after_a_split_go_to_the_children,
    a_merge_child_has_both_parents,
)
"""For a ReshardingWorld."""
TRIMMING: tuple[StreamScenario, ...] = (a_position_older_than_the_horizon_is_trimmed,)
"""For a TrimmingWorld."""
FAILING: tuple[StreamScenario, ...] = (
    each_call_says_what_is_wrong_and_goes_through_when_healed,
    a_cursor_expires,
)
"""For a FailingWorld."""
