"""Several workers on one store and virtual time: heartbeats, handovers, losses, shares."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import inf
from pathlib import Path
from typing import Any

import pytest

from adapters.stores.memory import MemoryStore
from poller.domain.errors import ServiceUnavailable
from poller.domain.plan import Tuning
from poller.domain.policies import BatchPolicy
from poller.domain.records import SHARD_END, MappingId, Position, ShardId, WorkerId
from poller.domain.rows import Checkpoint, Lease, MappingRow, WorkerRow
from poller.domain.telemetry.daemon_events import StoreFailed
from poller.domain.telemetry.mapping_events import LeaseMoved
from poller.process_identity import LocalProcess
from poller.runtime.stopping import Reason, Stop
from poller.runtime.streams.context import StreamContext
from poller.runtime.streams.stream_mapping import StreamMapping
from poller.runtime.workers.heartbeat import Heartbeat
from poller.runtime.workers.membership import Alone, Maximum, Membership
from tests.runtime.fakes import FakeFunction, FakeStream, Seen, mapping, records, stream_parts
from tests.virtual import run_virtual, virtual_clock

LEASE_S, HEARTBEAT_S = Tuning().lease_s, Tuning().heartbeat_s
MAPPING = mapping().mapping
QUEUE = MappingId("a queue")


class Mortal:
    """A process that its neighbours can look for, or, with `apart`, one of another machine."""

    def __init__(self, name: str, ended: set[str], *, apart: bool = False) -> None:
        self.name = name
        self.ended = ended
        self.apart = apart

    def identity(self) -> Mapping[str, Any]:
        return {"name": self.name}

    def gone(self, identity: Mapping[str, Any]) -> bool:
        return identity.get("name") in self.ended

    def runs(self, identity: Mapping[str, Any]) -> bool:
        return not self.apart and "name" in identity and identity["name"] not in self.ended


class Flaky(MemoryStore):
    """A store that can be cut off from its heartbeats, and counts them."""

    def __init__(self) -> None:
        super().__init__()
        self.away = False
        self.hangs = False
        self.calls: list[str] = []
        self.last_beat = 0.0

    async def beat(self, worker: WorkerId, counter: int, *, facts: Mapping[str, Any]) -> None:
        self.calls.append(f"beat {worker}")
        self.last_beat = asyncio.get_running_loop().time()
        if self.hangs:
            await asyncio.sleep(1000)
        if self.away:
            raise ServiceUnavailable("no route")
        await super().beat(worker, counter, facts=facts)

    async def workers(self) -> Sequence[WorkerRow]:
        if self.away:
            raise ServiceUnavailable("no route")
        return await super().workers()


@dataclass
class Worker:
    """One worker: its heartbeat, its mapping, what it saw."""

    name: str
    store: MemoryStore
    stream: FakeStream
    function: FakeFunction
    seen: Seen = field(default_factory=Seen)
    ended: set[str] = field(default_factory=set)
    stop: Stop = field(default_factory=Stop)
    heartbeat: Heartbeat = field(init=False)
    runner: StreamMapping = field(init=False)
    task: asyncio.Task[None] | None = None

    def __post_init__(self) -> None:
        self.heartbeat = Heartbeat(
            self.store,
            WorkerId(self.name),
            clock=virtual_clock(),
            tuning=Tuning(),
            observer=self.seen,
            process=Mortal(self.name, self.ended),
        )
        parts = stream_parts(
            self.stream,
            self.function,
            store=self.store,
            seen=self.seen,
            worker=self.name,
            plan=mapping(batch=BatchPolicy(1)),
        )
        shared = {each: getattr(parts, each) for each in parts.__dataclass_fields__} | {
            "workers": self.heartbeat
        }
        self.runner = StreamMapping(StreamContext(**shared), self.stop)

    async def run(self) -> None:
        """Until it is stopped or killed."""
        async with self.heartbeat.run(self.stop):
            await self.runner.run()

    async def kill(self) -> None:
        """Ends it without a word: what it still tries to write does not arrive."""
        assert self.task is not None
        rows = {each.worker: each for each in await self.store.workers()}
        leases = await self.store.leases(MAPPING)
        self.task.cancel()
        await asyncio.wait([self.task])
        row = rows[WorkerId(self.name)]
        await self.store.beat(row.worker, row.counter, facts=row.facts)
        for each in leases:
            if each.owner == self.name:
                (there,) = [now for now in await self.store.leases(MAPPING) if now.shard == each.shard]
                if there.owner is None:
                    # The release of a cancelled worker is undone as if it had never been sent.
                    self.store._leases[MAPPING][each.shard] = each


@dataclass
class User(Worker):
    """A worker that has something in use of a maximum of all workers."""

    maximum: int = 7
    used: int = 0
    lingers_s: float = 0.0
    membership: Membership | None = None

    async def run(self) -> None:
        """Until it is stopped, and then as long as it lingers."""
        maximum = Maximum(self.maximum, lambda: self.used)
        async with self.heartbeat.run(self.stop):
            with self.heartbeat.join(QUEUE, wake=_nothing, rates=dict, maximum=maximum) as self.membership:
                await self.stop.sleep(inf)
                await asyncio.sleep(self.lingers_s)

    def allowed(self) -> int:
        """How much may be in use now."""
        return self.membership.allowed() if self.membership is not None else 0


@dataclass
class Scene:
    """Workers on one stream."""

    shards: int
    store: MemoryStore = field(default_factory=MemoryStore)
    takes_s: float = 0.2
    ended: set[str] = field(default_factory=set)
    workers: dict[str, Worker] = field(default_factory=dict)
    scope: asyncio.TaskGroup = field(default_factory=asyncio.TaskGroup)

    def __post_init__(self) -> None:
        self.names = [ShardId(f"shard-{number:02d}") for number in range(self.shards)]
        self.stream = FakeStream(held={name: [] for name in self.names})

    def start(self, name: str) -> Worker:
        """One more worker."""
        worker = Worker(name, self.store, self.stream, FakeFunction(takes_s=self.takes_s), ended=self.ended)
        worker.task = self.scope.create_task(worker.run(), name=name)
        self.workers[name] = worker
        return worker

    def share(self, name: str, maximum: int) -> User:
        """One more worker that shares a maximum."""
        user = User(name, self.store, self.stream, FakeFunction(), ended=self.ended, maximum=maximum)
        user.task = self.scope.create_task(user.run(), name=name)
        self.workers[name] = user
        return user

    async def owners(self) -> dict[str, int]:
        """How many shards everybody has; nobody's under the empty name."""
        found: dict[str, int] = {}
        for lease in await self.store.leases(MAPPING):
            found[lease.owner or ""] = found.get(lease.owner or "", 0) + 1
        return found

    async def until(self, owners: Mapping[str, int], within_s: float) -> float:
        """Waits until leases are owned so; returns how long that took."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        while await self.owners() != owners:
            assert loop.time() - began < within_s, f"{await self.owners()} after {within_s:g} s"
            await asyncio.sleep(0.05)
        return loop.time() - began


def _nothing() -> None:
    """Nobody waits for a change."""


def play(scene: Callable[[], Scene], script: Callable[[Scene], Awaitable[None]]) -> Scene:
    """Runs a script, then stops everybody."""

    async def main() -> Scene:
        place = scene()
        async with place.scope:
            await script(place)
            for worker in place.workers.values():
                worker.stop.request(Reason.REQUESTED)
        return place

    return run_virtual(main())


def test_a_lone_worker_begins_at_once() -> None:
    async def script(place: Scene) -> None:
        place.start("ann")
        assert await place.until({"ann": 3}, 1.0) <= 0.1

    play(lambda: Scene(3), script)


def test_a_worker_of_the_same_name_takes_its_leases_back_at_once() -> None:
    async def script(place: Scene) -> None:
        place.start("ann")
        await place.until({"ann": 3}, 1.0)
        await place.workers["ann"].kill()
        again = place.start("ann")
        await asyncio.sleep(0.3)
        assert len(again.runner.shards()) == 3

    play(lambda: Scene(3), script)


@pytest.mark.parametrize("maximum", [1, 2, 7])
@pytest.mark.parametrize("newcomer", ["ann", "bob", "dan", "eve", "fay", "gus"])
def test_a_dead_workers_part_of_a_maximum_is_free_in_time_though_another_one_joins(
    newcomer: str, maximum: int
) -> None:
    async def script(place: Scene) -> None:
        stays, dies = place.share("stays", maximum), place.share("dies", maximum)
        await asyncio.sleep(20)
        assert stays.allowed() + dies.allowed() == maximum
        await dies.kill()
        del place.workers["dies"]
        began = asyncio.get_running_loop().time()
        await asyncio.sleep(3)
        joins = place.share(newcomer, maximum)
        while stays.allowed() + joins.allowed() < maximum:
            assert asyncio.get_running_loop().time() - began <= LEASE_S + 2
            await asyncio.sleep(0.05)
        assert stays.allowed() + joins.allowed() == maximum

    play(lambda: Scene(1), script)


class Offline(Flaky):
    """A store of which nothing answers while it is away."""

    async def leases(self, mapping: MappingId, *, memos: bool = True) -> Sequence[Lease]:
        self._check()
        return await super().leases(mapping, memos=memos)

    async def take(self, mapping: MappingId, lease: Lease, *, owner: WorkerId) -> Lease:
        self._check()
        return await super().take(mapping, lease, owner=owner)

    async def save(self, mapping: MappingId, lease: Lease, checkpoint: Checkpoint) -> None:
        self._check()
        await super().save(mapping, lease, checkpoint)

    async def release(self, mapping: MappingId, lease: Lease) -> None:
        self._check()
        await super().release(mapping, lease)

    def _check(self) -> None:
        if self.away:
            raise ServiceUnavailable("no route")


@pytest.mark.parametrize("outage_s", [5.0, 11.0, 20.0, 60.0, 300.0])
@pytest.mark.parametrize("workers", [1, 2])
def test_all_shards_go_on_as_soon_as_the_store_is_back(outage_s: float, workers: int) -> None:
    async def script(place: Scene) -> None:
        store = place.store
        assert isinstance(store, Offline)
        names = ["ann", "bob"][:workers]
        for name in names:
            place.start(name)
        await place.until(dict.fromkeys(names, 8 // workers), 10.0)
        await asyncio.sleep(5)
        for number, shard in enumerate(place.names):
            place.stream.put(*records(1 + number), shard=shard)
        store.away = True
        await asyncio.sleep(outage_s)
        store.away = False
        for number, shard in enumerate(place.names):
            place.stream.put(*records(100 + number), shard=shard)
        await asyncio.sleep(3 * HEARTBEAT_S)
        delivered = {call[0] for worker in place.workers.values() for call in worker.function.calls}
        assert delivered >= {100 + number for number in range(8)}

    play(lambda: Scene(8, store=Offline()), script)


def test_a_stop_soon_after_an_outage_of_the_store_takes_no_time() -> None:
    async def script(place: Scene) -> None:
        store = place.store
        assert isinstance(store, Offline)
        worker = place.start("ann")
        await place.until({"ann": 8}, 10.0)
        for number, shard in enumerate(place.names):
            place.stream.put(*records(1 + number), shard=shard)
        store.away = True
        await asyncio.sleep(60)
        store.away = False
        worker.stop.request(Reason.REQUESTED)
        assert worker.task is not None
        began = asyncio.get_running_loop().time()
        await asyncio.wait([worker.task])
        assert asyncio.get_running_loop().time() - began <= 0.5

    play(lambda: Scene(8, store=Offline()), script)


def test_leases_are_lost_at_the_moment_at_which_they_end_though_the_store_says_nothing() -> None:
    async def script(place: Scene) -> None:
        store = place.store
        assert isinstance(store, Flaky)
        worker = place.start("ann")
        await place.until({"ann": 3}, 1.0)
        await asyncio.sleep(5)
        beaten = store.last_beat
        assert beaten > 0
        store.hangs = True
        await asyncio.sleep(beaten + LEASE_S - asyncio.get_running_loop().time() - 0.01)
        assert [each.held for each in worker.seen.of(LeaseMoved)] == [True] * 3
        await asyncio.sleep(0.02)
        assert [each.held for each in worker.seen.of(LeaseMoved)] == [True] * 3 + [False] * 3
        store.hangs = False

    play(lambda: Scene(3, store=Flaky()), script)


def test_two_processes_of_one_name_are_reported_so() -> None:
    async def main() -> None:
        store = MemoryStore()
        heartbeats = [
            Heartbeat(
                store,
                WorkerId("ann"),
                clock=virtual_clock(),
                tuning=Tuning(),
                observer=Seen(),
                process=Mortal(name, set(), apart=True),
            )
            for name in ("one", "two")
        ]
        async with heartbeats[0].run(Stop()), heartbeats[1].run(Stop()):
            await asyncio.sleep(60)

    with pytest.raises(ExceptionGroup) as caught:
        run_virtual(main())
    assert "'ann' is the name of another process, too; give each worker its own" in repr(caught.value)


@pytest.mark.parametrize("wait_s", [0.5, 5.0, 15.0])
def test_the_second_process_of_a_name_on_one_machine_ends_and_the_first_goes_on(wait_s: float) -> None:
    store = MemoryStore()

    def heartbeat(name: str) -> Heartbeat:
        return Heartbeat(
            store,
            WorkerId("ann"),
            clock=virtual_clock(),
            tuning=Tuning(),
            observer=Seen(),
            process=Mortal(name, set()),
        )

    async def main() -> None:
        async with heartbeat("one").run(Stop()):
            await asyncio.sleep(wait_s)
            with pytest.raises(ExceptionGroup) as caught:
                async with heartbeat("two").run(Stop()):
                    await asyncio.sleep(2.0)
            assert "'ann' is the name of another process, too" in repr(caught.value)
            assert [row.facts["process"] for row in await store.workers()] == [{"name": "one"}]
            await asyncio.sleep(60)

    run_virtual(main())


def test_a_predecessor_on_the_same_machine_is_known_to_be_gone_at_once() -> None:
    async def script(place: Scene) -> None:
        place.start("ann")
        await place.until({"ann": 3}, 1.0)
        await place.workers.pop("ann").kill()
        place.ended.add("ann")
        place.start("bob")
        assert await place.until({"bob": 3}, 1.0) <= 0.2
        assert [row.worker for row in await place.store.workers()] == ["bob"]

    play(lambda: Scene(3), script)


def test_a_predecessor_elsewhere_is_dead_after_the_lease_time() -> None:
    async def script(place: Scene) -> None:
        place.start("ann")
        await place.until({"ann": 3}, 1.0)
        await asyncio.sleep(5)
        await place.workers.pop("ann").kill()
        place.start("bob")
        assert LEASE_S <= await place.until({"bob": 3}, 20.0) <= LEASE_S + 2

    play(lambda: Scene(3), script)


def test_a_shard_is_handed_over_behind_the_running_batch_and_no_batch_runs_twice() -> None:
    async def script(place: Scene) -> None:
        place.start("ann")
        await place.until({"ann": 8}, 1.0)
        for number, shard in enumerate(place.names):
            place.stream.put(*records(*range(100 * number + 1, 100 * number + 61)), shard=shard)
        place.start("bob")
        assert await place.until({"ann": 4, "bob": 4}, 10.0) <= 5.0
        await asyncio.sleep(30)

    place = play(lambda: Scene(8, takes_s=0.2), script)
    calls = [call for worker in place.workers.values() for call in worker.function.calls]
    assert sorted(calls) == [[100 * number + at] for number in range(8) for at in range(1, 61)]
    assert all(len(worker.function.calls) > 0 for worker in place.workers.values())
    for number in range(8):
        times = sorted(
            (at, call[0])
            for worker in place.workers.values()
            for at, call in zip(worker.function.times, worker.function.calls, strict=True)
            if call[0] // 100 == number
        )
        assert [call for _, call in times] == sorted(call for _, call in times)


def test_a_worker_that_leaves_is_followed_at_once() -> None:
    async def script(place: Scene) -> None:
        place.start("ann")
        place.start("bob")
        await place.until({"ann": 2, "bob": 2}, 10.0)
        place.workers.pop("ann").stop.request(Reason.REQUESTED)
        assert await place.until({"bob": 4}, 3.0) <= 2.0
        assert [row.worker for row in await place.store.workers()] == ["bob"]

    play(lambda: Scene(4), script)


def test_a_worker_without_a_heartbeat_stops_before_its_next_batch_and_writes_nothing() -> None:
    async def script(place: Scene) -> None:
        store = place.store
        assert isinstance(store, Flaky)
        worker = place.start("ann")
        await place.until({"ann": 1}, 1.0)
        place.stream.put(*records(*range(1, 100)), shard=place.names[0])
        await asyncio.sleep(2)
        store.away = True
        began = asyncio.get_running_loop().time()
        await asyncio.sleep(LEASE_S + 4)
        last = worker.function.times[-1]
        assert LEASE_S - HEARTBEAT_S - 1.0 <= last - began <= LEASE_S
        (lease,) = await store.leases(MAPPING)
        before = len(worker.function.calls)
        done = lease.checkpoint.position.sequence
        assert before - 2 <= done <= before - 1, "a checkpoint is written once a second"
        store.away = False
        await asyncio.sleep(10)
        # It takes its lease again, nobody else did, and goes on where the last checkpoint was.
        assert worker.function.calls[before] == [done + 1]
        assert [event.held for event in worker.seen.of(LeaseMoved)] == [True, False, True]
        assert len(worker.seen.of(StoreFailed)) == 1

    play(lambda: Scene(1, store=Flaky(), takes_s=1.0), script)


def test_a_store_that_hangs_counts_as_one_that_is_away() -> None:
    async def script(place: Scene) -> None:
        store = place.store
        assert isinstance(store, Flaky)
        worker = place.start("ann")
        await place.until({"ann": 1}, 1.0)
        store.hangs = True
        await asyncio.sleep(LEASE_S + 4)
        assert worker.runner.shards() == ()
        store.hangs = False
        await asyncio.sleep(5)
        assert len(worker.runner.shards()) == 1

    play(lambda: Scene(1, store=Flaky()), script)


def test_a_lone_worker_beats_once_a_heartbeat() -> None:
    async def script(place: Scene) -> None:
        place.start("ann")
        await asyncio.sleep(60)

    store = Flaky()
    play(lambda: Scene(20, store=store), script)
    assert 60 <= len(store.calls) <= 63


def test_maxima_are_shared_by_all_who_run_the_mapping() -> None:
    async def script(place: Scene) -> None:
        users = [place.share(name, 7) for name in ("ann", "bob", "cat")]
        assert [user.allowed() for user in users] == [0, 0, 0]
        await asyncio.sleep(5)
        assert sorted(user.allowed() for user in users) == [2, 2, 3]
        await place.workers.pop("ann").kill()
        await asyncio.sleep(5)
        users = [*users[1:], place.share("dan", 7)]
        assert sum(user.allowed() for user in users) <= 7
        assert users[-1].allowed() == 0
        await asyncio.sleep(LEASE_S + 2)
        assert sorted(user.allowed() for user in users) == [2, 2, 3]

    play(lambda: Scene(3), script)


def test_who_has_just_come_waits_for_what_others_still_have_in_use() -> None:
    async def script(place: Scene) -> None:
        ann = place.share("ann", 7)
        await asyncio.sleep(1)
        ann.used = 7
        bob = place.share("bob", 7)
        await asyncio.sleep(5)
        assert (ann.allowed() in (3, 4), bob.allowed()) == (True, 0)
        ann.used = 5
        await asyncio.sleep(2.5)
        assert bob.allowed() == 2
        ann.used = 1
        await asyncio.sleep(2.5)
        assert ann.allowed() + bob.allowed() == 7
        assert bob.allowed() in (3, 4)

    play(lambda: Scene(1), script)


def test_who_leaves_keeps_only_what_still_runs_of_its_part() -> None:
    async def script(place: Scene) -> None:
        ann, bob = place.share("ann", 7), place.share("bob", 7)
        await asyncio.sleep(5)
        ann.used, ann.lingers_s = 2, 5.0
        place.workers["ann"].stop.request(Reason.REQUESTED)
        await asyncio.sleep(2.5)
        assert (ann.allowed(), bob.allowed()) == (0, 5)

    play(lambda: Scene(1), script)


def test_a_lone_worker_has_all_of_a_maximum_at_once() -> None:
    async def script(place: Scene) -> None:
        ann = place.share("ann", 7)
        await asyncio.sleep(0.2)
        assert ann.allowed() == 7

    play(lambda: Scene(1), script)
    with Alone(WorkerId("ann")).join(QUEUE, wake=_nothing, rates=dict, maximum=Maximum(7, int)) as membership:
        assert membership.allowed() == 7


def test_rows_of_the_long_dead_are_removed() -> None:
    async def script(place: Scene) -> None:
        await place.store.beat(WorkerId("old"), 7, facts={})
        place.start("ann")
        await asyncio.sleep(20 * LEASE_S)
        assert [row.worker for row in await place.store.workers()] == ["ann", "old"]
        await asyncio.sleep(12 * LEASE_S)
        assert [row.worker for row in await place.store.workers()] == ["ann"]

    play(lambda: Scene(1), script)


def test_a_worker_that_cannot_list_the_source_gets_no_more_shards() -> None:
    async def script(place: Scene) -> None:
        broken = Worker(
            "bob",
            place.store,
            FakeStream(listing_trouble=[ServiceUnavailable("down")] * 1000),
            FakeFunction(),
        )
        broken.task = place.scope.create_task(broken.run(), name="bob")
        place.workers["bob"] = broken
        await asyncio.sleep(20)
        place.start("ann")
        await place.until({"ann": 4}, 20.0)

    play(lambda: Scene(4), script)


def test_leases_that_nothing_needs_are_dropped_after_a_while() -> None:
    old, child = ShardId("old"), ShardId("shard-00")

    async def script(place: Scene) -> None:
        await place.store.create(MappingRow(MAPPING, virtual_clock().now(), seeded=True))
        await place.store.seed(
            MAPPING,
            [Lease(old, (), Checkpoint(SHARD_END)), Lease(child, (old,), Checkpoint(Position.horizon()))],
        )
        place.start("ann")
        place.start("bob")
        await asyncio.sleep(9 * Tuning().discovery_s)
        assert {lease.shard for lease in await place.store.leases(MAPPING)} == {old, child}
        await asyncio.sleep(3 * Tuning().discovery_s)
        assert {lease.shard for lease in await place.store.leases(MAPPING)} == {child}

    play(lambda: Scene(1), script)


def test_a_process_is_gone_when_its_id_is_free_or_somebody_elses() -> None:
    me = LocalProcess()
    identity = dict(me.identity())
    assert not me.gone(identity)
    assert me.gone(identity | {"started": identity["started"] - 1})
    assert me.gone(identity | {"pid": 2**30})
    assert me.runs(identity)
    assert not me.runs(identity | {"started": identity["started"] - 1})
    assert not me.runs(identity | {"pid": 2**30})


@pytest.mark.parametrize(
    "identity", [{}, {"pid": 1}, {"space": "elsewhere", "pid": 2**30, "started": 1}, {"pid": "x"}]
)
def test_of_processes_elsewhere_nothing_is_known(identity: dict[str, Any]) -> None:
    assert not LocalProcess().gone(identity)
    assert not LocalProcess().runs(identity)


def test_without_proc_nothing_is_known(tmp_path: Path) -> None:
    blind = LocalProcess(tmp_path)
    assert blind.identity() == {}
    assert not blind.gone({"space": None, "pid": 2**30})
    assert not blind.runs({"space": None, "pid": 2**30})
