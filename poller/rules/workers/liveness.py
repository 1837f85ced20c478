"""Owns who is alive: a worker is dead when its counter stood still for the lease time, on the observer's own clock.

No two machines' clocks are compared. Only listings count: time that passes without a listing proves nothing. So an observer that
was paused lists the workers again before it takes one for dead.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from poller.domain.records import Monotonic, WorkerId
from poller.domain.rows import WorkerRow


@dataclass(frozen=True, slots=True)
class Sighting:
    """What is known of one worker's counter. All moments are on the observer's clock.

    This value of the counter was seen first at `since` and last at `seen`. The worker was seen first at `met`.
    """

    counter: int
    since: Monotonic
    seen: Monotonic
    met: Monotonic

    @property
    def still_s(self) -> float:
        """How long the counter is known to have stood still."""
        return self.seen - self.since


type Sightings = Mapping[WorkerId, Sighting]


def observe(
    before: Sightings, rows: Iterable[WorkerRow], *, asked: Monotonic, answered: Monotonic
) -> dict[WorkerId, Sighting]:
    """The sightings after a listing that was asked for and answered at these moments.

    A new value counts from the answer, and a known value counts up to the question. So the time for which a counter stood
    still is never estimated too long.
    """
    found = {}
    for row in rows:
        old = before.get(row.worker)
        known = old is not None and old.counter == row.counter
        since = old.since if known and old is not None else answered
        met = old.met if old is not None else answered
        found[row.worker] = Sighting(row.counter, since, max(since, asked), met)
    return found


def dead(sightings: Sightings, *, lease_s: float) -> frozenset[WorkerId]:
    """Workers whose counter stood still for the lease time."""
    return frozenset(worker for worker, each in sightings.items() if each.still_s >= lease_s)


def seen_alive(sightings: Sightings) -> frozenset[WorkerId]:
    """Workers whose counter has moved since they were first seen."""
    return frozenset(worker for worker, each in sightings.items() if each.since > each.met)


def reported_dead(
    rows: Iterable[WorkerRow], reports: Iterable[Mapping[WorkerId, int]]
) -> frozenset[WorkerId]:
    """Workers that others have seen dead, and whose counters have not moved since.

    `reports` has, for each worker that can be trusted, the counters of the workers that it saw dead. One report is enough.
    """
    counters = {row.worker: row.counter for row in rows}
    return frozenset(
        worker for each in reports for worker, counter in each.items() if counters.get(worker) == counter
    )


def silent(sightings: Sightings, *, for_s: float) -> frozenset[WorkerId]:
    """Workers, alive or dead, whose counter stood still for `for_s` seconds."""
    return frozenset(worker for worker, each in sightings.items() if each.still_s >= for_s)


def unaware(sightings: Sightings, *, lease_s: float) -> dict[WorkerId, frozenset[WorkerId]]:
    """For each dead worker, the workers that came after its last heartbeat.

    They have seen its counter stand still for a shorter time than this observer, so they still take it for alive.
    """
    found = {}
    for worker in dead(sightings, lease_s=lease_s):
        since = sightings[worker].since
        found[worker] = frozenset(other for other, each in sightings.items() if each.met > since)
    return found


def next_death(sightings: Sightings, *, lease_s: float) -> Monotonic | None:
    """When the first live worker must be taken for dead unless its counter moves; None if no worker is alive."""
    moments = [each.since + lease_s for each in sightings.values() if each.still_s < lease_s]
    return Monotonic(min(moments)) if moments else None


def long_dead(sightings: Sightings, *, lease_s: float, times: int) -> tuple[WorkerId, ...]:
    """Workers whose counters stood still for `times` lease times. Their rows can be removed."""
    return tuple(worker for worker, each in sightings.items() if each.still_s >= lease_s * times)
