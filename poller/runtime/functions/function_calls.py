"""Owns the calls of functions through the Invoke API: each takes a slot and a permit like a mapping's batch, or is refused."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from random import Random

from poller.domain.errors import PortError
from poller.domain.functions.alias_control import AliasControl
from poller.domain.functions.calls import (
    FunctionAnswer,
    FunctionCall,
    FunctionView,
    NoRoom,
    ThrottleReason,
)
from poller.domain.functions.queued_calls import CallId, QueuedCall
from poller.domain.functions.waiting_calls import CallPage, CallsRequest
from poller.domain.invocations import EncodedEvent, Invocation
from poller.domain.mapping_api import ApiError, ApiErrorType
from poller.domain.plan import TIMEOUT_S, FunctionPlan
from poller.domain.telemetry.observers import Observer
from poller.output.function_log import FunctionLog
from poller.ports import Clock
from poller.rules.functions.lineage import usable
from poller.rules.functions.naming import (
    NamedFunction,
    UnknownFunction,
    WrongName,
    mapped_arns,
    named_function,
    unqualified_arn,
)
from poller.runtime.context import uuid_text
from poller.runtime.functions.call_queues import CallQueues
from poller.runtime.functions.held_functions import HeldFunctions
from poller.runtime.functions.invoke_configs import InvokeConfigs
from poller.runtime.functions.taken_slots import TakenSlot, called, slot_taken
from poller.runtime.invoking import Function
from poller.runtime.mappings.supervisor import PartFailed
from poller.runtime.stopping import Reason, Stop
from poller.runtime.watched_tasks import TaskFault, reason_of

ROOM_S_MAX = 2.0
"""How long a call waits in line for a slot and for the rate before it is refused, so that it gets its turn among mappings."""
NO_QUEUE = "The store of this daemon keeps no asynchronous calls."
NOT_NOW = "The daemon is starting or stopping; try again later."


@dataclass(frozen=True, slots=True, kw_only=True)
class CallContext:
    """The parts of the open daemon that calls need. `plans` are the configured functions, `arns` those by which mappings call functions."""

    held: HeldFunctions
    plans: Callable[[], Mapping[str, FunctionPlan]]
    arns: Callable[[], Iterable[str]]
    log: FunctionLog
    clock: Clock
    rng: Random
    observer: Observer
    queues: CallQueues | None = None
    configs: InvokeConfigs | None = None
    aliases: AliasControl | None = None
    made: Callable[[str], Collection[str]] = lambda _: ()
    """The aliases of a function that were made through the API. Raises ApiError as long as they are not known."""
    page: Callable[[str, CallsRequest], Awaitable[CallPage]] | None = None
    """Shows asynchronous calls; None if the store keeps none."""


class FunctionCalls:
    """FunctionCaller of one daemon."""

    def __init__(self) -> None:
        self._context: CallContext | None = None
        self._stop = Stop()

    def open(self, context: CallContext) -> None:
        """Begins to answer requests."""
        self._context = context
        self._stop = Stop()

    def close(self) -> None:
        """Begins no call any more, because the daemon drains. Those that run go on."""
        self._context = None
        self._stop.request(Reason.REQUESTED)

    def functions(self) -> Sequence[FunctionView]:
        """All configured functions, by name. Raises ApiError while the daemon starts or stops."""
        context = self._opened()
        plans, mapped = context.plans(), mapped_arns(context.arns())
        return [
            _view(plans[name], unqualified_arn(name, plans[name], mapped), context) for name in sorted(plans)
        ]

    def function(self, name: str, qualifier: str = "") -> FunctionView:
        """The function that is called by this name or ARN. Raises ApiError if there is none."""
        context = self._opened()
        named = _named(context, name, qualifier)
        return _view(
            named.plan, unqualified_arn(named.plan.name, named.plan, mapped_arns(context.arns())), context
        )

    def named(self, name: str, qualifier: str) -> NamedFunction:
        """The function that is called by this name or ARN, and its ARN with the qualifier. Raises ApiError."""
        return _named(self._opened(), name, qualifier)

    @property
    def configs(self) -> InvokeConfigs:
        """How asynchronous calls are tried. Raises ApiError while the daemon starts or stops."""
        context = self._opened()
        if context.configs is None:
            raise ApiError(ApiErrorType.SERVICE, NO_QUEUE)
        return context.configs

    @property
    def aliases(self) -> AliasControl:
        """Versions and aliases. Raises ApiError while the daemon starts or stops."""
        context = self._opened()
        if context.aliases is None:
            raise ApiError(ApiErrorType.SERVICE, NOT_NOW)
        return context.aliases

    async def enqueue(self, call: FunctionCall, *, trace_header: str = "") -> str:
        """Stores an asynchronous call, and returns its request id. Raises ApiError, and NoRoom if too many calls wait."""
        context = self._opened()
        named = _named(context, call.function, call.qualifier)
        if context.queues is None:
            raise ApiError(ApiErrorType.SERVICE, NO_QUEUE)
        now = context.clock.now()
        queued = QueuedCall(
            call=CallId(uuid_text(context.rng.getrandbits(128))),
            function=named.plan.name,
            arn=named.arn,
            payload=call.payload,
            accepted=now,
            due=now,
            client_context=call.client_context,
            trace_header=usable(trace_header),
        )
        try:
            await context.queues.put(queued)
        except PortError as error:
            raise ApiError(
                ApiErrorType.SERVICE, f"the store did not take the call: {error.reason}"
            ) from error
        return queued.call

    async def queued_calls(self, function: str, request: CallsRequest) -> CallPage:
        """A page of asynchronous calls that are not over. Raises ApiError."""
        context = self._opened()
        if context.page is None:
            raise ApiError(ApiErrorType.SERVICE, NO_QUEUE)
        return await context.page(function, request)

    async def call(self, call: FunctionCall, *, trace_header: str = "") -> FunctionAnswer:
        """Calls a function and waits for its answer. Raises ApiError if there is no such function, and NoRoom if it was not called."""
        context = self._opened()
        named = _named(context, call.function, call.qualifier)
        try:
            async with context.held.opened(named) as function, self._room(function) as slot:
                return await _called(context, named, function, call, slot, trace_header=trace_header)
        except (PartFailed, TaskFault) as error:
            reason = error.reason if isinstance(error, PartFailed) else reason_of(error)
            text = f"The function {named.plan.name} cannot be opened: {reason}"
            raise ApiError(ApiErrorType.NOT_READY, text) from error

    def _opened(self) -> CallContext:
        if self._context is None:
            raise ApiError(ApiErrorType.SERVICE, NOT_NOW)
        return self._context

    @asynccontextmanager
    async def _room(self, function: Function) -> AsyncIterator[TakenSlot]:
        """Has a slot and a permit inside the block. Raises NoRoom, and ApiError after a stop."""
        async with AsyncExitStack() as stack:
            try:
                async with asyncio.timeout(ROOM_S_MAX):
                    slot = await slot_taken(function, self._stop, stack)
            except TimeoutError:
                raise _no_room(function) from None
            if slot is None:
                raise ApiError(ApiErrorType.SERVICE, NOT_NOW)
            yield slot


async def _called(
    context: CallContext,
    named: NamedFunction,
    function: Function,
    call: FunctionCall,
    slot: TakenSlot,
    *,
    trace_header: str,
) -> FunctionAnswer:
    """Calls a function in a slot that the caller holds."""
    request_id = uuid_text(context.rng.getrandbits(128))
    invocation = Invocation(
        function_arn=named.arn,
        request_id=request_id,
        event=EncodedEvent(call.payload),
        timeout_s=function.limit_s(named.arn),
        client_context=call.client_context,
        log_tail=call.log_tail,
        trace_header=usable(trace_header),
        whole_error=True,
    )
    with context.log.tail(request_id if call.log_tail else None) as tail:
        outcome, duration_s = await called(
            function, slot, invocation, clock=context.clock, observer=context.observer
        )
    return FunctionAnswer(request_id=request_id, outcome=outcome, duration_s=duration_s, log_tail=tail.text())


def _named(context: CallContext, name: str, qualifier: str) -> NamedFunction:
    """The function that is called by this name; raises ApiError."""
    try:
        return named_function(
            name, qualifier, context.plans(), mapped_arns(context.arns()), made=context.made
        )
    except UnknownFunction as error:
        raise ApiError(ApiErrorType.MISSING, str(error)) from None
    except WrongName as error:
        raise ApiError(ApiErrorType.PARAMETER, str(error)) from None


def _no_room(function: Function) -> NoRoom:
    name, slots, flow = function.plan.name, function.slots, function.flow
    if flow is not None and (slots.free is None or slots.free > 0):
        return NoRoom(ThrottleReason.RATE, f"The function {name} waits for {flow.waits_for()}")
    return NoRoom(
        ThrottleReason.CONCURRENCY,
        f"All {slots.limit} calls at once of the function {name} are in use (functions.{name}: max_concurrency, workers or processes)",
    )


def _view(plan: FunctionPlan, arn: str, context: CallContext) -> FunctionView:
    settings = plan.settings
    handler, memory_mb = settings.get("handler"), settings.get("memory_mb")
    return FunctionView(
        name=plan.name,
        arn=arn,
        invoker=plan.invoker,
        timeout_s=TIMEOUT_S if plan.timeout_s is None else plan.timeout_s,
        role=plan.role,
        handler=handler if isinstance(handler, str) else "",
        memory_mb=memory_mb if isinstance(memory_mb, int) else None,
        max_concurrency=plan.max_concurrency,
        trouble=context.held.trouble(arn),
    )
