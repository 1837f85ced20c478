"""Owns the run of one asynchronous call that this worker has claimed: it is tried, delivered, and written back to the store.

Whatever happens, the call stays in the store until it is over and all its destinations have it. A worker that lost the call to
another one notices it at its next write, and leaves it alone.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import Protocol

from poller.call_queue_ports import CallQueue
from poller.domain.errors import PortError, ResourceMissing, RowChanged
from poller.domain.functions.call_notices import CallNotice
from poller.domain.functions.calls import NoRoom
from poller.domain.functions.queued_calls import AsyncPolicy, QueuedCall
from poller.domain.invocations import EncodedEvent, Invocation, Outcome, Unreachable
from poller.domain.plan import FunctionPlan
from poller.domain.policies import Backoff
from poller.domain.telemetry.daemon_events import CallDeliveryFailed, QueuedCallEnded
from poller.domain.telemetry.observers import Observer
from poller.ports import Clock
from poller.rules import backoff
from poller.rules.functions.call_documents import notice
from poller.rules.functions.lineage import extended
from poller.rules.functions.naming import NamedFunction
from poller.rules.functions.queued_calls import after, before, deferred, undelivered
from poller.runtime.functions.held_functions import HeldFunctions
from poller.runtime.functions.taken_slots import called, taken_slot
from poller.runtime.mappings.supervisor import PartFailed
from poller.runtime.stopping import Stop, interrupted_by
from poller.runtime.watched_tasks import TaskFault, reason_of

ROOT_BITS = 96
DELIVERY_S = 5.0
"""How long after a stop a delivery may take. Then the call is stored as one that is over, and delivered by another worker."""
WRITE_S = 3.0
"""How much of the grace time is kept for that write."""
STOPPED = "the worker was stopped before the destination had it"


class CallDeliveries(Protocol):
    """The destinations of asynchronous calls."""

    async def send(
        self,
        destination: str,
        notice: CallNotice,
        *,
        dead_letter: bool,
        identity: str | None,
        begun: Callable[[], None],
    ) -> None:
        """Returns when the destination, called as `identity`, has stored the notice. With `dead_letter` it gets the payload alone.

        `begun` is called when it is its turn. Raises PortError.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class CallRunContext:
    """The parts of the daemon that calls of the queue need."""

    store: CallQueue
    held: HeldFunctions
    plans: Callable[[], Mapping[str, FunctionPlan]]
    policy: Callable[[FunctionPlan | None, str], AsyncPolicy]
    """How asynchronous calls of an ARN are tried."""
    ready: Callable[[str], bool]
    """Whether that is known of a function."""
    deliveries: CallDeliveries
    clock: Clock
    rng: Random
    observer: Observer
    port_backoff: Backoff
    waits_s: Callable[[], Sequence[float]]
    """The waits after failed attempts."""


class QueuedCallRun:
    """The run of one claimed call. `stop` ends its wait for room, its waits for the store and, soon after it, its delivery.

    `delivers` is called when the function is done with the call, and only its destinations are waited for.
    """

    def __init__(
        self, context: CallRunContext, call: QueuedCall, stop: Stop, *, delivers: Callable[[], None]
    ) -> None:
        self._context = context
        self._call = call
        plan = context.plans().get(call.function)
        self._known = plan is not None and context.ready(plan.name)
        self._policy = context.policy(plan, call.arn)
        self._stop = stop
        self._delivers = delivers

    async def run(self) -> None:
        """Tries the call once, and delivers it if it is over. Returns when the store has what came of it, or the call was lost."""
        if not self._known:
            # Its function was removed from the configuration just now. It must not end by the configuration of none.
            await self._written(replace(self._call, owner=None))
            return
        call = self._before(self._call)
        if call.ended is None:
            call = await self._tried(call)
        if call.ended is None:
            await self._written(call)
            return
        left = await self._delivered(call)
        if left:
            now, errors = self._context.clock.now(), list(left.values())
            await self._written(undelivered(call, list(left), now, self._context.rng, error=errors[-1]))
        elif await self._removed(call):
            self._emit_ended(call)

    def _before(self, call: QueuedCall) -> QueuedCall:
        return before(call, self._policy, self._context.clock.now())

    async def _tried(self, call: QueuedCall) -> QueuedCall:
        """The call after an attempt. It has no owner and is due as before if a stop came first."""
        context = self._context
        plan = context.plans().get(call.function)
        if plan is None:
            return replace(call, owner=None)
        try:
            async with (
                context.held.opened(NamedFunction(plan, call.arn)) as function,
                taken_slot(function, self._stop) as slot,
            ):
                if slot is None:
                    return replace(call, owner=None)
                # The wait for a slot may have been long.
                call = self._before(call)
                if call.ended is not None:
                    return call
                invocation = self._invocation(call, function.limit_s(call.arn))
                outcome, _ = await called(
                    function, slot, invocation, clock=context.clock, observer=context.observer
                )
        except (PartFailed, TaskFault) as error:
            reason = error.reason if isinstance(error, PartFailed) else reason_of(error)
            outcome = Unreachable(f"the function cannot be opened: {reason}")
        except NoRoom as error:
            return self._deferred(call, error.text)
        return self._after(call, outcome)

    def _after(self, call: QueuedCall, outcome: Outcome) -> QueuedCall:
        context = self._context
        return after(call, outcome, self._policy, context.clock.now(), context.rng, context.waits_s())

    def _deferred(self, call: QueuedCall, reason: str) -> QueuedCall:
        return deferred(call, reason, self._policy, self._context.clock.now(), self._context.rng)

    def _invocation(self, call: QueuedCall, limit_s: float) -> Invocation:
        root = f"1-{int(call.accepted):08x}-{self._context.rng.getrandbits(ROOT_BITS):024x}"
        return Invocation(
            function_arn=call.arn,
            request_id=call.call,
            event=EncodedEvent(call.payload),
            timeout_s=limit_s,
            client_context=call.client_context,
            trace_header=extended(call.trace_header, call.arn, root=root),
        )

    async def _delivered(self, call: QueuedCall) -> dict[str, str]:
        """Sends the call to its destinations. Returns those that do not have it, each with the reason."""
        over = call.ended
        assert over is not None, "a call that is not over has nothing to deliver"
        left = dict.fromkeys(over.undelivered, STOPPED)
        if not left:
            return {}
        told = notice(call)
        # A stop must leave time to write that the call is over, so that it is not made again.
        async with interrupted_by(self._stop, needs_s=WRITE_S, after_s=DELIVERY_S):
            for destination in over.undelivered:
                failure = await self._sent(told, destination, dead_letter=destination == over.dead_letter)
                if failure is None:
                    del left[destination]
                else:
                    left[destination] = failure.reason
                    self._emit_failed(call, destination, failure)
        return left

    async def _sent(self, told: CallNotice, destination: str, *, dead_letter: bool) -> PortError | None:
        try:
            await self._context.deliveries.send(
                destination,
                told,
                dead_letter=dead_letter,
                identity=self._policy.identity,
                begun=self._delivers,
            )
        except PortError as error:
            return error
        return None

    def _emit_failed(self, call: QueuedCall, destination: str, failure: PortError) -> None:
        self._context.observer.on(
            CallDeliveryFailed(
                function=call.function,
                request_id=call.call,
                destination=destination,
                error=type(failure).__name__,
                reason=failure.reason,
            )
        )

    async def _written(self, call: QueuedCall) -> None:
        async def write() -> None:
            await self._context.store.replace(call)

        await self._until_stored(write)

    async def _removed(self, call: QueuedCall) -> bool:
        """Whether this worker has removed the call; False if another worker has it."""

        async def remove() -> None:
            await self._context.store.remove(call)

        return await self._until_stored(remove)

    async def _until_stored(self, write: Callable[[], Awaitable[None]]) -> bool:
        """Repeats a write until the store has carried it out. Returns False if the call was lost, or a stop ended the repeats."""
        tries = 0
        while True:
            try:
                await write()
            except (RowChanged, ResourceMissing):
                return False
            except PortError:
                wait_s = backoff.wait_s(self._context.port_backoff, tries, self._context.rng)
                tries += 1
                if await self._stop.sleep(wait_s) and not self._stop.allows(wait_s):
                    return False
            else:
                return True

    def _emit_ended(self, call: QueuedCall) -> None:
        over = call.ended
        assert over is not None, "a call that is not over has not ended"
        self._context.observer.on(
            QueuedCallEnded(
                function=call.function,
                request_id=call.call,
                end=over.end,
                attempts=call.attempts,
                age_s=max(0.0, over.at - call.accepted),
                error=over.answer.error,
            )
        )
