"""What operators have paused, in the status of mappings, shards, lanes and message groups."""

import pytest

from poller.domain.operations import OperationId, OperationTarget, OperatorPause
from poller.domain.records import Epoch, MappingId, ShardId
from poller.domain.rows import MappingState
from poller.domain.status import LaneStatus, MappingStatus, PauseStatus, ShardStatus, pause_status
from poller.rules.workers.pauses import with_pauses

ORDERS = MappingId("orders")


def status() -> MappingStatus:
    lanes = tuple(LaneStatus(lane=str(n), state="idle") for n in range(2))
    return MappingStatus(
        mapping=ORDERS,
        function="f",
        source_arn="arn",
        state=MappingState.ENABLED,
        shards=tuple(
            ShardStatus(shard=ShardId(name), state="reading", position="", lanes=lanes) for name in "ab"
        ),
        lanes=(LaneStatus(lane="g", state="waiting"), LaneStatus(lane="poller 1", state="idle")),
    )


def pause(**target: object) -> OperatorPause:
    return OperatorPause(
        operation=OperationId("op"),
        target=OperationTarget(**target),  # type: ignore[arg-type]  # a test's own members
        by="ann",
        since=Epoch(1.0),
        reason="deploy",
    )


def paused(found: MappingStatus) -> set[str]:
    """The names of what is paused."""
    names = {"mapping"} if found.paused else set()
    for shard in found.shards:
        names |= {shard.shard} if shard.paused else set()
        names |= {f"{shard.shard}/{lane.lane}" for lane in shard.lanes if lane.paused}
    return names | {lane.lane for lane in found.lanes if lane.paused}


@pytest.mark.parametrize(
    ("given", "names"),
    [
        (pause(), {"mapping", "a", "a/0", "a/1", "b", "b/0", "b/1", "g", "poller 1"}),
        (pause(shard="a"), {"a", "a/0", "a/1"}),
        (pause(shard="a", lane=1), {"a/1"}),
        (pause(group="g"), {"g"}),
        (pause(shard="unknown"), set()),
    ],
)
def test_a_pause_is_shown_on_all_that_it_covers(given: OperatorPause, names: set[str]) -> None:
    assert paused(with_pauses(status(), [given])) == names


def test_what_a_shard_says_itself_stays() -> None:
    own = PauseStatus(operation="mine", by="bob", since=Epoch(2.0), reason="")
    shard = ShardStatus(shard=ShardId("a"), state="paused", position="", paused=own)
    given = MappingStatus(
        mapping=ORDERS, function="f", source_arn="arn", state=MappingState.ENABLED, shards=(shard,)
    )
    found = with_pauses(given, [pause()])
    assert (found.shards[0].paused, found.paused) == (own, pause_status(pause()))
    assert with_pauses(given, []) == given
