"""A stream that was made again under its name."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from poller.domain.records import SHARD_END, Epoch, Position, Shard, ShardId, WorkerId
from poller.domain.rows import Checkpoint, Lease
from poller.rules.streams.recreated_stream import created_of, kept, recreated, replacement, with_created


def lease(name: str, position: Position, *parents: str, epoch: int = 3, owner: str | None = "w") -> Lease:
    worker = None if owner is None else WorkerId(owner)
    return Lease(ShardId(name), tuple(map(ShardId, parents)), Checkpoint(position, b"memo"), worker, epoch)


def shard(name: str, *parents: str) -> Shard:
    return Shard(ShardId(name), tuple(map(ShardId, parents)))


@pytest.mark.parametrize("document", [{}, {"stream": 7}, {"stream": {}}, {"stream": {"created": "x"}}])
def test_a_row_that_says_nothing_is_of_any_stream(document: dict[str, object]) -> None:
    assert created_of(document) is None
    assert not recreated(created_of(document), Epoch(100.0))


def test_a_row_remembers_when_the_stream_was_created_beside_what_else_it_says() -> None:
    document = with_created({"file": {"source": "s"}}, Epoch(100.25))
    assert created_of(document) == 100.25
    assert document["file"] == {"source": "s"}
    assert kept(document) == {"stream": {"created": 100.25}}
    assert kept({"file": {}}) == {}
    assert with_created(document, None) == document


def test_a_later_time_of_creation_is_another_stream() -> None:
    assert recreated(Epoch(100.25), Epoch(101.25))
    assert not recreated(Epoch(100.25), Epoch(100.0))
    assert not recreated(Epoch(100.25), Epoch(101.0))
    assert not recreated(Epoch(100.25), None)


def test_all_leases_of_the_earlier_stream_are_replaced_and_listed_shards_begin_at_the_start() -> None:
    before = [
        lease("a", SHARD_END),
        lease("b", Position.after("9"), "a"),
        lease("gone", Position.after("9")),
        lease("unread", Position.horizon(), owner=None),
        lease("child", Position.horizon(), "a", owner=None),
        lease("owned", Position.horizon()),
    ]
    shards = [shard(each) for each in ("a", "b", "unread", "child", "owned", "new")]
    todo = replacement(before, shards)
    assert [each.shard for each in todo.drop] == ["a", "b", "gone", "child", "owned"]
    begin = Checkpoint(Position.horizon())
    assert todo.seed == tuple(
        Lease(ShardId(each), (), begin, None, 4) for each in ("a", "b", "child", "owned")
    )
    assert todo.lost == {"b", "gone", "child"}


@given(st.lists(st.sampled_from("abcdef"), unique=True), st.lists(st.sampled_from("abcdef"), unique=True))
def test_afterwards_no_position_of_before_is_left_and_nothing_needs_to_be_done_again(
    before: list[str], after: list[str]
) -> None:
    shards = [shard(each) for each in after]
    leases = [lease(each, Position.after("9")) for each in before]
    todo = replacement(leases, shards)
    left = [each for each in leases if each not in todo.drop] + list(todo.seed)
    assert all(each.checkpoint.position == Position.horizon() for each in left)
    assert {each.shard for each in left} <= set(after)
    assert replacement(left, shards).drop == ()
