"""A stream that is deleted and made again under its name: while it is read, and between two runs."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import count
from random import Random
from typing import Any

import pytest

from adapters.stores.memory import MemoryStore
from poller.domain.errors import (
    CursorExpired,
    PositionTrimmed,
    ResourceMissing,
    RowChanged,
    ServiceUnavailable,
)
from poller.domain.records import (
    SHARD_END,
    Cursor,
    Epoch,
    MappingId,
    Page,
    Position,
    Shard,
    ShardId,
    WorkerId,
)
from poller.domain.rows import Checkpoint, Lease, MappingRow
from poller.domain.telemetry.labels import Loss
from poller.domain.telemetry.mapping_events import RecordsLost
from poller.rules.streams.recreated_stream import created_of, with_created
from poller.runtime.stopping import Reason
from poller.runtime.streams.recreated_stream import StreamIdentity
from tests.runtime.daemons import now
from tests.runtime.fakes import SHARD, FakeFunction, FakeStream, Seen, records, stream_parts
from tests.runtime.workers.test_leases import MAPPING, Scene, play
from tests.virtual import EPOCH_BASE, run_virtual

OTHER = ShardId("shardId-000000000001")


@dataclass
class RemadeStream(FakeStream):
    """A stream that knows its cursors and sequence numbers of before no more once it was made again."""

    born: float = EPOCH_BASE - 1000.0
    generation: int = 0
    gone: bool = False
    stale: Callable[[str], Exception] = ResourceMissing
    asked: int = 0

    def remake(self, *shards: ShardId) -> None:
        """Other records from now on, under the same names."""
        self.gone = False
        self.generation += 1
        self.born = EPOCH_BASE + now()
        self.held = {shard: [] for shard in shards or (SHARD,)}
        self.ended, self.parents = set(), {}

    async def created(self) -> Epoch | None:
        self._check()
        self.asked += 1
        return Epoch(self.born)

    async def shards(self) -> list[Shard]:
        self._check()
        return list(await super().shards())

    async def cursor(self, shard: ShardId, position: Position) -> Cursor:
        self._check()
        known = {record.sequence_number for record in self.held.get(shard, ())}
        if position.sequence and str(position.sequence) not in known:
            raise PositionTrimmed("did not come from this stream")
        return Cursor(f"{self.generation}/{await super().cursor(shard, position)}")

    async def read(self, shard: ShardId, cursor: Cursor, *, records_max: int) -> Page:
        self._check()
        generation, _, place = cursor.partition("/")
        if int(generation) != self.generation:
            self.reads.append(now())
            await asyncio.sleep(0)
            raise self.stale("no such iterator")
        page = await super().read(shard, Cursor(place), records_max=records_max)
        after = None if page.cursor is None else Cursor(f"{generation}/{page.cursor}")
        return Page(page.records, after, page.behind_ms)

    def _check(self) -> None:
        if self.gone:
            raise ResourceMissing("no such stream")


@dataclass
class Remade(Scene):
    """Workers on such a stream."""

    made: RemadeStream = field(default_factory=RemadeStream)

    def __post_init__(self) -> None:
        self.names = [SHARD]
        self.stream = self.made

    def delivered(self) -> list[int]:
        """All records that functions got, in order."""
        calls = [
            (at, call)
            for worker in self.workers.values()
            for at, call in zip(worker.function.times, worker.function.calls, strict=True)
        ]
        return [number for _, call in sorted(calls) for number in call]

    def losses(self) -> list[tuple[Loss, str]]:
        """What workers said of losses."""
        return [
            (event.loss, event.position.encode())
            for worker in self.workers.values()
            for event in worker.seen.of(RecordsLost)
        ]


@pytest.mark.parametrize("stale", [ResourceMissing, CursorExpired, PositionTrimmed])
@pytest.mark.parametrize("names", [("ann",), ("ann", "bob")])
@pytest.mark.parametrize("gone_s", [0.0, 30.0])
def test_a_stream_that_is_made_again_while_it_is_read_is_begun_again_and_counted_once(
    stale: Callable[[str], Exception], names: tuple[str, ...], gone_s: float
) -> None:
    async def script(place: Scene) -> None:
        assert isinstance(place, Remade)
        stream = place.made
        stream.stale = stale
        stream.put(*records(100, 101, 102))
        for name in names:
            place.start(name)
        await asyncio.sleep(10)
        assert place.delivered() == [100, 101, 102]
        stream.gone = gone_s > 0
        await asyncio.sleep(gone_s)
        stream.remake()
        # Lower sequence numbers than before: nothing tells them from repeated ones but the stream's time of creation.
        stream.put(*records(1, 2, 3))
        await asyncio.sleep(40)
        stream.put(*records(4, 5))
        await asyncio.sleep(10)
        assert place.delivered() == [100, 101, 102, 1, 2, 3, 4, 5]
        assert place.losses() == [(Loss.STREAM_REMADE, "AFTER:102")]
        (lease,) = await place.store.leases(MAPPING)
        assert lease.checkpoint.position == Position.after("5")

    play(lambda: Remade(1), script)


def test_a_stream_that_is_made_again_is_noticed_within_some_minutes_though_its_cursors_go_on() -> None:
    async def script(place: Scene) -> None:
        assert isinstance(place, Remade)
        stream = place.made
        stream.put(*records(100))
        place.start("ann")
        await asyncio.sleep(10)
        generation = stream.generation
        stream.remake()
        stream.generation = generation
        stream.put(*records(1, 2))
        await asyncio.sleep(330)
        assert place.delivered() == [100, 1, 2]

    play(lambda: Remade(1), script)


@pytest.mark.parametrize("names", [("ann",), ("ann", "bob")])
@pytest.mark.parametrize("gone_s", [3.0, 30.0])
def test_a_stream_that_was_missing_is_asked_whether_it_is_another_one_though_its_cursors_go_on(
    names: tuple[str, ...], gone_s: float
) -> None:
    async def script(place: Scene) -> None:
        assert isinstance(place, Remade)
        stream = place.made
        stream.put(*records(100))
        for name in names:
            place.start(name)
        await asyncio.sleep(10)
        generation = stream.generation
        stream.gone = True
        await asyncio.sleep(gone_s)
        stream.remake()
        stream.generation = generation
        stream.put(*records(1, 2))
        await asyncio.sleep(40)
        assert place.delivered() == [100, 1, 2]
        assert place.losses() == [(Loss.STREAM_REMADE, "AFTER:100")]

    play(lambda: Remade(1), script)


CHILD, GRANDCHILD = ShardId("shardId-000000000007"), ShardId("shardId-000000000009")


@pytest.mark.parametrize("names", [("ann",), ("ann", "bob", "cat")])
def test_no_child_of_a_stream_that_was_made_again_is_read_before_its_parent(names: tuple[str, ...]) -> None:
    """The parent has a namesake in the stream before, which was read to its end. No read is refused."""

    async def script(place: Scene) -> None:
        assert isinstance(place, Remade)
        stream = place.made
        stream.held[CHILD], stream.parents[CHILD] = [], (SHARD,)
        stream.put(*records(100))
        stream.put(*records(200), shard=CHILD)
        stream.ended.add(SHARD)
        for name in names:
            place.start(name)
        await asyncio.sleep(10)
        assert place.delivered() == [100, 200]
        generation = stream.generation
        stream.remake(SHARD, CHILD, GRANDCHILD)
        stream.generation = generation
        stream.parents |= {CHILD: (SHARD,), GRANDCHILD: (SHARD,)}
        stream.put(*records(1, 2))
        stream.put(*records(3), shard=GRANDCHILD)
        stream.ended.add(SHARD)
        await asyncio.sleep(40)
        assert place.delivered() == [100, 200, 1, 2, 3]
        assert place.losses() == [(Loss.STREAM_REMADE, "AFTER:200")]

    play(lambda: Remade(1), script)


def test_the_time_of_creation_is_asked_for_only_when_other_shards_are_listed() -> None:
    async def script(place: Scene) -> None:
        assert isinstance(place, Remade)
        stream = place.made
        place.start("ann")
        await asyncio.sleep(250)
        assert (stream.asked, len(stream.listings)) == (1, 9)
        stream.held[CHILD], stream.parents[CHILD] = [], (SHARD,)
        stream.ended.add(SHARD)
        await asyncio.sleep(40)
        assert stream.asked == 2

    play(lambda: Remade(1), script)


@pytest.mark.parametrize("shards", [(SHARD,), (SHARD, OTHER)])
def test_a_stream_that_is_made_again_between_two_runs_is_begun_again(shards: tuple[ShardId, ...]) -> None:
    async def script(place: Scene) -> None:
        assert isinstance(place, Remade)
        stream = place.made
        stream.held[CHILD], stream.parents[CHILD] = [], (SHARD,)
        stream.put(*records(100))
        stream.put(*records(200), shard=CHILD)
        stream.ended.add(SHARD)
        first = place.start("ann")
        await asyncio.sleep(10)
        first.stop.request(Reason.REQUESTED)
        assert first.task is not None
        await asyncio.wait([first.task])
        assert place.delivered() == [100, 200]
        assert {lease.shard: lease.checkpoint.position for lease in await place.store.leases(MAPPING)} == {
            SHARD: SHARD_END,
            CHILD: Position.after("200"),
        }
        stream.remake(*shards)
        for number, shard in enumerate(shards):
            stream.put(*records(1 + number), shard=shard)
        place.start("bob")
        await asyncio.sleep(10)
        assert sorted(place.delivered()) == [*range(1, 1 + len(shards)), 100, 200]
        assert place.losses() == [(Loss.STREAM_REMADE, "AFTER:200")]
        assert {lease.shard for lease in await place.store.leases(MAPPING)} == set(shards)

    play(lambda: Remade(1), script)


def test_a_passing_error_is_no_other_stream() -> None:
    async def script(place: Scene) -> None:
        assert isinstance(place, Remade)
        stream = place.made
        stream.put(*records(100))
        place.start("ann")
        await asyncio.sleep(10)
        for trouble in (
            ResourceMissing("for a moment"),
            PositionTrimmed("for a moment"),
            CursorExpired("old"),
        ):
            stream.trouble.append(trouble)
            await asyncio.sleep(20)
        stream.gone = True
        await asyncio.sleep(60)
        stream.gone = False
        stream.put(*records(101))
        await asyncio.sleep(40)
        assert place.delivered() == [100, 101]
        assert Loss.STREAM_REMADE not in {loss for loss, _ in place.losses()}

    play(lambda: Remade(1), script)


def test_a_cursor_that_the_stream_does_not_know_is_replaced() -> None:
    async def script(place: Scene) -> None:
        stream = place.stream
        stream.put(*records(100))
        place.start("ann")
        await asyncio.sleep(5)
        asked = len(stream.cursors)
        stream.trouble += [ResourceMissing("no such iterator")]
        await asyncio.sleep(5)
        assert len(stream.cursors) == asked + 1

    play(_plain, script)


def _plain() -> Scene:
    place = Scene(1)
    place.names = [SHARD]
    place.stream = FakeStream()
    return place


@dataclass
class View:
    """One worker's view of a stream: listings take a while, and it may not ask when the stream was created."""

    made: RemadeStream
    listing_s: float = 0.0
    dated: bool = True

    async def created(self) -> Epoch | None:
        return await self.made.created() if self.dated else None

    async def shards(self) -> list[Shard]:
        await asyncio.sleep(self.listing_s)
        return await self.made.shards()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.made, name)


@pytest.mark.parametrize("dated", [True, False])
@pytest.mark.parametrize("listing_s", [0.0, 0.2, 3.0])
def test_a_stream_that_is_made_again_is_noticed_whichever_of_its_workers_wrote_the_row_first(
    listing_s: float, dated: bool
) -> None:
    async def script(place: Scene) -> None:
        assert isinstance(place, Remade)
        stream = place.made
        stream.put(*records(100, 101))
        for name, view in (("ann", View(stream, listing_s)), ("bob", View(stream, dated=dated))):
            place.stream = view  # type: ignore[assignment] # a view has all of it
            place.start(name)
        await asyncio.sleep(10)
        assert place.delivered() == [100, 101]
        stream.remake()
        stream.put(*records(1, 2, 3))
        # A worker that may not ask notices nothing itself; the other one asks every five minutes.
        await asyncio.sleep(340)
        assert place.delivered() == [100, 101, 1, 2, 3]
        assert (Loss.STREAM_REMADE, "AFTER:101") in place.losses()

    play(lambda: Remade(1), script)


class Unsure(MemoryStore):
    """A store that does not answer the first write of a row; `does` says whether it carried it out."""

    def __init__(self, *, does: bool) -> None:
        super().__init__()
        self.does = does
        self.answers = False

    async def update(self, row: Any) -> None:
        if not row.seeded or self.answers:
            await super().update(row)
            return
        self.answers = True
        if self.does:
            await super().update(row)
        raise ServiceUnavailable("no answer")


@pytest.mark.parametrize("does", [True, False])
def test_a_row_is_written_again_whose_writing_was_not_answered(does: bool) -> None:
    async def script(place: Scene) -> None:
        assert isinstance(place, Remade)
        place.made.put(*records(100))
        place.start("ann")
        await asyncio.sleep(10)
        (row,) = await place.store.mappings()
        assert (row.seeded, created_of(row.document)) == (True, EPOCH_BASE - 1000.0)

    play(lambda: Remade(1, store=Unsure(does=does)), script)


class Breaking(MemoryStore):
    """A store whose connection ends before the n-th write of a new beginning."""

    def __init__(self, fails_at: int) -> None:
        super().__init__()
        self.fails_at = fails_at
        self.writes = count(1)
        self.broken = False

    async def drop(self, mapping: MappingId, lease: Lease) -> None:
        self._write()
        await super().drop(mapping, lease)

    async def seed(self, mapping: MappingId, leases: Any) -> None:
        if self.broken or any(lease.epoch for lease in leases):
            self._write()
        await super().seed(mapping, leases)

    async def update(self, row: Any) -> None:
        if row.seeded and "stream" in row.document and row.revision > 0:
            self._write()
        await super().update(row)

    def _write(self) -> None:
        if next(self.writes) == self.fails_at:
            self.broken = True
            raise ResourceMissing("cut off")


@pytest.mark.parametrize("fails_at", range(1, 7))
def test_a_new_beginning_that_breaks_off_is_finished_by_the_next_look(fails_at: int) -> None:
    async def script(place: Scene) -> None:
        assert isinstance(place, Remade)
        stream = place.made
        stream.remake(SHARD, OTHER)
        stream.put(*records(100))
        stream.put(*records(200), shard=OTHER)
        place.start("ann")
        await asyncio.sleep(10)
        stream.remake(SHARD, OTHER)
        stream.put(*records(1))
        stream.put(*records(2), shard=OTHER)
        await asyncio.sleep(90)
        assert sorted(set(place.delivered())) == [1, 2, 100, 200]
        assert sorted(place.losses()) == [
            (Loss.STREAM_REMADE, "AFTER:100"),
            (Loss.STREAM_REMADE, "AFTER:200"),
        ]

    play(lambda: Remade(1, store=Breaking(fails_at)), script)


class Overtaken(MemoryStore):
    """A store that answers slowly: beside the n-th call of a new beginning, another worker finishes it and reads the shard."""

    def __init__(self, other_at: int, other: Callable[[], Awaitable[None]]) -> None:
        super().__init__()
        self.other_at = other_at
        self.other = other
        self.calls = count(1)

    async def _call(self) -> None:
        if next(self.calls) == self.other_at:
            await self.other()

    async def create(self, row: MappingRow) -> MappingRow:
        await self._call()
        return await super().create(row)

    async def leases(self, mapping: MappingId, *, memos: bool = True) -> Sequence[Lease]:
        await self._call()
        return await super().leases(mapping, memos=memos)

    async def drop(self, mapping: MappingId, lease: Lease) -> None:
        await self._call()
        await super().drop(mapping, lease)

    async def seed(self, mapping: MappingId, leases: Sequence[Lease]) -> None:
        await self._call()
        await super().seed(mapping, leases)

    async def update(self, row: MappingRow) -> None:
        await self._call()
        await super().update(row)


@pytest.mark.parametrize("other_at", range(1, 7))
def test_a_shard_of_the_new_stream_that_another_worker_reads_already_is_not_dropped(other_at: int) -> None:
    shards = [Shard(SHARD)]
    old = with_created({}, Epoch(EPOCH_BASE - 1000.0))

    async def main() -> None:
        seen = Seen()

        async def other() -> None:
            with suppress(RowChanged):
                await restarted(plain)
            # A review adds a lease for a shard that has none.
            await plain.seed(MAPPING, [Lease(SHARD, (), Checkpoint(Position.horizon()))])
            (free,) = await plain.leases(MAPPING)
            taken = await plain.take(MAPPING, free, owner=WorkerId("bob"))
            await plain.save(MAPPING, taken, Checkpoint(Position.after("3")))

        async def restarted(store: MemoryStore) -> None:
            parts = replace(
                stream_parts(RemadeStream(born=EPOCH_BASE), FakeFunction(), seen=seen), store=store
            )
            identity = StreamIdentity(parts)
            await identity.check()
            (row,) = await plain.mappings()
            await identity.restart(row, shards, lambda: None)

        slow = Overtaken(other_at, other)
        plain = MemoryStore()
        plain._rows, plain._leases = slow._rows, slow._leases  # two ways to one store
        await plain.create(MappingRow(MAPPING, Epoch(EPOCH_BASE), seeded=True, document=old))
        await plain.seed(MAPPING, [Lease(SHARD, (), Checkpoint(Position.after("102")))])
        with suppress(RowChanged):
            await restarted(slow)
        (lease,) = await plain.leases(MAPPING)
        assert (lease.owner, lease.checkpoint.position) == ("bob", Position.after("3"))
        assert {event.position for event in seen.of(RecordsLost)} == {Position.after("102")}

    run_virtual(main())


SEEDS = range(8)
LIFE_S = 100.0
STEP = 1000
SHARDS = tuple(ShardId(f"shardId-{number:012d}") for number in range(3))


@dataclass
class Lives:
    """What was written in each life of a stream; numbers tell the lives apart, and a later one may have lower ones."""

    place: Remade
    rng: Random
    bases: list[int] = field(default_factory=list)
    written: list[dict[ShardId, list[int]]] = field(default_factory=list)
    started: int = 0

    def begin(self) -> None:
        """The next life."""
        base = self.rng.choice([each for each in range(STEP, 90 * STEP, STEP) if each not in self.bases])
        self.bases.append(base)
        self.written.append({})
        self.place.made.remake(*SHARDS[: self.rng.randint(1, 3)])

    def put(self) -> None:
        """Some records."""
        life = self.written[-1]
        for _ in range(self.rng.randint(1, 5)):
            shard = self.rng.choice(list(self.place.made.held))
            number = self.bases[-1] + sum(map(len, life.values()))
            life.setdefault(shard, []).append(number)
            self.place.made.put(*records(number), shard=shard)

    async def replace(self) -> None:
        """A worker dies or leaves, and another one comes, whatever the order."""
        if self.place.workers and self.rng.random() < 0.7:
            worker = self.place.workers[self.rng.choice(list(self.place.workers))]
            if worker.task is not None and not worker.task.done():
                if self.rng.random() < 0.5:
                    await worker.kill()
                else:
                    worker.stop.request(Reason.REQUESTED)
        if (
            sum(
                not each.stop.requested and each.task is not None and not each.task.done()
                for each in self.place.workers.values()
            )
            < 2
        ):
            self.started += 1
            self.place.start(f"worker-{self.started}")

    def check(self) -> None:
        """Nothing of the last life is missing, and nothing of a former one without a word."""
        delivered = self.place.delivered()
        told = {loss for loss, _ in self.place.losses()}
        for number, life in enumerate(self.written):
            for shard, wanted in life.items():
                first = list(dict.fromkeys(each for each in delivered if each in wanted))
                missing = [each for each in wanted if each not in first]
                assert first == sorted(first), f"life {number}, {shard}: {first}"
                if missing and number == len(self.written) - 1:
                    raise AssertionError(f"the last life lacks {missing} of {shard}")
                if missing and set(wanted) & set(delivered):
                    assert told & {Loss.STREAM_REMADE, Loss.TRIMMED}, (
                        f"{missing} of {shard} are gone without a word"
                    )


@pytest.mark.parametrize("seed", SEEDS)
def test_no_record_of_the_present_stream_is_missed_whatever_happens_to_it_and_its_workers(seed: int) -> None:
    async def script(place: Scene) -> None:
        assert isinstance(place, Remade)
        lives = Lives(place, Random(seed))
        lives.begin()
        place.made.stale = lives.rng.choice((ResourceMissing, CursorExpired, PositionTrimmed))
        await lives.replace()
        while now() < LIFE_S:
            await asyncio.sleep(lives.rng.choice((0.2, 1.0, 5.0)))
            match lives.rng.choices(("put", "remake", "gone", "worker"), (6, 1, 1, 2))[0]:
                case "put":
                    lives.put()
                case "remake":
                    lives.begin()
                case "gone":
                    place.made.gone = True
                    await asyncio.sleep(lives.rng.uniform(0.5, 8.0))
                    place.made.gone = False
                case _:
                    await lives.replace()
        await lives.replace()
        lives.put()
        await asyncio.sleep(400)
        lives.check()

    play(lambda: Remade(1), script)
