"""Owns which workers that have claimed asynchronous calls are gone, so that others may take their calls over.

A worker writes a heartbeat before it claims a call. So an owner without a row in a listing that was asked for after its claim was
seen has removed its row or was forgotten: it is gone. An owner with a row is gone when it is dead.

A listing that was asked for some time ago says nobody is gone. A worker that comes back from an outage of the store would take calls
from workers that it held for dead before, and that live again.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from poller.domain.records import Monotonic, WorkerId
from poller.rules.workers.worker_group import KnownWorkers

LISTED_S_MAX = 5.0
"""So old may a listing of the workers be that says who is gone."""


@dataclass(frozen=True, slots=True)
class CallOwners:
    """The owners of calls that are not known as workers, and when each was seen first."""

    strangers: Mapping[WorkerId, Monotonic] = field(default_factory=dict)

    def seen(
        self, owners: Collection[WorkerId], known: KnownWorkers, *, me: WorkerId, now: Monotonic
    ) -> tuple["CallOwners", frozenset[WorkerId]]:
        """What is known after these owners were seen, and those of them that are gone."""
        others = [each for each in owners if each != me and each not in known.alive]
        dead = {each for each in others if each in known.sightings}
        strangers = {each: self.strangers.get(each, now) for each in others if each not in dead}
        left = {
            each for each, since in strangers.items() if known.listed is not None and known.listed > since
        }
        fresh = known.listed is not None and now - known.listed <= LISTED_S_MAX
        return CallOwners(strangers), frozenset(dead | left) if fresh else frozenset()
