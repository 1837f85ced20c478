"""Owns OperationControl: it decides about requests for operations, stores them, and wakes the follower of this worker."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from random import Random
from typing import Any

from poller.domain.errors import PortError, ServiceThrottled
from poller.domain.mapping_api import ApiError, ApiErrorType
from poller.domain.operations import Action, Operation, OperationId, OperationState, function_of
from poller.domain.plan import MappingPlan, SourceKind
from poller.domain.records import SHARD_END, MappingId
from poller.ports import Clock, LeaseStore
from poller.rules.operations import lifecycle
from poller.rules.operations.accepting import MappingFacts, accept, check_size, repeated
from poller.rules.operations.on_calls import accept_on_calls, read_on_calls
from poller.rules.operations.reading import AskedOperation, OperationRefused, read_request
from poller.runtime.context import uuid_text
from poller.runtime.operations.carrying import CARRIED_OUT
from poller.runtime.operations.open_operations import CALL_S_MAX, OpenOperations
from poller.runtime.operations.operable_mappings import KnownMapping, OperableMappings, Peers
from poller.runtime.replays.accepting import accepted
from poller.runtime.replays.replay_host import ReplayHost

ID_BITS = 128
UNKNOWN_MAPPING = "no mapping has this id; /v1/mappings lists those that there are"
NO_FUNCTION = "no function has this name, and no asynchronous call waits for one of this name"
UNKNOWN_OPERATION = (
    "no operation has this id; /v1/operations lists those that there are, finished ones for 30 days at most"
)
NOT_OPEN = "the daemon is starting or stopping; try again later"
DELETING = "the mapping is being deleted"
DISABLED = "the mapping is disabled, so that nothing of it runs; enable it, then ask again"


@dataclass(frozen=True, slots=True, kw_only=True)
class OperationContext:
    """What the service needs of the open daemon. `refresh` reads the mappings made through the API; it raises PortError."""

    operations: OpenOperations
    running: OperableMappings
    peers: Peers
    store: LeaseStore
    clock: Clock
    rng: Random
    refresh: Callable[[], Any]
    replays: ReplayHost | None = None
    """Checks replays; None: replays are refused."""
    wake: Callable[[], None]
    functions: Callable[[str], bool] = lambda _: False
    """Whether there is a function of this name, or calls that wait for one."""


class OperationService:
    """Operations of one daemon: asked for, shown and cancelled. Which worker carries them out does not matter here."""

    def __init__(self) -> None:
        self._context: OperationContext | None = None

    def open(self, context: OperationContext) -> None:
        """Begins to answer requests."""
        self._context = context

    def close(self) -> None:
        """Stops answering requests, because the daemon drains."""
        self._context = None

    async def submit(self, mapping: MappingId, request: Mapping[str, Any], *, by: str) -> Operation:
        """Stores an operation, and returns it as it is stored; raises ApiError. A repeated request is the same operation."""
        async with self._answering() as context:
            function = function_of(mapping)
            asked = read_request(request) if function is None else read_on_calls(request)
            stored = None if asked.operation is None else await context.operations.find(asked.operation)
            if stored is not None:
                return repeated(stored, mapping, asked)
            await context.operations.read()
            if function is not None:
                return await _on_calls(context, function, asked, by)
            known = await _mapping(context, mapping)
            if known.deleting:
                raise ApiError(ApiErrorType.CONFLICT, DELETING)
            if not known.runs and asked.request.action in CARRIED_OUT:
                raise ApiError(ApiErrorType.CONFLICT, DISABLED)
            facts = await _facts(context, known.plan)
            operation = accept(
                asked,
                facts,
                operation=OperationId(uuid_text(context.rng.getrandbits(ID_BITS))),
                by=by,
                now=context.clock.now(),
                open_operations=tuple((context.operations.known or {}).values()),
                open_bytes=context.operations.charged_bytes(),
            )
            if operation.request.action is Action.REPLAY:
                operation = await _replay(context, operation, known.plan)
                check_size(operation, open_bytes=context.operations.charged_bytes())
            kept = await context.operations.add(operation)
            context.wake()
            # Another worker may have stored one with this id at the same moment.
            return repeated(kept, mapping, asked)

    async def operations(
        self, *, mapping: MappingId | None = None, state: OperationState | None = None
    ) -> Sequence[Operation]:
        """Operations, newest first; raises ApiError."""
        async with self._answering() as context:
            found: list[Operation] = []
            if state is None or not state.over:
                await context.operations.read()
                found += (context.operations.known or {}).values()
            if state is None or state.over:
                found += await context.operations.history()
        # One that ended between the two reads is in both.
        newest = {each.operation: each for each in found}.values()
        shown = [
            each
            for each in newest
            if mapping in {None, each.mapping} and (state is None or each.state is state)
        ]
        return sorted(shown, key=lambda each: (-each.created, each.operation))

    def known_open(self) -> Sequence[Operation] | None:
        """The operations that are not over, as this worker knows them now; None while no requests are answered."""
        return None if self._context is None else tuple((self._context.operations.known or {}).values())

    async def operation(self, operation: OperationId) -> Operation:
        """One operation; raises ApiError."""
        async with self._answering() as context:
            return await _known(context, operation)

    async def cancel(self, operation: OperationId, *, by: str) -> Operation:
        """Ends an operation that is not over; raises ApiError. To cancel a pause is to end it."""
        async with self._answering() as context:
            found = await _known(context, operation)
            if not found.state.over:
                rule = partial(lifecycle.cancel, by=by, now=context.clock.now())
                ended = await context.operations.change(found, rule)
                context.wake()
                if ended is not None:
                    return ended
                found = await _known(context, operation)
            raise ApiError(ApiErrorType.CONFLICT, f"the operation is over: {found.state}")

    @asynccontextmanager
    async def _answering(self) -> AsyncIterator[OperationContext]:
        """Turns refusals and the store's trouble into ApiError."""
        context = self._context
        if context is None:
            raise ApiError(ApiErrorType.SERVICE, NOT_OPEN)
        try:
            yield context
        except OperationRefused as error:
            fault = ApiErrorType.CONFLICT if error.conflict else ApiErrorType.PARAMETER
            raise ApiError(fault, str(error)) from error
        except ServiceThrottled as error:
            raise ApiError(ApiErrorType.THROTTLED, "the store throttles; try again later") from error
        except PortError as error:
            text = f"the store is in trouble: {error.reason}; look at what is there before you try again"
            raise ApiError(ApiErrorType.SERVICE, text) from error
        except TimeoutError as error:
            raise ApiError(ApiErrorType.SERVICE, "the store does not answer; try again later") from error


async def _on_calls(context: OperationContext, function: str, asked: AskedOperation, by: str) -> Operation:
    """Stores an operation on the asynchronous calls of a function."""
    if not context.functions(function):
        raise ApiError(ApiErrorType.MISSING, NO_FUNCTION)
    operation = accept_on_calls(
        asked,
        function,
        operation=OperationId(uuid_text(context.rng.getrandbits(ID_BITS))),
        by=by,
        now=context.clock.now(),
        open_operations=tuple((context.operations.known or {}).values()),
        open_bytes=context.operations.charged_bytes(),
    )
    kept = await context.operations.add(operation)
    context.wake()
    return repeated(kept, operation.mapping, asked)


async def _known(context: OperationContext, operation: OperationId) -> Operation:
    found = await context.operations.find(operation)
    if found is None:
        raise ApiError(ApiErrorType.MISSING, UNKNOWN_OPERATION)
    return found


async def _facts(context: OperationContext, plan: MappingPlan) -> MappingFacts:
    """What the mapping is, and what runs of it on all workers now."""
    mapping = plan.mapping
    async with asyncio.timeout(CALL_S_MAX):
        await context.peers.listed()
        workers = context.peers.workers_of(mapping)
        if plan.kind is SourceKind.SQS:
            # Whether there is a dead-letter queue is known where the queue is polled.
            return MappingFacts(
                mapping=mapping, queue=True, fifo=plan.fifo, workers=sorted(workers), destination=True
            )
        leases = await context.store.leases(mapping, memos=False)
    shards = {
        lease.shard: lease.owner if lease.owner in workers else None
        for lease in leases
        if lease.checkpoint.position != SHARD_END
    }
    return MappingFacts(
        mapping=mapping,
        queue=False,
        lanes=plan.stream.lanes,
        shards=shards,
        destination=plan.discard.destination is not None,
    )


async def _replay(context: OperationContext, operation: Operation, plan: MappingPlan) -> Operation:
    if context.replays is None:
        raise OperationRefused("action", "this worker does not carry out replays")
    return await accepted(operation, plan, context.replays)


async def _mapping(context: OperationContext, mapping: MappingId) -> KnownMapping:
    known = context.running.known(mapping)
    if known is None:
        # Another worker may have just made it.
        async with asyncio.timeout(CALL_S_MAX):
            await context.refresh()
        known = context.running.known(mapping)
    if known is None:
        raise ApiError(ApiErrorType.MISSING, UNKNOWN_MAPPING)
    return known
