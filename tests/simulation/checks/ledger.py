"""Owns what the checkers share: violations, calls in flight, and who holds which lease."""

from collections.abc import Iterable
from dataclasses import dataclass, field

import msgspec

from poller.domain.invocations import Outcome, Succeeded
from poller.domain.records import MappingId, ShardId
from poller.domain.rows import Checkpoint
from tests.simulation.services.faults import Line
from tests.simulation.services.functions import Delivery


class Violation(AssertionError):
    """The engine broke a promise; `rule` is the promise's short name."""

    def __init__(self, rule: str, what: str) -> None:
        super().__init__(f"{rule}: {what}")
        self.rule = rule


@dataclass(slots=True)
class Flight:
    """One call of a function from its beginning to the moment when the worker has its outcome."""

    number: int
    worker: str
    function: str
    mapping: MappingId
    delivery: Delivery
    request_id: str
    began: float
    domains: frozenset[str]
    """What must not be in flight twice: the shard, or its keys when there are lanes, or message groups."""
    issued: float
    """When the worker decided on it."""
    by_right: bool = True
    """False: the worker was stopped beyond its lease and could not know."""
    line: Line | None = None
    stumbles: int = 0
    """How often the worker had stood still when the call began."""


@dataclass(frozen=True, slots=True)
class Tenure:
    """One worker's time with one shard: from `take` until another `take` or `release`."""

    worker: str
    epoch: int
    start: Checkpoint
    since: float = 0.0
    decided: float = 0.0
    """When the store had the leases by which the worker decided to take the shard."""


@dataclass(slots=True)
class Holders:
    """Who holds each shard, as the store has it, and who was told of a loss."""

    _now: dict[tuple[MappingId, ShardId], Tenure] = field(default_factory=dict)
    _told: dict[tuple[str, MappingId, ShardId], float] = field(default_factory=dict)
    _left: dict[tuple[str, MappingId, ShardId], float] = field(default_factory=dict)
    """When each worker's last time with a shard ended."""

    def take(self, mapping: MappingId, shard: ShardId, tenure: Tenure) -> Tenure | None:
        """Notes a take; returns the tenure that it ended, if another worker's."""
        before = self._now.get((mapping, shard))
        if before is not None and before.epoch > tenure.epoch:
            raise Violation("fence", f"{shard} taken at epoch {tenure.epoch} after {before.epoch}")
        if before is not None and (before.worker, before.epoch) == (tenure.worker, tenure.epoch):
            return None
        self._now[mapping, shard] = tenure
        self._told.pop((tenure.worker, mapping, shard), None)
        if before is not None:
            self._left[before.worker, mapping, shard] = tenure.since
        return before

    def release(self, mapping: MappingId, shard: ShardId, epoch: int, *, now: float) -> None:
        """Notes a release."""
        held = self._now.get((mapping, shard))
        if held is not None and held.epoch == epoch:
            del self._now[mapping, shard]
            self._left[held.worker, mapping, shard] = now

    def had(self, worker: str, mapping: MappingId, shard: ShardId, *, at: float) -> bool:
        """Whether a worker that does not hold the shard any more held it at that time, or later."""
        return at <= self._left.get((worker, mapping, shard), float("-inf"))

    def tell(self, worker: str, mapping: MappingId, shard: ShardId, now: float) -> None:
        """The worker knows that it lost the shard."""
        self._told[worker, mapping, shard] = now

    def knew(self, worker: str, mapping: MappingId, shard: ShardId, *, at: float) -> bool:
        """Whether the worker knew at that time that it had lost the shard."""
        return self._told.get((worker, mapping, shard), float("inf")) < at

    def holder(self, mapping: MappingId, shard: ShardId) -> Tenure | None:
        """Who holds the shard."""
        return self._now.get((mapping, shard))


def done_by(outcome: Outcome, delivery: Delivery, *, reports: bool, stream: bool) -> list[str]:
    """The identifiers that an outcome settles. Written from AWS's table alone, without a look at our rule (aws-behaviour#answers)."""
    names = [each.identifier for each in delivery.records]
    if not isinstance(outcome, Succeeded):
        return []
    if not reports or outcome.payload in (b"", b"null", b"{}", b'""'):
        return names
    reported = _reported(outcome.payload)
    if reported is None or any(each not in names for each in reported):
        return []
    if stream and reported:
        return names[: min(names.index(each) for each in reported)]
    return [each for each in names if each not in reported]


def _reported(payload: bytes) -> list[str] | None:
    """Reported identifiers; None for a malformed report."""
    try:
        failures = msgspec.json.decode(payload, type=_Report).failures
    except msgspec.ValidationError:
        return None
    return [each.identifier for each in failures or ()]


class _Item(msgspec.Struct):
    identifier: str = msgspec.field(name="itemIdentifier")


class _Report(msgspec.Struct):
    failures: list[_Item] | None = msgspec.field(name="batchItemFailures", default=None)


def names(items: Iterable[object], *, most: int = 8) -> str:
    """A few of the items, for messages."""
    listed = [str(each) for each in items]
    more = f" and {len(listed) - most} more" if len(listed) > most else ""
    return f"[{', '.join(listed[:most])}{more}]"
