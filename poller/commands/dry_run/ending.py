"""Owns when a dry run ends by itself: what was there when each shard or queue was read to its end has been called."""

from collections.abc import Mapping, Sequence
from enum import StrEnum

from poller.commands.dry_run.recorder import SourceTally
from poller.domain.records import Monotonic, ShardId
from poller.domain.rows import MappingState
from poller.domain.status import LaneStatus, MappingStatus, ShardStatus

SETTLE_S = 1.0
"""How long everything must look finished before the dry run ends. Calls take no time, so this is long."""
STUCK_S = 3.0
"""A blocked shard that has made no progress for this long is not waited for: its batch would fail again and again."""
NOT_HERE = frozenset({"waiting", "elsewhere"})
"""States of shards that are not read now."""


class DryEnd(StrEnum):
    """Why a dry run ended."""

    CAUGHT_UP = "caught_up"
    LIMIT = "limit"
    TIME = "time"
    SIGNAL = "signal"


def mapping_finished(
    mapping: MappingStatus,
    tallies: Mapping[ShardId | None, SourceTally],
    *,
    queue: bool,
    opened: bool,
    window_s: float,
    now: Monotonic,
) -> bool:
    """Whether nothing more has to be waited for. `window_s` is the batching window, `opened` whether the source answered once."""
    whole = tallies.get(None)
    if mapping.state is MappingState.BROKEN or (whole is not None and whole.problem):
        return True
    if not opened:
        return False
    if queue:
        return whole is not None and _called(whole, mapping.lanes, window_s=window_s, now=now)
    here = [shard for shard in mapping.shards if shard.state not in NOT_HERE]
    stuck = any(shard.blocked or shard.state == "failing" for shard in here)
    if len(here) < len(mapping.shards) and not stuck:
        # Children wait for a parent that will end.
        return False
    return all(_shard_finished(shard, tallies.get(shard.shard), window_s=window_s, now=now) for shard in here)


def _shard_finished(
    shard: ShardStatus, tally: SourceTally | None, *, window_s: float, now: Monotonic
) -> bool:
    if tally is None:
        return False
    stuck = shard.blocked and now - tally.progress_at >= STUCK_S
    return bool(tally.problem) or stuck or _called(tally, shard.lanes, window_s=window_s, now=now)


def _called(tally: SourceTally, lanes: Sequence[LaneStatus], *, window_s: float, now: Monotonic) -> bool:
    """Whether all records were called that were there when the source was read to its end.

    A batch that gathers then is closed when its window is over. A lane that gathers for longer waits for the end of a tumbling
    window, or has newer records.
    """
    if tally.caught_up_at is None:
        return False
    gathering = any(lane.state == "gathering" for lane in lanes)
    return not gathering or now - tally.caught_up_at >= window_s + SETTLE_S
