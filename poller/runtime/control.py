"""Owns the control of live mappings: Lambda's create, update, delete and tag requests, decided and stored (spec 10)."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from random import Random
from typing import Any
from uuid import UUID

from poller.control import Fault, MappingView, Refused
from poller.errors import PortError, ResourceMissing, RowChanged, ServiceThrottled
from poller.mapping import EventSourceMapping, as_written
from poller.ports import Clock
from poller.records import MappingId
from poller.rows import MappingState
from poller.rules.reconciling import BUSY, change_of, created, updated
from poller.runtime import requests
from poller.runtime.catalog import Catalog, Entry
from poller.runtime.definitions import Definition, Definitions
from poller.runtime.fleet import Fleet
from poller.runtime.looking import Inspector
from poller.runtime.results import Results

STORE_S_MAX = 5.0
"""For one call of the store; somebody waits for the answer."""
TRIES_MAX = 8
"""Of one change, as long as other workers change the same mapping in the meantime."""
TWIN_LOOKS_MAX = 5
TWIN_LOOK_S = 0.2
"""Between looks whether another worker takes back what it wrote at the same time."""
QUEUE_REASON = "USER_INITIATED"
STREAM_REASON = "User action"


@dataclass(frozen=True, slots=True, kw_only=True)
class Desk:
    """What control works with, once the daemon is open."""

    catalog: Catalog
    definitions: Definitions
    fleet: Fleet
    inspector: Inspector
    results: Results
    clock: Clock
    rng: Random
    woken: Callable[[], None]


class ControlPlane:
    """MappingControl and TagControl of one daemon. Changes are made one at a time.

    Each change reads the store first, so that what other replicas changed is seen, and is written only if nobody was
    faster; it returns when the store has it.
    """

    def __init__(self) -> None:
        self._desk: Desk | None = None
        self._turn = asyncio.Lock()

    def open(self, desk: Desk) -> None:
        """From now on requests are answered."""
        self._desk = desk

    def close(self) -> None:
        """No more requests are answered; the daemon drains."""
        self._desk = None

    def views(self) -> tuple[MappingView, ...]:
        """All mappings, those of the file first, in the order of their creation; none before the daemon is open."""
        desk = self._desk
        return () if desk is None else tuple(_view(desk, entry) for entry in desk.catalog.entries())

    async def create(self, request: Mapping[str, Any]) -> MappingView:
        """Makes a mapping from the members of a create request; raises Refused."""
        return await self._change(lambda desk: _create(desk, request))

    async def update(self, mapping: MappingId, request: Mapping[str, Any]) -> MappingView:
        """Changes a mapping by the members of an update request; raises Refused and changes nothing then."""
        return await self._change(lambda desk: _update(desk, mapping, request))

    async def delete(self, mapping: MappingId) -> MappingView:
        """Ends a mapping and forgets its positions once it has drained; raises Refused."""
        return await self._change(lambda desk: _delete(desk, mapping))

    async def tag(self, mapping: MappingId, tags: Mapping[str, str]) -> None:
        """Adds or replaces tags; raises Refused."""
        await self._change(lambda desk: _retag(desk, mapping, lambda now: requests.with_tags(now, tags)))

    async def untag(self, mapping: MappingId, keys: tuple[str, ...]) -> None:
        """Removes tags; raises Refused."""
        await self._change(lambda desk: _retag(desk, mapping, lambda now: requests.without_tags(now, keys)))

    async def _change[T](self, change: Callable[[Desk], Awaitable[T]]) -> T:
        """Decides and stores a change on what the store has now, and anew when another worker was faster."""
        async with self._changing() as desk:
            for _ in range(TRIES_MAX):
                await _read(desk)
                with suppress(RowChanged):
                    return await change(desk)
            raise ServiceThrottled(f"other workers were faster {TRIES_MAX} times")

    @asynccontextmanager
    async def _changing(self) -> AsyncIterator[Desk]:
        """One change at a time; its trouble becomes Refused, and the daemon looks at once."""
        async with self._turn:
            desk = self._desk
            if desk is None:
                raise Refused(Fault.SERVICE, "The daemon is starting or stopping; try again later.")
            try:
                yield desk
            except ResourceMissing as error:
                raise Refused(Fault.MISSING, requests.UNKNOWN) from error
            except ServiceThrottled as error:
                raise Refused(Fault.THROTTLED, "Rate exceeded") from error
            except PortError as error:
                raise Refused(Fault.SERVICE, f"The store is in trouble: {error.reason}") from error
            except TimeoutError as error:
                raise Refused(Fault.SERVICE, "The store does not answer; try again later.") from error
            finally:
                desk.woken()


async def _read(desk: Desk) -> None:
    """Takes what the store has now; again if a write of this worker came between."""
    async with asyncio.timeout(STORE_S_MAX):
        while not await desk.definitions.refresh():
            pass


async def _create(desk: Desk, request: Mapping[str, Any]) -> MappingView:
    now = desk.clock.now()
    mapping = requests.created_by(request, now=now)
    identity = MappingId(str(UUID(int=desk.rng.getrandbits(128), version=4)))
    entry = _draft(desk, mapping, identity)
    await desk.inspector.look_at_function(entry.design, desk.catalog.plan)
    _refuse_twin(desk, entry)
    await desk.inspector.look_at_source(entry.design)
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


async def _update(desk: Desk, mapping: MappingId, request: Mapping[str, Any]) -> MappingView:
    before = _changeable(desk, mapping, in_use=requests.UPDATE_IN_USE)
    definition = _definition(desk, mapping)
    wanted = requests.updated_by(before.parameters, request, now=desk.clock.now())
    entry = _draft(desk, wanted, mapping)
    if request.get("FunctionName") is not None:
        await desk.inspector.look_at_function(entry.design, desk.catalog.plan)
        _refuse_twin(desk, entry)
        if entry.queue:
            await desk.inspector.look_at_source(entry.design)
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
    return answer


async def _delete(desk: Desk, mapping: MappingId) -> MappingView:
    _changeable(desk, mapping, in_use=requests.DELETE_IN_USE)
    definition = _definition(desk, mapping)
    await desk.definitions.change(replace(definition, deleting=True, modified=desk.clock.now()))
    return _answer(desk, mapping, MappingState.DELETING)


async def _retag(
    desk: Desk, mapping: MappingId, wanted: Callable[[Mapping[str, str]], dict[str, str]]
) -> None:
    definition = _taggable(desk, mapping)
    await desk.definitions.change(replace(definition, tags=wanted(definition.tags)))


async def _settle_twins(desk: Desk, entry: Entry, *, undo: Callable[[], Awaitable[None]]) -> None:
    """Undoes a write and raises Refused if another worker has written meanwhile what connects the same."""
    twin = await _rival(desk, entry)
    if twin is not None:
        await undo()
        raise _twin(entry, twin)


async def _rival(desk: Desk, entry: Entry) -> MappingId | None:
    """The other mapping that connects the same and stays.

    Two workers look when both have written, so that one of them at least sees the other. The first in the catalog's order
    then waits, as the other may be about to undo its write; if it does not, it was there before.
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


async def _put_back(desk: Desk, old: Definition, written: Definition) -> None:
    """Undoes an update and keeps tags and deletions that came since; leaves what was updated again.

    Of twins that are left then the catalog lets only one run.
    """
    there = desk.definitions.get(old.mapping)
    if there is not None and there.parameters == written.parameters:
        back = replace(there, parameters=old.parameters, modified=old.modified, change=old.change)
        with suppress(RowChanged, ResourceMissing):
            await desk.definitions.change(back)


def _draft(desk: Desk, mapping: EventSourceMapping, identity: MappingId) -> Entry:
    """How a mapping would be, were it accepted."""
    return Entry(
        parameters=_kept(mapping),
        design=desk.catalog.design(mapping, identity),
        enabled=mapping.Enabled is not False,
        modified=desk.clock.now(),
        change=MappingState.CREATING,
        from_file=False,
    )


def _kept(mapping: EventSourceMapping) -> dict[str, Any]:
    """What a definition keeps as parameters: tags have a place of their own."""
    return {name: value for name, value in as_written(mapping).items() if name != "Tags"}


def _refuse_twin(desk: Desk, entry: Entry) -> None:
    """Raises Refused when another mapping connects the same, qualifier included (spec 10.4)."""
    for other in desk.catalog.entries():
        if other.mapping != entry.mapping and other.pair == entry.pair:
            raise _twin(entry, other.mapping)


def _twin(entry: Entry, other: MappingId) -> Refused:
    source, function = entry.pair
    return Refused(Fault.CONFLICT, requests.twin_text(source, function, other, queue=entry.queue))


def _changeable(desk: Desk, mapping: MappingId, *, in_use: str) -> Entry:
    """The entry, unless it is unknown, comes from the file, or its last change is not applied yet."""
    entry = desk.catalog.get(mapping)
    if entry is None:
        raise Refused(Fault.MISSING, requests.UNKNOWN)
    if entry.from_file:
        raise Refused(Fault.CONFLICT, requests.FROM_FILE)
    if desk.fleet.state(entry) in BUSY:
        raise Refused(Fault.IN_USE, in_use)
    return entry


def _definition(desk: Desk, mapping: MappingId) -> Definition:
    definition = desk.definitions.get(mapping)
    assert definition is not None, "an entry that is not from the file has a definition"
    return definition


def _taggable(desk: Desk, mapping: MappingId) -> Definition:
    entry = desk.catalog.get(mapping)
    if entry is None:
        raise Refused(Fault.MISSING, requests.UNKNOWN)
    if entry.from_file:
        raise Refused(Fault.CONFLICT, requests.FROM_FILE)
    return _definition(desk, mapping)


def _answer(desk: Desk, mapping: MappingId, state: MappingState) -> MappingView:
    entry = desk.catalog.get(mapping)
    assert entry is not None, "what was stored is in the catalog"
    return replace(_view(desk, entry), state=state)


def _view(desk: Desk, entry: Entry) -> MappingView:
    state = desk.fleet.state(entry)
    return MappingView(
        mapping=entry.mapping,
        parameters=entry.shown(),
        function_arn=entry.design.plan.function_arn,
        # AWS has no word for a mapping that a bug stopped, and its clients know no other words than AWS's.
        state=MappingState.ENABLED if state is MappingState.BROKEN else state,
        reason=QUEUE_REASON if entry.queue else STREAM_REASON,
        last_modified=entry.modified,
        last_result="" if entry.queue else _result(desk, entry, state),
        tags=entry.tags,
        from_file=entry.from_file,
    )


def _result(desk: Desk, entry: Entry, state: MappingState) -> str:
    supervisor = desk.fleet.supervisor(entry.mapping)
    if state is MappingState.BROKEN and supervisor is not None:
        return f"PROBLEM: {supervisor.reason}"
    return desk.results.of(entry.mapping)
