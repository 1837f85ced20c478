"""Owns one call of an open function outside of mappings: its slot and permit, the call, and what is told of it."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from poller.domain.functions.calls import INVOKED
from poller.domain.invocations import Invocation, Outcome
from poller.domain.telemetry.daemon_events import FunctionCalled
from poller.domain.telemetry.observers import Observer
from poller.ports import Clock
from poller.rules import responses
from poller.rules.responses import ResponseReading
from poller.runtime.flow_control.flow_control import Permit
from poller.runtime.flow_control.permitted_slots import permitted_slot
from poller.runtime.invoking import Function
from poller.runtime.stopping import Stop, interrupted_by

_ANY_ANSWER = ResponseReading()


@dataclass(frozen=True, slots=True)
class TakenSlot:
    """A slot of a function, and the permit for a call; None if the function needs no permit."""

    permit: Permit | None


async def slot_taken(function: Function, stop: Stop, stack: AsyncExitStack) -> TakenSlot | None:
    """Waits for a slot and a permit, which `stack` gives back. Returns None if a stop came first."""
    if function.flow is not None:
        entering = permitted_slot(function.flow, function.slots, INVOKED, records=1, stop=stop, borrows=True)
        permit = await stack.enter_async_context(entering)
        return None if permit is None else TakenSlot(permit)
    async with interrupted_by(stop):
        await function.slots.acquire(borrows=True)
        stack.callback(function.slots.release)
        return TakenSlot(None)
    return None


@asynccontextmanager
async def taken_slot(function: Function, stop: Stop) -> AsyncIterator[TakenSlot | None]:
    """Has a slot and a permit inside the block; None if a stop came first."""
    async with AsyncExitStack() as stack:
        yield await slot_taken(function, stop, stack)


async def called(
    function: Function, slot: TakenSlot, invocation: Invocation, *, clock: Clock, observer: Observer
) -> tuple[Outcome, float]:
    """Calls a function in a slot. Returns the outcome, and how many seconds it took."""
    began = clock.monotonic()
    outcome = await function.call(invocation, mapping=INVOKED)
    duration_s = clock.monotonic() - began
    verdict = responses.parse(outcome, (), _ANY_ANSWER)
    if slot.permit is not None:
        slot.permit.answered(verdict)
    ended, _, error = responses.described(verdict, 0)
    observer.on(
        FunctionCalled(
            function=function.plan.name,
            request_id=invocation.request_id,
            ended=ended,
            duration_s=duration_s,
            error=error,
        )
    )
    return outcome, duration_s
