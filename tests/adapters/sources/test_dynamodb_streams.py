"""Owns facts of the DynamoDB Streams source, shown on scripted answers."""

import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest

from adapters.aws.clients import client
from adapters.sources.dynamodb_streams import SKIPS_MAX, DynamoStream
from poller.domain.errors import (
    CursorExpired,
    InvalidConfiguration,
    PositionTrimmed,
    RecordUnreadable,
    ServiceUnavailable,
)
from poller.domain.records import Cursor, DynamoRecord, Epoch, Position, Shard, ShardId
from poller.loop_turns import LoopTurns
from poller.plugins import InstalledPlugins, opened
from poller.rules.events import DynamoEncoder
from tests.adapters.answers import TOO_DEEP, Answer, Service, environment, error, ok, on_a_loop, serving

pytestmark = pytest.mark.usefixtures("account")

ARN = "arn:aws:dynamodb:eu-west-1:111122223333:table/orders/stream/2026-01-01T00:00:00.000"
SHARD = ShardId("shardId-00000001700000000000-abcdef12")
NUMBER = "2400001838000228527682"
ENCODER = DynamoEncoder(source_arn=ARN, region="eu-west-1")


class Pacer:
    """Lets everything pass and remembers the keys."""

    def __init__(self) -> None:
        self.keys: list[str] = []

    async def pace(self, key: str) -> None:
        self.keys.append(key)


@asynccontextmanager
async def scripted(**script: Sequence[Answer]) -> AsyncIterator[tuple[DynamoStream, Service, Pacer]]:
    """The source over a scripted endpoint."""
    async with serving(script) as service, environment(service.url) as env:
        pacer = Pacer()
        api = await client(env, "dynamodbstreams", "eu-west-1")
        yield DynamoStream(api, pacer, LoopTurns(), arn=ARN), service, pacer


def wire(number: str = NUMBER, *, created: float = 1767225600.0, **more: Any) -> dict[str, Any]:
    """A record as GetRecords sends it, members in an order that is not the event's."""
    return {
        "awsRegion": "eu-west-1",
        "dynamodb": {
            "SizeBytes": 47,
            "StreamViewType": "NEW_AND_OLD_IMAGES",
            "SequenceNumber": number,
            "Keys": {"sk": {"N": "7"}, "pk": {"S": "order-1"}},
            "OldImage": {"pk": {"S": "order-1"}, "open": {"BOOL": True}},
            "NewImage": {"pk": {"S": "order-1"}, "qty": {"N": "3"}},
            "ApproximateCreationDateTime": created,
        },
        "eventID": "5f0c9d2e7a1b4c3d8e6f0a1b2c3d4e5f",
        "eventName": "MODIFY",
        "eventSource": "aws:dynamodb",
        "eventVersion": "1.1",
        **more,
    }


def listed(shard: str, parent: str | None = None, *, end: str | None = None) -> dict[str, Any]:
    """A shard as DescribeStream sends it."""
    numbers = {"StartingSequenceNumber": NUMBER} | ({"EndingSequenceNumber": end} if end else {})
    return {"ShardId": shard, "SequenceNumberRange": numbers} | ({"ParentShardId": parent} if parent else {})


def described(*shards: dict[str, Any], last: str | None = None) -> Answer:
    """A page of DescribeStream."""
    more = {"LastEvaluatedShardId": last} if last else {}
    return ok(StreamDescription={"StreamArn": ARN, "Shards": list(shards), **more})


async def only_record(answer: Answer) -> DynamoRecord:
    """The record that a page with one record is read as."""
    async with scripted(GetRecords=[answer]) as (source, _, _):
        page = await source.read(SHARD, Cursor("0;here"), records_max=10)
    (record,) = page.records
    assert isinstance(record, DynamoRecord)
    return record


@on_a_loop
async def test_a_record_has_the_members_and_the_order_that_functions_see() -> None:
    record = await only_record(ok(Records=[wire(created=1767225600)]))
    assert (
        json.dumps(ENCODER.view(record), separators=(",", ":"))
        == ENCODER.encode(record).decode()
        == (
            '{"eventID":"5f0c9d2e7a1b4c3d8e6f0a1b2c3d4e5f","eventName":"MODIFY","eventVersion":"1.1",'
            '"eventSource":"aws:dynamodb","awsRegion":"eu-west-1","dynamodb":{'
            '"ApproximateCreationDateTime":1767225600.0,"Keys":{"sk":{"N":"7"},"pk":{"S":"order-1"}},'
            '"NewImage":{"pk":{"S":"order-1"},"qty":{"N":"3"}},"OldImage":{"pk":{"S":"order-1"},"open":{"BOOL":true}},'
            '"SequenceNumber":"2400001838000228527682","SizeBytes":47,"StreamViewType":"NEW_AND_OLD_IMAGES"},'
            f'"eventSourceARN":"{ARN}"}}'
        )
    )
    assert (record.sequence_number, record.arrived) == (NUMBER, 1767225600.0)
    assert record.key == '{"pk":{"S":"order-1"},"sk":{"N":"7"}}'


@on_a_loop
async def test_a_removal_by_time_to_live_says_who_did_it_at_the_end() -> None:
    identity = {"PrincipalId": "dynamodb.amazonaws.com", "Type": "Service"}
    record = await only_record(ok(Records=[wire(userIdentity=identity, eventName="REMOVE")]))
    assert list(ENCODER.view(record))[-1] == "userIdentity"
    assert json.dumps(ENCODER.view(record)["userIdentity"]) == (
        '{"type": "Service", "principalId": "dynamodb.amazonaws.com"}'
    )


@on_a_loop
async def test_values_of_every_type_pass_through_with_binary_as_base64() -> None:
    image = {
        "b": {"B": "Zm9vYmFy"},
        "bs": {"BS": ["/w==", "AA=="]},
        "m": {"M": {"deep": {"L": [{"B": "AQI="}, {"M": {"x": {"BS": ["Ag=="]}}}, {"NULL": True}]}}},
        "n": {"N": "3.50"},
        "ns": {"NS": ["2", "1"]},
        "ss": {"SS": ["z", "a"]},
        "empty": {"M": {}},
        "none": {"L": []},
    }
    answer = wire()
    answer["dynamodb"]["NewImage"] = image
    record = await only_record(ok(Records=[answer]))
    assert ENCODER.view(record)["dynamodb"]["NewImage"] == image


@on_a_loop
async def test_a_record_with_a_lone_surrogate_is_read_as_any_other() -> None:
    odd = wire()
    odd["dynamodb"]["NewImage"] = {"pk": {"S": "half \ud800"}}
    plain = wire(userIdentity={"PrincipalId": "dynamodb.amazonaws.com", "Type": "Service"})
    async with scripted(GetRecords=[ok(Records=[wire(), odd, plain], NextShardIterator="next")] * 2) as (
        source,
        _,
        _,
    ):
        for _ in range(2):
            page = await source.read(SHARD, Cursor("0;here"), records_max=10)
            views = [ENCODER.view(each) for each in page.records if isinstance(each, DynamoRecord)]
            assert [each["dynamodb"]["NewImage"] for each in views] == [
                each["dynamodb"]["NewImage"] for each in (wire(), odd, plain)
            ]
            assert views[2]["userIdentity"] == {"type": "Service", "principalId": "dynamodb.amazonaws.com"}
            assert [json.loads(each) for each in ENCODER.encode_all(page.records)] == views


@on_a_loop
async def test_images_that_the_view_leaves_out_stay_out() -> None:
    answer = wire()
    del answer["dynamodb"]["NewImage"], answer["dynamodb"]["OldImage"]
    record = await only_record(ok(Records=[answer]))
    assert {"NewImage", "OldImage"}.isdisjoint(ENCODER.view(record)["dynamodb"])


@on_a_loop
async def test_shards_come_from_every_page() -> None:
    pages = [described(listed("a", end="9"), listed("b", "a"), last="b"), described(listed("c", "gone"))]
    async with scripted(DescribeStream=pages) as (source, service, pacer):
        assert list(await source.shards()) == [
            Shard(ShardId("a"), closed=True),
            Shard(ShardId("b"), (ShardId("a"),)),
            Shard(ShardId("c"), (ShardId("gone"),)),
        ]
        starts = [given.get("ExclusiveStartShardId") for given in service.parameters("DescribeStream")]
        assert starts == [None, "b"]
        assert pacer.keys == ["dynamodbstreams DescribeStream 111122223333 eu-west-1"] * 2


@on_a_loop
async def test_a_start_by_time_includes_the_whole_second_and_skips_what_is_older_at_once() -> None:
    pages = [
        ok(Records=[wire("1", created=1767225598), wire("2", created=1767225599)], NextShardIterator="two"),
        ok(Records=[wire("3", created=1767225599)], NextShardIterator="three"),
        ok(
            Records=[
                wire("4", created=1767225599),
                wire("5", created=1767225600),
                wire("6", created=1767225599),
            ],
            NextShardIterator="four",
        ),
    ]
    async with scripted(GetShardIterator=[ok(ShardIterator="one")], GetRecords=pages) as (source, service, _):
        cursor = await source.cursor(SHARD, Position.at(Epoch(1767225600.75)))
        assert service.parameters("GetShardIterator")[0]["ShardIteratorType"] == "TRIM_HORIZON"
        page = await source.read(SHARD, cursor, records_max=10)
        assert [record.sequence_number for record in page.records] == ["5", "6"]
        assert page.cursor == "0;four"


@on_a_loop
async def test_skipping_is_bounded_and_goes_on_with_the_next_read() -> None:
    old = ok(Records=[wire("1", created=5)], NextShardIterator="on")
    new = ok(Records=[wire("2", created=1767225600)])
    async with scripted(GetRecords=[old] * (SKIPS_MAX + 1) + [new]) as (source, service, _):
        page = await source.read(SHARD, Cursor("1767225600000;here"), records_max=10)
        assert list(page.records) == []
        assert page.cursor == "1767225600000;on"
        assert len(service.asked) == SKIPS_MAX + 1
        page = await source.read(SHARD, page.cursor, records_max=10)
        assert [record.sequence_number for record in page.records] == ["2"]


@on_a_loop
async def test_an_empty_page_is_not_skipped() -> None:
    async with scripted(GetRecords=[ok(Records=[], NextShardIterator="on")]) as (source, _, _):
        page = await source.read(SHARD, Cursor("5000;here"), records_max=10)
        assert (list(page.records), page.cursor, page.behind_ms) == ([], "5000;on", None)


@on_a_loop
async def test_a_read_asks_for_no_more_than_aws_gives() -> None:
    async with scripted(GetRecords=[ok(Records=[])]) as (source, service, pacer):
        assert (await source.read(SHARD, Cursor("0;here"), records_max=10_000)).cursor is None
        assert service.asked == [("GetRecords", {"ShardIterator": "here", "Limit": 1000})]
        assert pacer.keys == [f"dynamodbstreams GetRecords {ARN} {SHARD}"]


@on_a_loop
async def test_a_trimmed_position_is_reported_by_cursor_and_by_read() -> None:
    trimmed = error("TrimmedDataAccessException")
    async with scripted(GetShardIterator=[trimmed], GetRecords=[trimmed]) as (source, _, _):
        with pytest.raises(PositionTrimmed):
            await source.cursor(SHARD, Position.after(NUMBER))
        with pytest.raises(PositionTrimmed):
            await source.read(SHARD, Cursor("0;here"), records_max=10)


@on_a_loop
async def test_a_number_that_the_service_does_not_understand_is_trimmed() -> None:
    async with scripted(GetShardIterator=[error("ValidationException")]) as (source, service, _):
        with pytest.raises(PositionTrimmed):
            await source.cursor(SHARD, Position.after("5"))
        assert service.parameters("GetShardIterator")[0]["SequenceNumber"] == "5"


@pytest.mark.parametrize("code", ["ExpiredIteratorException", "ValidationException"])
@on_a_loop
async def test_an_iterator_that_is_refused_wants_a_new_cursor(code: str) -> None:
    async with scripted(GetRecords=[error(code)]) as (source, _, _):
        with pytest.raises(CursorExpired):
            await source.read(SHARD, Cursor("0;old"), records_max=10)


@on_a_loop
async def test_an_answer_that_is_not_as_documented_is_unavailable() -> None:
    async with scripted(DescribeStream=[ok()], GetRecords=[ok()]) as (source, _, _):
        with pytest.raises(ServiceUnavailable, match="not as documented"):
            await source.shards()
        with pytest.raises(ServiceUnavailable, match="not as documented"):
            await source.read(SHARD, Cursor("0;here"), records_max=10)


@pytest.mark.parametrize("members", [{}, {"Records": None}], ids=["absent", "null"])
@on_a_loop
async def test_an_answer_without_records_is_refused_though_it_has_an_iterator(
    members: dict[str, Any],
) -> None:
    async with scripted(GetRecords=[ok(NextShardIterator="next", **members)]) as (source, _, _):
        with pytest.raises(ServiceUnavailable, match="not as documented"):
            await source.read(SHARD, Cursor("0;here"), records_max=10)


@on_a_loop
async def test_the_shards_of_a_disabled_stream_are_closed_and_it_says_what_to_do() -> None:
    script = [
        ok(StreamDescription={"StreamArn": ARN, "Shards": [listed("a")], "StreamStatus": status})
        for status in ("ENABLED", "DISABLING", "DISABLED")
    ]
    found: list[tuple[bool, bool]] = []
    async with scripted(DescribeStream=script) as (source, _, _):
        for _ in script:
            (shard,) = await source.shards()
            found.append((shard.closed, "write its ARN" in source.over))
    assert found == [(False, False), (False, False), (True, True)]


@on_a_loop
async def test_a_page_ends_before_a_record_whose_number_would_put_it_elsewhere() -> None:
    odd = wire("-5")
    script = [
        ok(Records=[wire(), odd], NextShardIterator="beyond"),
        ok(Records=[wire()], NextShardIterator="before"),
        ok(Records=[odd], NextShardIterator="beyond"),
    ]
    async with scripted(GetRecords=script) as (source, service, _):
        page = await source.read(SHARD, Cursor("0;here"), records_max=10)
        assert (len(page.records), page.cursor) == (1, "0;before")
        with pytest.raises(RecordUnreadable, match="a record without sequence number cannot be read"):
            await source.read(SHARD, Cursor("0;before"), records_max=10)
        assert [each["Limit"] for each in service.parameters("GetRecords")] == [10, 1, 10]


@on_a_loop
async def test_a_page_ends_before_a_record_that_cannot_be_read_and_the_next_read_says_so() -> None:
    odd = {"eventID": "1", "dynamodb": {"SequenceNumber": 5}}
    script = {
        "GetRecords": [
            ok(Records=[wire(), odd], NextShardIterator="beyond"),
            ok(Records=[wire()]),
            ok(Records=[odd], NextShardIterator="beyond"),
        ],
        "GetShardIterator": [ok(ShardIterator="before")],
    }
    async with scripted(**script) as (source, service, _):
        page = await source.read(SHARD, Cursor("0;here"), records_max=10)
        assert ([each.sequence_number for each in page.records], page.cursor) == ([NUMBER], "0;before")
        (asked,) = service.parameters("GetShardIterator")
        assert (asked["ShardIteratorType"], asked["SequenceNumber"]) == ("AFTER_SEQUENCE_NUMBER", NUMBER)
        with pytest.raises(RecordUnreadable, match="a record without sequence number cannot be read"):
            await source.read(SHARD, Cursor("0;before"), records_max=10)


@on_a_loop
async def test_an_answer_that_is_too_deep_to_be_read_is_unavailable() -> None:
    async with scripted(GetRecords=[ok(Records=[]), TOO_DEEP]) as (source, _, _):
        await source.read(SHARD, Cursor("0;here"), records_max=10)
        with pytest.raises(ServiceUnavailable, match="RecursionError"):
            await source.read(SHARD, Cursor("0;here"), records_max=10)


@pytest.mark.parametrize("member", ["Keys", "NewImage", "OldImage"])
@on_a_loop
async def test_keys_and_images_that_are_no_utf_8_are_unavailable(member: str) -> None:
    odd = wire()
    odd["dynamodb"][member] = {"pk": {"S": "here"}}
    body = ok(Records=[wire(), odd]).body.replace(b"here", b"\xff")
    async with scripted(GetRecords=[ok(Records=[]), Answer(body)]) as (source, _, _):
        await source.read(SHARD, Cursor("0;here"), records_max=10)
        with pytest.raises(ServiceUnavailable, match="not as documented: UnicodeDecodeError"):
            await source.read(SHARD, Cursor("0;here"), records_max=10)


@on_a_loop
async def test_keys_and_images_of_any_language_are_read() -> None:
    body = ok(Records=[wire()]).body.replace(b"order-1", "Bestellung für 東京 🗼".encode())
    async with scripted(GetRecords=[ok(Records=[]), Answer(body)]) as (source, _, _):
        await source.read(SHARD, Cursor("0;here"), records_max=10)
        (record,) = (await source.read(SHARD, Cursor("0;here"), records_max=10)).records
    assert record.key == '{"pk":{"S":"Bestellung für 東京 🗼"},"sk":{"N":"7"}}'


@on_a_loop
async def test_a_table_is_not_a_stream() -> None:
    arn = "arn:aws:dynamodb:eu-west-1:111122223333:table/orders"
    async with environment(None) as env:
        with pytest.raises(InvalidConfiguration) as caught:
            opened(InstalledPlugins(), "sources", "dynamodb", {"arn": arn}, env)
    assert caught.value.problems == [
        f"sources dynamodb: arn: value '{arn}': is not the ARN of a DynamoDB stream; "
        "write arn:aws:dynamodb:REGION:ACCOUNT:table/NAME/stream/LABEL"
    ]


@on_a_loop
async def test_a_cursor_can_be_taken_at_a_record_itself() -> None:
    async with scripted(GetShardIterator=[ok(ShardIterator="at")]) as (source, service, _):
        assert await source.cursor_at(SHARD, NUMBER) == "0;at"
        (asked,) = service.parameters("GetShardIterator")
        assert (asked["ShardIteratorType"], asked["SequenceNumber"]) == ("AT_SEQUENCE_NUMBER", NUMBER)


@pytest.mark.parametrize("code", ["ValidationException", "TrimmedDataAccessException"])
@on_a_loop
async def test_a_record_that_the_stream_refuses_to_begin_at_is_trimmed(code: str) -> None:
    async with scripted(GetShardIterator=[error(code)]) as (source, _, _):
        with pytest.raises(PositionTrimmed):
            await source.cursor_at(SHARD, NUMBER)
