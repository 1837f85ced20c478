"""The fake streams keep the promises of the real ones that the engine depends on."""

import pytest

from poller.domain.errors import CursorExpired, PositionTrimmed, ResourceMissing, ServiceThrottled
from poller.domain.plan import SourceKind
from poller.domain.records import SHARD_END, Cursor, Epoch, Page, Position, Shard, ShardId
from tests.simulation.services.contents import Content
from tests.simulation.services.streams import FakeStream, GetCursor, Held, ListShards, Read
from tests.virtual import EPOCH_BASE

T = EPOCH_BASE
FIRST = ShardId("shardId-000000000000")


def kinesis(*, shards: int = 1, retention_s: float = 86_400.0) -> FakeStream:
    return FakeStream(SourceKind.KINESIS, shards=shards, retention_s=retention_s)


def filled(stream: FakeStream, count: int, *, every_s: float = 1.0) -> list[Held]:
    return [
        stream.put(T + number * every_s, f"key-{number % 7}", Content(number))[1] for number in range(count)
    ]


def cursor(stream: FakeStream, now: float, position: Position, shard: ShardId = FIRST) -> Cursor:
    found = stream.apply(now, GetCursor(shard, position))
    assert isinstance(found, str)
    return found


def page(
    stream: FakeStream, now: float, at: Cursor, *, records_max: int = 100, shard: ShardId = FIRST
) -> Page:
    read = stream.apply(now, Read(shard, at, records_max))
    assert isinstance(read, Page)
    return read


def shards(stream: FakeStream, now: float) -> dict[ShardId, Shard]:
    listed = stream.apply(now, ListShards())
    assert isinstance(listed, tuple)
    return {each.shard_id: each for each in listed}


def sequences(read: Page) -> list[int]:
    return [int(each.sequence_number) for each in read.records]


def test_records_are_read_in_the_order_in_which_they_were_put() -> None:
    stream = kinesis()
    put = filled(stream, 5)
    first = page(stream, T + 5, cursor(stream, T + 5, Position.horizon()), records_max=3)
    assert first.cursor is not None
    rest = page(stream, T + 5, first.cursor)
    assert sequences(first) + sequences(rest) == [held.sequence for held in put]


def test_a_key_stays_in_one_shard_and_all_shards_get_some() -> None:
    stream = kinesis(shards=3)
    places: dict[str, set[ShardId]] = {}
    for number in range(100):
        shard, held = stream.put(T, f"key-{number % 20}", Content(number))
        places.setdefault(held.key, set()).add(shard)
    assert all(len(each) == 1 for each in places.values())
    assert set.union(*places.values()) == set(stream.shards)


def test_sequence_numbers_grow_from_parents_to_children() -> None:
    stream = kinesis()
    before = filled(stream, 3)[-1].sequence
    stream.split(T + 3, FIRST)
    _, held = stream.put(T + 4, "key", Content(9))
    assert held.sequence > before
    assert len(str(held.sequence)) == 56


def test_a_cursor_after_a_record_begins_with_the_next() -> None:
    stream = kinesis()
    put = filled(stream, 4)
    at = cursor(stream, T + 4, Position.after(str(put[1].sequence)))
    assert sequences(page(stream, T + 4, at)) == [put[2].sequence, put[3].sequence]


def test_a_cursor_at_a_time_begins_with_the_first_record_from_then() -> None:
    stream = kinesis()
    put = filled(stream, 4)
    at = cursor(stream, T + 4, Position.at(Epoch(T + 1.5)))
    assert sequences(page(stream, T + 4, at)) == [put[2].sequence, put[3].sequence]


def test_dynamodb_starts_with_the_whole_second() -> None:
    stream = FakeStream(SourceKind.DYNAMODB)
    put = [stream.put(T + 1.2, "a", Content(1))[1], stream.put(T + 1.8, "a", Content(2))[1]]
    at = cursor(stream, T + 4, Position.at(Epoch(T + 1.5)))
    assert sequences(page(stream, T + 4, at)) == [held.sequence for held in put]


def test_a_cursor_expires_after_five_minutes() -> None:
    stream = kinesis()
    at = cursor(stream, T, Position.horizon())
    assert page(stream, T + 300, at).records == []
    with pytest.raises(CursorExpired):
        page(stream, T + 300.1, at)


def test_the_sixth_read_of_a_second_is_throttled() -> None:
    stream = kinesis()
    at = cursor(stream, T, Position.horizon())
    for call in range(5):
        page(stream, T + call * 0.1, at)
    with pytest.raises(ServiceThrottled):
        page(stream, T + 0.9, at)
    assert page(stream, T + 1.5, at).records == []


def test_a_split_shard_ends_and_its_children_name_it() -> None:
    stream = kinesis()
    filled(stream, 2)
    left, right = stream.split(T + 2, FIRST)
    listed = shards(stream, T + 2)
    assert listed[FIRST].closed
    assert listed[left] == Shard(left, (FIRST,), closed=False)
    assert listed[right] == Shard(right, (FIRST,), closed=False)
    read = page(stream, T + 3, cursor(stream, T + 3, Position.horizon()))
    assert (len(read.records), read.cursor) == (2, None)


def test_a_merged_shard_has_two_parents() -> None:
    stream = kinesis(shards=2)
    first, second = stream.shards
    child = stream.merge(T, first, second)
    assert shards(stream, T)[child].parents == (first, second)


def test_a_rolled_shard_goes_on_in_one_child() -> None:
    stream = FakeStream(SourceKind.DYNAMODB)
    child = stream.roll(T, FIRST)
    shard, _ = stream.put(T + 1, "key", Content(1))
    assert (shard, stream.shards[child].parents) == (child, (FIRST,))


def test_an_open_shard_never_ends() -> None:
    stream = kinesis()
    filled(stream, 2)
    assert page(stream, T + 2, cursor(stream, T + 2, Position.horizon())).cursor is not None
    assert page(stream, T + 3, cursor(stream, T + 3, SHARD_END)).cursor is not None


def test_a_page_says_how_far_behind_it_is() -> None:
    stream = kinesis()
    filled(stream, 4)
    read = page(stream, T + 10, cursor(stream, T + 10, Position.horizon()), records_max=2)
    assert read.behind_ms == 8000
    assert read.cursor is not None
    assert page(stream, T + 10, read.cursor).behind_ms == 0


def test_a_page_with_room_for_nothing_stays_where_it_is() -> None:
    stream = kinesis()
    put = filled(stream, 2)
    read = page(stream, T + 2, cursor(stream, T + 2, Position.horizon()), records_max=0)
    assert (read.records, read.behind_ms) == ([], 2000)
    assert read.cursor is not None
    assert sequences(page(stream, T + 2, read.cursor)) == [held.sequence for held in put]


def test_retention_takes_the_oldest_records() -> None:
    stream = kinesis(retention_s=10)
    put = filled(stream, 6)
    read = page(stream, T + 13, cursor(stream, T + 13, Position.horizon()))
    assert sequences(read) == [held.sequence for held in put[3:]]


def test_a_position_whose_next_record_is_gone_is_trimmed() -> None:
    stream = kinesis(retention_s=10)
    put = filled(stream, 6)
    with pytest.raises(PositionTrimmed):
        cursor(stream, T + 13, Position.after(str(put[1].sequence)))
    assert sequences(page(stream, T + 13, cursor(stream, T + 13, Position.after(str(put[2].sequence))))) == [
        held.sequence for held in put[3:]
    ]


def test_only_dynamodb_says_that_records_under_a_cursor_are_gone() -> None:
    dynamo = FakeStream(SourceKind.DYNAMODB, retention_s=10)
    filled(dynamo, 3)
    at = cursor(dynamo, T, Position.horizon())
    with pytest.raises(PositionTrimmed):
        page(dynamo, T + 12, at)
    stream = kinesis(retention_s=10)
    put = filled(stream, 3)
    at = cursor(stream, T, Position.horizon())
    assert sequences(page(stream, T + 12, at)) == [put[2].sequence]


def test_a_closed_shard_is_forgotten_with_its_last_record() -> None:
    stream = kinesis(retention_s=10)
    filled(stream, 2)
    stream.split(T + 2, FIRST)
    assert FIRST in shards(stream, T + 11)
    assert FIRST not in shards(stream, T + 13)
    with pytest.raises(ResourceMissing):
        cursor(stream, T + 13, Position.horizon())
