"""Owns how functions are invoked: `Function` guards an invoker, and `BatchInvoker` takes a batch to the function and back."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from typing import get_args

import msgspec

from poller.domain.errors import PortError
from poller.domain.function_facts import FunctionFacts
from poller.domain.invocations import (
    Event,
    FunctionError,
    Invocation,
    Outcome,
    TimedOut,
    Unreachable,
)
from poller.domain.plan import TIMEOUT_S, FunctionPlan, MappingPlan
from poller.domain.records import Epoch, MappingId, ShardId
from poller.domain.telemetry.daemon_events import CallLeftBehind, Capacity
from poller.domain.telemetry.mapping_events import InvocationFinished, InvocationStarted
from poller.domain.telemetry.observers import Observer
from poller.ports import Clock, FunctionLookup, FunctionStarter, Invoker, LeavesCalls
from poller.rules import responses
from poller.rules.responses import ResponseReading, Verdict, cut
from poller.runtime.flow_control.flow_control import FlowControl, Permit
from poller.runtime.flow_control.permitted_slots import permitted_slot
from poller.runtime.foreign_calls import CANCELLED_S_MAX, BrokenOff, isolated
from poller.runtime.function_watch import FunctionWatch
from poller.runtime.slots import Slots
from poller.runtime.stopping import Stop, interrupted_by
from poller.runtime.watched_tasks import reason_of

OUTCOMES = frozenset(get_args(Outcome.__value__))

GUARD_S = 5.0
"""How much longer than a function's time limit an invoker may take before the engine gives up the call."""
SERVICE_START_S = 10.0
"""What a function that a service runs may take to start, beside its limit: Lambda gives initialisation ten seconds of its own."""
MARGIN_S = 30.0
"""The same for a function that a service ends: for its cold start, and for the way there and back.

Lambda gives initialisation ten seconds of its own, and more to container images.
"""


class Function:
    """One function of this daemon: its plan, its invoker, its slots, and its present time limit."""

    def __init__(
        self, plan: FunctionPlan, invoker: Invoker, observer: Observer, *, flow: FlowControl | None = None
    ) -> None:
        self.plan = plan
        self.flow = flow
        """Its rate and its breaker; None if it has neither."""
        self.slots = Slots(plan.max_concurrency, self._emit_capacity)
        self._invoker = invoker
        self._observer = observer
        self._call_name = f"call of {plan.name}"
        self._late_calls: dict[asyncio.Timeout, tuple[str, float]] = {}
        """Calls that have passed the last known limit: by the timeout of each, its ARN and when it began."""
        self._start_s_max = invoker.start_s_max if isinstance(invoker, FunctionStarter) else 0.0
        self._listeners: list[Callable[[], None]] = []
        self.calls: Counter[MappingId] = Counter()
        """The number of running calls that are awaited, by mapping."""
        self._left_behind: set[asyncio.Task[None]] = set()
        """Calls that did not end when they were cancelled. Each keeps its slot until it ends."""
        self._leaves_calls = invoker if isinstance(invoker, LeavesCalls) else None
        self._left_before = 0
        self._watch = (
            FunctionWatch(plan, invoker, observer, self._changed)
            if isinstance(invoker, FunctionLookup)
            else None
        )

    def limit_s(self, function_arn: str) -> float:
        """How long a call by this ARN may take now. No other code computes this."""
        if self._watch is not None:
            return self._watch.limit_s(function_arn)
        return TIMEOUT_S if self.plan.timeout_s is None else self.plan.timeout_s

    def longest_s(self, function_arn: str) -> float:
        """How long a call that begins now normally takes at most, including the start of the function."""
        start_s = self._start_s_max if self._watch is None else SERVICE_START_S
        return self.limit_s(function_arn) + start_s

    def known_limit_s(self, function_arn: str) -> float | None:
        """The limit for AWS's comparison with a visibility timeout: the function's own, else the configured one; None if not known."""
        if self._watch is None:
            return self.limit_s(function_arn)
        facts = self._watch.facts(function_arn)
        return self.plan.timeout_s if facts is None else facts.timeout_s

    def facts(self, function_arn: str) -> FunctionFacts | None:
        """The settings that the function's service gave last; None if there is no service, or it has not given any."""
        return None if self._watch is None else self._watch.facts(function_arn)

    def notes(self) -> list[str]:
        """Notes for people about the function, one line each."""
        notes = [] if self._watch is None else list(self._watch.notes())
        if count := self._calls_left:
            notes.append(f"function {self.plan.name}: calls that go on although they were cancelled: {count}")
        return notes

    @asynccontextmanager
    async def used_by(self, function_arn: str) -> AsyncIterator[None]:
        """Registers a mapping that calls this ARN. The function's settings are looked up on entry, and updated inside the block."""
        if self._watch is None:
            yield
            return
        async with self._watch.used_by(function_arn):
            yield

    @contextmanager
    def listening(self, changed: Callable[[], None]) -> Iterator[None]:
        """Calls `changed` whenever the limit, role or state of the function changes."""
        self._listeners.append(changed)
        try:
            yield
        finally:
            self._listeners.remove(changed)

    async def follow(self) -> None:
        """Keeps the function's settings up to date until it is cancelled."""
        if self._watch is None:
            await asyncio.Event().wait()
        else:
            await self._watch.follow()

    async def call(self, invocation: Invocation, *, mapping: MappingId) -> Outcome:
        """Invokes the function in a slot that the caller holds. It returns an outcome whatever the invoker does.

        An invoker that never answers counts as timed out. If it raises an error that a port may raise, the function is
        unreachable. Any other error, a cancellation from inside, and a result that is not an outcome count as a function error.
        """
        assert self.slots.in_flight > 0, "a call without a slot"
        calls = self.calls
        calls[mapping] = calls.get(mapping, 0) + 1
        try:
            outcome = await self._call(invocation)
            if self._leaves_calls is not None and isinstance(outcome, TimedOut):
                # The call may end in the next moment.
                asyncio.get_running_loop().call_later(CANCELLED_S_MAX, self._look_for_left)
            return outcome
        finally:
            if left := calls[mapping] - 1:
                calls[mapping] = left
            else:
                calls.pop(mapping)

    async def _call(self, invocation: Invocation) -> Outcome:
        if self._watch is not None:
            return await self._call_open_ended(_open_ended(invocation), self._watch)
        try:
            async with asyncio.timeout(invocation.timeout_s + self._start_s_max + GUARD_S):
                return await self._invoke(invocation)
        except TimeoutError:
            return TimedOut(invocation.timeout_s)

    async def _call_open_ended(self, invocation: Invocation, watch: FunctionWatch) -> Outcome:
        """Waits until the function has certainly ended, by the limit that is known when that moment comes."""
        loop, arn = asyncio.get_running_loop(), invocation.function_arn
        began = loop.time()
        try:
            # A call that ends in time needs only this timer. `_late` sets another one for a call that takes longer.
            async with asyncio.timeout(None) as deadline:
                late = loop.call_at(began + invocation.timeout_s, self._late, deadline, watch, arn, began)
                try:
                    outcome = await self._invoke(invocation)
                finally:
                    late.cancel()
                    self._late_calls.pop(deadline, None)
        except TimeoutError:
            outcome = TimedOut(invocation.timeout_s)
        if isinstance(outcome, Unreachable):
            # The function may have been deleted, or created again with other settings.
            watch.ask(arn)
        facts = watch.facts(arn)
        if isinstance(outcome, TimedOut) and facts is not None:
            return replace(outcome, timeout_s=facts.timeout_s)
        return outcome

    def _late(self, deadline: asyncio.Timeout, watch: FunctionWatch, arn: str, began: float) -> None:
        """A call has taken as long as the limit that was known at its begin. The limit is looked up before the call is given up."""
        now = asyncio.get_running_loop().time()
        self._late_calls[deadline] = arn, began
        deadline.reschedule(max(now, began + watch.limit_s(arn)) + MARGIN_S)
        watch.ask(arn)

    async def _invoke(self, invocation: Invocation) -> Outcome:
        """The invoker's outcome, or the outcome for its error. Raises TimeoutError if the invoker does."""
        try:
            outcome = await isolated(
                self._invoker.invoke,
                invocation,
                name=self._call_name,
                left_behind=self._leave_behind,
            )
        except TimeoutError:
            raise
        except PortError as error:
            return Unreachable(error.reason)
        except BrokenOff as error:
            return FunctionError("Invoker.BrokenOff", cut(str(error)))
        except Exception as error:  # noqa: BLE001 - foreign code: a plug-in may raise anything
            return FunctionError(f"Invoker.{type(error).__name__}", reason_of(error))
        if type(outcome) not in OUTCOMES:
            return FunctionError("Invoker.NoOutcome", f"the invoker returned a {type(outcome).__name__}")
        return outcome

    def _leave_behind(self, task: asyncio.Task[None]) -> None:
        """Keeps the slot of a call that goes on in the background."""
        self.slots.keep()
        self._left_behind.add(task)
        task.add_done_callback(self._ended_late)
        self._observer.on(CallLeftBehind(function=self.plan.name, calls=self._calls_left))

    @property
    def _calls_left(self) -> int:
        return len(self._left_behind) + (0 if self._leaves_calls is None else self._leaves_calls.calls_left)

    def _look_for_left(self) -> None:
        """Reports calls that the invoker has left behind since it was asked last."""
        assert self._leaves_calls is not None
        before, self._left_before = self._left_before, self._leaves_calls.calls_left
        for _ in range(self._left_before - before):
            self._observer.on(CallLeftBehind(function=self.plan.name, calls=self._calls_left))

    def _ended_late(self, task: asyncio.Task[None]) -> None:
        self._left_behind.discard(task)
        self.slots.release()

    def _changed(self) -> None:
        """Extends the time of late calls if the limit was raised. A lower limit applies to later calls only."""
        for deadline, (arn, began) in self._late_calls.items():
            until = began + self.limit_s(arn) + MARGIN_S
            if (when := deadline.when()) is not None and when < until and not deadline.expired():
                deadline.reschedule(until)
        for changed in tuple(self._listeners):
            changed()

    def _emit_capacity(self) -> None:
        self._observer.on(
            Capacity(function=self.plan.name, in_flight=self.slots.in_flight, limit=self.slots.limit)
        )


def _open_ended(call: Invocation) -> Invocation:
    """The same call without a time limit in the invoker."""
    return replace(call, open_ended=True)


class InvocationBatch(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The input of one invocation.

    `identifiers` are the sequence numbers or message ids of its records, in order. `attempt` counts from 1. `newest` is when
    the last record of a stream's batch arrived.
    """

    event: Event
    identifiers: Sequence[str]
    request_id: str
    attempt: int
    newest: Epoch | None = None


class BatchInvoker:
    """Invokes a mapping's function with batches, for a queue or for one shard of a stream.

    Each invocation has the same steps: size limit, slot, call, verdict. It emits `InvocationStarted` before the call, and
    `InvocationFinished` after the verdict. A batch whose event is too large fails without slot and call.
    """

    def __init__(
        self,
        function: Function,
        plan: MappingPlan,
        reading: ResponseReading,
        *,
        clock: Clock,
        observer: Observer,
        shard: ShardId | None = None,
    ) -> None:
        self._function = function
        self._plan = plan
        self._reading = reading
        self._clock = clock
        self._observer = observer
        self._shard = shard
        self.held = False  # While `invoke_in_slot` runs: whether it waits for the function's rate or breaker, or for a slot behind it.

    async def invoke(
        self,
        batch: InvocationBatch,
        *,
        permit: Permit | None = None,
        widened: Callable[[Verdict], Verdict] | None = None,
    ) -> Verdict:
        """Invokes in a slot that the caller holds. `widened` may change the verdict before it is reported.

        `permit` has been started; None if the function needs none.
        """
        verdict, duration_s = self._too_large(batch), 0.0
        if verdict is None:
            outcome, duration_s = await self._call(batch)
            verdict = responses.parse(outcome, batch.identifiers, self._reading)
        if permit is not None:
            permit.answered(verdict)
        verdict = verdict if widened is None else widened(verdict)
        self._emit_finished(batch, verdict, duration_s)
        return verdict

    async def invoke_in_slot(self, batch: InvocationBatch, stop: Stop) -> Verdict | None:
        """Waits for a slot and invokes in it. Returns None without a call if a stop came first."""
        verdict, duration_s = self._too_large(batch), 0.0
        if verdict is None:
            if self._function.flow is not None:
                return await self._invoke_permitted(self._function.flow, batch, stop)
            if not await self._slot_taken(stop):
                return None
            try:
                outcome, duration_s = await self._call(batch)
            finally:
                self._function.slots.release()
            verdict = responses.parse(outcome, batch.identifiers, self._reading)
        self._emit_finished(batch, verdict, duration_s)
        return verdict

    async def _invoke_permitted(
        self, flow: FlowControl, batch: InvocationBatch, stop: Stop
    ) -> Verdict | None:
        """As `invoke_in_slot`, for a function with a rate or a breaker."""
        slots, records, self.held = self._function.slots, len(batch.identifiers), True
        async with permitted_slot(flow, slots, self._plan.mapping, records=records, stop=stop) as permit:
            self.held = False
            return None if permit is None else await self.invoke(batch, permit=permit)

    def _too_large(self, batch: InvocationBatch) -> Verdict | None:
        size_max = self._plan.batch.payload_bytes_max
        return None if batch.event.fits(size_max) else responses.oversized(batch.event.size, size_max)

    async def _slot_taken(self, stop: Stop) -> bool:
        """Waits for a slot. Returns False if a stop came first, or the lease was lost meanwhile."""
        slots = self._function.slots
        if not stop.lost and await slots.acquire_now():
            return True
        async with interrupted_by(stop):
            await slots.acquire()
            if not stop.lost:
                return True
            slots.release()
        return False

    async def _call(self, batch: InvocationBatch) -> tuple[Outcome, float]:
        """The outcome, and how many seconds it took."""
        plan = self._plan
        self._observer.on(
            InvocationStarted(
                mapping=plan.mapping,
                function=plan.function,
                records=len(batch.identifiers),
                request_id=batch.request_id,
                attempt=batch.attempt,
            )
        )
        started = self._clock.monotonic()
        outcome = await self._function.call(
            Invocation(
                function_arn=plan.function_arn,
                request_id=batch.request_id,
                event=batch.event,
                timeout_s=self._function.limit_s(plan.function_arn),
                choice=batch.identifiers[0] if batch.identifiers else "",
            ),
            mapping=plan.mapping,
        )
        return outcome, self._clock.monotonic() - started

    def _emit_finished(self, batch: InvocationBatch, verdict: Verdict, duration_s: float) -> None:
        ended, failed, error = responses.described(verdict, len(batch.identifiers))
        age_ms = None if batch.newest is None else max(0.0, (self._clock.now() - batch.newest) * 1000.0)
        self._observer.on(
            InvocationFinished(
                mapping=self._plan.mapping,
                function=self._plan.function,
                shard=self._shard,
                records=len(batch.identifiers),
                failed=failed,
                ended=ended,
                duration_s=duration_s,
                request_id=batch.request_id,
                iterator_age_ms=age_ms,
                error=error,
                **responses.cause_of(verdict),
            )
        )
