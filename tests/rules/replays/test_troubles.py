"""Tests of why a replay does not get on."""

from typing import Any

import pytest

from poller.domain.records import Epoch, ShardId
from poller.domain.status import LaneStatus, PauseStatus, ShardStatus
from poller.rules.replays.troubles import HELD, PAUSED, trouble

ONE, TWO = ShardId("one"), ShardId("two")
NOW = Epoch(1_780_000_000.0)
PAUSE = PauseStatus(operation="p", by="ann", since=NOW, reason="")
DOWN = "the on-failure destination did not take the batch: no queue"


def shard(state: str, *lanes: LaneStatus, name: ShardId = ONE, **more: Any) -> ShardStatus:
    return ShardStatus(shard=name, state=state, position="TRIM_HORIZON", lanes=lanes, **more)


def lane(state: str, error: str = "") -> LaneStatus:
    return LaneStatus(lane="0", state=state, blocked_since=NOW if error else None, last_error=error)


@pytest.mark.parametrize(
    ("shards", "said"),
    [
        ([], ""),
        ([shard("reading", lane("idle"), lane("invoking"), lane("gathering"))], ""),
        ([shard("elsewhere"), shard("waiting", reason="for one"), shard("ended"), shard("free")], ""),
        ([shard("failing", reason="no answer")], "shard one: no answer"),
        ([shard("starting", reason="pauses are not known")], "shard one: pauses are not known"),
        ([shard("paused", lane("paused"), paused=PAUSE)], PAUSED),
        ([shard("blocked", lane("idle"), lane("discarding", DOWN))], f"shard one: {DOWN}"),
        ([shard("blocked", lane("waiting", "ValueError: no"))], "shard one: ValueError: no"),
        ([shard("reading", lane("waiting"))], f"shard one: {HELD}"),
        (
            [shard("reading", lane("idle")), shard("failing", name=TWO, reason="denied")],
            "shard two: denied",
        ),
    ],
)
def test_what_holds_a_replay_is_said(shards: list[ShardStatus], said: str) -> None:
    assert trouble(shards) == said
