"""Owns workers that follow operations without a daemon: mappings are fakes, the store is one that several share and that can fail."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from random import Random
from typing import Any

from adapters.stores.memory import MemoryStore
from poller.clock import LoopClock
from poller.domain.errors import LeaseLost, ServiceUnavailable
from poller.domain.operations import Action, Operation, OperationId, OperationState, OperatorPause, PartResult
from poller.domain.plan import MappingPlan, SourceKind
from poller.domain.policies import Backoff
from poller.domain.records import SHARD_END, MappingId, Position, ShardId, WorkerId
from poller.domain.rows import Checkpoint, Lease
from poller.runtime.operations.follower import Follower
from poller.runtime.operations.follower_context import FollowerContext
from poller.runtime.operations.open_operations import OpenOperations
from poller.runtime.operations.operable import Operable, ResolvedRecords, SettledRecords, WaitsFor
from poller.runtime.operations.operable_mappings import KnownMapping
from poller.runtime.operations.operation_service import OperationContext, OperationService
from poller.runtime.stopping import Reason, Stop
from tests.runtime.fakes import Seen, mapping
from tests.virtual import EPOCH_BASE, run_virtual

STREAM = mapping().mapping
QUEUE = MappingId("7a4b8a5e-8b0c-4a56-9c0e-0d7d6b0c2b22")
QUEUE_ARN = "arn:aws:sqs:eu-west-1:111122223333:orders.fifo"
ONE, TWO = ShardId("shardId-000000000001"), ShardId("shardId-000000000002")
DONE, FAILED = OperationState.DONE, OperationState.FAILED

type Outcome = PartResult | ResolvedRecords | SettledRecords | None
type Script = Callable[["FakeOperable", str, Operation], Awaitable[Outcome]]


class Door:
    """One worker's way to a store that others share. `closed`: nothing is answered. `lost_answers`: calls take effect and fail."""

    def __init__(self, store: MemoryStore) -> None:
        self.store = store
        self.closed = False
        self.lost_answers = False
        self.answer_s = 0.0
        """How long answers take to arrive, after what was asked has happened."""
        self.calls: list[str] = []

    def __getattr__(self, name: str) -> Callable[..., Awaitable[Any]]:
        async def call(*given: Any, **more: Any) -> Any:
            self.calls.append(name)
            if self.closed:
                raise ServiceUnavailable("the store does not answer")
            answer = await getattr(self.store, name)(*given, **more)
            if self.answer_s:
                await asyncio.sleep(self.answer_s)
            if self.lost_answers and name in {"add", "change"}:
                raise ServiceUnavailable("the answer is lost")
            return answer

        return call


async def at_once(_operable: "FakeOperable", unit: str, operation: Operation) -> Outcome:
    """Carries everything out at once. `first` is the first of the unit's records."""
    if operation.request.action is Action.SKIP and "records" not in operation.notes:
        return ResolvedRecords((_operable.records[unit][0],))
    return PartResult(state=DONE, result=f"{operation.request.action} of {unit}")


@dataclass
class FakeOperable:
    """A running mapping with these units. `log` has when what was carried out on which of them."""

    held: list[str] = field(default_factory=list)
    records: dict[str, list[str]] = field(default_factory=dict)
    script: Script = at_once
    pauses: list[Sequence[OperatorPause] | None] = field(default_factory=list)
    log: list[tuple[float, str, str, tuple[str, ...]]] = field(default_factory=list)
    waits: str = ""

    def __post_init__(self) -> None:
        self.waits_for: WaitsFor = lambda _unit, _operation: self.waits

    def units(self) -> Sequence[str]:
        return tuple(self.held)

    def apply_pauses(self, pauses: Sequence[OperatorPause] | None) -> None:
        self.pauses.append(pauses)

    async def carry_out(self, unit: str, operation: Operation) -> Outcome:
        if unit not in self.held:
            raise LeaseLost(f"{unit} is not held here")
        outcome = await self.script(self, unit, operation)
        if isinstance(outcome, PartResult):
            records = tuple(operation.notes.get("records", ()))
            moment = asyncio.get_running_loop().time()
            self.log.append((moment, unit, operation.request.action, records))
        return outcome

    @property
    def paused(self) -> Sequence[str] | None:
        """The ids of the pauses that it has now."""
        pauses = self.pauses[-1]
        return None if pauses is None else [each.operation for each in pauses]


@dataclass
class Site:
    """What all workers share: the store, who is alive, and the mappings that there are."""

    store: MemoryStore = field(default_factory=MemoryStore)
    running: dict[MappingId, set[str]] = field(default_factory=dict)
    known: dict[MappingId, KnownMapping] = field(default_factory=dict)
    seen: Seen = field(default_factory=Seen)

    async def hold(self, shard: ShardId, owner: str | None, *, ended: bool = False) -> None:
        """Makes a worker the owner of a shard."""
        position = SHARD_END if ended else Position.after("5")
        await self.store.seed(STREAM, [Lease(shard, (), Checkpoint(Position.after("5")))])
        (lease,) = [each for each in await self.store.leases(STREAM) if each.shard == shard]
        lease = await self.store.take(STREAM, lease, owner=WorkerId(owner or "nobody"))
        await self.store.save(STREAM, lease, Checkpoint(position))
        if owner is None:
            await self.store.release(STREAM, lease)


def known(plan: MappingPlan | None = None, *, runs: bool = True, deleting: bool = False) -> KnownMapping:
    return KnownMapping(plan=plan or mapping(), runs=runs, deleting=deleting)


def queue_plan() -> MappingPlan:
    return mapping(mapping=QUEUE, kind=SourceKind.SQS, source_arn=QUEUE_ARN)


def no_place(kind: str, name: str, settings: Mapping[str, Any], *, look: bool = False) -> Any:
    """Opens nothing."""
    raise AssertionError(f"nobody asks for {kind} {name} with {settings} (look: {look})")


class FakeWorker:
    """A worker with a follower and a service."""

    def __init__(
        self,
        site: Site,
        name: str,
        operables: Mapping[MappingId, FakeOperable],
        *,
        clock_ahead_s: float = 0.0,
    ) -> None:
        self.name = name
        self.site = site
        self.door = Door(site.store)
        self.mine = dict(operables)
        self.stop = Stop()
        self.control = OperationService()
        clock, rng = LoopClock(wall=lambda: EPOCH_BASE + now() + clock_ahead_s), Random(name)
        store: Any = self.door
        operations = OpenOperations(store, store, clock=clock, observer=site.seen, rng=rng)
        context = FollowerContext(
            worker=WorkerId(name),
            store=store,
            peers=self,
            clock=clock,
            rng=rng,
            observer=site.seen,
            port_backoff=Backoff(base_s=1.0, cap_s=4.0),
            opener=no_place,
        )
        self.follower = Follower(operations, self, self.stop, context)
        self.control.open(
            OperationContext(
                operations=operations,
                running=self,
                peers=self,
                store=store,
                clock=clock,
                rng=rng,
                refresh=self._refresh,
                wake=self.follower.wake,
            )
        )

    # What operations see of the mappings and workers.

    def operables(self) -> Mapping[MappingId, Operable]:
        return self.mine

    def known(self, mapping: MappingId) -> KnownMapping | None:
        return self.site.known.get(mapping)

    async def listed(self) -> None:
        return

    def workers_of(self, mapping: MappingId) -> frozenset[WorkerId]:
        return frozenset(map(WorkerId, self.site.running.get(mapping, ())))

    async def _refresh(self) -> bool:
        return True

    # What tests do.

    async def ask(self, action: str, mapping: MappingId = STREAM, by: str = "ann", **more: Any) -> Operation:
        """Asks this worker for an operation."""
        return await self.control.submit(mapping, {"action": action, **more}, by=by)

    async def is_over(self, operation: Operation, *, within_s: float = 60.0) -> Operation:
        """Waits until an operation is over; returns it."""
        async with asyncio.timeout(within_s):
            while True:
                found = await self.control.operation(operation.operation)
                if found.state.over:
                    return found
                await asyncio.sleep(0.05)

    async def state(self, operation: OperationId) -> OperationState:
        return (await self.control.operation(operation)).state


@asynccontextmanager
async def running(*workers: FakeWorker) -> AsyncIterator[None]:
    """Runs the followers of workers. In the end each that was not ended is stopped."""
    async with asyncio.TaskGroup() as scope:
        for worker in workers:
            begin(scope, worker)
        await asyncio.sleep(0)
        yield
        for worker in workers:
            worker.stop.request(Reason.REQUESTED)


def begin(scope: asyncio.TaskGroup, worker: FakeWorker) -> asyncio.Task[None]:
    """Starts the follower of a worker and its mappings. A cancelled task is a killed process."""
    for identity, operable in worker.mine.items():
        worker.site.running.setdefault(identity, set()).add(worker.name)
        worker.follower.introduce(identity, operable)
    return scope.create_task(worker.follower.run(), name=worker.name)


async def two_shards(
    *, script: Script = at_once, clock_ahead_s: float = 0.0
) -> tuple[Site, FakeWorker, FakeWorker]:
    """Worker `a` has shard ONE, and `b` has TWO. The clock of `b` is ahead of that of `a`."""
    site = Site(known={STREAM: known()})
    await site.hold(ONE, "a")
    await site.hold(TWO, "b")
    records: dict[str, list[str]] = {ONE: ["11", "12"], TWO: ["21"]}
    a = FakeWorker(site, "a", {STREAM: FakeOperable([ONE], records, script)})
    operables = {STREAM: FakeOperable([TWO], records, script)}
    b = FakeWorker(site, "b", operables, clock_ahead_s=clock_ahead_s)
    return site, a, b


def stream_of(worker: FakeWorker) -> FakeOperable:
    return worker.mine[STREAM]


def now() -> float:
    return asyncio.get_running_loop().time()


def play(script: Callable[[], Awaitable[None]]) -> None:
    """Runs a script on virtual time."""

    async def main() -> None:
        await script()

    run_virtual(main())


def ids(operations: Collection[Operation]) -> list[str]:
    return [each.operation for each in operations]
