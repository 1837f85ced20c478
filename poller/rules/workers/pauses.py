"""Owns how a status shows the pauses of operators, which every worker has from the store, on any mapping, shard, lane or group.

A shard's own worker shows its pauses itself. Other workers add them here, as they add those of queues and of whole mappings.
"""

from collections.abc import Sequence
from dataclasses import replace

from poller.domain.operations import OperationTarget, OperatorPause
from poller.domain.status import LaneStatus, MappingStatus, PauseStatus, ShardStatus, pause_status

WHOLE = OperationTarget()


def with_pauses(status: MappingStatus, pauses: Sequence[OperatorPause]) -> MappingStatus:
    """A mapping with its pauses in force. What the status says of a pause itself stays. A pause of what is not shown is left out."""
    if not pauses:
        return status
    return replace(
        status,
        paused=status.paused or _of(WHOLE, pauses),
        shards=tuple(_paused_shard(shard, pauses) for shard in status.shards),
        lanes=tuple(_paused_lane(lane, OperationTarget(group=lane.lane), pauses) for lane in status.lanes),
    )


def _paused_shard(shard: ShardStatus, pauses: Sequence[OperatorPause]) -> ShardStatus:
    target = OperationTarget(shard=shard.shard)
    return replace(
        shard,
        paused=shard.paused or _of(target, pauses),
        lanes=tuple(
            _paused_lane(lane, replace(target, lane=int(lane.lane)), pauses)
            if lane.lane.isdecimal()
            else lane
            for lane in shard.lanes
        ),
    )


def _paused_lane(lane: LaneStatus, target: OperationTarget, pauses: Sequence[OperatorPause]) -> LaneStatus:
    return replace(lane, paused=lane.paused or _of(target, pauses))


def _of(target: OperationTarget, pauses: Sequence[OperatorPause]) -> PauseStatus | None:
    """The first pause that covers the whole target."""
    return next((pause_status(pause) for pause in pauses if pause.target.covers(target)), None)
