"""Owns why a replay does not get on, on one worker: in one line, from what its shards are doing."""

from collections.abc import Sequence

from poller.domain.status import LaneStatus, ShardStatus

PAUSED = "the mapping is paused"
HELD = "waits until the breaker or the rate of the function lets it be called"


def trouble(shards: Sequence[ShardStatus]) -> str:
    """What holds the first of the shards that do not get on; empty if none is held."""
    return next(filter(None, map(_of_shard, shards)), "")


def _of_shard(shard: ShardStatus) -> str:
    if shard.paused is not None:
        return PAUSED
    reason = shard.reason if shard.state in {"failing", "starting"} else ""
    found = reason or next(filter(None, map(_of_lane, shard.lanes)), "")
    return f"shard {shard.shard}: {found}" if found else ""


def _of_lane(lane: LaneStatus) -> str:
    if lane.blocked_since is not None:
        return lane.last_error
    return HELD if lane.state == "waiting" else ""
