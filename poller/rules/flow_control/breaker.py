"""Owns a function's circuit breaker: whether a call may begin, by how the last calls ended.

The breaker is *closed* while calls succeed. It *opens* when the share of failed calls in a window of time reaches the configured
one, and at least CALLS_MIN calls ended in that window. While it is open no call begins. After `open_s` seconds the first call that
comes makes it *half open*: one call at a time may try. If that one succeeds, the breaker closes and begins to count from zero; if
it fails, the breaker opens again. A try that did not take place, such as a receive without messages, leaves it half open.

Before a call waits for its slot it gets a *ticket*. A change of the breaker makes all earlier tickets void: such a call does not
begin, and if it has begun, its result says nothing about the function as it is now and is not counted.
"""

from collections import deque
from dataclasses import dataclass
from typing import assert_never

from poller.domain.invocations import Ended
from poller.domain.policies import BreakerPolicy
from poller.domain.records import Monotonic
from poller.domain.telemetry.labels import BreakerState
from poller.rules.responses import Accepted, Deferred, Partial, Rejected, Verdict

CALLS_MIN = 5
"""The breaker never opens before so many calls ended in the window: one failure after a quiet time shows nothing."""
BUCKETS = 10
"""The window is counted in so many parts. The oldest part leaves it as a whole."""
AGAIN_S = 1.0
"""After a try that showed nothing, because the function was throttled, the next one waits this long."""


@dataclass(frozen=True, slots=True)
class Ticket:
    """Leave for one call as the breaker is at one moment. `number` is the breaker's state in the order of its changes."""

    number: int
    trial: bool = False


@dataclass(frozen=True, slots=True)
class BreakerTurn:
    """The breaker has changed to this state, for this reason (one line)."""

    state: BreakerState
    reason: str


@dataclass(frozen=True, slots=True)
class BreakerView:
    """The breaker for people: its state, since when and why. `until` is when an open breaker lets a call try.

    `calls` and `failed` are what it has counted in the window; in an open breaker what opened it.
    """

    state: BreakerState
    since: Monotonic
    reason: str
    until: Monotonic | None
    calls: int
    failed: int


def failure_of(verdict: Verdict) -> bool | None:
    """Whether a verdict counts as a failed call; None if it does not count.

    A function that throttles is busy and not broken. An event that is too large was never sent. A partial report is a function at
    work. An answer that cannot be read is a failure.
    """
    match verdict:
        case Accepted() | Partial():
            return False
        case Rejected(ended):
            return None if ended is Ended.OVERSIZED else True
        case Deferred(ended):
            return True if ended is Ended.UNREACHABLE else None
        case _:
            assert_never(verdict)


class Breaker:
    """One function's breaker. `now` is the worker's monotonic clock.

    The runtime asks `wait_s`, calls `admit` when that is 0, `may_start` right before the call, and then exactly one of `answered`
    and `returned` for each ticket. It may call `close` at any time.
    """

    def __init__(self, policy: BreakerPolicy, *, now: Monotonic) -> None:
        self._policy = policy
        self._state = BreakerState.CLOSED
        self._since = now
        self._until = now
        self._reason = ""
        self._number = 0
        self._tries = False
        """Whether a call tries, or is about to."""
        self._opened_by = (0, 0)
        self._parts: deque[list[int]] = deque()
        """The window: for each part that has calls its number, its calls and its failed calls."""

    # Questions: none changes anything.

    def wait_s(self, now: Monotonic) -> float | None:
        """Seconds until a call may be admitted: 0 for now, None while another call tries."""
        if self._tries:
            return None
        match self._state:
            case BreakerState.CLOSED:
                return 0.0
            case BreakerState.OPEN | BreakerState.HALF_OPEN:
                return max(0.0, self._until - now)
            case _:
                assert_never(self._state)

    @property
    def closed(self) -> bool:
        """Whether calls begin as they come."""
        return self._state is BreakerState.CLOSED

    def may_start(self, ticket: Ticket) -> bool:
        """Whether the call of this ticket may begin now."""
        return ticket.number == self._number

    def view(self, now: Monotonic) -> BreakerView:
        """The breaker for people."""
        closed = self._state is BreakerState.CLOSED
        calls, failed = self._counted(now) if closed else self._opened_by
        until = self._until if self._state is BreakerState.OPEN else None
        return BreakerView(self._state, self._since, self._reason, until, calls, failed)

    # Verbs.

    def admit(self, now: Monotonic) -> tuple[Ticket, BreakerTurn | None]:
        """Admits a call, which `wait_s` must allow. The first one after the breaker was open long enough is the one that tries."""
        assert self.wait_s(now) == 0.0, "a call although the breaker is open"
        if self._state is BreakerState.CLOSED:
            return Ticket(self._number), None
        turn = None
        if self._state is BreakerState.OPEN:
            turn = self._turn(BreakerState.HALF_OPEN, self._reason, now)
        self._tries = True
        return Ticket(self._number, trial=True), turn

    def answered(self, ticket: Ticket, verdict: Verdict, now: Monotonic) -> BreakerTurn | None:
        """Takes the verdict on a call of this ticket; returns how the breaker changed."""
        if ticket.number != self._number:
            return None
        failed = failure_of(verdict)
        if ticket.trial:
            return self._tried(failed, verdict, now)
        if failed is None:
            return None
        calls, failures = self._count(failed, now)
        if not failed or calls < CALLS_MIN or failures < self._policy.failures * calls:
            return None
        said = f"{failures} of {calls} calls failed within {self._policy.window_s:g} s"
        return self._open((calls, failures), _because(said, verdict), now)

    def returned(self, ticket: Ticket, now: Monotonic) -> None:
        """The call of this ticket did not take place, or was cut off. If it was the one that tries, another one may."""
        if ticket.trial and ticket.number == self._number:
            self._untried(now)

    def close(self, reason: str, now: Monotonic) -> BreakerTurn | None:
        """Closes the breaker by hand; returns None if it is closed already. What it had counted is forgotten in any case."""
        self._parts.clear()
        if self._state is BreakerState.CLOSED:
            return None
        return self._turn(BreakerState.CLOSED, reason, now)

    def _tried(self, failed: bool | None, verdict: Verdict, now: Monotonic) -> BreakerTurn | None:
        if failed is None:
            self._untried(Monotonic(now + AGAIN_S))
            return None
        if failed:
            return self._open(self._opened_by, _because("the try failed", verdict), now)
        self._parts.clear()
        return self._turn(BreakerState.CLOSED, "the try succeeded", now)

    def _untried(self, until: Monotonic) -> None:
        """The call that should try showed nothing. Another one may try from `until` on."""
        self._number += 1
        self._tries, self._until = False, until

    def _open(self, counted: tuple[int, int], reason: str, now: Monotonic) -> BreakerTurn:
        self._opened_by = counted
        self._until = Monotonic(now + self._policy.open_s)
        self._parts.clear()
        return self._turn(BreakerState.OPEN, reason, now)

    def _turn(self, state: BreakerState, reason: str, now: Monotonic) -> BreakerTurn:
        if BreakerState.CLOSED in (state, self._state):
            self._since = now
        self._state, self._reason = state, reason
        self._number += 1
        self._tries = False
        return BreakerTurn(state, reason)

    def _count(self, failed: bool, now: Monotonic) -> tuple[int, int]:
        part = self._part(now)
        if not self._parts or self._parts[-1][0] != part:
            self._parts.append([part, 0, 0])
        last = self._parts[-1]
        last[1] += 1
        last[2] += failed
        while self._parts[0][0] <= part - BUCKETS:
            self._parts.popleft()
        return self._counted(now)

    def _counted(self, now: Monotonic) -> tuple[int, int]:
        oldest = self._part(now) - BUCKETS
        known = [each for each in self._parts if each[0] > oldest]
        return sum(each[1] for each in known), sum(each[2] for each in known)

    def _part(self, now: Monotonic) -> int:
        return int(now / self._policy.window_s * BUCKETS)


def _because(said: str, verdict: Verdict) -> str:
    error = verdict.error if isinstance(verdict, (Rejected, Deferred)) else ""
    return f"{said}: {error}" if error else said
