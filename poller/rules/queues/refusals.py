"""Owns whether a queue mapping may receive more while its function refuses batches (on AWS: aws-behaviour#throttled-function).

A batch is refused if the function has no capacity for it or cannot be reached. It waits for its next try without a slot. Other batches
are received meanwhile, so that messages that always get a 503 do not hold up others. But if the function refuses everything, pollers
must not take one message after the other out of the queue, because each receive counts towards the dead-letter queue. So after
REFUSED_MAX batches in a row were refused at their first try, the function is assumed to refuse everything. Then pollers receive one at
a time, as probes. The pauses between probes double with each refused probe. This ends when any call goes through, also one of a batch
that has waited. The function is also assumed to refuse everything if all pollers wait with refused batches, because then no poller is
left to find out.

A poller whose batch was refused still counts for RELIEF_S towards the number of pollers. So a function that is busy for a moment does
not get more and more waiting batches. After that another poller may take its place, because the waiting batches may be the only ones
that the function refuses. While everything is refused, another poller may take its place at once, because probes come one at a time
anyway; it keeps the place when a call goes through. No receive begins while WAITING_MAX batches wait.
"""

import math

from poller.domain.records import Monotonic

REFUSED_MAX = 3
"""After this many batches in a row were refused at their first try, we assume that the function refuses everything."""
PROBE_S_MIN = 1.0
"""The pause before the first probe."""
PROBE_S_MAX = 60.0
"""The longest pause before the next probe. The waiting batches are tried more often than that."""
RELIEF_S = 10.0
"""Another poller may take the place of a poller whose batch was first refused this long ago."""
WAITING_MAX = 100
"""No receive begins while this many refused batches wait. Running receives may still add some."""


class Refusals:
    """How the function has answered recently. A probe is a receive that begins while everything is refused."""

    def __init__(self) -> None:
        self._in_a_row = 0
        self._pause_s = PROBE_S_MIN
        self._probe_at = Monotonic(0.0)
        self._everything_until = Monotonic(-math.inf)
        """When a call last went through that ended a time in which everything was refused."""
        self._probe = 0
        """The number of the running probe; 0 for none."""
        self._probes = 0
        self.waiting = 0
        """Refused batches that will be tried again."""

    @property
    def everything(self) -> bool:
        """Whether the function is assumed to refuse everything."""
        return self._in_a_row >= REFUSED_MAX

    def pause_s(self, now: Monotonic) -> float | None:
        """Seconds until a receive may begin: 0 for now, None while a probe runs or too many batches wait."""
        if self.waiting >= WAITING_MAX:
            return None
        if not self.everything:
            return 0.0
        return None if self._probe else max(0.0, self._probe_at - now)

    def begin(self) -> int:
        """A receive begins, which `pause_s` must allow. Returns its number if it is a probe, else 0."""
        if not self.everything:
            return 0
        self._probes += 1
        self._probe = self._probes
        return self._probe

    def end(self, probe: int) -> None:
        """A probe had no messages, or all its messages are settled."""
        if probe == self._probe:
            self._probe = 0

    def refused(self, now: Monotonic) -> None:
        """A batch was refused at its first try and waits from now on. Call `gone` when it no longer waits."""
        probed = self.everything
        self._in_a_row += 1
        self.waiting += 1
        if not self.everything or (probed and now < self._probe_at):
            return
        self._probe = 0
        self._pause_s = min(PROBE_S_MAX, self._pause_s * 2.0) if probed else PROBE_S_MIN
        self._probe_at = Monotonic(now + self._pause_s)

    def stalled(self, now: Monotonic) -> None:
        """All pollers wait, and some batches were refused: the first probe may begin at once."""
        if self.waiting and not self.everything:
            self._in_a_row, self._pause_s, self._probe_at = REFUSED_MAX, PROBE_S_MIN, now

    def try_now(self, now: Monotonic) -> None:
        """An operator asks for the next try: the next probe may begin at once, and the pauses between probes begin again."""
        if self.everything and not self._probe:
            self._pause_s, self._probe_at = PROBE_S_MIN, now

    def accepted(self, now: Monotonic) -> None:
        """A call reached the function, with any result."""
        if self.everything:
            self._everything_until = now
        self._in_a_row = self._probe = 0

    def gone(self) -> None:
        """A refused batch went through, or was given up."""
        assert self.waiting > 0, "a batch that never waited"
        self.waiting -= 1

    def replaceable(self, waits_since: Monotonic | None, now: Monotonic) -> bool:
        """Whether another poller may take the place of a poller whose batch has waited since then (None: it does not wait)."""
        if waits_since is None:
            return False
        return self.everything or waits_since <= self._everything_until or now - waits_since >= RELIEF_S
