"""Owns how the words of a command become the target of an operation, by what the daemon says that there is."""

from collections.abc import Sequence
from dataclasses import dataclass

from poller.commands.operations.naming import named
from poller.commands.operations.several_workers import newest
from poller.domain.records import ShardId
from poller.domain.status import DaemonStatus, LaneStatus, MappingStatus, ShardStatus
from poller.rules.operations.members import FIRST
from poller.rules.target_names import UnknownTarget, find_mapping, find_shard


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetWords:
    """What the command line says."""

    mapping: str
    shard: str | None = None
    lane: int | None = None
    group: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """What is meant. `status` is that of the shard, as far as the daemon knows it."""

    mapping: MappingStatus
    shard: ShardId | None = None
    lane: int | None = None
    group: str | None = None
    status: ShardStatus | None = None

    def described(self) -> str:
        """The target in words."""
        if self.group is not None:
            return f"message group {self.group}"
        if self.shard is None:
            return "the whole mapping"
        return f"shard {self.shard}" if self.lane is None else f"lane {self.lane} of shard {self.shard}"

    def lanes(self) -> Sequence[LaneStatus]:
        """The lanes, groups or messages of the target that fail, the longest blocked first."""
        found = self.status.lanes if self.status is not None else newest(self.mapping.lanes)
        if self.shard is None and not found:
            found = tuple(lane for shard in self.mapping.shards for lane in shard.lanes)
        name = self.group if self.group is not None else None if self.lane is None else str(self.lane)
        trouble = [each for each in found if each.blocked_since is not None or each.last_error]
        chosen = [each for each in trouble if name is None or each.lane == name]
        return sorted(chosen, key=lambda each: each.blocked_since or each.failing_since or float("inf"))

    def at_fault(self) -> LaneStatus | None:
        """The lane whose records `first` and `batch` mean; None if it is not the only one, or if its records are not known."""
        lanes = self.lanes()
        return lanes[0] if len(lanes) == 1 and lanes[0].records else None

    def fixed_records(self, records: str | list[str]) -> str | list[str]:
        """The ids of what `first` or `batch` means now; the word itself where not all of them are known."""
        lane = self.at_fault()
        if lane is None or isinstance(records, list):
            return records
        ids = [each.identifier for each in lane.records]
        if records == FIRST:
            return ids[:1]
        return ids if len(ids) == lane.records_count else records


def find_target(status: DaemonStatus, words: TargetWords, *, one_shard: bool) -> Target:
    """The target that is meant; raises UnknownTarget, which says what there is.

    `one_shard`: the action needs one shard. If none is named, the only one that is blocked is meant, or the only one that there is.
    """
    names = [named(each) for each in status.mappings]
    identity = find_mapping(words.mapping, names).mapping
    mapping = next(each for each in status.mappings if each.mapping == identity)
    shards = [each.shard for each in mapping.shards]
    shard = find_shard(words.shard, shards) if words.shard is not None else None
    if shard is None and one_shard and mapping.pollers is None and mapping.shards:
        shard = _only(mapping)
    found = next((each for each in mapping.shards if each.shard == shard), None)
    return Target(mapping=mapping, shard=shard, lane=words.lane, group=words.group, status=found)


def _only(mapping: MappingStatus) -> ShardId:
    blocked = [each.shard for each in mapping.shards if each.blocked]
    there = blocked or [each.shard for each in mapping.shards if each.state not in {"waiting", "ended"}]
    if len(there) == 1:
        return there[0]
    which = "blocked shards" if blocked else "shards, and none of them is seen blocked here"
    listed = ", ".join(there[:10]) + (" …" if len(there) > 10 else "")
    raise UnknownTarget(f"the mapping has {len(there)} {which}; name one with --shard: {listed}")
