"""Parents are settled before their children start (aws-behaviour#resharding)."""

from hypothesis import given
from hypothesis import strategies as st

from poller.domain.records import SHARD_END, Epoch, Position, Shard, ShardId
from poller.domain.rows import Checkpoint, Lease
from poller.rules.streams.lineage import childless, has_ended, trace

HORIZON = Position.horizon()
AT = Position.at(Epoch(1_767_225_600.0))


def _shard(name: str, *parents: str) -> Shard:
    return Shard(ShardId(name), tuple(ShardId(parent) for parent in parents))


def _lease(name: str, *parents: str, position: Position = HORIZON) -> Lease:
    return Lease(ShardId(name), tuple(ShardId(parent) for parent in parents), Checkpoint(position))


def test_shards_that_exist_at_creation_begin_at_the_starting_position() -> None:
    lineage = trace([_shard("a"), _shard("b", "a")], [], start=AT, seeded=False)
    assert [(seed.shard, seed.checkpoint.position) for seed in lineage.seeds] == [("a", AT), ("b", AT)]


def test_shards_born_later_begin_at_the_horizon() -> None:
    lineage = trace([_shard("a"), _shard("b", "a")], [_lease("a")], start=AT, seeded=True)
    assert [(seed.shard, seed.checkpoint.position) for seed in lineage.seeds] == [("b", HORIZON)]


def test_a_child_waits_until_its_parent_is_settled_to_the_end() -> None:
    shards = [_shard("a"), _shard("b", "a")]
    waiting = trace(shards, [_lease("a"), _lease("b", "a")], start=AT, seeded=True)
    assert [lease.shard for lease in waiting.runnable] == ["a"]
    assert waiting.waiting == {"b": ("a",)}
    ended = trace(shards, [_lease("a", position=SHARD_END), _lease("b", "a")], start=AT, seeded=True)
    assert [lease.shard for lease in ended.runnable] == ["b"]


def test_a_merge_child_waits_for_both_parents() -> None:
    shards = [_shard("a"), _shard("b"), _shard("c", "a", "b")]
    leases = [_lease("a", position=SHARD_END), _lease("b"), _lease("c", "a", "b")]
    assert trace(shards, leases, start=AT, seeded=True).waiting == {"c": ("b",)}


def test_a_parent_that_nobody_knows_holds_nothing() -> None:
    lineage = trace([_shard("b", "trimmed")], [], start=AT, seeded=True)
    assert [lease.shard for lease in lineage.runnable] == ["b"]


def test_an_unfinished_shard_that_is_no_longer_listed_still_comes_before_its_child() -> None:
    lineage = trace([_shard("b", "a")], [_lease("a"), _lease("b", "a")], start=AT, seeded=True)
    assert [lease.shard for lease in lineage.runnable] == ["a"]
    assert lineage.unlisted == {"a"}


def test_an_ended_shard_is_finished_once_unlisted_and_its_children_are_known() -> None:
    leases = [_lease("a", position=SHARD_END), _lease("b", "a"), _lease("z", position=SHARD_END)]
    assert trace([_shard("b", "a")], leases, start=AT, seeded=True).finished == ("a",)
    assert trace([_shard("a"), _shard("b", "a")], leases, start=AT, seeded=True).finished == ()


@given(st.data())
def test_following_the_lineage_runs_every_shard_once_after_its_parents(data: st.DataObject) -> None:
    count = data.draw(st.integers(1, 12))
    shards = [
        _shard(
            str(number),
            *map(
                str,
                data.draw(st.lists(st.integers(0, number - 1), max_size=2, unique=True)) if number else [],
            ),
        )
        for number in range(count)
    ]
    leases: dict[ShardId, Lease] = {}
    order: list[ShardId] = []
    while len(order) < count:
        lineage = trace(shards, leases.values(), start=AT, seeded=bool(leases))
        leases.update((seed.shard, seed) for seed in lineage.seeds)
        assert lineage.runnable, "nothing may run although something is left"
        lease = data.draw(st.sampled_from(lineage.runnable))
        assert all(parent in order for parent in lease.parents)
        order.append(lease.shard)
        leases[lease.shard] = Lease(lease.shard, lease.parents, Checkpoint(SHARD_END))
    assert sorted(order) == sorted(shard.shard_id for shard in shards)


@given(st.data())
def test_whatever_a_service_lists_as_parents_every_shard_runs_and_only_rings_go_without_order(
    data: st.DataObject,
) -> None:
    names = [str(number) for number in range(data.draw(st.integers(1, 8)))]
    parents = {
        name: data.draw(st.lists(st.sampled_from([*names, "unknown"]), max_size=3, unique=True))
        for name in names
    }
    shards = [_shard(name, *parents[name]) for name in names]
    above = {name: _above(name, parents) for name in names}
    leases = {seed.shard: seed for seed in trace(shards, [], start=AT, seeded=False).seeds}
    order: list[ShardId] = []
    while len(order) < len(names):
        lineage = trace(shards, leases.values(), start=AT, seeded=True)
        assert lineage.runnable, f"nothing may run although something is left of {parents}"
        lease = data.draw(st.sampled_from(lineage.runnable))
        before = {each for each in lease.parents if each in above and lease.shard not in above[each]}
        assert before <= set(order), f"{lease.shard} runs before its parents"
        order.append(lease.shard)
        leases[lease.shard] = Lease(lease.shard, lease.parents, Checkpoint(SHARD_END))
    assert sorted(order) == names


def _above(name: str, parents: dict[str, list[str]]) -> set[str]:
    found: set[str] = set()
    todo = [name]
    while todo:
        fresh = set(parents.get(todo.pop(), ())) - found
        found |= fresh
        todo += fresh
    return found


def test_shards_that_are_each_others_parents_and_what_is_below_them_are_read() -> None:
    shards = [_shard("a", "b"), _shard("b", "a"), _shard("c", "c"), _shard("d", "a", "c")]
    lineage = trace(shards, [], start=AT, seeded=True)
    assert [lease.shard for lease in lineage.runnable] == ["a", "b", "c"]
    assert lineage.waiting == {"d": ("a", "c")}


def test_a_long_line_of_shards_is_traced_fast() -> None:
    shards = [_shard(str(number), str(number - 1)) for number in range(5_000)]
    lineage = trace(shards, [], start=AT, seeded=True)
    assert [lease.shard for lease in lineage.runnable] == ["0"]


def test_a_shard_has_ended_when_it_is_closed_or_has_children_and_who_is_not_listed_may_have() -> None:
    a = ShardId("a")
    assert has_ended(a, [Shard(a, closed=True)])
    assert has_ended(a, [_shard("a"), _shard("b", "a")])
    assert has_ended(a, [_shard("b", "a")])
    assert has_ended(a, [_shard("b")]) is None
    assert has_ended(a, [_shard("b"), _shard("a", "b")]) is False
    assert has_ended(a, [_shard("a", "a")]) is False


def test_childless_are_listed_shards_that_were_read_to_their_end_and_have_no_listed_child() -> None:
    shards = [_shard("a"), _shard("b", "a"), _shard("c"), _shard("d"), _shard("e", "gone")]
    leases = [_lease(name, position=SHARD_END) for name in ("a", "c", "gone", "e")]
    assert childless(shards, [*leases, _lease("d")]) == ("c", "e")
