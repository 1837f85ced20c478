"""Simulated listings and answers about children are within what the ports allow."""

import asyncio
from collections.abc import Callable, Coroutine
from random import Random
from typing import Any

import pytest

from poller.domain.plan import SourceKind
from poller.domain.records import Monotonic, Shard, ShardId
from tests.simulation.finding.listings import OLD_S_MAX, Finding, SimListing
from tests.simulation.services.faults import FaultPlan, History, Line, Marks, epoch
from tests.simulation.services.streams import FakeStream
from tests.virtual import run_virtual, virtual_clock

FIRST = ShardId("shardId-000000000000")
TOLD = Finding(drawn=False, told="always")
DRAWN = Finding(drawn=True, told="always")


def play(
    finding: Finding,
    scenario: Callable[[FakeStream, SimListing], Coroutine[Any, Any, None]],
    *,
    seed: int = 1,
) -> Marks:
    marks = Marks()

    async def run() -> None:
        stream = FakeStream(SourceKind.DYNAMODB, shards=3)
        line = Line("w", FaultPlan(), rng=Random(seed), marks=marks, history=History(kept=False))
        await scenario(stream, SimListing(stream, line, finding, Random(seed)))

    run_virtual(run())
    return marks


def names(shards: list[Shard] | tuple[Shard, ...]) -> list[str]:
    return sorted(each.shard_id for each in shards)


@pytest.mark.parametrize("finding", [TOLD, DRAWN, Finding(drawn=False, page_shards=1)], ids=repr)
def test_a_listing_that_begins_now_has_all_shards(finding: Finding) -> None:
    async def scenario(stream: FakeStream, listing: SimListing) -> None:
        await asyncio.sleep(100)
        stream.roll(epoch(), FIRST)
        assert names(tuple(await listing.listed())) == sorted(stream.shards)
        found = await listing.since(virtual_clock().monotonic())
        assert names(tuple(found.shards)) == sorted(stream.shards)

    play(finding, scenario)


@pytest.mark.parametrize("seed", range(30))
def test_a_drawn_listing_is_no_older_than_it_may_be_and_says_how_old_it_is(seed: int) -> None:
    async def scenario(stream: FakeStream, listing: SimListing) -> None:
        await asyncio.sleep(100)
        child = stream.roll(epoch(), FIRST)
        await asyncio.sleep(5)
        moment = Monotonic(98.0)
        found = await listing.since(moment)
        assert max(moment, 105 - OLD_S_MAX) <= found.began <= virtual_clock().monotonic()
        assert (child in names(tuple(found.shards))) == (found.began >= 100)

    play(DRAWN, scenario, seed=seed)


@pytest.mark.parametrize("finding", [TOLD, DRAWN], ids=repr)
def test_the_children_of_a_shard_are_told(finding: Finding) -> None:
    async def scenario(stream: FakeStream, listing: SimListing) -> None:
        child = stream.roll(epoch(), FIRST)
        await listing.listed()
        found = await listing.children((FIRST,))
        assert found is not None
        assert names(tuple(found)) == [child]

    assert play(finding, scenario)["children told"] == 1


@pytest.mark.parametrize("told", ["never", "all"])
@pytest.mark.parametrize("drawn", [True, False])
def test_a_service_that_does_not_know_the_filter_tells_no_children(*, drawn: bool, told: str) -> None:
    async def scenario(stream: FakeStream, listing: SimListing) -> None:
        stream.roll(epoch(), FIRST)
        await listing.listed()
        assert await listing.children((FIRST,)) is None

    assert play(Finding(drawn=drawn, told=told), scenario)["children not told"] == 1


def test_a_listing_has_as_many_pages_as_it_needs() -> None:
    async def scenario(_: FakeStream, listing: SimListing) -> None:
        await listing.listed()

    assert play(Finding(drawn=False, page_shards=1), scenario)["later page of a listing"] == 2
