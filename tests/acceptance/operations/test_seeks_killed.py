"""Seeks of a real stream that was resharded, while workers are killed and stopped: order per key holds, and nothing is lost."""

import signal
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.daemons import command
from tests.acceptance.operations.fleet import MAPPING, Fleet, fleet, in_order, until
from tests.emulators import Emulator

pytestmark = pytest.mark.acceptance

STREAM = "readings"
KEYS = [f"key-{number}" for number in range(8)]
TAKEN_S_MAX = 60.0
OVER_S_MAX = 60.0
STOPPED_S = 20.0


def shared(folder: Path, kinesis_local: Emulator, ministack: Emulator) -> AbstractContextManager[Fleet]:
    """Daemons on a table of DynamoDB: one that is stopped in the middle of a write to a SQLite file keeps all others from it."""
    endpoints = {"kinesis": kinesis_local.url, "dynamodb": ministack.url}
    return fleet(folder, endpoints, store="dynamodb://leases?create=true")


def a_stream(found: Fleet, shards: int = 2) -> None:
    kinesis = found.aws("kinesis")
    kinesis.create_stream(StreamName=STREAM, ShardCount=shards)
    kinesis.get_waiter("stream_exists").wait(StreamName=STREAM, WaiterConfig={"Delay": 1, "MaxAttempts": 10})
    found.mapping = {
        "EventSourceArn": kinesis.describe_stream_summary(StreamName=STREAM)["StreamDescriptionSummary"][
            "StreamARN"
        ],
        "StartingPosition": "TRIM_HORIZON",
        "BatchSize": 10,
    }


def put(found: Fleet, numbers: Sequence[int]) -> None:
    """One record of each key for each number."""
    for number in numbers:
        records = [{"Data": f"{key} {number}".encode(), "PartitionKey": key} for key in KEYS]
        assert found.aws("kinesis").put_records(StreamName=STREAM, Records=records)["FailedRecordCount"] == 0


def texts(numbers: Sequence[int]) -> set[str]:
    return {f"{key} {number}" for key in KEYS for number in numbers}


def split(found: Fleet) -> None:
    """Splits the first shard that is open."""
    kinesis = found.aws("kinesis")
    shard = next(
        each
        for each in kinesis.list_shards(StreamName=STREAM)["Shards"]
        if "EndingSequenceNumber" not in each["SequenceNumberRange"]
    )
    low, high = (int(shard["HashKeyRange"][name]) for name in ("StartingHashKey", "EndingHashKey"))
    kinesis.split_shard(
        StreamName=STREAM, ShardToSplit=shard["ShardId"], NewStartingHashKey=str((low + high) // 2 + 1)
    )


def ordered(found: list[str]) -> None:
    """Each record comes behind those of its key with lower numbers; it may come again."""
    wrong = in_order(found, key=lambda text: text.split(" ")[0], number=lambda text: int(text.split(" ")[1]))
    assert wrong == []


def since(found: Fleet, moment: float) -> list[str]:
    """What was taken by calls that began after that."""
    return [text for began, _, texts in found.lines() if began >= moment for text in texts]


def taken(found: Fleet, numbers: Sequence[int], *, after: float = 0.0) -> None:
    until(
        lambda: texts(numbers) <= set(since(found, after)),
        within_s=TAKEN_S_MAX,
        told=lambda: str(sorted(texts(numbers) - set(since(found, after)))) + found.tails(),
    )


def repeated(found: Fleet, after: float) -> list[str]:
    """What was taken of each key since its first record came again: shards are moved one after the other."""
    begun: set[str] = set()
    again = []
    for text in since(found, after):
        key, number = text.split(" ")
        if number == "0":
            begun.add(key)
        if key in begun:
            again.append(text)
    return again


@pytest.mark.timeout(300)
@pytest.mark.parametrize("way", ["killed", "stopped"])
def test_a_seek_behind_a_reshard_survives_the_worker_that_carries_it_out(
    tmp_path: Path, kinesis_local: Emulator, ministack: Emulator, way: str
) -> None:
    with shared(tmp_path, kinesis_local, ministack) as found:
        found.takes_s = 0.2
        a_stream(found)
        put(found, range(10))
        split(found)
        put(found, range(10, 20))
        found.start("w1")
        found.start("w2")
        found.start("w3")
        taken(found, range(20))
        ordered(found.taken())
        before = time.time()
        operation = found.ask({"action": "seek", "to": "TRIM_HORIZON", "reason": "wrong"}, of="w2")
        carrying = found.carrying(operation)
        if way == "killed":
            found.kill(carrying)
        else:
            found.workers[carrying].signal(signal.SIGSTOP)
        put(found, range(20, 22))
        over = found.over(operation, within_s=OVER_S_MAX)
        assert over["state"] == "done", over
        taken(found, range(22), after=before)
        if way == "stopped":
            found.workers[carrying].signal(signal.SIGCONT)
            time.sleep(3)
            put(found, range(22, 23))
            taken(found, range(23), after=before)
        until(
            lambda: set(repeated(found, before)) >= texts(range(22)), within_s=TAKEN_S_MAX, told=found.tails
        )
        ordered(repeated(found, before))
        assert over["progress"]["moved"] == over["progress"]["shards"] == 4


@pytest.mark.timeout(300)
def test_a_worker_that_holds_a_shard_and_is_stopped_writes_nothing_after_the_move(
    tmp_path: Path, kinesis_local: Emulator, ministack: Emulator
) -> None:
    with shared(tmp_path, kinesis_local, ministack) as found:
        a_stream(found)
        found.start("w1")
        found.start("w2")
        put(found, range(10))
        taken(found, range(10))
        before = time.time()
        until(lambda: found.status("w1")["shards"] and found.status("w2")["shards"], within_s=30.0)
        found.workers["w1"].signal(signal.SIGSTOP)
        operation = found.ask({"action": "seek", "to": "TRIM_HORIZON"}, of="w2")
        assert found.over(operation, within_s=OVER_S_MAX)["state"] == "done"
        found.workers["w1"].signal(signal.SIGCONT)
        put(found, range(10, 12))
        taken(found, range(12), after=before)
        ordered(repeated(found, before))
        time.sleep(STOPPED_S / 4)
        assert since(found, before).count("key-0 0") <= 2


@pytest.mark.timeout(300)
def test_the_command_goes_back_to_a_time_and_forward_past_what_fails(
    tmp_path: Path, kinesis_local: Emulator
) -> None:
    with fleet(tmp_path, {"kinesis": kinesis_local.url}) as found:
        a_stream(found)
        found.start("w1")
        second = found.start("w2")
        put(found, range(5))
        taken(found, range(5))
        time.sleep(1.5)
        at = datetime.now(UTC).isoformat(timespec="milliseconds")
        put(found, range(5, 10))
        taken(found, range(10))
        before = time.time()

        def run(*words: str) -> Any:
            return command("seek", MAPPING, *words, "--url", second)

        planned = run("--to", at, "--dry-run")
        assert planned.status == 0, planned
        assert planned.out.count("- shard ") == 2
        assert run("--to", at).status == 2, "nobody can be asked"
        moved = run("--to", at, "--yes", "--reason", "a test")
        assert (moved.status, moved.out) == (0, f"seek done: 2 shards moved to {at}\n"), moved
        taken(found, range(5, 10), after=before)
        assert set(since(found, before)) == texts(range(5, 10))
        ordered(since(found, before))

        found.fail(True)
        put(found, range(10, 15))
        until(lambda: found.status()["shards"], within_s=10.0)
        time.sleep(3)
        refused = run("--to", "LATEST", "--yes")
        assert refused.status == 1
        assert "add --skip" in refused.out
        before = time.time()
        skipped = run("--to", "LATEST", "--skip", "--yes")
        assert skipped.status == 0, skipped
        found.fail(False)
        put(found, range(15, 20))
        taken(found, range(15, 20), after=before)
        assert not set(since(found, before)) & texts(range(10, 15))
