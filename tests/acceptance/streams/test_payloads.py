"""Notices with their event, from real streams through a daemon that is a real process to a queue, a topic and a bucket."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.clients.test_aws_clients import World, a_queue, a_stream, a_table_stream, put, until
from tests.conftest import REGION, fresh_account
from tests.emulators import Emulator

pytestmark = pytest.mark.acceptance

MAPPING = "11111111-2222-4333-8444-555555555555"
SOON_S = 30.0


@pytest.fixture
def world(ministack: Emulator, tmp_path: Path) -> World:
    return World(ministack.url, fresh_account(), tmp_path)


def bucket(world: World) -> str:
    """The name of this account's bucket: all accounts share the names of buckets."""
    return f"large-events-{world.account}"


def prefix(world: World) -> str:
    return f"s3://{bucket(world)}/kept"


def a_bucket(world: World) -> None:
    world.aws("s3").create_bucket(
        Bucket=bucket(world), CreateBucketConfiguration={"LocationConstraint": REGION}
    )


def messages(world: World, found: list[dict[str, Any]], *, count: int) -> bool:
    """Adds the bodies of messages that have come to `failed`; returns whether there are so many."""
    sqs = world.aws("sqs")
    url = sqs.get_queue_url(QueueName="failed")["QueueUrl"]
    for message in sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10).get("Messages", []):
        found.append(json.loads(message["Body"]))
        sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
    return len(found) >= count


def mapping(source: str, destination: str, **more: Any) -> dict[str, Any]:
    """A mapping of a function that always fails, which gives each record up at once."""
    return {
        "UUID": MAPPING,
        "FunctionName": "broken",
        "EventSourceArn": source,
        "StartingPosition": "TRIM_HORIZON",
        "BatchSize": 1,
        "MaximumRetryAttempts": 0,
        "DestinationConfig": {"OnFailure": {"Destination": destination}},
        "include_payload": True,
        **more,
    }


BROKEN = {"broken": {"invoker": "python", "handler": "tests.acceptance.api_function:refuse"}}


def kept(world: World, document: dict[str, Any]) -> Any:
    """The document in the object that a notice names."""
    place = document["payloadObject"]
    body = world.aws("s3").get_object(Bucket=place["bucket"], Key=place["key"])["Body"].read()
    found = json.loads(body)
    assert len(found["payload"].encode()) == place["sizeBytes"]
    return found


def test_a_kinesis_record_reaches_the_queue_inline_or_as_an_object_and_waits_for_the_bucket(
    world: World,
) -> None:
    stream, queue = a_stream(world), a_queue(world, "failed")
    put(world, "small", "x" * 900_000, "last")
    found: list[dict[str, Any]] = []
    with world.daemon([mapping(stream, queue, payload_prefix=prefix(world))], functions=BROKEN):
        until(lambda: messages(world, found, count=1), within_s=SOON_S)
        until(lambda: "NoSuchBucket" in json.dumps(world.status(MAPPING)), within_s=SOON_S)
        assert not messages(world, found, count=2), "the shard waits for the object"
        a_bucket(world)
        until(lambda: messages(world, found, count=3), within_s=SOON_S)
    small, large, last = found
    assert "c21hbGw=" in small["payload"]
    assert "payload" not in large
    assert "payload" in last
    whole = kept(world, large)
    del large["payloadObject"]
    assert {name: each for name, each in whole.items() if name != "payload"} == large
    [record] = json.loads(whole["payload"])["Records"]
    assert record["kinesis"]["sequenceNumber"] == large["KinesisBatchInfo"]["startSequenceNumber"]


def test_a_dynamodb_record_reaches_the_subscribers_of_a_topic(world: World) -> None:
    stream, queue = a_table_stream(world), a_queue(world, "failed")
    a_bucket(world)
    topic = world.aws("sns").create_topic(Name="failed")["TopicArn"]
    raw = {"RawMessageDelivery": "true"}
    world.aws("sns").subscribe(TopicArn=topic, Protocol="sqs", Endpoint=queue, Attributes=raw)
    for name, text in (("a", "small"), ("b", "x" * 300_000)):
        world.aws("dynamodb").put_item(TableName="stock", Item={"pk": {"S": name}, "text": {"S": text}})
    found: list[dict[str, Any]] = []
    with world.daemon([mapping(stream, topic, payload_prefix=prefix(world))], functions=BROKEN):
        until(lambda: messages(world, found, count=2), within_s=SOON_S)
    (small,) = [each for each in found if "payload" in each]
    (large,) = [each for each in found if "payloadObject" in each]
    assert json.loads(small["payload"])["Records"][0]["dynamodb"]["NewImage"]["text"] == {"S": "small"}
    assert json.loads(kept(world, large)["payload"])["Records"][0]["dynamodb"]["Keys"] == {"pk": {"S": "b"}}


def test_check_live_looks_at_the_bucket_too(world: World) -> None:
    stream, queue = a_stream(world), a_queue(world, "failed")
    given = {**mapping(stream, queue, payload_prefix=prefix(world)), "FunctionName": "reader"}
    (missing,) = [each for each in world.checked([given])["problems"] if bucket(world) in each]
    assert f"mappings[0].DestinationConfig: arn:aws:s3:::{bucket(world)}: there is none" in missing
    a_bucket(world)
    found = world.checked([given])
    (looked,) = [each for each in found["live"] if each["place"] == "mappings[0].DestinationConfig"]
    assert {each["check"]: each["grade"] for each in looked["findings"]} == {
        "sqs:GetQueueAttributes": "ok",
        "sqs:SendMessage": "untried",
        "s3:ListBucket": "ok",
        "s3:PutObject": "untried",
    }
