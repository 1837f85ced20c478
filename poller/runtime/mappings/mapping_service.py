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
from poller.domain.records import MappingId
from poller.domain.rows import MappingState
from poller.ports import Clock
from poller.rules.reconciling import BUSY, change_of, created, updated
from poller.runtime.mappings import api_requests
from poller.runtime.mappings.definitions import Definition, Definitions
from poller.runtime.mappings.desired import DesiredMapping, DesiredMappings
from poller.runtime.mappings.last_result import LastResults
from poller.runtime.mappings.preflight import Preflight
from poller.runtime.mappings.running import RunningMappings

STORE_S_MAX = 5.0
"""The time limit of one call of the store. It is short because a client waits for the answer."""
TRIES_MAX = 8
"""Tries of one change while other workers change the same mapping."""
TWIN_LOOKS_MAX = 5
TWIN_LOOK_S = 0.2
"""The interval at which it is checked whether another worker undoes a write that it made at the same time."""
QUEUE_REASON = "USER_INITIATED"
STREAM_REASON = "User action"


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceContext:
    """The parts of the open daemon that the service needs."""

    catalog: DesiredMappings
    definitions: Definitions
    fleet: RunningMappings
    inspector: Preflight
    results: LastResults
    clock: Clock
    rng: Random
    woken: Callable[[], None]


class MappingService:
    """MappingControl and TagControl of one daemon. Changes are made one at a time.

    Each change reads the store first, to see the changes of other replicas. It is written only if no other replica was faster,
    and returns when it is stored.
    """

    def __init__(self) -> None:
        self._desk: ServiceContext | None = None
        self._turn = asyncio.Lock()

    def open(self, desk: ServiceContext) -> None:
        """Begins to answer requests."""
        self._desk = desk

    def close(self) -> None:
        """Stops answering requests, because the daemon drains."""
        self._desk = None

    def views(self) -> tuple[MappingView, ...]:
        """All mappings: those of the file, then the others in the order of their creation. None before the daemon is open."""
        desk = self._desk
        return () if desk is None else tuple(_view(desk, entry) for entry in desk.catalog.entries())

    async def create(self, request: Mapping[str, Any]) -> MappingView:
        """Makes a mapping from the members of a create request; raises ApiError."""
        return await self._change(lambda desk: _create(desk, request))

    async def update(self, mapping: MappingId, request: Mapping[str, Any]) -> MappingView:
        """Changes a mapping by the members of an update request. If it raises ApiError, nothing was changed."""
        return await self._change(lambda desk: _update(desk, mapping, request))

    async def delete(self, mapping: MappingId) -> MappingView:
        """Stops a mapping, and removes its positions when it has drained; raises ApiError."""
        return await self._change(lambda desk: _delete(desk, mapping))

    async def tag(self, mapping: MappingId, tags: Mapping[str, str]) -> None:
        """Adds or replaces tags; raises ApiError."""
        await self._change(lambda desk: _retag(desk, mapping, lambda now: api_requests.with_tags(now, tags)))

    async def untag(self, mapping: MappingId, keys: tuple[str, ...]) -> None:
        """Removes tags; raises ApiError."""
        await self._change(
            lambda desk: _retag(desk, mapping, lambda now: api_requests.without_tags(now, keys))
        )

    async def _change[T](self, change: Callable[[ServiceContext], Awaitable[T]]) -> T:
        """Decides and stores a change, based on what the store has now. Repeats this if another worker was faster."""
        async with self._changing() as desk:
            for _ in range(TRIES_MAX):
                await _read(desk)
                with suppress(RowChanged):
                    return await change(desk)
            raise ServiceThrottled(f"other workers were faster {TRIES_MAX} times")

    @asynccontextmanager
    async def _changing(self) -> AsyncIterator[ServiceContext]:
        """Allows one change at a time. Turns errors of the store into ApiError, and wakes the daemon after the change."""
        async with self._turn:
            desk = self._desk
            if desk is None:
                raise ApiError(ApiErrorType.SERVICE, "The daemon is starting or stopping; try again later.")
            try:
                yield desk
            except ResourceMissing as error:
                raise ApiError(ApiErrorType.MISSING, api_requests.UNKNOWN) from error
            except ServiceThrottled as error:
                raise ApiError(ApiErrorType.THROTTLED, "Rate exceeded") from error
            except PortError as error:
                raise ApiError(ApiErrorType.SERVICE, f"The store is in trouble: {error.reason}") from error
            except TimeoutError as error:
                raise ApiError(ApiErrorType.SERVICE, "The store does not answer; try again later.") from error
            finally:
                desk.woken()


async def _read(desk: ServiceContext) -> None:
    """Reads the store, and repeats it if this worker wrote meanwhile."""
    async with asyncio.timeout(STORE_S_MAX):
        while not await desk.definitions.refresh():
            pass


async def _create(desk: ServiceContext, request: Mapping[str, Any]) -> MappingView:
    now = desk.clock.now()
    mapping = api_requests.created_by(request, now=now)
    identity = MappingId(str(UUID(int=desk.rng.getrandbits(128), version=4)))
    entry = _draft(desk, mapping, identity)
    facts = await desk.inspector.check_function(entry.design, desk.catalog.plan)
    _refuse_twin(desk, entry)
    await desk.inspector.check_source(entry.design, facts)
    state = created(enabled=entry.enabled, queue=entry.queue)
    await desk.definitions.add(
        Definition(
            mapping=identity,
            parameters=_kept(mapping),
            created=now,
            modified=now,
            change=change_of(state),
            tags=dict(mapping.Tags or {}),
        )
    )
    answer = _answer(desk, identity, state)
    await _settle_twins(desk, entry, undo=lambda: desk.definitions.forget(identity))
    return answer


async def _update(desk: ServiceContext, mapping: MappingId, request: Mapping[str, Any]) -> MappingView:
    before = _changeable(desk, mapping, in_use=api_requests.UPDATE_IN_USE)
    definition = _definition(desk, mapping)
    wanted = api_requests.updated_by(before.parameters, request, now=desk.clock.now())
    entry = _draft(desk, wanted, mapping)
    if request.get("FunctionName") is not None:
        facts = await desk.inspector.check_function(entry.design, desk.catalog.plan)
        _refuse_twin(desk, entry)
        if entry.queue:
            await desk.inspector.check_source(entry.design, facts)
    state = updated(before=before.enabled, enabled=entry.enabled, queue=entry.queue)
    written = await desk.definitions.change(
        replace(
            definition,
            parameters=_kept(wanted),
            modified=desk.clock.now(),
            change=change_of(state),
        )
    )
    answer = _answer(desk, mapping, state)
    if entry.pair != before.pair:
        await _settle_twins(desk, entry, undo=lambda: _put_back(desk, definition, written))
    return replace(answer, before=before.shown())


async def _delete(desk: ServiceContext, mapping: MappingId) -> MappingView:
    _changeable(desk, mapping, in_use=api_requests.DELETE_IN_USE)
    definition = _definition(desk, mapping)
    await desk.definitions.change(replace(definition, deleting=True, modified=desk.clock.now()))
    return _answer(desk, mapping, MappingState.DELETING)


async def _retag(
    desk: ServiceContext, mapping: MappingId, wanted: Callable[[Mapping[str, str]], dict[str, str]]
) -> None:
    definition = _taggable(desk, mapping)
    await desk.definitions.change(replace(definition, tags=wanted(definition.tags)))


async def _settle_twins(
    desk: ServiceContext, entry: DesiredMapping, *, undo: Callable[[], Awaitable[None]]
) -> None:
    """Undoes a write and raises ApiError if another worker has written a mapping with the same source and function meanwhile."""
    twin = await _rival(desk, entry)
    if twin is not None:
        await undo()
        raise _twin(entry, twin)


async def _rival(desk: ServiceContext, entry: DesiredMapping) -> MappingId | None:
    """The other mapping with the same source and function that will stay; None if there is none.

    Each worker checks after its own write, so at least one of two workers sees the other's mapping. The worker whose mapping
    comes first in the list then waits, because the other one may be about to undo its write. If it does not, it was there before.
    """
    twin: MappingId | None = None
    for _ in range(TWIN_LOOKS_MAX):
        await _read(desk)
        same = [other.mapping for other in desk.catalog.entries() if other.pair == entry.pair]
        twin = next((mapping for mapping in same if mapping != entry.mapping), None)
        if twin is None or same[0] != entry.mapping:
            return twin
        await asyncio.sleep(TWIN_LOOK_S)
    return twin


async def _put_back(desk: ServiceContext, old: Definition, written: Definition) -> None:
    """Undoes an update. Keeps tags and deletions that came since, and does nothing if the mapping was updated again.

    If two mappings with the same source and function are left, DesiredMappings lets only one of them run.
    """
    there = desk.definitions.get(old.mapping)
    if there is not None and there.parameters == written.parameters:
        back = replace(there, parameters=old.parameters, modified=old.modified, change=old.change)
        with suppress(RowChanged, ResourceMissing):
            await desk.definitions.change(back)


def _draft(desk: ServiceContext, mapping: EventSourceMapping, identity: MappingId) -> DesiredMapping:
    """The entry that a mapping would have if it were accepted."""
    return DesiredMapping(
        parameters=_kept(mapping),
        design=desk.catalog.design(mapping, identity),
        enabled=mapping.Enabled is not False,
        modified=desk.clock.now(),
        change=MappingState.CREATING,
        from_file=False,
    )


def _kept(mapping: EventSourceMapping) -> dict[str, Any]:
    """The parameters of a definition: all members but the tags, which are kept separately."""
    return {name: value for name, value in as_written(mapping).items() if name != "Tags"}


def _refuse_twin(desk: ServiceContext, entry: DesiredMapping) -> None:
    """Raises ApiError if another mapping has the same source and function, with the same qualifier (aws-behaviour#function-arn)."""
    for other in desk.catalog.entries():
        if other.mapping != entry.mapping and other.pair == entry.pair:
            raise _twin(entry, other.mapping)


def _twin(entry: DesiredMapping, other: MappingId) -> ApiError:
    source, function = entry.pair
    return ApiError(ApiErrorType.CONFLICT, api_requests.twin_text(source, function, other, queue=entry.queue))


def _changeable(desk: ServiceContext, mapping: MappingId, *, in_use: str) -> DesiredMapping:
    """The entry of a mapping. Raises ApiError if it is unknown, comes from the file, or has a change that is not applied yet."""
    entry = desk.catalog.get(mapping)
    if entry is None:
        raise ApiError(ApiErrorType.MISSING, api_requests.UNKNOWN)
    if entry.from_file:
        raise ApiError(ApiErrorType.CONFLICT, api_requests.FROM_FILE)
    if desk.fleet.state(entry) in BUSY:
        raise ApiError(ApiErrorType.IN_USE, in_use)
    return entry


def _definition(desk: ServiceContext, mapping: MappingId) -> Definition:
    definition = desk.definitions.get(mapping)
    assert definition is not None, "an entry that is not from the file has a definition"
    return definition


def _taggable(desk: ServiceContext, mapping: MappingId) -> Definition:
    entry = desk.catalog.get(mapping)
    if entry is None:
        raise ApiError(ApiErrorType.MISSING, api_requests.UNKNOWN)
    if entry.from_file:
        raise ApiError(ApiErrorType.CONFLICT, api_requests.FROM_FILE)
    return _definition(desk, mapping)


def _answer(desk: ServiceContext, mapping: MappingId, state: MappingState) -> MappingView:
    entry = desk.catalog.get(mapping)
    assert entry is not None, "what was stored is in the catalog"
    return replace(_view(desk, entry), state=state)


def _view(desk: ServiceContext, entry: DesiredMapping) -> MappingView:
    state = desk.fleet.state(entry)
    return MappingView(
        mapping=entry.mapping,
        parameters=entry.shown(),
        function_arn=entry.design.plan.function_arn,
        # AWS has no state for a mapping that a bug stopped, and its clients know only AWS's states.
        state=MappingState.ENABLED if state is MappingState.BROKEN else state,
        reason=QUEUE_REASON if entry.queue else STREAM_REASON,
        last_modified=entry.modified,
        last_result="" if entry.queue else _result(desk, entry, state),
        tags=entry.tags,
        from_file=entry.from_file,
    )


def _result(desk: ServiceContext, entry: DesiredMapping, state: MappingState) -> str:
    supervisor = desk.fleet.supervisor(entry.mapping)
    if state is MappingState.BROKEN and supervisor is not None:
        return f"PROBLEM: {supervisor.reason}"
    return desk.results.of(entry.mapping)
