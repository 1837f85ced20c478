"""Owns facts of the listing of a DynamoDB stream: how many calls it takes, and services that do not take its filter."""

import asyncio
import tracemalloc
from collections.abc import Callable

import pytest

from adapters.sources.listings.table_listing import TRIALS_MAX, TableListing
from poller.domain.errors import PortError, ServiceUnavailable
from poller.domain.records import Shard, ShardId
from tests.adapters.sources.listings.table import (
    ARN,
    IGNORED,
    REFUSED,
    SILENT,
    TAKEN,
    SpacingPacer,
    Table,
    failed,
    named,
)
from tests.virtual import run_virtual, virtual_clock

PERIOD_S = 0.225
BYTES_OF_A_SHARD = 400


def listing(table: Table, *, period_s: float = PERIOD_S) -> TableListing:
    """A daemon's listing of a table."""
    return TableListing(table, SpacingPacer(period_s), arn=ARN, clock=virtual_clock())


def now() -> float:
    """Virtual time."""
    return asyncio.get_running_loop().time()


def test_ten_thousand_shards_are_a_hundred_calls_which_are_paced_and_take_little_memory() -> None:
    table = Table(5_000)
    for number in range(5_000):
        table.split(named(number))

    async def main() -> None:
        tracemalloc.start()
        found = await listing(table).listed()
        held, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert [each.shard_id for each in found] == table.ids
        assert held < BYTES_OF_A_SHARD * 10_000
        assert most < held + 1_000_000
        assert now() == pytest.approx(99 * PERIOD_S + 0.01)

    run_virtual(main())
    assert len(table.asked) == 100


def test_a_throttled_page_of_many_is_asked_for_again_and_the_others_are_not() -> None:
    table = Table(10_000, fails=lambda number: failed("ThrottlingException") if number in (57, 58) else None)
    assert len(run_virtual(listing(table).listed())) == 10_000
    assert len(table.asked) == 102
    starts = [each.get("ExclusiveStartShardId") for each in table.asked]
    assert starts[56] == starts[57] == starts[58]
    assert len(set(starts)) == 100


@pytest.mark.parametrize("daemons", [2, 5, 10])
def test_daemons_that_start_together_share_the_accounts_limit(daemons: int) -> None:
    table = Table(10_000, rate=10)

    async def main() -> None:
        async with asyncio.TaskGroup() as group:
            found = [group.create_task(_persistent(listing(table))) for _ in range(daemons)]
        assert all(len(each.result()) == 10_000 for each in found)
        assert now() < 60 + 5 * 100 * daemons / 10, "five times of what the limit alone takes, at most"

    run_virtual(main())
    assert table.throttled < 3 * 100 * daemons


async def _persistent(of: TableListing) -> list[Shard]:
    """As the review of a mapping: after a failure it goes on after a while."""
    since = virtual_clock().monotonic()
    for tries in range(50):
        try:
            return list((await of.since(since)).shards)
        except PortError:
            await asyncio.sleep(min(0.5 * 2**tries, 30))
    raise AssertionError("never listed")


@pytest.mark.parametrize("filters", [TAKEN, REFUSED, IGNORED, SILENT])
@pytest.mark.parametrize("with_lineage", [True, False])
def test_whether_the_filter_is_taken_is_found_out_once(filters: str, *, with_lineage: bool) -> None:
    table = Table(250, filters=filters)
    if with_lineage:
        table.split(named(3), 2)
    told = filters == TAKEN or (filters == SILENT and not with_lineage)

    async def main() -> None:
        of = listing(table)
        await of.listed()
        before = len(table.asked)
        for _ in range(3):
            assert (await of.children(()) is not None) == told
        assert len(table.asked) == before + 1

    run_virtual(main())


def test_children_are_asked_for_once_for_all_mappings_until_there_are_some() -> None:
    table = Table(300)

    async def main() -> None:
        of = listing(table)
        await of.listed()
        parent = ShardId(named(7))
        assert await of.children((parent,)) == []
        made = table.split(parent, 2)
        expected = [Shard(ShardId(each), (parent,)) for each in made]
        async with asyncio.TaskGroup() as group:
            found = [group.create_task(of.children((parent,))) for _ in range(20)]
        assert all(each.result() == expected for each in found)

    run_virtual(main())
    assert table.filtered[-2:] == [named(7), named(7)]
    assert len(table.filtered) == 3, "the trial, one before the split and one after it"


def test_a_service_that_stops_taking_the_filter_is_listed() -> None:
    table = Table(300)

    async def main() -> None:
        of = listing(table)
        await of.listed()
        assert await of.children(()) == []
        table.filters = IGNORED
        assert await of.children((ShardId(named(1)),)) is None
        asked = len(table.asked)
        assert await of.children((ShardId(named(2)),)) is None
        assert len(table.asked) == asked

    run_virtual(main())


@pytest.mark.parametrize("code", ["ValidationException", "ResourceNotFoundException"])
def test_a_refused_shard_means_to_list_all_and_the_filter_is_still_taken(code: str) -> None:
    fail: list[str] = []
    table = Table(300, fails=lambda number: failed(fail.pop()) if fail else None)

    async def main() -> None:
        of = listing(table)
        await of.listed()
        assert await of.children(()) == []
        fail.append(code)
        assert await of.children((ShardId(named(1)),)) is None
        assert await of.children((ShardId(named(1)),)) == []

    run_virtual(main())


@pytest.mark.parametrize("code", ["ThrottlingException", "InternalServerError"])
@pytest.mark.parametrize("failures", [1, TRIALS_MAX - 1, TRIALS_MAX])
def test_a_trial_that_fails_is_repeated_a_few_times(code: str, failures: int) -> None:
    table = Table(300, fails=lambda number: failed(code) if 4 <= number < 4 + failures else None)

    async def main() -> None:
        of = listing(table)
        await of.listed()
        for _ in range(failures):
            assert await of.children(()) is None
        assert await of.children(()) == ([] if failures < TRIALS_MAX else None)

    run_virtual(main())


def test_children_that_were_trimmed_or_closed_meanwhile_are_as_the_service_says() -> None:
    table = Table(300)

    async def main() -> None:
        of = listing(table)
        await of.listed()
        (child,) = table.split(named(7))
        table.split(child)
        found = await of.children((ShardId(named(7)),))
        assert found == [Shard(ShardId(child), (ShardId(named(7)),), closed=True)]

    run_virtual(main())


def test_nothing_is_known_of_children_before_a_listing_and_of_a_disabled_stream() -> None:
    table = Table(300)

    async def main() -> None:
        of = listing(table)
        assert await of.children(()) is None
        assert table.asked == []
        await of.listed()
        assert await of.children(()) == []
        table.status = "DISABLED"
        shards = await of.listed()
        assert of.over
        assert all(each.closed for each in shards)
        assert await of.children((shards[0].shard_id,)) is None

    run_virtual(main())


@pytest.mark.parametrize("change", [lambda page: page.pop("Shards"), lambda page: page.update(Shards=[{}])])
def test_a_page_that_is_not_as_documented_is_unavailable(
    change: Callable[[dict[str, object]], object],
) -> None:
    table = Table(3)
    described = table._described

    def odd(**parameters: object) -> dict[str, object]:
        page = described(**parameters)  # type: ignore[arg-type]
        change(page)
        return page

    table._described = odd  # type: ignore[assignment, method-assign]
    with pytest.raises(ServiceUnavailable, match="not as documented"):
        run_virtual(listing(table).listed())
