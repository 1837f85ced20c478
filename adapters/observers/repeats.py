"""Owns how often the same trouble is told: at once, then at growing intervals, and afresh after a quiet time."""

from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass

from poller.records import Monotonic

FIRST_S = 10.0
"""After the first telling, at most one more in this time; the time doubles with each telling."""
LONGEST_S = 600.0
QUIET_S = 1200.0
"""Trouble that was not seen for this long is new."""
KEYS_MAX = 10_000
"""Troubles that are remembered; the ones not seen for longest are forgotten first."""


@dataclass(slots=True)
class _Trouble:
    interval_s: float
    next_at: float
    seen_at: float
    untold: int = 0


class Repeats:
    """Remembers by key what was told when."""

    def __init__(self, keys_max: int = KEYS_MAX) -> None:
        self._troubles: OrderedDict[Hashable, _Trouble] = OrderedDict()
        self._keys_max = keys_max

    def telling(self, key: Hashable, now: Monotonic) -> int | None:
        """How many times it went untold before, if it is to be told now; else None."""
        trouble = self._troubles.get(key)
        if trouble is None or now - trouble.seen_at >= QUIET_S:
            self._remember(key, now)
            return 0
        self._troubles.move_to_end(key)
        trouble.seen_at = now
        if now < trouble.next_at:
            trouble.untold += 1
            return None
        untold, trouble.untold = trouble.untold, 0
        trouble.interval_s = min(2 * trouble.interval_s, LONGEST_S)
        trouble.next_at = now + trouble.interval_s
        return untold

    def over(self, key: Hashable) -> None:
        """The trouble has passed: its next time is a first time."""
        self._troubles.pop(key, None)

    def _remember(self, key: Hashable, now: Monotonic) -> None:
        self._troubles[key] = _Trouble(FIRST_S, now + FIRST_S, now)
        self._troubles.move_to_end(key)
        while len(self._troubles) > self._keys_max:
            self._troubles.popitem(last=False)
