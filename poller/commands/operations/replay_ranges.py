"""Owns what the dry run of a replay says of each shard: from where to where it would be read, and what the stream still has of that.

It is looked up with peeks, which only read. Where the daemon does not answer one, the line has the range alone.
"""

from collections.abc import Callable, Mapping
from typing import Any

from poller.commands.daemon_client import Unanswered
from poller.commands.operations.daemon_api import DaemonApi
from poller.commands.operations.targets import Target
from poller.domain.peeking.answers import PeekAnswer
from poller.domain.records import Epoch, ShardId
from poller.domain.wording.numbers_of import number_of
from poller.rules.replays.asking import ReplayRange, range_of, shown

LOOKED_AT_MAX = 10
"""Shards that are looked at. Each look is up to five reads."""


def replay_ranges(
    api: DaemonApi,
    target: Target,
    members: Mapping[str, Any],
    *,
    now: Epoch,
    say: Callable[[str], None] = lambda _: None,
) -> tuple[str, ...]:
    """One line for each shard. Raises OperationRefused for a range that no replay can have. `say` gets how far it is."""
    wanted = range_of(members, created=now)
    lines = []
    shards = sorted(each.shard for each in target.mapping.shards)
    for number, shard in enumerate(shards):
        looked = number_of(min(number, LOOKED_AT_MAX), "shard", of=min(len(shards), LOOKED_AT_MAX))
        say(f"looked at {looked}, now at {shard}")
        left = _left(api, target, shard, wanted) if number < LOOKED_AT_MAX else ""
        lines.append(f"shard {shard}: from {members['from']} to {members['to']}{left}")
    return tuple(lines)


def _left(api: DaemonApi, target: Target, shard: ShardId, wanted: ReplayRange) -> str:
    start = "TRIM_HORIZON" if wanted.since is None else shown(wanted.since)
    try:
        answer = api.peek(target.mapping.mapping, shard=shard, start=start, limit=1)
    except Unanswered:
        return ""
    return what_is_left(answer, wanted)


def what_is_left(answer: PeekAnswer, wanted: ReplayRange) -> str:
    """What a look at the beginning of a range shows of it; empty if it does not tell."""
    if answer.records:
        first = answer.records[0].arrived
        if first <= wanted.until:
            return f"; its first record arrived at {shown(first)}"
        return f"; nothing of it is in the stream: the next record arrived at {shown(first)}"
    return "" if answer.more else "; nothing of it is in the stream"
