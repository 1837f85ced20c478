"""Operations by the commands while something they need is away: the store, or the destination."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from tests.acceptance.daemons import Ended, command
from tests.acceptance.operations.fleet import MAPPING, Fleet, fleet, until
from tests.acceptance.operations.relay import Relay
from tests.emulators import Emulator

pytestmark = pytest.mark.acceptance

STREAM = "readings"
SHARD = "shardId-000000000000"
AWAY_S = 3.0
S_MAX = 90.0


def asked(found: Fleet, worker: str, *words: str) -> Ended:
    """Runs a command about the mapping against a worker."""
    return command(words[0], MAPPING, *words[1:], "--url", found.urls[worker])


def a_stream(found: Fleet) -> None:
    """Makes the stream, and a mapping that calls the function with one record at a time."""
    kinesis = found.aws("kinesis")
    kinesis.create_stream(StreamName=STREAM, ShardCount=1)
    kinesis.get_waiter("stream_exists").wait(StreamName=STREAM, WaiterConfig={"Delay": 1, "MaxAttempts": 10})
    described = kinesis.describe_stream_summary(StreamName=STREAM)["StreamDescriptionSummary"]
    found.mapping = {
        "EventSourceArn": described["StreamARN"],
        "StartingPosition": "TRIM_HORIZON",
        "BatchSize": 1,
    }


def with_failures(found: Fleet) -> None:
    """Makes a queue, to which the mapping sends its notices."""
    found.aws("sqs").create_queue(QueueName="failed")
    found.mapping["DestinationConfig"] = {"OnFailure": {"Destination": found.arn("sqs", "failed")}}


def notices(found: Fleet) -> int:
    """How many notices the queue has."""
    sqs = found.aws("sqs")
    url = sqs.get_queue_url(QueueName="failed")["QueueUrl"]
    name = "ApproximateNumberOfMessages"
    return int(sqs.get_queue_attributes(QueueUrl=url, AttributeNames=[name])["Attributes"][name])


def put(found: Fleet, numbers: Sequence[int]) -> None:
    for number in numbers:
        found.aws("kinesis").put_record(StreamName=STREAM, Data=f"a {number}".encode(), PartitionKey="a")


def texts(numbers: Sequence[int]) -> list[str]:
    return [f"a {number}" for number in numbers]


def blocked(found: Fleet) -> bool:
    return any(each["state"] == "blocked" for each in found.status()["shards"])


def becomes(found: Fleet, holds: Callable[[], object]) -> None:
    until(holds, within_s=S_MAX, told=lambda: f"{found.taken()}\n{found.tails()}")


@pytest.mark.timeout(240)
def test_operations_outlast_a_store_that_goes_away_between_their_decision_and_their_effect(
    tmp_path: Path, ministack: Emulator
) -> None:
    with Relay(ministack.url) as store:
        endpoints = {"kinesis": ministack.url, "sqs": ministack.url, "dynamodb": store.url}
        with fleet(tmp_path, endpoints, store="dynamodb://leases?create=true") as found:
            a_stream(found)
            with_failures(found)
            found.fail(True)
            found.start("w1")
            put(found, range(4))
            becomes(found, lambda: blocked(found))

            skip = found.ask({"action": "skip", "shard": SHARD, "records": "first"})
            store.close()
            refused = asked(found, "w1", "skip", "--shard", SHARD, "--yes")
            assert (refused.status, refused.out) == (2, "")
            assert "the store is in trouble: " in refused.err
            time.sleep(AWAY_S)
            store.open()
            assert found.over(skip, within_s=S_MAX)["result"] == (
                "1 record skipped, the destination has the notice"
            )
            assert notices(found) >= 1
            found.fail(False)
            becomes(found, lambda: set(found.taken()) == set(texts(range(1, 4))))

            seek = found.ask({"action": "seek", "to": "TRIM_HORIZON"})
            store.close()
            time.sleep(AWAY_S)
            store.open()
            assert found.over(seek, within_s=S_MAX)["result"] == "1 shard moved to TRIM_HORIZON"
            becomes(found, lambda: min(found.counts()[text] for text in texts(range(1, 4))) >= 2)
            assert set(found.taken()) == set(texts(range(4)))


@pytest.mark.timeout(240)
def test_a_skip_waits_for_its_destination_and_can_be_cancelled_meanwhile(
    tmp_path: Path, ministack: Emulator
) -> None:
    with (
        Relay(ministack.url) as queues,
        fleet(tmp_path, {"kinesis": ministack.url, "sqs": queues.url}) as found,
    ):
        a_stream(found)
        with_failures(found)
        found.fail(True)
        found.start("w1")
        put(found, range(3))
        becomes(found, lambda: blocked(found))
        queues.close()

        waits = asked(found, "w1", "skip", "--shard", SHARD, "--yes", "--wait-s", "3")
        assert waits.status == 1
        assert waits.out.startswith("skip running: it is not over yet; poller operations show ")
        operation = waits.out.partition("poller operations show ")[2].split()[0]
        url = ("--url", found.urls["w1"])
        shown = command("operations", "show", operation, *url, env={"COLUMNS": "400"})
        assert "waits until the destination takes the notice of lane 0" in shown.out, shown
        cancelled = command("operations", "cancel", operation, *url)
        assert cancelled.out.startswith(f"{operation} cancelled"), cancelled

        second = found.ask({"action": "skip", "shard": SHARD, "records": "first"})
        time.sleep(AWAY_S)
        assert found.operation(second)["state"] in {"accepted", "running"}
        queues.open()
        assert found.over(second, within_s=S_MAX)["result"] == (
            "1 record skipped, the destination has the notice"
        )
        assert notices(found) == 1
        found.fail(False)
        becomes(found, lambda: found.taken() == texts(range(1, 3)))


@pytest.mark.timeout(240)
def test_what_a_replay_gives_up_is_dropped_or_at_its_destination_and_can_be_redriven(
    tmp_path: Path, ministack: Emulator
) -> None:
    with fleet(tmp_path, {"kinesis": ministack.url, "sqs": ministack.url}) as found:
        a_stream(found)
        found.aws("sqs").create_queue(QueueName="failed")
        found.mapping["MaximumRetryAttempts"] = 0
        found.start("w1")
        put(found, range(3))
        becomes(found, lambda: found.taken() == texts(range(3)))
        found.fail(True)

        words = ("replay", "--from", "TRIM_HORIZON", "--yes", "--on-failure")
        dropped = asked(found, "w1", *words, "skip")
        assert dropped.status == 0, dropped
        assert dropped.out.startswith("replay done: 0 records replayed, ")
        assert dropped.out.endswith("; 3 skipped\n")
        failed = found.arn("sqs", "failed")
        kept = asked(found, "w1", *words, failed)
        assert (kept.status, notices(found)) == (0, 3), kept
        found.fail(False)
        redriven = asked(found, "w1", "redrive", "--from", failed, "--yes")
        assert (redriven.status, redriven.out) == (0, "redrive done: 3 batches settled (3 records)\n"), (
            redriven
        )
        assert (found.taken()[:3], sorted(found.taken()[3:])) == (texts(range(3)), texts(range(3)))
        assert notices(found) == 0
