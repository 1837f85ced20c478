"""Owns when a shard is read again (aws-behaviour#read-limits): by how far its reader is behind, by its traffic, and by who else reads it.

While there is more to read, it is read at once; the pacer of the source keeps to five reads a second. A shard that had nothing more is read
after a tenth of the time since its last record, so that a record waits for no more than a tenth of the quiet before it. When the source
throttles, other readers have a part of its limit, and the reads become rarer until that is over.
"""

from dataclasses import dataclass

from poller.domain.records import Monotonic

SHORTEST_S = 0.2
"""Five reads a second are the limit of a shard."""
QUIET_SHARE = 0.1
CROWDED_S_MAX = 2.0
"""The longest wait because others read, too."""
CALM_S = 30.0
"""After so long without throttling the reads are twice as frequent again."""


@dataclass(slots=True)
class Rhythm:
    """When one shard is read again. `began` is when its reading begins. `idle_s` is the longest wait for a shard without records."""

    began: Monotonic
    idle_s: float
    shortest_s: float = SHORTEST_S
    """The wait that other readers leave."""
    _records_at: Monotonic | None = None
    _changed_at: Monotonic | None = None

    def found(self, now: Monotonic, *, records: bool) -> None:
        """A read has ended that brought records, or none."""
        if records:
            self._records_at = now
        if self._changed_at is not None and now - self._changed_at >= CALM_S:
            self.shortest_s = max(SHORTEST_S, self.shortest_s / 2)
            self._changed_at = now if self.shortest_s > SHORTEST_S else None

    def throttled(self, now: Monotonic) -> None:
        """The source has refused a read because the shard was read too often."""
        self.shortest_s, self._changed_at = min(CROWDED_S_MAX, self.shortest_s * 2), now

    def wait_s(self, now: Monotonic, *, more: bool) -> float:
        """The wait after a read that ended at `now`. `more`: it brought records, or the source has more."""
        if more:
            return self.shortest_s if self._changed_at is not None else 0.0
        since = self.began if self._records_at is None else self._records_at
        return min(self.idle_s, max(self.shortest_s, (now - since) * QUIET_SHARE))
