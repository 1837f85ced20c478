"""A mapping of the file whose function is written in another way keeps its place."""

import asyncio
import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from random import Random
from typing import Any

import pytest

from adapters.stores.memory import MemoryStore
from poller.config.mapping import mapping_id
from poller.domain.errors import ServiceUnavailable
from poller.domain.invocations import FunctionError, Outcome, Succeeded
from poller.domain.plan import DaemonPlan, MappingPlan, Start
from poller.domain.records import Cursor, MappingId, Position, Record, ShardId
from poller.domain.rows import Checkpoint, Lease, MappingRow
from poller.domain.telemetry.labels import Loss
from poller.domain.telemetry.mapping_events import PlaceFound, RecordsLost
from poller.runtime.daemon import Daemon
from tests.runtime.daemons import Site, daemon_plan, until
from tests.runtime.fakes import SHARD, STREAM_ARN, FakeFunction, FakeStream, mapping, records
from tests.runtime.streams.test_recreated_stream import RemadeStream
from tests.virtual import run_virtual, virtual_clock

BASE = "arn:aws:lambda:eu-west-1:111122223333:function:reader"


def at(qualifier: str, **changes: Any) -> MappingPlan:
    """The mapping of the function at one qualifier."""
    arn = f"{BASE}:{qualifier}" if qualifier else BASE
    return mapping(mapping=mapping_id(STREAM_ARN, arn), function_arn=arn, **changes)


def file(*mappings: MappingPlan, worker: str = "worker-1") -> DaemonPlan:
    return daemon_plan(*mappings, worker=worker)


class Failing(MemoryStore):
    """A store that fails once at a step of taking over."""

    def __init__(self) -> None:
        super().__init__()
        self.fail: set[str] = set()

    def _step(self, name: str) -> None:
        if name in self.fail:
            self.fail.remove(name)
            raise ServiceUnavailable(name)

    async def seed(self, mapping: MappingId, leases: Sequence[Lease]) -> None:
        await super().seed(mapping, leases[:1])
        self._step("seed")
        await super().seed(mapping, leases)

    async def update(self, row: MappingRow) -> None:
        self._step("update")
        await super().update(row)
        self._step("updated")

    async def forget(self, mapping: MappingId) -> None:
        self._step("forget")
        await super().forget(mapping)


@dataclass
class TimedStream(FakeStream):
    """A stream in which a moment, and so LATEST, leaves out what arrived before."""

    arrived: dict[str, float] = field(default_factory=dict)

    def put(self, *records: Record, shard: ShardId = SHARD) -> None:
        super().put(*records, shard=shard)
        self.arrived |= {record.sequence_number: virtual_clock().now() for record in records}

    async def cursor(self, shard: ShardId, position: Position) -> Cursor:
        cursor, since = await super().cursor(shard, position), position.since
        if since is None:
            return cursor
        return Cursor(
            str(sum(self.arrived.get(each.sequence_number, 0.0) < since for each in self.held[shard]))
        )


class Blockable(FakeFunction):
    """A function that fails for the numbers in `poisoned`; `done` are those that it took."""

    def __init__(self, *, takes_s: float = 0.0) -> None:
        super().__init__(self._tried, takes_s=takes_s)
        self.poisoned: set[int] = set()
        self.done: list[int] = []

    def _tried(self, batch: list[int]) -> Outcome:
        if self.poisoned & set(batch):
            return FunctionError("ValueError", "poison")
        self.done += batch
        return Succeeded(b"")


@dataclass
class Scene:
    """Workers on one stream and one store."""

    stream: FakeStream = field(default_factory=TimedStream)
    function: Blockable = field(default_factory=Blockable)
    store: MemoryStore = field(default_factory=MemoryStore)
    site: Site = field(init=False)
    scope: asyncio.TaskGroup = field(init=False)
    killed: set[asyncio.Task[None]] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.site = Site(
            sources={STREAM_ARN: self.stream}, functions={"reader": self.function}, store=self.store
        )

    def start(self, plan: DaemonPlan) -> tuple[Daemon, asyncio.Task[None]]:
        daemon = self.site.daemon(plan)
        return daemon, self.scope.create_task(daemon.run(), name=str(plan.worker))

    async def end(self, daemon: Daemon, task: asyncio.Task[None]) -> None:
        daemon.stop()
        await task

    async def kill(self, task: asyncio.Task[None]) -> None:
        """Ends a worker without a word: its row and its leases stay as they are."""
        rows, leases = (
            dict(self.store._workers),
            {key: dict(each) for key, each in self.store._leases.items()},
        )
        task.cancel()
        await asyncio.wait([task])
        self.store._workers.update(rows)
        self.store._leases.update(leases)

    @property
    def seen(self) -> list[int]:
        return [number for call in self.function.calls for number in call]

    async def ids(self) -> set[str]:
        return {row.mapping for row in await self.store.mappings()}

    def places(self) -> list[tuple[str, str]]:
        return [(event.place, event.reason) for event in self.site.seen.of(PlaceFound)]


def played(scene: Scene, script: Any) -> None:
    async def main() -> None:
        async with asyncio.TaskGroup() as scope:
            scene.scope = scope
            await script()

    run_virtual(main())


CHANGES = [
    ("v1", "v2"),
    ("", "live"),
    ("live", ""),
    ("$LATEST", "$LATEST.PUBLISHED"),
    ("1", "2"),
]


@pytest.mark.parametrize(("old", "new"), CHANGES)
def test_another_qualifier_goes_on_where_the_one_before_stopped(old: str, new: str) -> None:
    scene = Scene()

    async def script() -> None:
        scene.stream.put(*records(1, 2, 3))
        first = scene.start(file(at(old)))
        await until(lambda: scene.seen == [1, 2, 3])
        await scene.end(*first)
        scene.stream.put(*records(4, 5))
        second = scene.start(file(at(new)))
        await until(lambda: len(scene.seen) >= 5)
        await asyncio.sleep(5)
        assert scene.seen == [1, 2, 3, 4, 5]
        assert await scene.ids() == {at(new).mapping}
        note = f"goes on where {at(old).function_arn} stopped; the positions of mapping {at(old).mapping} are its own now"
        assert scene.places() == [("kept", note)]
        assert second[0].status().ready
        assert second[0].status().notes == (f"mapping {at(new).mapping}: {note}",)
        await scene.end(*second)

    played(scene, script)


def test_a_uuid_that_is_written_to_the_file_goes_on_too() -> None:
    scene = Scene()

    async def script() -> None:
        scene.stream.put(*records(1))
        first = scene.start(file(at("v1")))
        await until(lambda: scene.seen == [1])
        await scene.end(*first)
        scene.stream.put(*records(2))
        pinned = replace(at("v1"), mapping=MappingId("0f4b8a5e-0000-4000-8000-000000000001"))
        second = scene.start(file(pinned))
        await until(lambda: 2 in scene.seen)
        await asyncio.sleep(5)
        assert scene.seen == [1, 2]
        await scene.end(*second)

    played(scene, script)


def test_the_function_as_an_arn_of_another_region_goes_on_too() -> None:
    scene = Scene()

    async def script() -> None:
        scene.stream.put(*records(1))
        first = scene.start(file(at("")))
        await until(lambda: scene.seen == [1])
        await scene.end(*first)
        arn = "arn:aws:lambda:us-east-1:444455556666:function:reader"
        second = scene.start(file(mapping(mapping=mapping_id(STREAM_ARN, arn), function_arn=arn)))
        scene.stream.put(*records(2))
        await until(lambda: len(scene.seen) >= 2)
        await asyncio.sleep(5)
        assert scene.seen == [1, 2]
        await scene.end(*second)

    played(scene, script)


def test_a_mapping_at_latest_loses_nothing_that_came_between() -> None:
    scene = Scene()

    async def script() -> None:
        first = scene.start(file(at("v1", start=Start(latest=True))))
        await asyncio.sleep(1)
        scene.stream.put(*records(1))
        await until(lambda: scene.seen == [1])
        await scene.end(*first)
        scene.stream.put(*records(2))
        second = scene.start(file(at("v2", start=Start(latest=True))))
        await until(lambda: scene.seen == [1, 2])
        (lease,) = await scene.store.leases(at("v2").mapping)
        assert lease.checkpoint.position <= Position.after("2")
        await scene.end(*second)

    played(scene, script)


def test_a_changed_file_goes_on_while_the_daemon_runs_and_back_again() -> None:
    scene = Scene()

    async def script() -> None:
        scene.stream.put(*records(1, 2))
        daemon, task = scene.start(file(at("v1")))
        await until(lambda: scene.seen == [1, 2])
        for number, version in enumerate(("v2", "v1", "v2"), start=3):
            daemon.replan(file(at(version)))
            scene.stream.put(*records(number))
            await until(lambda: scene.seen[-1] == number)  # noqa: B023 - waited for in this round
            await asyncio.sleep(3)
        assert scene.seen == [1, 2, 3, 4, 5]
        assert await scene.ids() == {at("v2").mapping}
        await scene.end(daemon, task)

    played(scene, script)


def test_the_one_before_drains_before_the_new_one_reads() -> None:
    scene = Scene(function=Blockable(takes_s=4.0))

    async def script() -> None:
        scene.stream.put(*records(1))
        daemon, task = scene.start(file(at("v1")))
        await until(lambda: scene.function.in_flight == 1)
        scene.stream.put(*records(2))
        daemon.replan(file(at("v2")))
        await until(lambda: 2 in scene.seen)
        assert scene.function.in_flight_max == 1
        await asyncio.sleep(5)
        assert scene.seen == [1, 2]
        await scene.end(daemon, task)

    played(scene, script)


def test_two_qualifiers_in_the_file_are_two_mappings_and_each_gets_every_record() -> None:
    scene = Scene()

    async def script() -> None:
        scene.stream.put(*records(1, 2))
        first = scene.start(file(at("v1")))
        await until(lambda: scene.seen == [1, 2])
        await scene.end(*first)
        second = scene.start(file(at("v1"), at("v2")))
        await until(lambda: scene.seen == [1, 2, 1, 2])
        await asyncio.sleep(3)
        assert scene.seen == [1, 2, 1, 2]
        assert scene.places() == []
        await scene.end(*second)

    played(scene, script)


def test_what_is_not_clear_begins_at_its_starting_position_and_says_so() -> None:
    scene = Scene()

    async def script() -> None:
        scene.stream.put(*records(1))
        first = scene.start(file(at("v1"), at("v2")))
        await until(lambda: scene.seen == [1, 1])
        await scene.end(*first)
        second = scene.start(file(at("v3")))
        await until(lambda: scene.seen == [1, 1, 1])
        ((place, reason),) = scene.places()
        assert place == "unclear"
        assert reason.startswith(
            "begins at its StartingPosition: it is not clear which mapping it continues ("
        )
        assert any(reason in note for note in second[0].status().notes)
        await scene.end(*second)

    played(scene, script)


LATEST = Start(latest=True)


def late(*qualifiers: str, off: str = "", worker: str = "worker-1") -> DaemonPlan:
    """A file with these qualifiers at LATEST, of which one may be disabled."""
    found = [at(each, start=LATEST, enabled=each != off) for each in qualifiers]
    return file(*found, worker=worker)


@pytest.mark.parametrize("restarted", [False, True])
@pytest.mark.parametrize("both", [("v5", "v6"), ("v6", "v5")])
def test_a_mapping_that_left_the_file_earlier_never_counts(both: tuple[str, str], *, restarted: bool) -> None:
    """The file goes from two to one, then to another, back again, and on, while record 2 blocks the shard."""
    scene = Scene()

    async def script() -> None:
        daemon, task = scene.start(late(*both))

        async def change(plan: DaemonPlan) -> None:
            nonlocal daemon, task
            if restarted:
                await scene.end(daemon, task)
                daemon, task = scene.start(plan)
            else:
                daemon.replan(plan)
            await asyncio.sleep(5)

        await asyncio.sleep(1)
        scene.stream.put(*records(1))
        await until(lambda: scene.function.done == [1, 1])
        await change(late("v6"))
        scene.function.poisoned = {2}
        scene.stream.put(*records(2, 3, 4))
        await until(lambda: 2 in scene.seen)
        for number, version in enumerate(("v7", "v6"), start=5):
            await change(late(version))
            scene.stream.put(*records(number))
        scene.function.poisoned = set()
        await change(late("v8"))
        scene.stream.put(*records(7))
        await until(lambda: 7 in scene.function.done)
        await asyncio.sleep(5)
        assert scene.function.done == [1, 1, 2, 3, 4, 5, 6, 7]
        assert [place for place, _ in scene.places()] == ["kept"] * 3
        assert await scene.ids() == {at("v5").mapping, at("v8").mapping}
        await scene.end(daemon, task)

    played(scene, script)


@pytest.mark.parametrize("start", [Start(), LATEST])
def test_one_that_is_disabled_at_first_goes_on_where_the_last_one_stopped(start: Start) -> None:
    scene = Scene()

    async def script() -> None:
        daemon, task = scene.start(file(*(at(each, start=start) for each in ("v4", "v5", "v6"))))
        await asyncio.sleep(1)
        scene.stream.put(*records(1))
        await until(lambda: scene.function.done == [1, 1, 1])
        daemon.replan(file(at("v6", start=start)))
        await asyncio.sleep(5)
        daemon.replan(file(at("v7", start=start, enabled=False)))
        await asyncio.sleep(5)
        scene.stream.put(*records(2))
        daemon.replan(file(at("v7", start=start)))
        await until(lambda: 2 in scene.function.done)
        await asyncio.sleep(5)
        assert scene.function.done == [1, 1, 1, 2]
        assert [place for place, _ in scene.places()] == ["kept"]
        await scene.end(daemon, task)

    played(scene, script)


@pytest.mark.parametrize(
    ("before", "after"), [(("v1", "v2"), ("v3",)), (("v1",), ("v2", "v3")), (("v1", "v2"), ("v3", "v4"))]
)
def test_what_is_not_clear_loses_nothing_at_latest(before: tuple[str, ...], after: tuple[str, ...]) -> None:
    scene = Scene()

    async def script() -> None:
        first = scene.start(late(*before))
        await asyncio.sleep(1)
        scene.stream.put(*records(1))
        await until(lambda: scene.function.done == [1] * len(before))
        await scene.end(*first)
        scene.stream.put(*records(2))
        await asyncio.sleep(1)
        second = scene.start(late(*after))
        await until(lambda: scene.function.done.count(2) == len(after))
        await asyncio.sleep(5)
        assert scene.function.done == [1] * len(before) + [2] * len(after)
        assert {place for place, _ in scene.places()} == {"unclear"}
        assert scene.places()[0][1].startswith(
            "begins where the one that is furthest behind stopped: it is not clear which mapping it continues ("
        )
        await scene.end(*second)

    played(scene, script)


def test_what_is_not_clear_waits_for_workers_with_the_old_file() -> None:
    scene = Scene()

    async def script() -> None:
        old = scene.start(late("v1", "v2", worker="old"))
        await asyncio.sleep(1)
        scene.stream.put(*records(1))
        await until(lambda: scene.function.done == [1, 1])
        new = scene.start(late("v3", worker="new"))
        await until(lambda: scene.places() != [])
        await asyncio.sleep(20)
        scene.stream.put(*records(2))
        await until(lambda: scene.function.done == [1, 1, 2, 2])
        await scene.end(*old)
        scene.stream.put(*records(3))
        await until(lambda: 3 in scene.function.done)
        await asyncio.sleep(5)
        assert scene.function.done == [1, 1, 2, 2, 3]
        assert {place for place, _ in scene.places()} == {"waiting", "unclear"}
        await scene.end(*new)

    played(scene, script)


def test_a_worker_with_the_new_file_waits_for_one_with_the_old_file_and_says_so() -> None:
    scene = Scene()

    async def script() -> None:
        scene.stream.put(*records(1, 2))
        old = scene.start(file(at("v1"), worker="old"))
        await until(lambda: scene.seen == [1, 2])
        new = scene.start(file(at("v2"), worker="new"))
        await until(lambda: scene.places() != [])
        text = (
            f"waits for worker old to stop or take the new file, which runs {BASE}:v1; then it goes on there"
        )
        assert scene.places() == [("waiting", text)]
        await until(lambda: new[0].status().ready)
        scene.stream.put(*records(3))
        await until(lambda: 3 in scene.seen)
        await asyncio.sleep(20)
        assert {lease.owner for lease in await scene.store.leases(at("v1").mapping)} == {"old"}
        assert await scene.store.leases(at("v2").mapping) == []
        assert new[0].status().notes == (f"mapping {at('v2').mapping}: {text}",)
        await scene.end(*old)
        scene.stream.put(*records(4))
        waited = await until(lambda: 4 in scene.seen)
        assert waited < 3
        assert scene.seen == [1, 2, 3, 4]
        assert [place for place, _ in scene.places()] == ["waiting", "kept"]
        await scene.end(*new)

    played(scene, script)


def test_a_worker_that_comes_back_with_the_old_file_waits_and_takes_nothing() -> None:
    scene = Scene()

    async def script() -> None:
        scene.stream.put(*records(1))
        old = scene.start(file(at("v1"), worker="old"))
        await until(lambda: scene.seen == [1])
        await scene.end(*old)
        new = scene.start(file(at("v2"), worker="new"))
        scene.stream.put(*records(2))
        await until(lambda: 2 in scene.seen)
        back = scene.start(file(at("v1"), worker="old"))
        await asyncio.sleep(20)
        scene.stream.put(*records(3))
        await until(lambda: 3 in scene.seen)
        await scene.end(*back)
        await scene.end(*new)
        assert scene.seen == [1, 2, 3]

    played(scene, script)


def test_two_workers_with_the_new_file_take_over_once() -> None:
    shards = {f"shardId-{number:012}": records(number * 10 + 1) for number in range(6)}
    scene = Scene(stream=FakeStream(held=dict(shards)))  # type: ignore[arg-type] # plain texts are ids here

    async def script() -> None:
        old = scene.start(file(at("v1"), worker="old"))
        await until(lambda: len(scene.seen) == 6)
        news = [scene.start(file(at("v2"), worker=name)) for name in ("one", "two")]
        await asyncio.sleep(5)
        await scene.end(*old)
        for number, shard in enumerate(shards):
            scene.stream.put(*records(number * 10 + 2), shard=shard)  # type: ignore[arg-type]
        await until(lambda: len(scene.seen) == 12)
        await asyncio.sleep(15)
        assert sorted(scene.seen) == sorted([n * 10 + k for n in range(6) for k in (1, 2)])
        owners = {lease.owner for lease in await scene.store.leases(at("v2").mapping)}
        assert owners == {"one", "two"}
        for each in news:
            await scene.end(*each)

    played(scene, script)


class SlowRows(MemoryStore):
    """A store that takes up to two seconds to read or write a row."""

    def __init__(self, rng: Random) -> None:
        super().__init__()
        self.rng = rng

    async def create(self, row: MappingRow) -> MappingRow:
        found = await super().create(row)
        await asyncio.sleep(self.rng.uniform(0.0, 2.0))
        return found

    async def update(self, row: MappingRow) -> None:
        await asyncio.sleep(self.rng.uniform(0.0, 2.0))
        await super().update(row)


@pytest.mark.parametrize("seed", range(100))
def test_a_stream_that_is_made_again_while_its_mapping_begins_is_read(seed: int) -> None:
    rng, stream = Random(seed), RemadeStream()
    names, lived_s = ("one", "two", "three")[: rng.randint(1, 3)], rng.uniform(0.5, 20.0)
    scene = Scene(stream=stream, store=SlowRows(rng))

    async def script() -> None:
        stream.put(*records(100, 101))
        workers = [scene.start(file(at("v1"), worker=name)) for name in names]
        await asyncio.sleep(lived_s)
        stream.remake()
        stream.put(*records(1, 2, 3))
        await asyncio.sleep(60)
        assert scene.seen[-3:] == [1, 2, 3]
        # Without the time of creation, positions of the earlier stream look as if the present one had dropped their records.
        assert {event.loss for event in scene.site.seen.of(RecordsLost)} <= {Loss.STREAM_REMADE}
        for each in workers:
            await scene.end(*each)

    played(scene, script)


def test_workers_that_find_nothing_changed_write_no_row() -> None:
    scene = Scene()

    async def script() -> None:
        first = scene.start(file(at("v1"), worker="one"))
        await asyncio.sleep(20)
        (before,) = await scene.store.mappings()
        more = [scene.start(file(at("v1"), worker=name)) for name in ("two", "three")]
        await asyncio.sleep(60)
        assert await scene.store.mappings() == [before]
        for each in (first, *more):
            await scene.end(*each)

    played(scene, script)


def test_a_dead_worker_is_waited_for_no_longer_than_its_lease() -> None:
    scene = Scene()

    async def script() -> None:
        scene.stream.put(*records(1))
        _, task = scene.start(file(at("v1"), worker="old"))
        await until(lambda: scene.seen == [1])
        await asyncio.sleep(3)
        await scene.kill(task)
        scene.stream.put(*records(2))
        new = scene.start(file(at("v2"), worker="new"))
        assert await until(lambda: 2 in scene.seen) < 10 + 2
        assert scene.seen == [1, 2]
        await scene.end(*new)

    played(scene, script)


@pytest.mark.parametrize("step", ["seed", "update", "updated", "forget"])
@pytest.mark.parametrize("ending", ["goes on", "is killed"])
def test_a_taking_over_that_stops_half_way_is_finished(step: str, ending: str) -> None:
    store = Failing()
    shards = {f"shardId-{number:012}": records(number * 10 + 1) for number in range(3)}
    scene = Scene(store=store, stream=FakeStream(held=dict(shards)))  # type: ignore[arg-type]

    async def script() -> None:
        first = scene.start(file(at("v1")))
        await until(lambda: len(scene.seen) == 3)
        await scene.end(*first)
        store.fail.add(step)
        second = scene.start(file(at("v2"), worker="second"))
        await until(lambda: not store.fail, step_s=0.001)
        if ending == "is killed":
            await scene.kill(second[1])
            second = scene.start(file(at("v2"), worker="third"))
        for number, shard in enumerate(shards):
            scene.stream.put(*records(number * 10 + 2), shard=shard)  # type: ignore[arg-type]
        await until(lambda: len(scene.seen) >= 6)
        await asyncio.sleep(15)
        assert sorted(scene.seen) == [1, 2, 11, 12, 21, 22]
        assert await scene.ids() == {at("v2").mapping}
        await scene.end(*second)
        third = scene.start(file(at("v4"), worker="fourth"))
        await asyncio.sleep(15)
        assert len(scene.seen) == 6
        assert await scene.ids() == {at("v4").mapping}
        await scene.end(*third)

    played(scene, script)


def test_positions_that_were_imported_are_the_mappings_own() -> None:
    scene = Scene()

    async def script() -> None:
        scene.stream.put(*records(1, 2, 3))
        first = scene.start(file(at("v1")))
        await until(lambda: scene.seen == [1, 2, 3])
        await scene.end(*first)
        new = at("v2").mapping
        (old,) = await scene.store.leases(at("v1").mapping)
        await scene.store.create(MappingRow(new, fixed=(await scene.store.mappings())[0].fixed, seeded=True))
        await scene.store.seed(new, [Lease(old.shard, (), Checkpoint(Position.after("1")))])
        second = scene.start(file(at("v2")))
        await until(lambda: scene.seen == [1, 2, 3, 2, 3])
        await scene.end(*second)

    played(scene, script)


@pytest.mark.parametrize("seed", range(40))
def test_whatever_workers_and_files_do_nothing_is_lost(seed: int) -> None:
    """Three workers come, go, are killed and take other files by chance; without kills nothing comes twice either."""
    rng, kills = Random(seed), seed % 2 == 0
    scene = Scene()
    put = 0
    running: dict[str, tuple[Daemon, asyncio.Task[None]]] = {}

    async def step() -> None:
        nonlocal put
        put += 1
        scene.stream.put(*records(put))
        name, version = rng.choice(["one", "two", "three"]), rng.choice(["v1", "v2", "v3"])
        plan = file(at(version, start=Start(latest=True)), worker=name)
        if name not in running:
            running[name] = scene.start(plan)
        elif kills and rng.random() < 0.3:
            await scene.kill(running.pop(name)[1])
        elif rng.random() < 0.4:
            await scene.end(*running.pop(name))
        else:
            running[name][0].replan(plan)
        await asyncio.sleep(rng.choice([0.0, 0.1, 1.0, 5.0, 20.0]))

    async def script() -> None:
        first = scene.start(file(at("v1", start=Start(latest=True)), worker="zero"))
        await asyncio.sleep(2)
        await scene.end(*first)
        for _ in range(12):
            await step()
        for each in running.values():
            await scene.end(*each)
        last = scene.start(file(at("v9", start=Start(latest=True)), worker="last"))
        await until(lambda: set(scene.seen) == set(range(1, put + 1)))
        await asyncio.sleep(20)
        if not kills:
            assert sorted(scene.seen) == list(range(1, put + 1))
        assert await scene.store.leases(at("v9").mapping)
        await scene.end(*last)

    played(scene, script)


@dataclass
class Changes:
    """Files that change by chance, and workers that take them sooner or later, come, go and are killed."""

    scene: Scene
    rng: Random
    file: tuple[str, ...] = ("v1",)
    off: str = ""
    before: list[tuple[tuple[str, ...], str]] = field(default_factory=list)
    put: int = 0
    running: dict[str, tuple[Daemon, asyncio.Task[None]]] = field(default_factory=dict)

    async def step(self) -> None:
        """Records come, the file changes or not, and something happens to a worker."""
        if self.rng.random() < 0.7:
            self._put()
        if self.rng.random() < 0.3:
            self.scene.function.poisoned = {self.put + 1} if self.rng.random() < 0.5 else set()
        await self._change()
        await self._worker()
        await asyncio.sleep(self.rng.choice([0.0, 0.1, 1.0, 5.0, 20.0]))

    async def quiet(self) -> None:
        """All workers have the file, and every record has reached the function."""
        self.scene.function.poisoned = set()
        if self.file == (self.off,):
            self.off = ""
        for name, (daemon, _) in self.running.items():
            daemon.replan(self._plan(name))
        if not self.running:
            self._start("one")
        await until(lambda: set(self.scene.function.done) == set(range(1, self.put + 1)))
        wanted = {at(each).mapping for each in self.file if each != self.off}
        rows = self.scene.store._rows
        await until(lambda: all(each in rows and rows[each].seeded for each in wanted))

    def _put(self) -> None:
        self.put += 1
        self.scene.stream.put(*records(self.put))

    def _plan(self, name: str) -> DaemonPlan:
        return late(*self.file, off=self.off, worker=name)

    def _start(self, name: str) -> None:
        self.running[name] = self.scene.start(self._plan(name))

    async def _change(self) -> None:
        """A change of the file. A sibling begins at LATEST when it is added: only then nothing may be on its way."""
        then = self.file, self.off
        others = [each for each in ("v1", "v2", "v3", "v4", "v5", "v6") if each not in self.file]
        match self.rng.choice(["stay", "swap", "swap", "add", "remove", "back", "both", "off", "on"]):
            case "swap":
                gone = self.rng.choice(self.file)
                self.file = (*(each for each in self.file if each != gone), self.rng.choice(others))
            case "add" if len(self.file) == 1:
                await self.quiet()
                self.file += (self.rng.choice(others),)
                await self.quiet()
            case "remove" if len(self.file) == 2:
                self.file = (self.rng.choice([each for each in self.file if each != self.off]),)
            case "back" if self.before and len(self.before[-1][0]) == len(self.file):
                self.file, self.off = self.before.pop()
            case "both":
                self.file = tuple(self.rng.sample(others, self.rng.choice([1, 2])))
            case "off":
                self.off = self.rng.choice(self.file)
            case "on":
                await self.quiet()
                self.off = ""
                await self.quiet()
        if self.off not in self.file:
            self.off = ""
        if (self.file, self.off) != then:
            self.before.append(then)

    async def _worker(self) -> None:
        name = self.rng.choice(["one", "two", "three"])
        if name not in self.running:
            self._start(name)
        elif self.rng.random() < 0.2:
            await self.scene.kill(self.running.pop(name)[1])
        elif self.rng.random() < 0.3:
            await self.scene.end(*self.running.pop(name))
        else:
            self.running[name][0].replan(self._plan(name))


@pytest.mark.parametrize("seed", range(int(os.environ.get("PLACES_SEEDS", "40"))))
def test_whatever_changes_follow_each_other_nothing_is_lost(seed: int) -> None:
    scene = Scene()
    changes = Changes(scene, Random(seed))

    async def script() -> None:
        first = scene.start(late("v1", worker="zero"))
        await asyncio.sleep(2)
        await scene.end(*first)
        for _ in range(20):
            await changes.step()
        for each in changes.running.values():
            await scene.end(*each)
        scene.function.poisoned = set()
        last = scene.start(late("v9", worker="last"))
        await until(lambda: set(scene.function.done) == set(range(1, changes.put + 1)))
        await asyncio.sleep(20)
        assert await scene.store.leases(at("v9").mapping)
        await scene.end(*last)

    played(scene, script)
