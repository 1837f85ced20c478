"""Real daemons take aggregated records apart, of a consumer with enhanced fan-out and of a plain stream: one part fails and is retried alone, also after a kill."""

import json
import time
from pathlib import Path
from typing import Any

import pytest
from aws_kinesis_agg.aggregator import AggRecord  # type: ignore[import-untyped]  # it has no types

from tests.acceptance.daemons import command
from tests.acceptance.operations.fleet import MAPPING, Fleet, fleet, until
from tests.emulators import Emulator

pytestmark = pytest.mark.acceptance

STREAM = "readings"
PARTS = 5
S_MAX = 60.0
SAVED_S = 3.0
FIRST = [f"one-{part}" for part in range(PARTS)]
SECOND = [f"two-{part}" for part in range(PARTS)]


def put(found: Fleet, texts: list[str]) -> None:
    packed: Any = AggRecord()
    for text in texts:
        assert packed.add_user_record("key", text.encode())
    found.aws("kinesis").put_record(
        StreamName=STREAM, PartitionKey="key", Data=bytes(packed.get_contents()[2])
    )


def calls(found: Fleet) -> list[list[str]]:
    """The texts of each call, in order."""
    return [each["texts"] for each in lines(found)]


def lines(found: Fleet) -> list[Any]:
    if not found.journal.exists():
        return []
    return [json.loads(line) for line in found.journal.read_text().splitlines()]


def position(found: Fleet) -> str:
    (shard,) = found.status()["shards"]
    return str(shard["position"])


@pytest.mark.parametrize("pushed", [True, False], ids=["pushed", "polled"])
def test_a_part_that_fails_is_retried_without_those_before_it(
    tmp_path: Path, ministack: Emulator, pushed: bool
) -> None:
    handler = "tests.acceptance.streams.parts_function:take"
    with fleet(tmp_path, {"kinesis": ministack.url, "sqs": ministack.url}, handler=handler) as found:
        kinesis = found.aws("kinesis")
        kinesis.create_stream(StreamName=STREAM, ShardCount=1)
        kinesis.get_waiter("stream_exists").wait(
            StreamName=STREAM, WaiterConfig={"Delay": 1, "MaxAttempts": 10}
        )
        arn = found.arn("kinesis", f"stream/{STREAM}")
        if pushed:
            made = kinesis.register_stream_consumer(StreamARN=arn, ConsumerName="poller")
            arn = made["Consumer"]["ConsumerARN"]
        found.mapping = {
            "EventSourceArn": arn,
            "StartingPosition": "TRIM_HORIZON",
            "FunctionResponseTypes": ["ReportBatchItemFailures"],
            **({} if pushed else {"source": {"deaggregate": True}}),
        }
        (tmp_path / "bad").write_text("one-2")
        put(found, FIRST)
        found.start("w1")
        until(lambda: len(calls(found)) >= 3, within_s=S_MAX, told=found.tails)
        assert calls(found)[:3] == [FIRST, FIRST[2:], FIRST[2:]]
        assert {each["source"] for each in lines(found)} == {arn}
        until(lambda: position(found).endswith(":1"), within_s=S_MAX, told=found.tails)
        (shard,) = found.status()["shards"]
        assert position(found).startswith("AFTER:")

        # The checkpoint follows within a second.
        time.sleep(SAVED_S)
        found.kill("w1")
        before = len(calls(found))
        found.start("w1")
        until(lambda: len(calls(found)) > before, within_s=S_MAX, told=found.tails)
        assert calls(found)[before] == FIRST[2:]
        peeked = command("peek", MAPPING, shard["shard"], "--url", next(iter(found.urls.values())))
        assert peeked.status == 0, peeked
        assert f"record {position(found).split(':')[1]}:2" in peeked.out, peeked.out

        (tmp_path / "bad").unlink()
        put(found, SECOND)
        until(
            lambda: [*FIRST[2:], *SECOND][-1] in {text for each in calls(found) for text in each},
            within_s=S_MAX,
            told=found.tails,
        )
        taken = [text for each in calls(found) for text in each]
        assert (taken.count("one-0"), taken.count("one-1")) == (1, 1)
        assert [text for text in taken if text in SECOND] == SECOND
        until(lambda: ":" not in position(found).removeprefix("AFTER:"), within_s=S_MAX, told=found.tails)
