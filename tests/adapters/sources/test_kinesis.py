"""Owns facts of the Kinesis source, shown on scripted answers."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest

from adapters.aws.clients import client
from adapters.sources.kinesis import stream as kinesis
from poller.domain.errors import (
    CursorExpired,
    InvalidConfiguration,
    PositionTrimmed,
    RecordUnreadable,
    ServiceUnavailable,
)
from poller.domain.records import Cursor, Epoch, KinesisRecord, Page, Position, Shard, ShardId
from poller.loop_turns import LoopTurns
from poller.plugins import InstalledPlugins, opened
from poller.ports import StreamSource
from tests.adapters.answers import TOO_DEEP, Answer, Service, environment, error, ok, on_a_loop, serving

pytestmark = pytest.mark.usefixtures("account")

ARN = "arn:aws:kinesis:eu-west-1:111122223333:stream/orders"
SHARD = ShardId("shardId-000000000000")
NUMBER = "49650000000000000000000000000000000000000000000000000002"
LATER = "49650000000000000000000000000000000000000000000000000009"


class Pacer:
    """Lets everything pass and remembers the keys."""

    def __init__(self) -> None:
        self.keys: list[str] = []

    async def pace(self, key: str) -> None:
        self.keys.append(key)


@asynccontextmanager
async def scripted(**script: Sequence[Answer]) -> AsyncIterator[tuple[kinesis.KinesisStream, Service, Pacer]]:
    """The source over a scripted endpoint."""
    async with serving(script) as service, environment(service.url) as env:
        pacer = Pacer()
        api = await client(env, "kinesis", "eu-west-1")
        yield kinesis.KinesisStream(api, pacer, LoopTurns(), arn=ARN), service, pacer


def wire(number: str = NUMBER, *, arrived: float = 1767225600.125, data: str = "eyJ0ZW1wIjogMjF9") -> Any:
    """A record as GetRecords sends it."""
    return {
        "SequenceNumber": number,
        "ApproximateArrivalTimestamp": arrived,
        "Data": data,
        "PartitionKey": "device-7",
        "EncryptionType": "NONE",
    }


def listed(shard: str, *parents: str, end: str | None = None) -> Any:
    """A shard as ListShards sends it."""
    names = ("ParentShardId", "AdjacentParentShardId")
    numbers = {"StartingSequenceNumber": "1"} | ({"EndingSequenceNumber": end} if end else {})
    keys = {"StartingHashKey": "0", "EndingHashKey": "1"}
    return {
        "ShardId": shard,
        "HashKeyRange": keys,
        "SequenceNumberRange": numbers,
        **dict(zip(names, parents, strict=False)),
    }


@on_a_loop
async def test_a_record_keeps_its_data_as_base64_and_its_time_to_the_millisecond() -> None:
    answer = ok(Records=[wire(arrived=1767225600.1249998)], NextShardIterator="next", MillisBehindLatest=7)
    async with scripted(GetRecords=[answer]) as (source, service, pacer):
        page = await source.read(SHARD, Cursor("0;here"), records_max=10)
        assert page == Page(
            [KinesisRecord(NUMBER, Epoch(1767225600.125), "eyJ0ZW1wIjogMjF9", "device-7")],
            Cursor("0;next"),
            behind_ms=7,
        )
        assert service.asked == [("GetRecords", {"ShardIterator": "here", "Limit": 10, "StreamARN": ARN})]
        assert pacer.keys == [f"kinesis GetRecords {ARN} {SHARD}"]


@on_a_loop
async def test_a_read_asks_for_no_more_than_aws_gives() -> None:
    async with scripted(GetRecords=[ok(Records=[])]) as (source, service, _):
        page = await source.read(SHARD, Cursor("0;here"), records_max=50_000)
        assert page.cursor is None, "without a next iterator the shard has ended"
        assert service.parameters("GetRecords")[0]["Limit"] == 10_000


@on_a_loop
async def test_shards_come_from_every_page_and_the_token_goes_alone() -> None:
    pages = [
        ok(Shards=[listed("a", end="9"), listed("b", end="9")], NextToken="token"),
        ok(Shards=[listed("c", "a", "b"), listed("d", "c")]),
    ]
    async with scripted(ListShards=pages) as (source, service, _):
        a, b, c = ShardId("a"), ShardId("b"), ShardId("c")
        assert list(await source.shards()) == [
            Shard(a, closed=True),
            Shard(b, closed=True),
            Shard(c, (a, b)),
            Shard(ShardId("d"), (c,)),
        ]
        assert service.parameters("ListShards") == [
            {"StreamARN": ARN, "MaxResults": 1000},
            {"NextToken": "token", "MaxResults": 1000},
        ]


@on_a_loop
async def test_a_listing_begins_again_when_its_token_expires() -> None:
    first, expired = ok(Shards=[listed("a")], NextToken="token"), error("ExpiredNextTokenException")
    async with scripted(ListShards=[first, expired, ok(Shards=[listed("a")])]) as (source, _, _):
        assert [shard.shard_id for shard in await source.shards()] == ["a"]
    async with scripted(ListShards=[first, expired] * 3) as (source, service, _):
        with pytest.raises(ServiceUnavailable, match="expired 3 times"):
            await source.shards()
        assert len(service.asked) == 6


@on_a_loop
async def test_a_start_by_time_drops_what_came_before_it() -> None:
    since = Position.at(Epoch(1767225600.7))
    pages = [
        ok(Records=[wire("1", arrived=1767225600.2)], NextShardIterator="two"),
        ok(
            Records=[
                wire("2", arrived=1767225600.699),
                wire("3", arrived=1767225600.7),
                wire("4", arrived=1767225600.6),
            ],
            NextShardIterator="three",
        ),
    ]
    async with scripted(GetShardIterator=[ok(ShardIterator="one")], GetRecords=pages) as (source, service, _):
        cursor = await source.cursor(SHARD, since)
        (given,) = service.parameters("GetShardIterator")
        assert (given["ShardIteratorType"], given["Timestamp"]) == ("AT_TIMESTAMP", 1767225600.7)
        first = await source.read(SHARD, cursor, records_max=10)
        assert list(first.records) == []
        assert first.cursor is not None
        second = await source.read(SHARD, first.cursor, records_max=10)
        assert [record.sequence_number for record in second.records] == ["3", "4"]
        assert second.cursor == "0;three"


@on_a_loop
async def test_a_cursor_behind_a_record_that_is_there_costs_one_read() -> None:
    script = {
        "GetShardIterator": [ok(ShardIterator="at")],
        "GetRecords": [ok(Records=[wire(NUMBER)], NextShardIterator="behind")],
    }
    async with scripted(**script) as (source, service, _):
        assert await source.cursor(SHARD, Position.after(NUMBER)) == "0;behind"
        (asked,) = service.parameters("GetShardIterator")
        assert asked["ShardIteratorType"] == "AT_SEQUENCE_NUMBER"
        assert asked["StartingSequenceNumber"] == NUMBER
        assert service.parameters("GetRecords")[0]["Limit"] == 1


@on_a_loop
async def test_a_position_whose_record_is_gone_is_trimmed_though_kinesis_is_silent() -> None:
    empty = ok(Records=[], NextShardIterator="on", MillisBehindLatest=5000)
    beyond = ok(Records=[wire(LATER)], NextShardIterator="on", MillisBehindLatest=0)
    script = {"GetShardIterator": [ok(ShardIterator="at")], "GetRecords": [empty, beyond]}
    async with scripted(**script) as (source, service, _):
        with pytest.raises(PositionTrimmed):
            await source.cursor(SHARD, Position.after(NUMBER))
        assert service.operations() == ["GetShardIterator", "GetRecords", "GetRecords"]


@pytest.mark.parametrize(
    "reads",
    [
        [ok(Records=[], NextShardIterator="on", MillisBehindLatest=0)],
        [ok(Records=[wire(NUMBER)])],
        [ok(Records=[])],
        [ok(Records=[], NextShardIterator="on", MillisBehindLatest=9)] * kinesis.PROBES_MAX,
    ],
    ids=["at the tip", "last of a closed shard", "closed and empty", "undecided"],
)
@on_a_loop
async def test_a_cursor_is_taken_behind_the_number_where_the_look_says_nothing(reads: list[Answer]) -> None:
    script = {"GetShardIterator": [ok(ShardIterator="at"), ok(ShardIterator="after")], "GetRecords": reads}
    async with scripted(**script) as (source, service, _):
        assert await source.cursor(SHARD, Position.after(NUMBER)) == "0;after"
        kinds = [given["ShardIteratorType"] for given in service.parameters("GetShardIterator")]
        assert kinds == ["AT_SEQUENCE_NUMBER", "AFTER_SEQUENCE_NUMBER"]


@on_a_loop
async def test_a_number_of_another_life_of_the_stream_is_trimmed() -> None:
    async with scripted(GetShardIterator=[error("InvalidArgumentException")]) as (source, _, _):
        with pytest.raises(PositionTrimmed):
            await source.cursor(SHARD, Position.after(NUMBER))


@on_a_loop
async def test_a_moment_in_the_future_of_aws_heals_by_waiting() -> None:
    async with scripted(GetShardIterator=[error("InvalidArgumentException")]) as (source, _, _):
        with pytest.raises(ServiceUnavailable):
            await source.cursor(SHARD, Position.at(Epoch(4e9)))


@pytest.mark.parametrize("code", ["ExpiredIteratorException", "InvalidArgumentException"])
@on_a_loop
async def test_an_iterator_that_is_refused_wants_a_new_cursor(code: str) -> None:
    async with scripted(GetRecords=[error(code)]) as (source, _, _):
        with pytest.raises(CursorExpired):
            await source.read(SHARD, Cursor("0;old"), records_max=10)


@on_a_loop
async def test_a_record_of_ten_mebibytes_is_read() -> None:
    data = "A" * (10 * 1024 * 1024 * 4 // 3)
    answer = ok(Records=[wire(), wire(LATER, data=data)], NextShardIterator="next")
    async with scripted(GetRecords=[answer] * 2) as (source, _, _):
        for _ in range(2):
            page = await source.read(SHARD, Cursor("0;here"), records_max=10)
            (_, large) = page.records
            assert isinstance(large, KinesisRecord)
            assert large.data == data


@pytest.mark.parametrize("odd", [{"Data": None}, {"SequenceNumber": "-5"}], ids=str)
@on_a_loop
async def test_a_page_ends_before_a_record_that_cannot_be_read_wherever_its_number_would_put_it(
    odd: dict[str, Any],
) -> None:
    script = {
        "GetRecords": [
            ok(Records=[wire(), wire(LATER) | odd], NextShardIterator="beyond"),
            ok(Records=[wire()], NextShardIterator="before"),
            ok(Records=[wire(LATER) | odd], NextShardIterator="beyond"),
        ],
    }
    async with scripted(**script) as (source, service, _):
        page = await source.read(SHARD, Cursor("0;here"), records_max=10)
        assert ([each.sequence_number for each in page.records], page.cursor) == ([NUMBER], "0;before")
        with pytest.raises(RecordUnreadable, match="cannot be read: "):
            await source.read(SHARD, Cursor("0;before"), records_max=10)
        asked = [(each["ShardIterator"], each["Limit"]) for each in service.parameters("GetRecords")]
        assert asked == [("here", 10), ("here", 1), ("before", 10)]


@pytest.mark.parametrize(
    "again",
    [
        ok(Records=[wire()]),
        ok(Records=[], NextShardIterator="odd"),
        ok(Records=[wire(), wire(LATER) | {"Data": None}], NextShardIterator="beyond"),
    ],
    ids=["no iterator", "nothing", "limit not kept"],
)
@on_a_loop
async def test_a_page_ends_before_a_record_that_cannot_be_read_and_the_next_read_says_so(
    again: Answer,
) -> None:
    odd = wire(LATER) | {"Data": None}
    script = {
        "GetRecords": [
            ok(Records=[wire(), odd], NextShardIterator="beyond"),
            again,
            ok(Records=[odd], NextShardIterator="beyond"),
        ],
        "GetShardIterator": [ok(ShardIterator="before")],
    }
    async with scripted(**script) as (source, service, _):
        page = await source.read(SHARD, Cursor("0;here"), records_max=10)
        assert ([each.sequence_number for each in page.records], page.cursor) == ([NUMBER], "0;before")
        (asked,) = service.parameters("GetShardIterator")
        assert (asked["ShardIteratorType"], asked["StartingSequenceNumber"]) == (
            "AFTER_SEQUENCE_NUMBER",
            NUMBER,
        )
        with pytest.raises(RecordUnreadable, match=f"record {LATER} cannot be read: Data is no base64"):
            await source.read(SHARD, Cursor("0;before"), records_max=10)


@on_a_loop
async def test_a_record_without_partition_key_is_read_by_the_library_and_without_it() -> None:
    bare = {name: value for name, value in wire().items() if name != "PartitionKey"}
    answer = ok(Records=[bare, wire(LATER) | {"PartitionKey": None}], NextShardIterator="next")
    async with scripted(GetRecords=[answer] * 2) as (source, _, _):
        for _ in range(2):
            page = await source.read(SHARD, Cursor("0;here"), records_max=10)
            assert [each.key for each in page.records] == [None, None]


@pytest.mark.parametrize(
    "answer",
    [
        ok(),
        ok(Records=None),
        ok(Records=None, NextShardIterator="next"),
        ok(NextShardIterator="next", MillisBehindLatest=0),
        ok(Records={"0": wire()}, NextShardIterator="next"),
        ok(Records=[wire()], NextShardIterator=7),
        Answer(b'{"Records":[NaN]}'),
    ],
    ids=["nothing", "null", "null and an iterator", "an iterator alone", "no list", "no iterator", "no JSON"],
)
@on_a_loop
async def test_an_answer_that_is_not_as_documented_is_unavailable(answer: Answer) -> None:
    async with scripted(GetRecords=[answer]) as (source, _, _):
        with pytest.raises(ServiceUnavailable, match="not as documented"):
            await source.read(SHARD, Cursor("0;here"), records_max=10)


@pytest.mark.parametrize("odd", [{}, {"Data": None}], ids=["plain", "read singly"])
@pytest.mark.parametrize(
    ("members", "ended"),
    [
        ({}, False),
        ({"NextShardIterator": None, "ChildShards": []}, False),
        ({"ChildShards": None}, False),
        ({"ChildShards": [{"ShardId": "b", "ParentShards": ["a"]}]}, True),
        ({"NextShardIterator": "next", "ChildShards": [{"ShardId": "b", "ParentShards": ["a"]}]}, False),
    ],
    ids=lambda each: str(each)[:40],
)
@on_a_loop
async def test_only_child_shards_say_that_a_shard_has_ended(
    members: dict[str, Any], ended: bool, odd: dict[str, Any]
) -> None:
    records = [wire() | {"ApproximateArrivalTimestamp": "soon"}] if odd else [wire()]
    async with scripted(GetRecords=[ok(Records=records, **members)]) as (source, _, _):
        page = await source.read(SHARD, Cursor("0;here"), records_max=10)
        assert (page.ended, len(page.records)) == (ended, 1)


@on_a_loop
async def test_a_stream_that_is_being_deleted_says_so_while_that_is_known() -> None:
    summaries = [
        ok(StreamDescriptionSummary={"RetentionPeriodHours": 24, "StreamStatus": status})
        for status in ("ACTIVE", "DELETING", "UPDATING")
    ]
    said: list[bool] = []
    async with scripted(DescribeStreamSummary=summaries) as (source, _, _):
        for _ in summaries:
            await source.retention_s()
            said.append("StreamStatus DELETING" in source.over)
    assert said == [False, True, False]


@on_a_loop
async def test_an_answer_that_is_too_deep_to_be_read_is_unavailable() -> None:
    async with scripted(GetRecords=[ok(Records=[]), TOO_DEEP]) as (source, _, _):
        await source.read(SHARD, Cursor("0;here"), records_max=10)
        with pytest.raises(ServiceUnavailable, match="RecursionError"):
            await source.read(SHARD, Cursor("0;here"), records_max=10)


@pytest.mark.parametrize(
    ("arn", "words"),
    [
        (f"{ARN}/consumer/fast", "is not the ARN of a Kinesis stream or of its consumer; write arn:"),
        (
            "arn:aws:sqs:eu-west-1:111122223333:orders",
            "is not the ARN of a Kinesis stream or of its consumer; write arn:",
        ),
        ("orders", "value 'orders': is not the ARN of a Kinesis stream or of its consumer; write arn:"),
    ],
)
@on_a_loop
async def test_a_wrong_arn_names_field_value_and_remedy(arn: str, words: str) -> None:
    async with environment(None) as env:
        with pytest.raises(InvalidConfiguration) as caught:
            opened(InstalledPlugins(), "sources", "kinesis", {"arn": arn}, env)
    (problem,) = caught.value.problems
    assert problem.startswith("sources kinesis: arn: ")
    assert words in problem
    assert arn in problem


@on_a_loop
async def test_two_sources_of_one_daemon_share_client_and_pacer() -> None:
    async with serving({"GetRecords": [ok(Records=[])] * 2}) as service, environment(service.url) as env:
        registry = InstalledPlugins()
        async with (
            opened(registry, "sources", "kinesis", {"arn": ARN}, env) as one,
            opened(registry, "sources", "kinesis", {"arn": ARN}, env) as two,
        ):
            sources: list[StreamSource] = [one, two]
            assert one._api is two._api
            assert one._pacer is two._pacer
            for source in sources:
                await source.read(SHARD, Cursor("0;here"), records_max=1)


@on_a_loop
async def test_a_cursor_can_be_taken_at_a_record_itself_without_a_read() -> None:
    async with scripted(GetShardIterator=[ok(ShardIterator="at")]) as (source, service, _):
        assert await source.cursor_at(SHARD, NUMBER) == "0;at"
        (asked,) = service.parameters("GetShardIterator")
        assert (asked["ShardIteratorType"], asked["StartingSequenceNumber"]) == ("AT_SEQUENCE_NUMBER", NUMBER)
        assert service.operations() == ["GetShardIterator"]


@on_a_loop
async def test_a_record_that_the_stream_refuses_to_begin_at_is_trimmed() -> None:
    async with scripted(GetShardIterator=[error("InvalidArgumentException")]) as (source, _, _):
        with pytest.raises(PositionTrimmed):
            await source.cursor_at(SHARD, NUMBER)
