"""Owns the permits of one function: a call that has none does not begin, and no permit is issued against its rate or breaker.

A permit is taken before a slot, and for queues before messages are received. So whatever waits here holds no slot and no message
that another worker could have. Right before the call the permit is *started*: if the breaker has opened meanwhile, it is not
good any more, and the caller comes back for another one.
"""

import asyncio
from typing import assert_never

from poller.domain.plan import FunctionPlan
from poller.domain.records import Epoch, MappingId
from poller.domain.status import BreakerStatus, FunctionStatus, RateStatus
from poller.domain.telemetry.daemon_events import BreakerChanged
from poller.domain.telemetry.labels import BreakerState
from poller.domain.telemetry.observers import Observer
from poller.domain.untrusted.numbers import date_of
from poller.domain.untrusted.texts import line_of
from poller.ports import CallPacer, Clock
from poller.rules.flow_control.breaker import Breaker, BreakerTurn, Ticket
from poller.rules.flow_control.rate import Buy, RateBalance, Ready, Withhold
from poller.rules.responses import Verdict
from poller.runtime.flow_control.turns import TurnLine
from poller.runtime.stopping import wait_until
from poller.runtime.workers.function_group import RateShare

CHECK_S = 1.0
"""Who waits looks again after this time at the latest, because this worker's share of the rate may have changed."""
REASON_CHARS_MAX = 300
ENDED = "the function is not in use any more, or with other settings"
CLOSED_ELSEWHERE = "closed by hand at another worker"


class Permit:
    """Leave for one call of a function. Exactly one of `free` and `answered` ends it; a second `free` does nothing."""

    __slots__ = ("_flow", "_issued", "_started", "_ticket")

    def __init__(self, flow: "FlowControl", issued: int, ticket: Ticket | None) -> None:
        self._flow: FlowControl | None = flow
        self._issued = issued
        self._ticket = ticket
        self._started = False

    def start(self, records: int) -> bool:
        """Starts the call now, with so many records. Returns False if that may not be any more; then the permit is of no use."""
        if self._flow is None or self._started:
            return False
        if not self._flow.may_start(self._ticket):
            self.free()
            return False
        self._started = True
        self._flow.started(self._issued, records)
        return True

    def answered(self, verdict: Verdict) -> None:
        """The call has ended with this verdict."""
        if self._flow is not None:
            flow, self._flow = self._flow, None
            flow.answered(self._ticket, verdict)

    def free(self) -> None:
        """Gives the permit back: no call took place, or it was cut off."""
        if self._flow is not None:
            flow, self._flow = self._flow, None
            flow.returned(self._issued, self._ticket, started=self._started)


class FlowControl:
    """The rate and the breaker of one function in this worker.

    `share` gives this worker's share of the rate. `pacer` is None for a function without a rate.
    """

    def __init__(
        self,
        plan: FunctionPlan,
        *,
        pacer: CallPacer | None,
        share: RateShare,
        clock: Clock,
        observer: Observer,
    ) -> None:
        self._plan = plan
        self._pacer = pacer
        self._share = share
        self._clock = clock
        self._observer = observer
        self._line = TurnLine()
        self._changed = asyncio.Event()
        now = clock.monotonic()
        self._breaker = None if plan.breaker is None else Breaker(plan.breaker, now=now)
        self._balance = None if plan.rate is None else RateBalance(plan.rate)
        if self._breaker is not None:
            self._emit(BreakerTurn(BreakerState.CLOSED, ""), opened=False)

    # For callers.

    @property
    def name(self) -> str:
        """The function's name."""
        return self._plan.name

    @property
    def waiting(self) -> int:
        """How many wait for a permit."""
        return len(self._line)

    def awaited_by_others(self, mapping: MappingId) -> bool:
        """Whether another mapping than this one waits for a permit."""
        return self._line.has_others(mapping)

    @property
    def roomy(self) -> bool:
        """Whether a permit may be held for long without a call, because others need none or have enough."""
        if self.waiting:
            return False
        half_open = self._breaker is not None and not self._breaker.closed
        return not half_open and (self._balance is None or self._balance.roomy(self._share()))

    async def permit(self, mapping: MappingId, records: int) -> Permit:
        """Waits for leave to call the function with so many records at most. The caller holds no slot."""
        async with self._line.turn(mapping):
            while (permit := self._issue(records)) is None:
                await self._wait(records)
            return permit

    def permit_now(self, records: int) -> Permit | None:
        """A permit if nobody waits and it needs no wait, else None."""
        return None if self._line.taken else self._issue(records)

    # For the operator.

    def close_breaker(self, by: str, reason: str) -> bool:
        """Closes the breaker at once; returns whether it was not closed. It opens again when calls fail again."""
        said = f"closed by hand by {by}" + (f": {reason}" if reason else "")
        return self._close(line_of(said, chars_max=REASON_CHARS_MAX))

    def closed_elsewhere(self) -> None:
        """Closes the breaker, because it was closed by hand at another worker."""
        self._close(CLOSED_ELSEWHERE)

    def end(self) -> None:
        """The function is not open with these settings any more."""
        if self._breaker is not None:
            reason = "" if self._breaker.closed else ENDED
            event = BreakerChanged(
                function=self._plan.name, state=BreakerState.CLOSED, reason=reason, gone=True
            )
            self._observer.on(event)

    def waits_for(self) -> str:
        """What calls wait for now, for people, with the remedy: the breaker, or the rate; empty if it is neither."""
        return self.open_breaker() or (
            f"the rate of function {self.name}" if self._balance is not None else ""
        )

    def open_breaker(self) -> str:
        """The breaker for people, with the remedy, as long as it is not closed; else empty."""
        breaker = self._breaker_status()
        if breaker is None or breaker.state == BreakerState.CLOSED:
            return ""
        since = date_of(round(breaker.since)).strftime("%Y-%m-%dT%H:%M:%SZ")
        return f"the circuit breaker, open since {since}: poller breaker close {self.name}"

    def status(self) -> FunctionStatus:
        """The function's rate and breaker for people."""
        return FunctionStatus(
            function=self._plan.name, rate=self._rate_status(), breaker=self._breaker_status()
        )

    # For permits.

    def may_start(self, ticket: Ticket | None) -> bool:
        """Whether a call with this ticket may begin now."""
        return self._breaker is None or ticket is None or self._breaker.may_start(ticket)

    def started(self, issued: int, records: int) -> None:
        """A call has begun."""
        if self._balance is not None:
            self._balance.started(issued, records, self._share())
            self._changed.set()

    def answered(self, ticket: Ticket | None, verdict: Verdict) -> None:
        """A call has ended."""
        if self._breaker is not None and ticket is not None:
            self._turned(self._breaker.answered(ticket, verdict, self._clock.monotonic()))
            self._changed.set()

    def returned(self, issued: int, ticket: Ticket | None, *, started: bool) -> None:
        """A call did not take place, or was cut off."""
        if self._balance is not None and not started:
            self._balance.returned(issued, self._share())
            self._changed.set()
        if self._breaker is not None and ticket is not None:
            self._breaker.returned(ticket, self._clock.monotonic())
            self._changed.set()

    def _issue(self, records: int) -> Permit | None:
        """A permit if one may be issued now."""
        now = self._clock.monotonic()
        if self._breaker is not None and self._breaker.wait_s(now) != 0.0:
            return None
        if self._balance is not None:
            if not isinstance(self._balance.step(records, self._share()), Ready):
                return None
            self._balance.issue(records)
        ticket = None
        if self._breaker is not None:
            ticket, turn = self._breaker.admit(now)
            self._turned(turn)
        return Permit(self, records, ticket)

    async def _wait(self, records: int) -> None:
        """Waits until it is worth to look again whether a permit may be issued."""
        self._changed.clear()
        if self._breaker is not None:
            wait_s = self._breaker.wait_s(self._clock.monotonic())
            if wait_s != 0.0:
                await wait_until(self._changed, wait_s)
                return
        assert self._balance is not None, "a permit that needs no wait was not issued"
        match self._balance.step(records, self._share()):
            case Buy() as purchase:
                await self._buy(self._balance, purchase)
            case Withhold():
                await wait_until(self._changed, CHECK_S)
            case Ready():
                return
            case never:
                assert_never(never)

    async def _buy(self, balance: RateBalance, purchase: Buy) -> None:
        """Waits for a purchase. It gives up after a while, because the share may have changed, and so the time between purchases."""
        assert self._pacer is not None, "a rate without a pacer"
        try:
            async with asyncio.timeout(CHECK_S):
                await self._pacer.pace(purchase.limit, purchase.period_s)
        except TimeoutError:
            return
        balance.bought(purchase)

    def _close(self, reason: str) -> bool:
        if self._breaker is None:
            return False
        turn = self._breaker.close(reason, self._clock.monotonic())
        self._turned(turn)
        return turn is not None

    def _turned(self, turn: BreakerTurn | None) -> None:
        if turn is not None:
            self._changed.set()
            self._emit(turn, opened=turn.state is BreakerState.OPEN)

    def _emit(self, turn: BreakerTurn, *, opened: bool) -> None:
        assert self._breaker is not None, "a turn without a breaker"
        now = self._clock.monotonic()
        until = self._breaker.view(now).until if opened else None
        self._observer.on(
            BreakerChanged(
                function=self._plan.name,
                state=turn.state,
                reason=turn.reason,
                next_try_s=None if until is None else max(0.0, until - now),
            )
        )

    def _rate_status(self) -> RateStatus | None:
        rate = self._plan.rate
        if rate is None:
            return None
        return RateStatus(
            invocations_per_s=rate.invocations_per_s,
            records_per_s=rate.records_per_s,
            share=self._share(),
            waiting=self.waiting,
        )

    def _breaker_status(self) -> BreakerStatus | None:
        if self._breaker is None:
            return None
        now, epoch = self._clock.monotonic(), self._clock.now()
        view = self._breaker.view(now)
        return BreakerStatus(
            state=view.state,
            since=Epoch(epoch - (now - view.since)),
            reason=view.reason,
            next_try=None if view.until is None else Epoch(epoch + (view.until - now)),
            calls=view.calls,
            failed=view.failed,
        )
