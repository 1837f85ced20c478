"""A seek moves the named shards and everything behind them, and says when it leaves out records."""

from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from poller.domain.records import SHARD_END, Epoch, KinesisRecord, Position, Shard, ShardId
from poller.domain.rows import Checkpoint, Lease
from poller.rules.streams.lineage import descendants
from poller.rules.streams.operations.seeking import (
    MOVES_MAX,
    Direction,
    SeekRefused,
    ShardMove,
    goal,
    left_to_move,
    moves,
    parents_first,
)

NOW = Epoch(1_767_225_600.0)
HORIZON = Position.horizon()
EARLIER, LATER = Position.at(Epoch(NOW - 600)), Position.at(Epoch(NOW - 60))
A, B, C, D = (ShardId(name) for name in "abcd")
SPLIT = [Shard(A, closed=True), Shard(B, (A,)), Shard(C, (A,)), Shard(D)]


def _leases(**positions: Position) -> list[Lease]:
    return [Lease(ShardId(name), (), Checkpoint(position)) for name, position in positions.items()]


def _record(sequence: str, arrived: float) -> KinesisRecord:
    return KinesisRecord(sequence_number=sequence, arrived=Epoch(arrived), data="", key="k")


@pytest.mark.parametrize(
    ("text", "position"),
    [
        ("TRIM_HORIZON", HORIZON),
        ("LATEST", Position.at(NOW)),
        ("49590338271490256608559692538361571095921575989136588898", None),
        ("2025-12-31T23:00:00Z", Position.at(Epoch(NOW - 3600))),
        ("2025-12-31T23:00:00", Position.at(Epoch(NOW - 3600))),
        ("2026-01-01T00:30:00.25+01:00", Position.at(Epoch(NOW - 1800 + 0.25))),
        ("2026-01-01", Position.at(NOW)),
        ("007", Position.after("007")),
        ("4959:3", Position.after("4959:3")),
    ],
)
def test_a_goal_is_written_as_a_word_a_time_or_a_sequence_number(
    text: str, position: Position | None
) -> None:
    assert goal(text, now=NOW) == (position or Position.after(text))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "latest",
        "yesterday",
        "-5",
        "2099-01-01",
        "1969-12-31",
        "١٢",
        "1e9",
        "x" * 9999,
        "5:",
        ":5",
        "5:-1",
        "5:3/4",
    ],
)
def test_another_text_is_refused_with_what_there_is(text: str) -> None:
    with pytest.raises(SeekRefused, match="to: ") as refused:
        goal(text, now=NOW)
    assert len(str(refused.value)) < 400


def test_the_whole_mapping_moves_with_all_listed_shards_also_ended_ones() -> None:
    found = moves(SPLIT, _leases(a=SHARD_END, b=Position.after("5"), d=HORIZON, gone=SHARD_END), EARLIER)
    assert [(each.shard, each.before, each.to) for each in found] == [
        (A, SHARD_END, EARLIER),
        (B, Position.after("5"), EARLIER),
        (D, HORIZON, EARLIER),
    ]


def test_children_of_a_moved_shard_begin_again() -> None:
    leases = _leases(a=SHARD_END, b=Position.after("50"), c=HORIZON, d=HORIZON)
    found = moves(SPLIT, leases, Position.after("7"), [A])
    assert {each.shard: each.to for each in found} == {A: Position.after("7"), B: HORIZON, C: HORIZON}


def test_a_time_counts_for_the_children_too() -> None:
    assert {each.to for each in moves(SPLIT, _leases(a=HORIZON, b=HORIZON, c=HORIZON), LATER, [A])} == {LATER}


def test_parents_stay_where_they_are_if_only_a_child_is_named() -> None:
    assert [each.shard for each in moves(SPLIT, _leases(a=HORIZON, b=HORIZON), EARLIER, [B])] == [B]


@pytest.mark.parametrize("chosen", [[], [A, B]])
def test_a_sequence_number_needs_exactly_one_shard(chosen: list[ShardId]) -> None:
    with pytest.raises(SeekRefused, match="belongs to one shard"):
        moves(SPLIT, [], Position.after("7"), chosen)


def test_a_shard_that_the_source_does_not_list_is_refused_with_those_that_it_lists() -> None:
    with pytest.raises(
        SeekRefused, match=r"shards: 'zz' is no shard of this mapping; its shards: a, b, c, d"
    ):
        moves(SPLIT, [], EARLIER, [A, ShardId("zz")])


def test_shards_may_be_named_by_their_numbers() -> None:
    shards = [Shard(ShardId(f"shardId-{number:012d}")) for number in range(3)]
    leases = [Lease(each.shard_id, (), Checkpoint(HORIZON)) for each in shards]
    found = moves(shards, leases, Position.after("7"), [ShardId("2")])
    assert [each.shard for each in found] == ["shardId-000000000002"]


def test_more_shards_than_a_row_can_have_are_refused() -> None:
    shards = [Shard(ShardId(f"shardId-{number:012d}")) for number in range(MOVES_MAX + 1)]
    leases = [Lease(each.shard_id, (), Checkpoint(HORIZON)) for each in shards]
    with pytest.raises(SeekRefused, match="1001 shards would move, the limit is 1000"):
        moves(shards, leases, HORIZON)
    assert len(moves(shards, leases[1:], HORIZON)) == MOVES_MAX


@pytest.mark.parametrize(
    ("before", "to", "direction"),
    [
        (SHARD_END, LATER, Direction.BACK),
        (Position.after("9"), HORIZON, Direction.BACK),
        (Position.after("9"), Position.after("8"), Direction.BACK),
        (Position.after("9"), Position.after("10"), Direction.FORWARD),
        (Position.after("9"), LATER, Direction.FORWARD),
        (EARLIER, LATER, Direction.FORWARD),
        (LATER, EARLIER, Direction.BACK),
        (HORIZON, LATER, Direction.FORWARD),
        (LATER, Position.after("9"), Direction.FORWARD),
        (LATER, LATER, Direction.NOWHERE),
        (Position.after("9"), Position.after("9"), Direction.NOWHERE),
    ],
)
def test_the_direction_is_forward_unless_it_is_surely_back(
    before: Position, to: Position, direction: Direction
) -> None:
    assert ShardMove(A, before, to).direction is direction


def _family(**epochs: int) -> list[Lease]:
    """Leases of these shards at their ends, each with its epoch. `a` was split into `b` and `c`, and `b` merged with `d` into `e`."""
    parents = {"b": (A,), "c": (A,), "e": (B, D)}
    return [
        Lease(ShardId(name), parents.get(name, ()), Checkpoint(SHARD_END), epoch=epoch)
        for name, epoch in epochs.items()
    ]


@pytest.mark.parametrize(
    ("moved", "leases", "left"),
    [
        ({}, _family(a=3), {A: EARLIER}),
        ({}, _family(a=3, b=0, d=0), {A: EARLIER, B: HORIZON}),
        ({}, _family(a=3, b=1, c=0), {A: EARLIER, B: HORIZON, C: HORIZON}),
        ({A: 4}, _family(a=4, b=2, d=7), {B: HORIZON}),
        ({A: 4, B: 2}, _family(a=4, b=2, d=7), {}),
        ({A: 4, B: 2}, _family(a=4, b=2, c=0, d=7), {C: HORIZON}),
        ({A: 4, B: 2}, _family(a=4, b=3, d=7), {B: HORIZON}),
        ({A: 4, B: 2}, _family(a=4, b=2, d=7, e=1), {ShardId("e"): HORIZON}),
        ({A: 4}, _family(d=7), {}),
    ],
)
def test_a_child_that_is_new_since_the_plan_goes_to_its_beginning(
    moved: dict[ShardId, int], leases: list[Lease], left: dict[ShardId, Position]
) -> None:
    planned = [ShardMove(A, SHARD_END, EARLIER)]
    assert left_to_move(planned, moved, leases) == left


@given(
    parents=st.dictionaries(
        st.sampled_from("abcdefgh"), st.frozensets(st.sampled_from("abcdefgh"), max_size=2), max_size=8
    ),
    shards=st.frozensets(st.sampled_from("abcdefgh"), max_size=3),
)
def test_what_comes_from_some_shards_is_all_that_has_one_of_them_or_of_it_as_parent(
    parents: dict[str, frozenset[str]], shards: frozenset[str]
) -> None:
    """Also in circles, which no stream has."""
    found = descendants(
        {ShardId(shard): {ShardId(each) for each in above} for shard, above in parents.items()},
        {ShardId(each) for each in shards},
    )
    assert found.isdisjoint(shards)
    known = found | shards
    assert all(known & parents[each] for each in found)
    assert all(each in known for each, above in parents.items() if known & above)


sequences = st.integers(1, 40)
places = st.one_of(
    st.just(HORIZON),
    sequences.map(lambda n: Position.after(str(n))),
    sequences.map(lambda n: Position.at(Epoch(n))),
)


@given(before=places, to=places)
def test_only_a_way_forward_leaves_records_out(before: Position, to: Position) -> None:
    """Record n has the sequence number n and arrives at n."""

    def left(place: Position) -> set[int]:
        return {
            n
            for n in range(1, 41)
            if (n > place.sequence if place.sequence else place.since is None or n >= place.since)
        }

    move = ShardMove(A, before, to)
    omitted = left(before) - left(to)
    first = min(left(before), default=None)
    if move.direction is not Direction.FORWARD:
        assert not omitted
    elif first is not None:
        assert move.skips(_record(str(first), float(first)), asked=NOW) == bool(omitted)


@pytest.mark.parametrize(
    ("to", "arrived", "left_out"),
    [
        (EARLIER, NOW - 601, True),
        (EARLIER, NOW - 600, False),
        (EARLIER, NOW - 0.002, False),
        (EARLIER, NOW - 0.0005, None),
        (EARLIER, NOW, None),
        (EARLIER, NOW + 3600, None),
        (HORIZON, NOW, False),
        (Position.after("7"), NOW, True),
        (Position.after("6"), NOW, False),
    ],
)
def test_a_time_that_may_be_the_moment_of_the_read_does_not_tell_what_is_left_out(
    to: Position, arrived: float, left_out: bool | None
) -> None:
    """A record without a time of arrival has the moment of the read, rounded to a millisecond."""
    move = ShardMove(A, Position.after("5"), to)
    assert move.skips(_record("7", arrived), asked=NOW) is left_out


graphs = st.integers(1, 7).flatmap(
    lambda size: st.tuples(
        st.just(size),
        st.sets(st.sampled_from(list(combinations(range(size), 2)) or [(0, 0)])),
        st.sets(st.integers(0, size - 1), min_size=1),
    )
)


@given(graphs)
def test_exactly_the_named_shards_and_their_descendants_move(
    graph: tuple[int, set[tuple[int, int]], set[int]],
) -> None:
    size, edges, named = graph
    shards = [
        Shard(ShardId(str(n)), tuple(ShardId(str(parent)) for parent, child in sorted(edges) if child == n))
        for n in range(size)
    ]
    wanted = set(named)
    for _ in range(size):
        wanted |= {child for parent, child in edges if parent in wanted}
    leases = _leases(**{str(n): HORIZON for n in range(size)})
    found = moves(shards, leases, EARLIER, [ShardId(str(n)) for n in named])
    assert {int(each.shard) for each in found} == wanted


def test_parents_in_a_ring_do_not_hold_it_up() -> None:
    ring = [Shard(A, (B,)), Shard(B, (A,)), Shard(C, (C,))]
    assert [each.shard for each in moves(ring, _leases(a=HORIZON, b=HORIZON, c=HORIZON), EARLIER, [A])] == [
        A,
        B,
    ]


@given(st.data())
def test_parents_stand_before_their_children_and_no_lease_is_left_out(data: st.DataObject) -> None:
    names = [ShardId(str(number)) for number in range(data.draw(st.integers(0, 12)))]
    leases = [
        Lease(
            name,
            tuple(
                data.draw(st.lists(st.sampled_from([*names[:at], ShardId("gone")]), max_size=2, unique=True))
            ),
            Checkpoint(HORIZON),
        )
        for at, name in enumerate(names)
    ]
    found = [lease.shard for lease in parents_first(data.draw(st.permutations(leases)))]
    assert sorted(found) == sorted(names)
    for lease in leases:
        assert all(
            found.index(parent) < found.index(lease.shard) for parent in lease.parents if parent in names
        )


def test_shards_in_a_circle_are_moved_as_they_are_given() -> None:
    circle = [Lease(A, (B,), Checkpoint(HORIZON)), Lease(B, (A,), Checkpoint(HORIZON))]
    assert parents_first(circle) == circle
