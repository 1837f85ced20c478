"""How a mapping finds shards: calls that a big table costs, children of ended shards, and listings that others asked for."""

import asyncio
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

import pytest

from adapters.sources.listings.table_listing import TableListing
from poller.domain.errors import PortError, ServiceThrottled
from poller.domain.plan import Tuning
from poller.domain.records import SHARD_END, Monotonic, Shard, ShardId
from poller.domain.rows import Checkpoint, Lease
from poller.rules.streams.lineage import has_ended
from poller.runtime.streams.discovery import known_shards
from poller.runtime.streams.discovery.known_shards import LIST_ALL_S, KnownShards, listing_about
from poller.source_ports.listing import ShardListing
from tests.adapters.sources.listings.table import (
    ARN,
    IGNORED,
    REFUSED,
    SpacingPacer,
    Table,
    failed,
    named,
)
from tests.runtime.daemons import now
from tests.runtime.fakes import FakeFunction, FakeStream, records, stream_parts
from tests.runtime.workers.test_leases import MAPPING, Scene, play
from tests.virtual import run_virtual, virtual_clock

DISCOVERY_S = Tuning().discovery_s


@dataclass
class TableStream(FakeStream):
    """A stream whose shards are a table's, as the adapter lists them."""

    listing: TableListing | None = None

    @property
    def there(self) -> TableListing:
        assert self.listing is not None
        return self.listing

    async def shards(self) -> Sequence[Shard]:
        return await self.there.listed()

    async def shards_since(self, moment: Monotonic) -> ShardListing:
        return await self.there.since(moment)

    async def children(self, shards: Collection[ShardId]) -> Sequence[Shard] | None:
        return await self.there.children(shards)


def source(table: Table, *, period_s: float = 0.225) -> TableStream:
    """A table's stream of one daemon."""
    pacer = SpacingPacer(period_s)
    return TableStream(listing=TableListing(table, pacer, arn=ARN, clock=virtual_clock()))


def known(of: FakeStream) -> KnownShards:
    """What a mapping on it knows."""
    return KnownShards(stream_parts(of, FakeFunction()))


def ended(*shards: str) -> list[Lease]:
    """Leases of shards that were read to their end."""
    return [Lease(ShardId(each), (), Checkpoint(SHARD_END)) for each in shards]


@dataclass
class Mapping:
    """The reviews of one mapping, each half a minute."""

    table: Table
    shards: KnownShards
    leases: list[Lease] = field(default_factory=list)
    latest: Sequence[Shard] = ()

    async def review(self) -> None:
        await self.shards.listed(seeded=True)
        self.latest = await self.shards.with_children(self.leases)

    async def reviews(self, count: int) -> None:
        for _ in range(count):
            await self.review()
            await asyncio.sleep(DISCOVERY_S)

    def names(self) -> set[str]:
        return {each.shard_id for each in self.latest}


def test_a_table_of_ten_thousand_shards_costs_less_than_a_call_in_two_seconds_and_no_child_is_late() -> None:
    table = Table(10_000)
    stay_s, each_s = 1800, 9

    async def main() -> None:
        mapping = Mapping(table, known(source(table)))
        await mapping.review()
        assert len(table.asked) == 100
        began = now()
        for second in range(0, stay_s, each_s):
            parent = named(second // each_s)
            table.split(parent)
            mapping.leases += ended(parent)
            if second % int(DISCOVERY_S) < each_s:
                await mapping.review()
                assert mapping.names() == set(table.ids)
            await asyncio.sleep(max(0.0, began + second + each_s - now()))

    run_virtual(main())
    listings = 1 + stay_s / (0.05 * 10_000)
    assert table.pages <= 100 * listings
    assert len(table.filtered) <= stay_s / each_s + 1
    assert len(table.asked) < stay_s / 2


def test_a_review_without_ended_shards_asks_for_nothing_for_five_minutes() -> None:
    table = Table(50)

    async def main() -> None:
        mapping = Mapping(table, known(source(table)))
        await mapping.reviews(int(LIST_ALL_S / DISCOVERY_S))
        assert (table.pages, len(table.filtered)) == (1, 1)
        table.make()
        await mapping.reviews(int(LIST_ALL_S / DISCOVERY_S))
        assert mapping.names() == set(table.ids), "one without a parent is found, too"
        assert (table.pages, len(table.filtered)) == (2, 1)

    run_virtual(main())


@pytest.mark.parametrize("filters", [REFUSED, IGNORED])
def test_a_service_without_the_filter_is_listed_each_time(filters: str) -> None:
    table = Table(250, filters=filters)
    table.split(named(3))

    async def main() -> None:
        mapping = Mapping(table, known(source(table)))
        await mapping.reviews(10)
        assert (table.pages, len(table.filtered)) == (30, 1)
        table.split(named(4))
        mapping.leases += ended(named(4))
        await mapping.review()
        assert mapping.names() == set(table.ids)
        assert (table.pages, len(table.filtered)) == (33, 1)

    run_virtual(main())


def test_children_of_children_are_found_in_the_same_review() -> None:
    table = Table(1_000)

    async def main() -> None:
        mapping = Mapping(table, known(source(table)))
        await mapping.review()
        (child,) = table.split(named(5))
        grandchildren = table.split(child, 2)
        mapping.leases += ended(named(5), child)
        await mapping.review()
        assert {child, *grandchildren} <= mapping.names()
        assert table.filtered[-2:] == [named(5), child]

    run_virtual(main())


def test_all_shards_are_listed_when_that_takes_fewer_calls_than_asking_for_children() -> None:
    table = Table(500)

    async def main() -> None:
        mapping = Mapping(table, known(source(table)))
        await mapping.review()
        for number in range(10):
            table.split(named(number))
            mapping.leases += ended(named(number))
        await mapping.review()
        assert mapping.names() == set(table.ids)

    run_virtual(main())
    assert (table.pages, len(table.filtered)) == (5 + 6, 1)


@pytest.mark.parametrize("mappings", [2, 12])
def test_mappings_of_one_stream_share_their_listings(mappings: int) -> None:
    table = Table(500)
    stay_s = 1800.0

    async def main() -> None:
        stream = source(table)

        async def live(number: int) -> None:
            await asyncio.sleep(number * 1.7)
            await Mapping(table, known(stream)).reviews(int(stay_s / DISCOVERY_S))

        async with asyncio.TaskGroup() as group:
            for number in range(mappings):
                group.create_task(live(number))

    run_virtual(main())
    assert table.pages <= 5 * (2 + 2 * (stay_s + 60) / LIST_ALL_S)


def test_a_new_mapping_takes_no_listing_that_began_before_it() -> None:
    table = Table(3)

    async def main() -> None:
        stream = source(table)
        await known(stream).listed(seeded=True)
        made = table.make()
        assert made not in {each.shard_id for each in await known(stream).listed(seeded=True)}
        assert made in {each.shard_id for each in await known(stream).listed(seeded=False)}

    run_virtual(main())


def test_a_listing_that_failed_goes_on_in_the_next_review() -> None:
    table = Table(10_000, fails=lambda number: failed("InternalServerError") if number == 57 else None)

    async def main() -> None:
        shards = known(source(table))
        with pytest.raises(PortError):
            await shards.listed(seeded=False)
        assert len(await shards.listed(seeded=False)) == 10_000

    run_virtual(main())
    assert len(table.asked) == 101


def test_a_closed_shard_shows_by_its_children_and_an_open_one_by_a_listing_that_begins_afterwards() -> None:
    table = Table(1_000)

    async def main() -> None:
        stream = source(table)
        await stream.shards()
        shard = ShardId(named(8))
        assert not has_ended(shard, await listing_about(stream, shard))
        assert table.pages == 20
        table.closed.add(shard)
        assert has_ended(shard, await listing_about(stream, shard)), "it has no children yet"
        assert table.pages == 30
        table.split(shard)
        assert has_ended(shard, await listing_about(stream, shard))
        assert table.pages == 30
        late = ShardId(table.make(named(8)))
        assert not has_ended(late, await listing_about(stream, late)), "no listing before it knew this shard"
        assert table.pages == 41

    run_virtual(main())


@dataclass
class Telling(FakeStream):
    """A stream that tells children."""

    told: list[ShardId] = field(default_factory=list)
    telling_trouble: list[PortError] = field(default_factory=list)

    async def children(self, shards: Collection[ShardId]) -> Sequence[Shard] | None:
        if shards and self.telling_trouble:
            raise self.telling_trouble.pop(0)
        self.told += shards
        return [
            Shard(each, self.parents[each], each in self.ended)
            for each in self.held
            if set(self.parents.get(each, ())) & set(shards)
        ]

    def split(self, shard: ShardId, *children: str) -> None:
        for name in children:
            self.held[ShardId(name)] = []
            self.parents[ShardId(name)] = (shard,)
        self.ended.add(shard)


@dataclass
class Told(Scene):
    """Workers on such a stream."""

    telling: Telling = field(default_factory=Telling)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.telling.held = {name: [] for name in self.names}
        self.stream = self.telling

    def delivered(self) -> list[int]:
        return [
            number for worker in self.workers.values() for call in worker.function.calls for number in call
        ]


@pytest.mark.parametrize("names", [("ann",), ("ann", "bob", "cid")])
@pytest.mark.parametrize("trouble", [0, 3])
def test_workers_follow_a_stream_from_shard_to_shard_without_listing_it(
    names: tuple[str, ...], trouble: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(known_shards, "SHARDS_A_CALL", 1)

    async def script(place: Scene) -> None:
        assert isinstance(place, Told)
        stream = place.telling
        for name in names:
            place.start(name)
        await asyncio.sleep(60)
        listings = len(stream.listings)
        shard = place.names[0]
        stream.telling_trouble = [ServiceThrottled("no") for _ in range(trouble)]
        for generation in range(4):
            stream.put(*records(generation), shard=shard)
            stream.split(shard, f"{generation}-a", f"{generation}-b")
            shard = ShardId(f"{generation}-a")
            await asyncio.sleep(45)
        assert sorted(place.delivered()) == [0, 1, 2, 3]
        leases = {lease.shard: lease for lease in await place.store.leases(MAPPING)}
        assert set(leases) == set(stream.held)
        assert all(
            lease.checkpoint.position == SHARD_END for name, lease in leases.items() if name in stream.ended
        )
        assert all(lease.owner for name, lease in leases.items() if name not in stream.ended)
        assert len(stream.listings) - listings <= len(names), "the one of every five minutes"

    play(lambda: Told(5), script)


def test_leases_of_shards_that_others_may_still_have_listed_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(known_shards, "LIST_ALL_S", 2 * DISCOVERY_S)

    async def script(place: Scene) -> None:
        assert isinstance(place, Told)
        stream, (parent,) = place.telling, place.names
        place.start("ann")
        await asyncio.sleep(2 * DISCOVERY_S)
        stream.split(parent, "child")
        await asyncio.sleep(DISCOVERY_S)
        del stream.held[parent]
        await asyncio.sleep(19 * DISCOVERY_S)
        assert {lease.shard for lease in await place.store.leases(MAPPING)} == {parent, "child"}
        await asyncio.sleep(5 * DISCOVERY_S)
        assert {lease.shard for lease in await place.store.leases(MAPPING)} == {"child"}

    play(lambda: Told(1), script)
