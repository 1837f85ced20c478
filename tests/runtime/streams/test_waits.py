"""Whatever a stream mapping waits for, the wait ends when a stop is asked for or a lease is lost."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from adapters.stores.memory import MemoryStore
from poller.domain.errors import ResourceMissing, ServiceUnavailable
from poller.domain.invocations import Notice
from poller.domain.plan import Tuning
from poller.domain.policies import Backoff, BatchPolicy, RetryPolicy
from poller.domain.records import Cursor, MappingId, Page, Position, Shard, ShardId, WorkerId
from poller.domain.rows import Checkpoint, Lease
from poller.domain.telemetry.mapping_events import CheckpointSaved, ShardStopped
from poller.rules.workers import assignment
from poller.rules.workers.assignment import Move, WorkerGroup
from poller.runtime.mappings.supervisor import Supervisor
from poller.runtime.stopping import Reason, Stop, interrupted_by
from poller.runtime.streams.checkpoints import LAST_SAVE_S_MAX
from poller.runtime.streams.context import StreamContext
from poller.runtime.streams.shard import RELEASE_S_MAX
from poller.runtime.streams.stream_mapping import StreamMapping
from poller.runtime.workers.membership import Maximum, Membership, Rates
from tests.runtime.daemons import Site, daemon_plan, now, until
from tests.runtime.fakes import (
    FakeDestination,
    FakeFunction,
    FakeStream,
    Seen,
    mapping,
    poison,
    records,
    stream_parts,
)
from tests.virtual import run_virtual

STOP_AT = 3.0
PATIENT = Tuning(port_backoff=Backoff(base_s=1000.0, cap_s=1000.0))
"""Whoever waits for its next try waits for very long."""


@dataclass
class Trouble:
    """Operations that never answer, and operations that fail, from now on."""

    hangs: set[str] = field(default_factory=set)
    fails: set[str] = field(default_factory=set)
    tried: list[str] = field(default_factory=list)

    async def at(self, operation: str) -> None:
        self.tried.append(operation)
        if operation in self.hangs:
            await asyncio.Event().wait()
        if operation in self.fails:
            raise ServiceUnavailable("down")


class TroubledStore(MemoryStore):
    """A store with trouble."""

    def __init__(self, trouble: Trouble) -> None:
        super().__init__()
        self.trouble = trouble

    async def create(self, row: Any) -> Any:
        await self.trouble.at("create")
        return await super().create(row)

    async def update(self, row: Any) -> None:
        await self.trouble.at("update")
        await super().update(row)

    async def leases(self, mapping: MappingId, *, memos: bool = True) -> Sequence[Lease]:
        await self.trouble.at("leases")
        return await super().leases(mapping, memos=memos)

    async def seed(self, mapping: MappingId, leases: Sequence[Lease]) -> None:
        await self.trouble.at("seed")
        await super().seed(mapping, leases)

    async def take(self, mapping: MappingId, lease: Lease, *, owner: Any) -> Lease:
        await self.trouble.at("take")
        return await super().take(mapping, lease, owner=owner)

    async def save(self, mapping: MappingId, lease: Lease, checkpoint: Checkpoint) -> None:
        await self.trouble.at("save")
        await super().save(mapping, lease, checkpoint)

    async def release(self, mapping: MappingId, lease: Lease) -> None:
        await self.trouble.at("release")
        await super().release(mapping, lease)


class TroubledStream(FakeStream):
    """A stream with trouble."""

    def __init__(self, trouble: Trouble) -> None:
        super().__init__()
        self.told = trouble

    async def shards(self) -> Sequence[Shard]:
        await self.told.at("shards")
        return await super().shards()

    async def cursor(self, shard: ShardId, position: Position) -> Cursor:
        await self.told.at("cursor")
        return await super().cursor(shard, position)

    async def read(self, shard: ShardId, cursor: Cursor, *, records_max: int) -> Page:
        await self.told.at("read")
        return await super().read(shard, cursor, records_max=records_max)

    async def retention_s(self) -> float | None:
        await self.told.at("retention")
        return None


class TroubledDestination(FakeDestination):
    """A destination with trouble."""

    def __init__(self, trouble: Trouble) -> None:
        super().__init__()
        self.told = trouble

    async def send(self, notice: Notice) -> None:
        await self.told.at("send")
        await super().send(notice)


class FadingWorkers:
    """A worker without others whose heartbeat can be late."""

    def __init__(self) -> None:
        self.holds = True
        self.wakes: list[Callable[[], None]] = []
        self.able = True
        self.held = 0

    @contextmanager
    def join(
        self, mapping: MappingId, *, wake: Callable[[], None], rates: Rates, maximum: Maximum | None = None
    ) -> Iterator[Membership]:
        self.wakes.append(wake)
        yield self

    async def workers_of(self, mapping: MappingId) -> frozenset[WorkerId]:
        return frozenset()

    def fade(self) -> None:
        self.holds = False
        for wake in self.wakes:
            wake()

    async def group(self, *, new_listing: bool = False) -> WorkerGroup:
        return WorkerGroup(me=WorkerId("worker-1"), peers={WorkerId("worker-1"): assignment.Peer()})

    def request(self, moves: Sequence[Move]) -> None:
        return

    def announce_change(self) -> None:
        return

    def holding(self) -> Callable[[], bool]:
        return lambda: self.holds

    def allowed(self) -> int:
        return 1


@dataclass
class Scene:
    """One mapping with trouble."""

    trouble: Trouble = field(default_factory=Trouble)
    seen: Seen = field(default_factory=Seen)
    workers: FadingWorkers = field(default_factory=FadingWorkers)
    stop: Stop = field(default_factory=Stop)

    def __post_init__(self) -> None:
        self.store = TroubledStore(self.trouble)
        self.stream = TroubledStream(self.trouble)
        self.function = FakeFunction(poison(2))

    def parts(self, **changes: Any) -> StreamContext:
        """The mapping's parts: one record at a time; the second one fails once and is given up."""
        retry = RetryPolicy(retries_max=0)
        plan = mapping(**({"batch": BatchPolicy(1), "retry": retry} | changes))
        made = stream_parts(
            self.stream,
            self.function,
            plan=plan,
            store=self.store,
            destination=TroubledDestination(self.trouble),
            seen=self.seen,
            tuning=PATIENT,
            max_concurrency=1,
        )
        return replace(made, workers=self.workers)


def played(script: Callable[[Scene], Awaitable[None]], **changes: Any) -> tuple[Scene, float]:
    """Runs the script beside a mapping; returns how long the mapping ran on after the script had ended."""

    async def main() -> tuple[Scene, float]:
        scene = Scene()
        runner = StreamMapping(scene.parts(**changes), scene.stop)
        async with asyncio.TaskGroup() as scope:
            running = scope.create_task(runner.run())
            await script(scene)
            ended, _ = now(), await asyncio.wait([running])
        return scene, now() - ended

    return run_virtual(main())


START = ("create", "update", "leases", "seed", "take", "shards", "retention", "cursor", "read")


@pytest.mark.parametrize("operation", START)
@pytest.mark.parametrize("how", ["hangs", "fails"])
def test_a_stop_ends_every_wait_of_a_mapping_that_starts(operation: str, how: str) -> None:
    async def script(scene: Scene) -> None:
        getattr(scene.trouble, how).add(operation)
        scene.stream.put(*records(1))
        await asyncio.sleep(STOP_AT)
        assert operation in scene.trouble.tried
        scene.stop.request(Reason.REQUESTED)

    _, took_s = played(script)
    assert took_s == 0.0


@pytest.mark.parametrize(
    ("operation", "at_most_s"),
    [("leases", 0.0), ("shards", 0.0), ("read", 0.0), ("save", LAST_SAVE_S_MAX), ("release", RELEASE_S_MAX)],
)
def test_a_stop_ends_every_wait_of_a_mapping_at_work_for_a_service_that_is_silent(
    operation: str, at_most_s: float
) -> None:
    async def script(scene: Scene) -> None:
        await asyncio.sleep(1.5)
        scene.trouble.hangs.add(operation)
        scene.stream.put(*records(1))
        await asyncio.sleep(60)
        scene.stop.request(Reason.REQUESTED)

    _, took_s = played(script)
    assert took_s <= at_most_s


def test_a_stop_ends_the_wait_for_a_save_that_is_under_way() -> None:
    async def script(scene: Scene) -> None:
        scene.trouble.hangs.add("save")
        scene.stream.put(*records(1))
        await until(lambda: "save" in scene.trouble.tried)
        scene.stop.request(Reason.REQUESTED)

    _, took_s = played(script)
    assert took_s <= LAST_SAVE_S_MAX


def test_a_stop_ends_the_wait_for_the_next_try_at_a_save() -> None:
    async def script(scene: Scene) -> None:
        scene.trouble.fails.add("save")
        scene.stream.put(*records(1))
        await asyncio.sleep(200)
        scene.trouble.fails.clear()
        assert scene.seen.of(CheckpointSaved) == []
        scene.stop.request(Reason.REQUESTED)

    scene, took_s = played(script)
    assert took_s == 0.0
    assert scene.seen.of(CheckpointSaved)[-1].position == Position.after("1")


def test_a_stop_ends_the_wait_for_the_next_try_of_a_batch_and_of_a_delivery() -> None:
    async def script(scene: Scene) -> None:
        scene.trouble.fails.add("send")
        scene.stream.put(*records(2))
        await asyncio.sleep(STOP_AT)
        assert "send" in scene.trouble.tried
        scene.stop.request(Reason.REQUESTED)

    assert played(script)[1] == 0.0
    assert played(_stopped_between_tries, retry=RetryPolicy(backoff=Backoff(1000.0, 1000.0)))[1] == 0.0


async def _stopped_between_tries(scene: Scene) -> None:
    scene.stream.put(*records(2))
    await asyncio.sleep(STOP_AT)
    assert len(scene.function.calls) == 1
    scene.stop.request(Reason.REQUESTED)


def stopped_at(scene: Scene) -> int:
    return len(scene.seen.of(ShardStopped))


@pytest.mark.parametrize("operation", ["save", "read", "cursor", "send", "leases", "shards"])
@pytest.mark.parametrize("how", ["hangs", "fails"])
def test_a_lost_lease_ends_every_wait_of_its_shard(operation: str, how: str) -> None:
    async def script(scene: Scene) -> None:
        scene.stream.put(*records(1, 2))
        getattr(scene.trouble, how).update({operation} - {"leases", "shards"})
        await asyncio.sleep(1.5)
        getattr(scene.trouble, how).add(operation)
        await asyncio.sleep(70)
        assert stopped_at(scene) == 0
        scene.workers.fade()
        await until(lambda: stopped_at(scene) == 1, step_s=0.01, within_s=0.05)
        scene.stop.request(Reason.REQUESTED)

    scene, took_s = played(script)
    assert took_s == 0.0
    saves = scene.trouble.tried.count("save")
    assert saves == len(scene.seen.of(CheckpointSaved)) + (saves if operation == "save" else 0)


def test_a_lost_lease_ends_the_waits_between_tries_and_for_more_records() -> None:
    async def script(scene: Scene) -> None:
        scene.stream.put(*records(2))
        await asyncio.sleep(STOP_AT)
        scene.workers.fade()
        await until(lambda: stopped_at(scene) == 1, step_s=0.01, within_s=0.05)
        scene.stop.request(Reason.REQUESTED)

    for changes in (
        {"retry": RetryPolicy(backoff=Backoff(1000.0, 1000.0))},
        {"batch": BatchPolicy(10, 300.0)},
    ):
        assert played(script, **changes)[1] == 0.0


def test_a_missing_shard_is_looked_for_no_longer_than_until_a_stop() -> None:
    async def script(scene: Scene) -> None:
        await asyncio.sleep(1.5)
        scene.trouble.hangs.add("shards")
        scene.stream.trouble.append(ResourceMissing("no such shard"))
        await asyncio.sleep(STOP_AT)
        scene.stop.request(Reason.REQUESTED)

    assert played(script)[1] == 0.0


def test_only_a_reason_that_is_strong_enough_ends_a_block() -> None:
    async def main() -> list[float]:
        ends = []
        stop = Stop()
        async with asyncio.TaskGroup() as scope:
            scope.create_task(_escalates(stop))
            for at in (Reason.REQUESTED, Reason.LOST):
                async with interrupted_by(stop, at):
                    await asyncio.sleep(100)
                ends.append(now())
        return ends

    assert run_virtual(main()) == [1.0, 2.0]


async def _escalates(stop: Stop) -> None:
    await asyncio.sleep(1)
    stop.request(Reason.REQUESTED)
    await asyncio.sleep(1)
    stop.request(Reason.LOST)


def test_a_stop_ends_the_wait_for_the_others_before_a_start() -> None:
    async def main() -> float:
        async def opener(stack: object, lost: Callable[[], None]) -> Any:
            return lambda stop: None

        supervisor = Supervisor(
            MappingId("m"),
            opener,
            gate=asyncio.Event(),
            observer=Seen(),
            wait_s=lambda _: 1.0,
            changed=lambda: None,
        )
        async with asyncio.TaskGroup() as scope:
            scope.create_task(supervisor.run())
            await supervisor.tried.wait()
            supervisor.stop.request(Reason.REQUESTED)
        return now()

    assert run_virtual(main()) == 0.0


def test_a_stop_ends_the_wait_for_a_store_that_does_not_open() -> None:
    @asynccontextmanager
    async def opening(*_: object) -> AsyncIterator[None]:
        await asyncio.Event().wait()
        yield

    async def main() -> float:
        site = Site()
        daemon = site.daemon(daemon_plan())
        plugin = daemon._registry.plugin("stores", "memory")
        object.__setattr__(plugin, "open", opening)
        async with asyncio.TaskGroup() as scope:
            scope.create_task(daemon.run())
            await asyncio.sleep(STOP_AT)
            daemon.stop()
        return now()

    assert run_virtual(main()) == STOP_AT
