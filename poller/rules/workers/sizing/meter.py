"""Owns how a worker measures its own pressure over time: what must last how long before it counts.

After each change of the number of workers everything is measured anew, because the shards move.
"""

from dataclasses import dataclass, replace

from poller.domain.records import Monotonic
from poller.domain.sizing.fleet_size import Pressure
from poller.rules.workers.sizing.samples import LoadSample

UP_AFTER_S = 60.0
"""A worker is busy when it has fallen behind for so long, with the present number of workers."""
DOWN_AFTER_S = 600.0
"""A worker is calm when it has had little to do for so long, with the present number of workers."""
LONG_CALM_S = 3600.0
"""After so long, fewer workers are tried even where that was too few before."""
CATCHING_UP = 0.9
"""A lag that fell to this part of what it was shrinks: the worker catches up, and needs no help."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PressureMeter:
    """What one worker has measured while there were `workers`. `peak_s` is the greatest lag since `busy_since`."""

    workers: int = 0
    busy_since: Monotonic | None = None
    calm_since: Monotonic | None = None
    peak_s: float = 0.0
    reason: str = ""

    def observed(self, sample: LoadSample, *, workers: int, now: Monotonic) -> "PressureMeter":
        """What is known after one more sample."""
        if workers != self.workers:
            return PressureMeter(workers=workers).observed(sample, workers=workers, now=now)
        calm_since = (now if self.calm_since is None else self.calm_since) if sample.calm else None
        if not sample.busy:
            return PressureMeter(workers=workers, calm_since=calm_since)
        begins = self.busy_since is None or (not sample.full and sample.lag_s <= self.peak_s * CATCHING_UP)
        if begins:
            return PressureMeter(workers=workers, busy_since=now, peak_s=sample.lag_s, reason=_reason(sample))
        return replace(self, peak_s=max(self.peak_s, sample.lag_s), calm_since=None)

    def pressure(self, now: Monotonic) -> Pressure:
        """The pressure now."""
        if self.busy_since is not None and now - self.busy_since >= UP_AFTER_S:
            return Pressure.BUSY
        calm_s = 0.0 if self.calm_since is None else now - self.calm_since
        if calm_s >= LONG_CALM_S:
            return Pressure.LONG_CALM
        return Pressure.CALM if calm_s >= DOWN_AFTER_S else Pressure.STEADY


def _reason(sample: LoadSample) -> str:
    """Why the worker is busy. It has no figures, so that it stays the same."""
    if sample.full:
        return f"queue mapping {sample.full} has more messages than there is room for"
    return f"a shard of mapping {sample.late} is behind"
