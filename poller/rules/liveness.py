"""Owns who is alive: a heartbeat that stood still for the lease time, on the observer's own clock, marks a dead worker.

No two machines' clocks are compared. Only what a listing shows counts, never the mere passing of time: an observer
that was paused itself looks again before it judges anybody.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from poller.records import Monotonic, WorkerId
from poller.rows import WorkerRow


@dataclass(frozen=True, slots=True)
class Sighting:
    """A counter, since when it has been seen, and when it was seen last; both on the observer's clock."""

    counter: int
    since: Monotonic
    seen: Monotonic

    @property
    def still_s(self) -> float:
        """For how long the counter is known to have stood still."""
        return self.seen - self.since


type Sightings = Mapping[WorkerId, Sighting]


def observed(
    before: Sightings, rows: Iterable[WorkerRow], *, asked: Monotonic, answered: Monotonic
) -> dict[WorkerId, Sighting]:
    """The sightings after a listing that was asked for and answered at these moments.

    A counter that is new counts from the answer, one that is known up to the question, so that the time for which it
    stood still is never overestimated.
    """
    found = {}
    for row in rows:
        old = before.get(row.worker)
        known = old is not None and old.counter == row.counter
        since = old.since if known and old is not None else answered
        found[row.worker] = Sighting(row.counter, since, max(since, asked))
    return found


def dead(sightings: Sightings, *, lease_s: float) -> frozenset[WorkerId]:
    """Workers whose heartbeat stood still for the lease time."""
    return frozenset(worker for worker, each in sightings.items() if each.still_s >= lease_s)


def next_death(sightings: Sightings, *, lease_s: float) -> Monotonic | None:
    """When the first of the living will have to be taken for dead if nothing more is heard of it; None without any."""
    moments = [each.since + lease_s for each in sightings.values() if each.still_s < lease_s]
    return Monotonic(min(moments)) if moments else None


def forgotten(sightings: Sightings, *, lease_s: float, times: int) -> tuple[WorkerId, ...]:
    """Workers that have been dead for so many lease times that their rows are of no more use."""
    return tuple(worker for worker, each in sightings.items() if each.still_s >= lease_s * times)
