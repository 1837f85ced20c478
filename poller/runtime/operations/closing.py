"""Owns what becomes of operations without a worker that carries them out.

Any worker closes a part whose shard has ended or whose worker is gone, and ends operations of mappings that are deleted or
disabled. It also ends the pauses that a resume names.
"""

from collections.abc import Collection
from dataclasses import dataclass
from functools import partial

from poller.domain.operations import Action, Operation
from poller.domain.plan import SourceKind
from poller.domain.records import SHARD_END, Epoch, MappingId, Monotonic, WorkerId
from poller.domain.wording.numbers_of import inflected, number_of
from poller.ports import Clock, LeaseStore
from poller.rules.operations import lifecycle
from poller.rules.operations.pauses import still_to_end
from poller.runtime.operations.open_operations import OpenOperations, answered
from poller.runtime.operations.operable_mappings import OperableMappings, Peers

CLOSE_AFTER_S = 4.0
"""So long after a worker has learned of an operation, it looks whether the parts can still be carried out."""
LOOK_S = 5.0
LOOK_PAUSED_S = 60.0
"""How often the leases of a mapping with open operations are read: while some wait, and while there are only pauses."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Obstacles:
    """Why something of an operation cannot be carried out any more: shards that have ended, workers that are gone, or the mapping's state.

    The workers that are `present` run the mapping of a queue now.
    """

    ended: Collection[str] = ()
    gone: Collection[str] = ()
    present: Collection[str] = ()
    deleted: bool = False
    disabled: bool = False


class OperationCloser:
    """Closes operations and parts."""

    def __init__(
        self,
        operations: OpenOperations,
        running: OperableMappings,
        *,
        worker: WorkerId,
        store: LeaseStore,
        peers: Peers,
        clock: Clock,
    ) -> None:
        self._operations = operations
        self._running = running
        self._worker = worker
        self._store = store
        self._peers = peers
        self._clock = clock
        self._looked: dict[MappingId, Monotonic] = {}

    async def close(self) -> None:
        """Closes what can be closed now; raises PortError."""
        await self._resume()
        now = self._clock.now()
        by_mapping: dict[MappingId, list[Operation]] = {}
        for operation in (self._operations.known or {}).values():
            # The time of its acceptance is of the clock of another worker.
            if self._operations.open_s(operation.operation) >= CLOSE_AFTER_S:
                by_mapping.setdefault(operation.mapping, []).append(operation)
        for mapping in self._looked.keys() - by_mapping.keys():
            del self._looked[mapping]
        for mapping, operations in by_mapping.items():
            obstacles = await self._obstacles(mapping, operations)
            for operation in operations:
                open_s = self._operations.open_s(operation.operation)
                rule = partial(_closed, obstacles=obstacles, open_s=open_s, now=now)
                await self._operations.change(operation, rule)

    async def delete(self, mapping: MappingId) -> None:
        """Ends the operations of a mapping that was deleted; raises PortError."""
        await self._operations.read()
        now = self._clock.now()
        for operation in tuple((self._operations.known or {}).values()):
            if operation.mapping == mapping:
                await self._operations.change(operation, partial(lifecycle.mapping_deleted, now=now))

    async def _resume(self) -> None:
        """Ends the pauses that each resume names, then the resume itself."""
        for resume in tuple((self._operations.known or {}).values()):
            if resume.request.action is Action.RESUME:
                for pause in still_to_end(resume, tuple((self._operations.known or {}).values())):
                    rule = partial(lifecycle.end_pause, by=resume.by, now=self._clock.now())
                    await self._operations.change(pause, rule)
                await self._operations.change(resume, self._resumed)

    def _resumed(self, resume: Operation) -> Operation:
        pauses = resume.notes.get("pauses", ())
        count = len(pauses) if isinstance(pauses, list | tuple) else 0
        text = f"{number_of(count, 'pause')} {inflected(count, 'has', 'have')} ended"
        return lifecycle.finish(resume, text=text, now=self._clock.now())

    async def _obstacles(self, mapping: MappingId, operations: Collection[Operation]) -> Obstacles:
        known = self._running.known(mapping)
        if known is None:
            # It may be in the file of another worker. Parts that nobody carries out fail after some minutes.
            return Obstacles()
        if known.deleting:
            return Obstacles(deleted=True)
        await self._peers.listed()
        workers = self._peers.workers_of(mapping)
        if known.plan.kind is SourceKind.SQS:
            mine = {self._worker} if known.runs else set()
            parts = {part for each in operations for part in lifecycle.missing(each)}
            present = workers | mine
            return Obstacles(gone=parts - present, present=present, disabled=not known.runs and not workers)
        ended = await self._ended(mapping, operations)
        return Obstacles(ended=ended, disabled=not known.runs and not workers)

    async def _ended(self, mapping: MappingId, operations: Collection[Operation]) -> frozenset[str]:
        """The shards of operations that have ended, or are not known any more. The leases are read now and then only."""
        wanted = {part for each in operations for part in lifecycle.missing(each)}
        wanted |= {each.request.target.shard for each in operations if each.request.target.shard is not None}
        waiting = any(each.request.action is not Action.PAUSE for each in operations)
        now, looked = self._clock.monotonic(), self._looked.get(mapping)
        if not wanted or (looked is not None and now - looked < (LOOK_S if waiting else LOOK_PAUSED_S)):
            return frozenset()
        self._looked[mapping] = now
        async with answered():
            leases = await self._store.leases(mapping, memos=False)
        going_on = {lease.shard for lease in leases if lease.checkpoint.position != SHARD_END}
        return frozenset(wanted - going_on) if leases else frozenset()


def _closed(operation: Operation, *, obstacles: Obstacles, open_s: float, now: Epoch) -> Operation:
    if obstacles.deleted:
        return lifecycle.mapping_deleted(operation, now=now)
    if obstacles.disabled:
        operation = lifecycle.mapping_disabled(operation, now=now)
    operation = lifecycle.close_ended_shards(operation, obstacles.ended, now=now)
    operation = lifecycle.close_gone_workers(operation, obstacles.gone, obstacles.present, now=now)
    return lifecycle.expire(operation, open_s=open_s, now=now)
