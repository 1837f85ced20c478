"""Parents are settled before their children start (spec 3, 5.1)."""

from hypothesis import given
from hypothesis import strategies as st

from poller.records import SHARD_END, Epoch, Position, Shard, ShardId
from poller.rows import Checkpoint, Lease
from poller.rules.lineage import trace

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
