"""Owns changes of mappings through the API: it decides about create, update, delete and tag requests and stores them (aws-behaviour#mapping-api)."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from random import Random
from typing import Any
from uuid import UUID

from poller.config.mapping import EventSourceMapping, as_written
from poller.domain.errors import PortError, ResourceMissing, RowChanged, ServiceThrottled
from poller.domain.mapping_api import ApiError, ApiErrorType, MappingView
from poller.domain.peeking.answers import PeekAnswer, PeekRequest
from poller.domain.records import MappingId
from poller.domain.rows import MappingState
from poller.domain.status import MappingStatus
from poller.ports import Clock
from poller.rules.reconciling import BUSY, change_of, created, updated
from poller.runtime.functions.function_calls import CallContext, FunctionCalls
from poller.runtime.mappings import api_requests
from poller.runtime.mappings.definitions import Definition, Definitions
from poller.runtime.mappings.desired import DesiredMapping, DesiredMappings
from poller.runtime.mappings.fleet import FleetReader
from poller.runtime.mappings.function_service import FunctionService, function_context
from poller.runtime.mappings.preflight import Preflight
from poller.runtime.mappings.running import RunningMappings
from poller.runtime.peeking.service import Peeking

STORE_S_MAX = 5.0
"""The time limit of one call of the store. It is short because a client waits for the answer."""
TRIES_MAX = 8
"""Tries of one change while other workers change the same mapping."""
TWIN_LOOKS_MAX = 15
TWIN_LOOK_S = 0.2
"""The interval at which it is checked whether another worker undoes a write that it made at the same time."""
QUEUE_REASON = "USER_INITIATED"
STREAM_REASON = "User action"


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceContext:
    """The parts of the open daemon that the service needs."""

    desired: DesiredMappings
    definitions: Definitions
    running: RunningMappings
    preflight: Preflight
    fleet: FleetReader
    peeking: Peeking
    calls: CallContext
    clock: Clock
    rng: Random
    woken: Callable[[], None]


class MappingService:
    """MappingControl, TagControl and PeekControl of one daemon. Changes are made one at a time.

    Each change reads the store first, to see the changes of other replicas. It is written only if no other replica was faster,
    and returns when it is stored.
    """

    def __init__(self) -> None:
        self.functions = FunctionService()
        """Closes breakers of functions."""
        self.calls = FunctionCalls()
        """Calls functions for the Invoke API."""
        self._context: ServiceContext | None = None
        self._turn = asyncio.Lock()

    def open(self, context: ServiceContext) -> None:
        """Begins to answer requests."""
        self._context = context
        self.functions.open(
            function_context(context.running.components, lambda: context.desired.plan.functions)
        )
        self.calls.open(context.calls)

    def close(self) -> None:
        """Stops answering requests, because the daemon drains."""
        self._context = None
        self.functions.close()
        self.calls.close()

    def views(self) -> tuple[MappingView, ...]:
        """All mappings: those of the file, then the others in the order of their creation. None before the daemon is open.

        State and last result are those of all workers, as far as they were read (`StatusView.refresh`).
        """
        context = self._context
        if context is None:
            return ()
        entries = context.desired.entries()
        known = context.fleet.merged(context.running.summaries(entries))
        return tuple(_view(entry, known[entry.mapping]) for entry in entries)

    async def peek(self, mapping: str, request: PeekRequest) -> PeekAnswer:
        """Reads a few records of a mapping's source; raises ApiError."""
        return await self._opened().peeking.peek(mapping, request)

    async def create(self, request: Mapping[str, Any]) -> MappingView:
        """Makes a mapping from the members of a create request; raises ApiError."""
        return await self._change(lambda context: _create(context, request))

    async def update(self, mapping: MappingId, request: Mapping[str, Any]) -> MappingView:
        """Changes a mapping by the members of an update request. If it raises ApiError, nothing was changed."""
        return await self._change(lambda context: _update(context, mapping, request))

    async def delete(self, mapping: MappingId) -> MappingView:
        """Stops a mapping, and removes its positions when it has drained; raises ApiError."""
        return await self._change(lambda context: _delete(context, mapping))

    async def tag(self, mapping: MappingId, tags: Mapping[str, str]) -> None:
        """Adds or replaces tags; raises ApiError."""
        await self._change(
            lambda context: _retag(context, mapping, lambda now: api_requests.with_tags(now, tags))
        )

    async def untag(self, mapping: MappingId, keys: tuple[str, ...]) -> None:
        """Removes tags; raises ApiError."""
        await self._change(
            lambda context: _retag(context, mapping, lambda now: api_requests.without_tags(now, keys))
        )

    def _opened(self) -> ServiceContext:
        if self._context is None:
            raise ApiError(ApiErrorType.SERVICE, "The daemon is starting or stopping; try again later.")
        return self._context

    async def _change[T](self, change: Callable[[ServiceContext], Awaitable[T]]) -> T:
        """Decides and stores a change, based on what the store has now. Repeats this if another worker was faster."""
        async with self._changing() as context:
            for _ in range(TRIES_MAX):
                await _read(context)
                with suppress(RowChanged):
                    return await change(context)
            raise ServiceThrottled(f"other workers were faster {TRIES_MAX} times")

    @asynccontextmanager
    async def _changing(self) -> AsyncIterator[ServiceContext]:
        """Allows one change at a time. Turns errors of the store into ApiError, and wakes the daemon after the change."""
        async with self._turn:
            context = self._opened()
            try:
                yield context
            except ResourceMissing as error:
                raise ApiError(ApiErrorType.MISSING, api_requests.UNKNOWN) from error
            except ServiceThrottled as error:
                raise ApiError(ApiErrorType.THROTTLED, "Rate exceeded") from error
            except PortError as error:
                raise ApiError(ApiErrorType.SERVICE, f"The store is in trouble: {error.reason}") from error
            except TimeoutError as error:
                raise ApiError(ApiErrorType.SERVICE, "The store does not answer; try again later.") from error
            finally:
                context.woken()


async def _read(context: ServiceContext) -> None:
    """Reads the store, and repeats it if this worker wrote meanwhile."""
    async with asyncio.timeout(STORE_S_MAX):
        while not await context.definitions.refresh():
            pass


async def _create(context: ServiceContext, request: Mapping[str, Any]) -> MappingView:
    now = context.clock.now()
    mapping = api_requests.created_by(request, now=now)
    identity = MappingId(str(UUID(int=context.rng.getrandbits(128), version=4)))
    entry = _draft(context, mapping, identity)
    facts = await context.preflight.check_function(entry.spec, context.desired.plan)
    _refuse_twin(context, entry)
    await context.preflight.check_source(entry.spec, facts)
    state = created(enabled=entry.enabled, queue=entry.queue)
    await context.definitions.add(
        Definition(
            mapping=identity,
            parameters=_kept(mapping),
            created=now,
            modified=now,
            change=change_of(state),
            tags=dict(mapping.Tags or {}),
        )
    )
    answer = _answer(context, identity, state)
    await _settle_twins(context, entry, undo=lambda: context.definitions.forget(identity))
    return answer


async def _update(context: ServiceContext, mapping: MappingId, request: Mapping[str, Any]) -> MappingView:
    before = _changeable(context, mapping, in_use=api_requests.UPDATE_IN_USE)
    definition = _definition(context, mapping)
    wanted = api_requests.updated_by(before.parameters, request, now=context.clock.now())
    entry = _draft(context, wanted, mapping)
    if request.get("FunctionName") is not None:
        facts = await context.preflight.check_function(entry.spec, context.desired.plan)
        _refuse_twin(context, entry)
        if entry.queue:
            await context.preflight.check_source(entry.spec, facts)
    state = updated(before=before.enabled, enabled=entry.enabled, queue=entry.queue)
    written = await context.definitions.change(
        replace(
            definition,
            parameters=_kept(wanted),
            modified=context.clock.now(),
            change=change_of(state),
        )
    )
    answer = _answer(context, mapping, state)
    if entry.pair != before.pair:
        await _settle_twins(context, entry, undo=lambda: _put_back(context, definition, written))
    return replace(answer, before=before.shown())


async def _delete(context: ServiceContext, mapping: MappingId) -> MappingView:
    _changeable(context, mapping, in_use=api_requests.DELETE_IN_USE)
    definition = _definition(context, mapping)
    await context.definitions.change(replace(definition, deleting=True, modified=context.clock.now()))
    return _answer(context, mapping, MappingState.DELETING)


async def _retag(
    context: ServiceContext, mapping: MappingId, wanted: Callable[[Mapping[str, str]], dict[str, str]]
) -> None:
    definition = _taggable(context, mapping)
    await context.definitions.change(replace(definition, tags=wanted(definition.tags)))


async def _settle_twins(
    context: ServiceContext, entry: DesiredMapping, *, undo: Callable[[], Awaitable[None]]
) -> None:
    """Undoes a write and raises ApiError if another worker has written a mapping with the same source and function meanwhile."""
    twin = await _rival(context, entry)
    if twin is not None:
        await undo()
        raise _twin(entry, twin)


async def _rival(context: ServiceContext, entry: DesiredMapping) -> MappingId | None:
    """The other mapping with the same source and function that will stay; None if there is none.

    Each worker checks after its own write, so at least one of two workers sees the other's mapping. The worker whose mapping
    comes first in the list then waits, because the other one may be about to undo its write. If it does not, it was there before.
    """
    twin: MappingId | None = None
    for _ in range(TWIN_LOOKS_MAX):
        await _read(context)
        same = [other.mapping for other in context.desired.entries() if other.pair == entry.pair]
        twin = next((mapping for mapping in same if mapping != entry.mapping), None)
        if twin is None or same[0] != entry.mapping:
            return twin
        await asyncio.sleep(TWIN_LOOK_S)
    return twin


async def _put_back(context: ServiceContext, old: Definition, written: Definition) -> None:
    """Undoes an update. Keeps tags and deletions that came since, and does nothing if the mapping was updated again.

    If two mappings with the same source and function are left, DesiredMappings lets only one of them run.
    """
    there = context.definitions.get(old.mapping)
    if there is not None and there.parameters == written.parameters:
        back = replace(there, parameters=old.parameters, modified=old.modified, change=old.change)
        with suppress(RowChanged, ResourceMissing):
            await context.definitions.change(back)


def _draft(context: ServiceContext, mapping: EventSourceMapping, identity: MappingId) -> DesiredMapping:
    """The entry that a mapping would have if it were accepted."""
    return DesiredMapping(
        parameters=_kept(mapping),
        spec=context.desired.spec(mapping, identity),
        enabled=mapping.Enabled is not False,
        modified=context.clock.now(),
        change=MappingState.CREATING,
        from_file=False,
    )


def _kept(mapping: EventSourceMapping) -> dict[str, Any]:
    """The parameters of a definition: all members but the tags, which are kept separately."""
    return {name: value for name, value in as_written(mapping).items() if name != "Tags"}


def _refuse_twin(context: ServiceContext, entry: DesiredMapping) -> None:
    """Raises ApiError if another mapping has the same source and function, with the same qualifier (aws-behaviour#function-arn)."""
    for other in context.desired.entries():
        if other.mapping != entry.mapping and other.pair == entry.pair:
            raise _twin(entry, other.mapping)


def _twin(entry: DesiredMapping, other: MappingId) -> ApiError:
    source, function = entry.pair
    return ApiError(ApiErrorType.CONFLICT, api_requests.twin_text(source, function, other, queue=entry.queue))


def _changeable(context: ServiceContext, mapping: MappingId, *, in_use: str) -> DesiredMapping:
    """The entry of a mapping. Raises ApiError if it is unknown, comes from the file, or has a change that is not applied yet."""
    entry = context.desired.get(mapping)
    if entry is None:
        raise ApiError(ApiErrorType.MISSING, api_requests.UNKNOWN)
    if (fixed := api_requests.fixed_elsewhere(from_file=entry.from_file, origin=entry.origin)) is not None:
        raise fixed
    if context.running.state(entry) in BUSY:
        raise ApiError(ApiErrorType.IN_USE, in_use)
    return entry


def _definition(context: ServiceContext, mapping: MappingId) -> Definition:
    definition = context.definitions.get(mapping)
    assert definition is not None, "an entry that is not from the file has a definition"
    return definition


def _taggable(context: ServiceContext, mapping: MappingId) -> Definition:
    entry = context.desired.get(mapping)
    if entry is None:
        raise ApiError(ApiErrorType.MISSING, api_requests.UNKNOWN)
    if (fixed := api_requests.fixed_elsewhere(from_file=entry.from_file, origin=entry.origin)) is not None:
        raise fixed
    return _definition(context, mapping)


def _answer(context: ServiceContext, mapping: MappingId, state: MappingState) -> MappingView:
    entry = context.desired.get(mapping)
    assert entry is not None, "what was stored is in the desired"
    known = context.fleet.merged(context.running.summaries([entry]))
    return replace(_view(entry, known[mapping]), state=state)


def _view(entry: DesiredMapping, found: MappingStatus) -> MappingView:
    """The mapping as Lambda's API shows it. `found` is its status on all workers."""
    broken = found.state is MappingState.BROKEN
    return MappingView(
        mapping=entry.mapping,
        parameters=entry.shown(),
        function_arn=entry.spec.plan.function_arn,
        # AWS has no state for a mapping that a bug stopped, and its clients know only AWS's states.
        state=MappingState.ENABLED if broken else found.state,
        reason=QUEUE_REASON if entry.queue else STREAM_REASON,
        last_modified=entry.modified,
        last_result=f"PROBLEM: {found.reason}" if broken and not entry.queue else found.last_result,
        tags=entry.tags,
        from_file=entry.from_file,
    )
