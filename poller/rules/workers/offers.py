"""Owns how long a free lease waits for the worker that should take it.

Workers learn of a death or a release at different moments, and a worker may be stopped, slow or gone when a lease becomes
free. So each worker remembers to which worker it left a lease. If that worker does not take the lease in time, it is passed
over, and the lease goes to the next one. If two workers then want the same lease, no harm is done: the store gives it to one
of them.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from poller.domain.records import Monotonic, ShardId, WorkerId
from poller.domain.rows import Lease

RELEASED_BEATS = 2.5
"""How many heartbeats a worker has to take a released lease. The worker must learn of the release first."""
INHERITED_BEATS = 0.6
"""How many heartbeats a worker has to take the lease of a dead worker. Most workers notice the death by themselves in this time."""


@dataclass(frozen=True, slots=True)
class Offer:
    """A free lease at `epoch` that is left to `worker` until the moment `until`. It was left to the workers in `passed` before."""

    epoch: int
    worker: WorkerId
    until: Monotonic
    passed: frozenset[WorkerId] = frozenset()

    def late(self, now: Monotonic) -> frozenset[WorkerId]:
        """The workers that are passed over at the moment `now`."""
        return self.passed | {self.worker} if now >= self.until else self.passed


type Offers = Mapping[ShardId, Offer]


def passed_over(
    offers: Offers, leases: Iterable[Lease], *, now: Monotonic
) -> dict[ShardId, frozenset[WorkerId]]:
    """The workers that are passed over for each shard that no worker has taken since it was left to them."""
    found = {}
    for lease in leases:
        offer = offers.get(lease.shard)
        if offer is not None and offer.epoch == lease.epoch and (late := offer.late(now)):
            found[lease.shard] = late
    return found


def renewed(
    before: Offers, leases: Iterable[tuple[Lease, WorkerId]], *, now: Monotonic, heartbeat_s: float
) -> dict[ShardId, Offer]:
    """The offers after this worker decided to leave these leases to these workers."""
    return {lease.shard: _offer(before, lease, worker, now, heartbeat_s) for lease, worker in leases}


def next_due(offers: Offers) -> Monotonic | None:
    """When the first worker must be passed over; None without offers."""
    return min((each.until for each in offers.values()), default=None)


def _offer(before: Offers, lease: Lease, worker: WorkerId, now: Monotonic, heartbeat_s: float) -> Offer:
    old = before.get(lease.shard)
    if old is None or old.epoch != lease.epoch:
        return Offer(lease.epoch, worker, _until(lease, now, heartbeat_s))
    if old.worker == worker and now < old.until:
        return old
    return Offer(lease.epoch, worker, _until(lease, now, heartbeat_s), old.late(now))


def _until(lease: Lease, now: Monotonic, heartbeat_s: float) -> Monotonic:
    beats = RELEASED_BEATS if lease.owner is None else INHERITED_BEATS
    return Monotonic(now + beats * heartbeat_s)
