"""Owns what looks at the leases of shards prove about who had them in between, however seldom they are."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from poller.domain.records import ShardId

SLACK_S = 1.0
"""So long a call may take from the worker's decision to the function's first line."""

type Owners = Mapping[ShardId, tuple[str | None, int]]
"""The owner and the epoch of each shard's lease."""


@dataclass(frozen=True, slots=True)
class Look:
    """What the store said between two moments, epoch seconds."""

    began: float
    ended: float
    owners: Owners


def certainly_without_lease(looks: Sequence[Look], worker: str, shard: ShardId, at: float) -> bool:
    """Whether another one had the shard's lease from SLACK_S before `at` until `at`.

    That is so if a look before and a look after show another owner and the same epoch: each change of owners has a new epoch.
    """
    before = [look for look in looks if look.ended <= at - SLACK_S]
    after = next((look for look in looks if look.began >= at), None)
    if not before or after is None:
        return False
    owner, epoch = before[-1].owners.get(shard, (None, 0))
    return owner not in (None, worker) and after.owners.get(shard) == (owner, epoch)
