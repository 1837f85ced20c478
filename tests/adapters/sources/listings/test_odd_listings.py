"""Owns listings that are not as AWS's: each member of a shard absent or odd, names that are no names, pages that repeat, shards twice."""

import asyncio
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adapters.sources.kinesis.listing import stream_listing
from adapters.sources.listings.listed_names import SHARD_CHARS_MAX, TOKEN_CHARS_MAX
from adapters.sources.listings.table_listing import TableListing
from poller.domain.errors import ServiceUnavailable
from poller.domain.records import JsonObject, Position, Shard, ShardId
from poller.rules.streams.lineage import trace
from tests.adapters.sources.listings.table import ARN, SpacingPacer, Table, named
from tests.virtual import run_virtual, virtual_clock

KINESIS, DYNAMODB = "kinesis", "dynamodb"
SHARD: JsonObject = {
    "ShardId": "shardId-000000000002",
    "ParentShardId": "shardId-000000000000",
    "AdjacentParentShardId": "shardId-000000000001",
    "HashKeyRange": {"StartingHashKey": "0", "EndingHashKey": "1"},
    "SequenceNumberRange": {"StartingSequenceNumber": "1", "EndingSequenceNumber": "2"},
}
NO_NAMES: list[Any] = [
    -1,
    1.5,
    True,
    [None],
    [],
    {},
    {"a": 1},
    "x" * (SHARD_CHARS_MAX + 1),
    "\0",
    "a\nb",
    "a b",
    "\ud800",
    "\x1b[31m",
    "shardId-٣",
]
ODD: list[Any] = [None, "", 0, float("nan"), *NO_NAMES, "x" * SHARD_CHARS_MAX, "H176:1f-a/b"]


class Pages:
    """A service whose pages follow a script. `after` has the token of the page behind the one of a token."""

    def __init__(self, shards: dict[str | None, list[JsonObject]], after: dict[str | None, Any]) -> None:
        self._shards = shards
        self._after = after
        self.calls = 0

    async def list_shards(self, **parameters: Any) -> JsonObject:
        return self._page(parameters.get("NextToken"), "NextToken")

    async def describe_stream(self, **parameters: Any) -> JsonObject:
        page = self._page(parameters.get("ExclusiveStartShardId"), "LastEvaluatedShardId")
        return {"StreamDescription": {"StreamStatus": "ENABLED", **page}}

    def _page(self, token: str | None, name: str) -> JsonObject:
        self.calls += 1
        return {"Shards": self._shards.get(token, []), name: self._after.get(token)}


def listed(kind: str, pages: Pages) -> list[Shard]:
    """All shards by a listing of this kind."""
    pacer, clock = SpacingPacer(0.0), virtual_clock()
    if kind == KINESIS:
        return list(run_virtual(stream_listing(pages, pacer, arn="arn", clock=clock).listed()))
    return list(run_virtual(TableListing(pages, pacer, arn=ARN, clock=clock).listed()))


@pytest.mark.parametrize("kind", [KINESIS, DYNAMODB])
@pytest.mark.parametrize("member", SHARD)
@pytest.mark.parametrize("odd", [*ODD, "absent"], ids=lambda odd: ascii(odd)[:20])
def test_a_listing_with_an_odd_member_has_shards_that_can_be_kept_or_is_refused(
    kind: str, member: str, odd: Any
) -> None:
    wire = {name: value for name, value in SHARD.items() if name != member}
    if odd != "absent":
        wire[member] = odd
    try:
        (found,) = listed(kind, Pages({None: [wire]}, {}))
    except ServiceUnavailable:
        return
    for name in (found.shard_id, *found.parents):
        assert isinstance(name, str)
        assert name.isascii()
        assert name.isprintable()
        assert 0 < len(name) <= SHARD_CHARS_MAX
    trace([found], (), start=Position.horizon(), seeded=False)


@pytest.mark.parametrize("kind", [KINESIS, DYNAMODB])
@pytest.mark.parametrize("end", [*ODD, -1, "-1", "open"], ids=lambda odd: ascii(odd)[:20])
def test_an_end_that_is_no_sequence_number_closes_no_shard(kind: str, end: Any) -> None:
    wire = {"ShardId": "shardId-000000000000", "SequenceNumberRange": {"EndingSequenceNumber": end}}
    assert not listed(kind, Pages({None: [wire]}, {}))[0].closed


@pytest.mark.parametrize("kind", [KINESIS, DYNAMODB])
@pytest.mark.parametrize("odd", NO_NAMES, ids=lambda odd: ascii(odd)[:20])
@pytest.mark.parametrize("member", ["ShardId", "ParentShardId"])
def test_no_shard_is_listed_without_the_parent_that_its_odd_name_stands_for(
    kind: str, member: str, odd: Any
) -> None:
    with pytest.raises(ServiceUnavailable, match="not as documented"):
        listed(kind, Pages({None: [SHARD | {member: odd}]}, {}))


@pytest.mark.parametrize("kind", [KINESIS, DYNAMODB])
@pytest.mark.parametrize(
    "odd", [1, True, [], {"a": 1}, "x" * (TOKEN_CHARS_MAX + 1)], ids=lambda odd: ascii(odd)[:9]
)
def test_a_token_that_is_none_is_not_taken_for_the_end_of_a_listing(kind: str, odd: Any) -> None:
    with pytest.raises(ServiceUnavailable, match="not as documented"):
        listed(kind, Pages({None: [SHARD]}, {None: odd}))


@pytest.mark.parametrize("kind", [KINESIS, DYNAMODB])
@given(before=st.integers(0, 5), ring=st.integers(1, 6))
@settings(max_examples=20, deadline=None)
def test_pages_that_go_in_a_ring_are_given_up_when_the_first_token_comes_again(
    kind: str, before: int, ring: int
) -> None:
    after: dict[str | None, Any] = {None: "0"}
    after |= {str(number): str(number + 1) for number in range(before + ring)}
    after[str(before + ring - 1)] = str(before)
    pages = Pages({}, after)
    with pytest.raises(ServiceUnavailable, match="the same page again"):
        listed(kind, pages)
    assert pages.calls == before + ring + 1


@pytest.mark.parametrize("kind", [KINESIS, DYNAMODB])
def test_a_shard_on_two_pages_counts_once_and_as_the_last_page_shows_it(kind: str) -> None:
    first = SHARD | {"SequenceNumberRange": {"StartingSequenceNumber": "1"}}
    other = {"ShardId": "shardId-000000000003"}
    found = listed(kind, Pages({None: [first, other], "1": [SHARD, SHARD]}, {None: "1"}))
    assert [each.shard_id for each in found] == [SHARD["ShardId"], other["ShardId"]]
    assert found[0].closed
    lineage = trace(found, (), start=Position.horizon(), seeded=False)
    assert len(lineage.seeds) == 2


@pytest.mark.parametrize("ring", [1, 2, 3])
def test_children_on_pages_without_an_end_are_not_known_and_not_remembered(ring: int) -> None:
    table = Table(300)
    parent = ShardId(named(7))

    async def main() -> None:
        listing = TableListing(table, SpacingPacer(0.0), arn=ARN, clock=virtual_clock())
        await listing.listed()
        assert await listing.children(()) == []
        table.split(parent, 2)
        described = table._described

        def rings(**parameters: Any) -> dict[str, Any]:
            token = int(parameters.pop("ExclusiveStartShardId", None) or 0)
            return described(**parameters) | {"LastEvaluatedShardId": str(token % ring + 1)}

        table._described = rings  # type: ignore[assignment, method-assign]
        asked = len(table.asked)
        async with asyncio.timeout(60):
            assert await listing.children((parent,)) is None
        assert len(table.asked) == asked + ring + 1
        table._described = described  # type: ignore[method-assign]
        children = await listing.children((parent,))
        assert children is not None
        assert len(children) == 2

    run_virtual(main())


def test_children_on_too_many_pages_are_not_known(monkeypatch: pytest.MonkeyPatch) -> None:
    table = Table(3)
    monkeypatch.setattr("adapters.sources.listings.table_listing.PAGES_MAX", 4)

    async def main() -> None:
        listing = TableListing(table, SpacingPacer(0.0), arn=ARN, clock=virtual_clock())
        await listing.listed()
        assert await listing.children(()) == []
        described = table._described

        def endless(**parameters: Any) -> dict[str, Any]:
            token = int(parameters.pop("ExclusiveStartShardId", None) or 0)
            return described(**parameters) | {"LastEvaluatedShardId": str(token + 1)}

        table._described = endless  # type: ignore[assignment, method-assign]
        asked = len(table.asked)
        assert await listing.children((ShardId(named(1)),)) is None
        assert len(table.asked) == asked + 5

    run_virtual(main())
