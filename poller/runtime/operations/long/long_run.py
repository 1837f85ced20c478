"""Owns what a run of an operation that takes long works with, and what mappings offer to such runs."""

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, suppress
from dataclasses import dataclass, replace
from functools import partial
from random import Random
from typing import Any, Protocol, runtime_checkable

from poller.domain.errors import PortError
from poller.domain.operations import Operation, OperationId, OperationState, OperatorPause
from poller.domain.policies import Backoff
from poller.domain.records import Position, ShardId, WorkerId
from poller.operator_ports import NoticeSource
from poller.ports import Clock
from poller.rules.backoff import wait_s
from poller.rules.operations.claims import claimed_by, hand_over
from poller.rules.operations.pauses import holding
from poller.rules.streams.operations.seeking import ShardMove
from poller.runtime.operations.long.mapping_use import MappingUse
from poller.runtime.operations.long.redriving import Redrivable
from poller.runtime.operations.open_operations import OpenOperations, OperationChange
from poller.runtime.stopping import Stop

WAITING = "waiting"
"""The note of an operation with lines about what it waits for."""
TRIES_MAX = 6
"""So often a worker tries to begin, until the next one does, if there is another."""
NOT_RUNNING = "the mapping does not run on this worker"


class PlaceOpener(Protocol):
    """Opens plug-ins for places that an operation names."""

    def __call__(
        self, kind: str, name: str, settings: Mapping[str, Any], *, look: bool = False
    ) -> AbstractAsyncContextManager[Any]:
        """Opens one plug-in of this kind; raises InvalidConfiguration and PortError. With `look` it changes nothing outside."""
        ...


@dataclass(frozen=True, slots=True)
class SeekPlan:
    """The moves of a seek. `skipping` names the shards in which it leaves out records, each with the first one. `parents` has those of all shards."""

    moves: tuple[ShardMove, ...]
    skipping: Mapping[ShardId, str]
    parents: Mapping[ShardId, tuple[ShardId, ...]]


@dataclass(frozen=True, slots=True)
class SeekStep:
    """What came of one step: the shards that stand where they should, each with the epoch of its lease since then, and the owners of others.

    `done`: it found that nothing was left to move.
    """

    moved: Mapping[ShardId, int]
    waiting: Mapping[ShardId, WorkerId]
    done: bool = False


class Seekable(Protocol):
    """The shards of a mapping, as a seek moves them."""

    def hold_back(self, shards: frozenset[ShardId]) -> None:
        """Makes these shards, those that come from them, and no others, drain and stay free on this worker."""
        ...

    async def plan(self, to: Position, chosen: Collection[ShardId]) -> SeekPlan:
        """Where a seek puts each shard. Raises SeekRefused and PortError."""
        ...

    async def step(self, planned: Sequence[ShardMove], moved: Mapping[ShardId, int], stop: Stop) -> SeekStep:
        """Moves what is left when nobody reads any of it, and nothing after a stop. `moved` is that of the step before. Raises PortError."""
        ...


@dataclass(frozen=True, slots=True)
class OpenPlace:
    """A place of notices that is open, and the mapping that can call its function with them."""

    redrivable: Redrivable
    notices: NoticeSource


class LongOperable(Protocol):
    """A running mapping, as operations that take long see it."""

    @property
    def use(self) -> MappingUse:
        """Keeps its parts open. Whoever opens a place, or calls its function, has entered."""
        ...

    @property
    def seekable(self) -> Seekable | None:
        """Its shards; None for a queue."""
        ...

    def opened_place(
        self, place: str, opener: PlaceOpener, *, hold_s: float, look: bool
    ) -> AbstractAsyncContextManager[OpenPlace]:
        """Opens a place of notices. With `look` nothing of it is changed. Raises InvalidConfiguration and PortError."""
        ...

    def longest_s(self) -> float:
        """How long one call of the function takes at most."""
        ...


@runtime_checkable
class WithLongOperations(Protocol):
    """A running mapping that offers something to operations that take long."""

    @property
    def long_operable(self) -> LongOperable:
        """What it offers."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class LongRun:
    """One operation that this worker has claimed. `stop` is asked to stop when the worker stops, or the operation is over or another's.

    `mapping` gives the running mapping; None while it does not run here. `alive` are the workers that run it. `pauses` are those of the mapping.
    `changed` makes this worker follow at once what was stored.
    """

    operation: OperationId
    worker: WorkerId
    operations: OpenOperations
    mapping: Callable[[], LongOperable | None]
    alive: Callable[[], Collection[WorkerId]]
    pauses: Callable[[], Sequence[OperatorPause] | None]
    opener: PlaceOpener
    changed: Callable[[], None]
    stop: Stop
    clock: Clock
    rng: Random
    port_backoff: Backoff

    def current(self) -> Operation | None:
        """The operation as it was last read; None if it is over, or another worker has claimed it."""
        found = self.operations.get(self.operation)
        return found if found is not None and claimed_by(found) == self.worker else None

    def held(self) -> bool:
        """Whether the whole mapping is paused, or that is not known."""
        found, operation = self.pauses(), self.operations.get(self.operation)
        return operation is None or found is None or holding(found, operation.request.target) is not None

    def delay_s(self, tries: int) -> float:
        """Seconds to wait after so many failures in a row."""
        return wait_s(self.port_backoff, tries, self.rng)

    async def change(self, rule: OperationChange) -> Operation | None:
        """Changes the operation, and repeats that while the store is in trouble. None: it is over or another's, or a stop came first."""
        tries = 0
        while not self.stop.requested and (operation := self.current()) is not None:
            try:
                return await self.operations.change(operation, rule)
            except PortError:
                await self.stop.sleep(self.delay_s(tries))
                tries += 1
        return None

    async def change_once(self, rule: OperationChange) -> None:
        """Tries once to change the operation, also after a stop. Nothing happens if it is over or another's, or the store is in trouble."""
        operation = self.current()
        if operation is not None:
            with suppress(PortError):
                await self.operations.change(operation, rule)

    async def in_vain(self, tries: int, why: str) -> None:
        """It could not begin, for the `tries`th time. Notes why, and now and then hands the operation over to another worker."""
        await waits(self, why)
        if tries % TRIES_MAX == 0:
            await self.change_once(partial(hand_over, worker=self.worker, alive=self.alive()))


def noted(operation: Operation, **notes: Any) -> Operation:
    """The operation with more notes, or the same one if they change nothing."""
    if operation.state.over or all(operation.notes.get(name, []) == value for name, value in notes.items()):
        return operation
    return replace(operation, state=OperationState.RUNNING, notes={**operation.notes, **notes})


async def waits(run: LongRun, *why: str) -> None:
    """Notes what the operation waits for, for people; without a reason, that it goes on. The store is asked only if that is new."""
    operation = run.current()
    if operation is not None and operation.notes.get(WAITING, []) != list(why):
        await run.change(partial(noted, waiting=list(why)))
