"""What is known of a lease between two looks: its owner only if both show the same epoch."""

import pytest

from poller.domain.records import ShardId
from tests.acceptance.streams.lease_looks import Look, certainly_without_lease

SHARD = ShardId("shardId-0")


def looks(*shown: tuple[float, str | None, int]) -> list[Look]:
    return [Look(at, at + 0.1, {SHARD: (owner, epoch)}) for at, owner, epoch in shown]


@pytest.mark.parametrize(
    ("shown", "without"),
    [
        ([(0.0, "w2", 4), (60.0, "w2", 4)], True),
        ([(0.0, "w1", 3), (8.0, "w2", 4), (10.0, "w2", 4)], True),
        ([(0.0, "w1", 4), (60.0, "w1", 4)], False),
        ([(0.0, "w2", 4), (60.0, "w1", 5)], False),
        ([(0.0, "w2", 4), (60.0, "w2", 6)], False),
        ([(0.0, "w1", 3), (9.5, "w2", 4), (10.0, "w2", 4)], False),
        ([(0.0, None, 4), (60.0, None, 4)], False),
        ([(0.0, "w2", 4)], False),
        ([(60.0, "w2", 4)], False),
        ([(0.0, "w2", 4), (9.95, "w2", 4)], False),
    ],
    ids=[
        "another one had it all the time",
        "another one took it long before",
        "its own",
        "its own at last",
        "its own in between, perhaps",
        "lost within the slack",
        "nobody's",
        "no look after",
        "no look before",
        "a look that began before is none after",
    ],
)
def test_a_worker_is_without_a_lease_only_if_another_one_had_it_all_the_time(
    shown: list[tuple[float, str | None, int]], without: bool
) -> None:
    assert certainly_without_lease(looks(*shown), "w1", SHARD, 10.0) is without


def test_a_shard_that_no_look_shows_proves_nothing() -> None:
    assert not certainly_without_lease(
        looks((0.0, "w2", 4), (60.0, "w2", 4)), "w1", ShardId("shardId-1"), 10.0
    )
