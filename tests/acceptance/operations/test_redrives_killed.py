"""Redrives of many batches, from each place of notices, whose carrying daemon is ended by SIGKILL: each record once or twice, no notice left."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.operations.fleet import Fleet, fleet, until
from tests.emulators import Emulator

pytestmark = pytest.mark.acceptance

STREAM = "readings"
SERVICES = ("kinesis", "sqs", "s3")
TAKES_S = 0.03
FAILED_S_MAX = 150.0
REDRIVEN_S_MAX = 240.0


def put(found: Fleet, texts: list[str]) -> None:
    """Puts records of many keys into the stream."""
    kinesis = found.aws("kinesis")
    kinesis.create_stream(StreamName=STREAM, ShardCount=4)
    kinesis.get_waiter("stream_exists").wait(StreamName=STREAM, WaiterConfig={"Delay": 1, "MaxAttempts": 10})
    for first in range(0, len(texts), 500):
        records = [
            {"Data": text.encode(), "PartitionKey": f"key-{text}"} for text in texts[first : first + 500]
        ]
        assert kinesis.put_records(StreamName=STREAM, Records=records)["FailedRecordCount"] == 0


def in_queue(found: Fleet, name: str = "failed") -> int:
    """How many messages the queue has, hidden ones too."""
    sqs = found.aws("sqs")
    url = sqs.get_queue_url(QueueName=name)["QueueUrl"]
    names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
    return sum(map(int, sqs.get_queue_attributes(QueueUrl=url, AttributeNames=names)["Attributes"].values()))


def in_bucket(found: Fleet) -> int:
    """How many objects the bucket has."""
    listed = (
        found.aws("s3").get_paginator("list_objects_v2").paginate(Bucket=f"failed-batches-{found.account}")
    )
    return sum(page["KeyCount"] for page in listed)


def in_files(folder: Path) -> int:
    """How many lines the files have, settled ones too."""
    return sum(
        path.read_bytes().count(b"\n") for path in folder.iterdir() if not path.name.endswith(".settled")
    )


class Kind:
    """A kind of place: where a destination puts notices, what a redrive reads them from, and how many are there."""

    def __init__(self, found: Fleet, name: str) -> None:
        self.more: dict[str, Any] = {}
        match name:
            case "queue" | "queue with payload":
                found.aws("sqs").create_queue(QueueName="failed")
                self.destination = self.place = found.arn("sqs", "failed")
                self.count: Callable[[], int] = lambda: in_queue(found)
                self.more = {"include_payload": True} if name != "queue" else {}
            case "bucket":
                bucket = f"failed-batches-{found.account}"
                found.aws("s3").create_bucket(
                    Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": "eu-west-1"}
                )
                self.destination, self.place = f"arn:aws:s3:::{bucket}", f"s3://{bucket}/"
                self.count = lambda: in_bucket(found)
            case _:
                folder = found.folder / "notices"
                folder.mkdir()
                self.destination = self.place = f"file://{folder}"
                self.count = lambda: in_files(folder)


@pytest.mark.timeout(420)
@pytest.mark.parametrize(
    ("name", "batches"), [("queue", 1_000), ("queue with payload", 200), ("bucket", 200), ("directory", 200)]
)
def test_a_redrive_whose_worker_is_killed_settles_each_batch_and_leaves_no_notice(
    tmp_path: Path, ministack: Emulator, name: str, batches: int
) -> None:
    texts = [str(number) for number in range(batches)]
    with fleet(tmp_path, dict.fromkeys(SERVICES, ministack.url)) as found:
        put(found, texts)
        kind = Kind(found, name)
        found.mapping = {
            "EventSourceArn": found.arn("kinesis", f"stream/{STREAM}"),
            "StartingPosition": "TRIM_HORIZON",
            "BatchSize": 1,
            "MaximumRetryAttempts": 0,
            "DestinationConfig": {"OnFailure": {"Destination": kind.destination}},
            **kind.more,
        }
        found.fail(True)
        found.takes_s = TAKES_S
        found.start("w1")
        found.start("w2")
        until(lambda: kind.count() == batches, within_s=FAILED_S_MAX, told=found.tails)
        found.fail(False)
        operation = found.ask({"action": "redrive", "from": kind.place}, of="w2")
        first = found.carrying(operation)
        # A place may give ten notices at once: the worker is killed while it has some that it has not called.
        until(
            lambda: len(found.taken()) > batches // 4 and len(found.taken()) % 10 in {3, 4, 5, 6},
            within_s=REDRIVEN_S_MAX,
            told=found.tails,
        )
        found.kill(first)
        assert len(found.taken()) < batches, "it was killed in the middle"
        over = found.over(operation, within_s=REDRIVEN_S_MAX)
        counts = found.counts()
        assert sorted(counts) == sorted(texts)
        assert max(counts.values()) <= 2
        assert over["state"] == "done", over
        assert kind.count() == 0, over
        assert over["notes"]["worker"] != first
