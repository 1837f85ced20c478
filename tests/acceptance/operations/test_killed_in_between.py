"""Operations on two real daemons while the store, or the worker that was asked, is ended by SIGKILL between acceptance and effect."""

import json
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.daemons import Ended, command
from tests.acceptance.operations.fleet import MAPPING, Fleet, answer, fleet, until
from tests.acceptance.operations.kept_store import KeptStore
from tests.emulators import Emulator

pytestmark = pytest.mark.acceptance

STREAM = "readings"
SHARD = "shardId-000000000000"
SKIPPED = "1 record skipped, the destination has the notice"
QUIET_S = 1.5
S_MAX = 120.0
VISIBILITY_S = 4


def two_workers(folder: Path, emulator: Emulator, store: str) -> AbstractContextManager[Fleet]:
    """Daemons whose leases are short, so that a dead one is soon known as such."""
    services = ("kinesis", "sqs")
    endpoints = dict.fromkeys(services, emulator.url) | {"dynamodb": store}
    tuning = {"lease_s": 5, "heartbeat_s": 1}
    return fleet(folder, endpoints, store="dynamodb://leases?create=true", tuning=tuning)


def a_stream(found: Fleet) -> None:
    """A stream of one shard, a queue for notices, and a mapping that calls the function with one record at a time."""
    kinesis = found.aws("kinesis")
    kinesis.create_stream(StreamName=STREAM, ShardCount=1)
    kinesis.get_waiter("stream_exists").wait(StreamName=STREAM, WaiterConfig={"Delay": 1, "MaxAttempts": 10})
    found.aws("sqs").create_queue(QueueName="failed")
    found.mapping = {
        "EventSourceArn": found.arn("kinesis", f"stream/{STREAM}"),
        "StartingPosition": "TRIM_HORIZON",
        "BatchSize": 1,
        "DestinationConfig": {"OnFailure": {"Destination": found.arn("sqs", "failed")}},
    }


def put(found: Fleet, numbers: Iterable[int]) -> None:
    for number in numbers:
        found.aws("kinesis").put_record(StreamName=STREAM, Data=str(number).encode(), PartitionKey="a")


def becomes(found: Fleet, holds: Callable[[], object]) -> None:
    until(holds, within_s=S_MAX, told=lambda: f"{found.taken()}\n{found.tails()}")


def blocked(found: Fleet) -> bool:
    return any(each["state"] == "blocked" for each in found.status()["shards"])


def owner(found: Fleet) -> tuple[str, str]:
    """The worker that has the shard, and another one."""
    held: list[str] = []

    def known() -> bool:
        held[:] = [each["owner"] for each in found.status()["shards"] if each["owner"] in found.urls]
        return bool(held)

    becomes(found, known)
    return held[0], next(name for name in found.urls if name != held[0])


def in_force(found: Fleet, pause: str) -> bool:
    """Whether a pause holds on all that it is about."""
    shown = found.operation(pause)
    assert shown["state"] in {"accepted", "running"}, shown
    return {part["state"] for part in shown["parts"].values()} == {"done"} and set(shown["parts"]) == set(
        shown["wanted"]
    )


def results(found: Fleet, operations: Sequence[str]) -> list[tuple[str, str]]:
    """How each of them has ended."""
    over = [found.over(each, within_s=S_MAX) for each in operations]
    return [(each["state"], each["result"]) for each in over]


def nothing_is_taken(found: Fleet) -> None:
    before = found.taken()
    with pytest.raises(AssertionError, match="did not come true"):
        until(lambda: found.taken() != before, within_s=QUIET_S)


def waits_beside(found: Fleet, worker: str, *words: str) -> "tuple[ThreadPoolExecutor, Any]":
    """Runs a command about the mapping beside the test; returns once its operation is accepted."""
    pool = ThreadPoolExecutor(1)
    ended = pool.submit(command, words[0], MAPPING, *words[1:], "--url", found.urls[worker])
    url = f"{found.urls[worker]}/v1/operations"
    becomes(found, lambda: any(each["action"] == words[0] for each in answer("GET", url)["operations"]))
    return pool, ended


@pytest.mark.timeout(300)
def test_operations_outlast_a_store_that_is_killed_behind_their_acceptance(
    tmp_path: Path, ministack: Emulator
) -> None:
    with KeptStore(tmp_path) as store, two_workers(tmp_path, ministack, store.url) as found:
        a_stream(found)
        found.fail(True)
        put(found, range(3))
        found.start("w1")
        found.start("w2")
        becomes(found, lambda: blocked(found))
        _, other = owner(found)

        pool, waiting = waits_beside(found, other, "skip", "--shard", SHARD, "--yes")
        store.fails_for_a_moment()
        skipped: Ended = waiting.result()
        pool.shutdown()
        assert (skipped.status, skipped.out) == (0, f"skip done: {SKIPPED}\n"), skipped

        pause = found.ask({"action": "pause"}, of=other)
        store.kill()
        refused = command("retry", MAPPING, "--yes", "--url", found.urls[other])
        assert (refused.status, refused.out) == (2, ""), refused
        assert "the store is in trouble: " in refused.err
        store.start()
        becomes(found, lambda: in_force(found, pause))
        found.fail(False)
        put(found, [3])
        nothing_is_taken(found)

        asked = [found.ask({"action": action}, of=other) for action in ("retry", "resume")]
        store.fails_for_a_moment()
        assert [state for state, _ in results(found, [*asked, pause])] == ["done"] * 3
        becomes(found, lambda: found.taken() == ["1", "2", "3"])

        wanted = (
            {"action": "seek", "to": "TRIM_HORIZON"},
            {"action": "replay", "from": "TRIM_HORIZON", "to": "LATEST"},
            {"action": "redrive", "from": found.arn("sqs", "failed")},
        )
        asked = [found.ask(each, of=other) for each in wanted]
        store.fails_for_a_moment()
        seek, replay, redrive = results(found, asked)
        assert seek == ("done", "1 shard moved to TRIM_HORIZON")
        assert replay[0] == "done", replay
        assert replay[1].startswith("4 records replayed, "), replay
        assert redrive == ("done", "1 batch settled (1 record)")
        # Each was taken by the seek and by the replay. The first one had been skipped, and was redriven.
        becomes(found, lambda: min(found.counts()[str(number)] for number in range(4)) >= 3)
        assert set(found.taken()) == {"0", "1", "2", "3"}


@pytest.mark.timeout(300)
def test_operations_outlast_the_worker_that_accepted_them(tmp_path: Path, ministack: Emulator) -> None:
    with two_workers(tmp_path, ministack, ministack.url) as found:
        a_stream(found)
        found.fail(True)
        put(found, range(3))
        found.start("w1")
        found.start("w2")
        becomes(found, lambda: blocked(found))

        first, second = owner(found)
        skip = found.ask({"action": "skip", "shard": SHARD, "records": "first"}, of=first)
        pause = found.ask({"action": "pause"}, of=first)
        found.kill(first)
        assert results(found, [skip]) == [("done", SKIPPED)]
        becomes(found, lambda: in_force(found, pause))
        found.fail(False)
        put(found, [3])
        nothing_is_taken(found)

        found.start(first)
        wanted = (
            {"action": "resume"},
            {"action": "seek", "to": "TRIM_HORIZON"},
            {"action": "replay", "from": "TRIM_HORIZON", "to": "LATEST"},
            {"action": "redrive", "from": found.arn("sqs", "failed")},
        )
        asked = [found.ask(each, of=second) for each in wanted]
        found.kill(second)
        ended = results(found, [*asked, pause])
        assert [state for state, _ in ended] == ["done"] * 5, ended
        assert [text for _, text in ended[:2]] == ["1 pause has ended", "1 shard moved to TRIM_HORIZON"], (
            ended
        )
        becomes(found, lambda: min(found.counts()[str(number)] for number in range(4)) >= 2)

        found.start(second)
        found.fail(True)
        put(found, [4])
        becomes(found, lambda: blocked(found))
        holder, _ = owner(found)
        asked = [found.ask({"action": action}, of=holder) for action in ("reset", "retry")]
        found.kill(holder)
        found.fail(False)
        assert [state for state, _ in results(found, asked)] == ["done", "done"]
        becomes(found, lambda: "4" in found.taken())


def a_fifo_queue(found: Fleet) -> None:
    """A queue whose messages come again soon, its dead-letter queue, and a mapping."""
    sqs, fifo = found.aws("sqs"), {"FifoQueue": "true"}
    sqs.create_queue(QueueName="dead.fifo", Attributes=fifo)
    policy = json.dumps({"deadLetterTargetArn": found.arn("sqs", "dead.fifo"), "maxReceiveCount": "100"})
    more = {"VisibilityTimeout": str(VISIBILITY_S), "RedrivePolicy": policy}
    sqs.create_queue(QueueName="work.fifo", Attributes=fifo | more)
    found.mapping = {"EventSourceArn": found.arn("sqs", "work.fifo"), "BatchSize": 1}


def send(found: Fleet, body: str) -> str:
    """Sends a message of the group that its first word names; returns its id."""
    sqs = found.aws("sqs")
    url = sqs.get_queue_url(QueueName="work.fifo")["QueueUrl"]
    sent = sqs.send_message(
        QueueUrl=url, MessageBody=body, MessageGroupId=body.split()[0], MessageDeduplicationId=body
    )
    return str(sent["MessageId"])


def left(found: Fleet, name: str) -> int:
    """How many messages a queue has, hidden ones too."""
    sqs, names = (
        found.aws("sqs"),
        ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"],
    )
    url = sqs.get_queue_url(QueueName=name)["QueueUrl"]
    return sum(map(int, sqs.get_queue_attributes(QueueUrl=url, AttributeNames=names)["Attributes"].values()))


def failing(found: Fleet) -> bool:
    """Whether some worker shows a group that fails."""
    return any(each["attempts"] for each in found.status()["lanes"])


@pytest.mark.timeout(300)
def test_operations_on_a_queue_outlast_their_worker_and_the_store_together(
    tmp_path: Path, ministack: Emulator
) -> None:
    with KeptStore(tmp_path) as store, two_workers(tmp_path, ministack, store.url) as found:

        def both_are_killed(worker: str) -> None:
            found.kill(worker)
            store.fails_for_a_moment()

        a_fifo_queue(found)
        found.fail(True)
        found.start("w1")
        found.start("w2")
        (bad, *_) = [send(found, body) for body in ("g 0", "g 1", "h 0")]
        becomes(found, lambda: failing(found))

        skip = found.ask({"action": "skip", "records": [bad]}, of="w1")
        both_are_killed("w1")
        assert [state for state, _ in results(found, [skip])] == ["done"]
        assert left(found, "dead.fifo") == 1

        found.start("w1")
        pause = found.ask({"action": "pause"}, of="w2")
        both_are_killed("w2")
        becomes(found, lambda: found.status()["paused"])
        found.fail(False)
        nothing_is_taken(found)

        found.start("w2")
        wanted = (
            {"action": "resume"},
            {"action": "retry"},
            {"action": "redrive", "from": found.arn("sqs", "dead.fifo")},
        )
        asked = [found.ask(each, of="w1") for each in wanted]
        both_are_killed("w1")
        resume, retry, redrive = results(found, asked)
        assert (resume, redrive) == (("done", "1 pause has ended"), ("done", "1 batch settled (1 record)"))
        # A worker that reads the retry before the resume says that the mapping is paused.
        assert retry[0] == "done" or "resume it first" in retry[1], retry
        assert found.over(pause, within_s=S_MAX)["state"] == "done"
        becomes(found, lambda: left(found, "work.fifo") + left(found, "dead.fifo") == 0)
        assert set(found.taken()) == {"g 0", "g 1", "h 0"}
