"""A real daemon has a consumer of its mapping's own: registered once, used again after a kill, and shown and removed by `poller consumers`."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.daemons import command
from tests.acceptance.operations.fleet import MAPPING, Fleet, fleet, in_order, until
from tests.emulators import Emulator

pytestmark = pytest.mark.acceptance

STREAM = "readings"
S_MAX = 90.0
NAME = f"poller-{MAPPING}"
RECORDS = 60
KEYS = 3


def put(found: Fleet, numbers: range) -> None:
    for number in numbers:
        key = f"key{number % KEYS}"
        found.aws("kinesis").put_record(StreamName=STREAM, PartitionKey=key, Data=f"{key}-{number}".encode())


def lines(found: Fleet) -> list[Any]:
    if not found.journal.exists():
        return []
    return [json.loads(line) for line in found.journal.read_text().splitlines()]


def texts(found: Fleet) -> list[str]:
    return [text for each in lines(found) for text in each["texts"]]


def consumers(found: Fleet, arn: str) -> list[tuple[str, str]]:
    listed = found.aws("kinesis").list_stream_consumers(StreamARN=arn)["Consumers"]
    return [(each["ConsumerName"], each["ConsumerARN"]) for each in listed]


def reason(found: Fleet) -> str:
    (shard,) = found.status()["shards"]
    return str(shard.get("reason") or "")


def test_a_daemon_that_is_killed_and_starts_again_has_the_same_consumer(
    tmp_path: Path, ministack: Emulator
) -> None:
    handler = "tests.acceptance.streams.parts_function:take"
    with fleet(tmp_path, {"kinesis": ministack.url, "sqs": ministack.url}, handler=handler) as found:
        kinesis = found.aws("kinesis")
        kinesis.create_stream(StreamName=STREAM, ShardCount=1)
        kinesis.get_waiter("stream_exists").wait(
            StreamName=STREAM, WaiterConfig={"Delay": 1, "MaxAttempts": 10}
        )
        arn = found.arn("kinesis", f"stream/{STREAM}")
        found.mapping = {
            "EventSourceArn": arn,
            "StartingPosition": "TRIM_HORIZON",
            "BatchSize": 2,
            "source": {"fan_out": True},
        }
        put(found, range(RECORDS // 2))
        found.start("w1")
        until(lambda: len(texts(found)) >= RECORDS // 4, within_s=S_MAX, told=found.tails)
        found.kill("w1")
        ((name, own),) = consumers(found, arn)
        assert name == NAME

        put(found, range(RECORDS // 2, RECORDS))
        found.start("w1")
        until(lambda: len(set(texts(found))) == RECORDS, within_s=S_MAX, told=found.tails)
        until(lambda: reason(found) == "", within_s=S_MAX, told=lambda: reason(found))
        assert consumers(found, arn) == [(NAME, own)]
        assert {each["source"] for each in lines(found)} == {own}
        counts = Counter(texts(found))
        assert set(counts.values()) <= {1, 2}, counts
        taken = in_order(texts(found), key=_key, number=_number)
        assert taken == [], taken

        # It is removed beside the running daemon, which has another one soon.
        kinesis.deregister_stream_consumer(ConsumerARN=own)
        until(lambda: [each for each, _ in consumers(found, arn)] == [NAME], within_s=S_MAX, told=found.tails)
        put(found, range(RECORDS, RECORDS + KEYS))
        until(lambda: len(set(texts(found))) == RECORDS + KEYS, within_s=S_MAX, told=found.tails)

        file = str(tmp_path / "w1.yaml")
        account = {"AWS_ACCESS_KEY_ID": found.account, "AWS_SECRET_ACCESS_KEY": "not-a-secret"}
        listed = command("consumers", "list", "--config", file, "--json", env=account)
        assert listed.status == 0, listed
        assert [(each["name"], each["mapping"], each["fan_out"]) for each in json.loads(listed.out)] == [
            (NAME, MAPPING, True)
        ]
        refused = command("consumers", "remove", NAME, "--config", file, "--yes", env=account)
        assert (refused.status, "fan_out: true" in refused.err) == (2, True), refused


def _key(text: str) -> str:
    return text.partition("-")[0]


def _number(text: str) -> int:
    return int(text.partition("-")[2])
