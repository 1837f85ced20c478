"""A real stream is split, merged and split again under load while the function fails: nothing is lost, no key reordered."""

import asyncio
import json
import os
import random
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml
from aiobotocore.session import get_session

from adapters.demo.processes import free_port
from tests.conftest import REGION
from tests.emulators import Emulator

pytestmark = pytest.mark.acceptance

STREAM = "readings"
KEYS = [f"device-{number}" for number in range(16)]
ROUNDS = 60
POISON = ("device-3", 20)
HANDLERS = """
import base64, json, os, pathlib

FOLDER = pathlib.Path(os.environ["JOURNAL"])
failed_once = set()

def take(event, name):
    items = [json.loads(base64.b64decode(record["kinesis"]["data"])) for record in event["Records"]]
    shards = sorted({record["eventID"].split(":")[0] for record in event["Records"]})
    poison = [item for item in items if item == ["device-3", 20]]
    flaky = [tuple(item) for item in items if item[1] % 15 == 7 and tuple(item) not in failed_once]
    failed_once.update(flaky)
    ok = not poison and not flaky
    with open(FOLDER / (name + ".jsonl"), "a") as journal:
        journal.write(json.dumps({"ok": ok, "items": items, "shards": shards}) + "\\n")
    if not ok:
        raise ValueError("cannot take this batch")

def one_lane(event, context):
    take(event, "one_lane")

def four_lanes(event, context):
    take(event, "four_lanes")
"""


@dataclass
class Written:
    """What the writer put: how many records each key has."""

    counts: dict[str, int] = field(default_factory=lambda: dict.fromkeys(KEYS, 0))


def _client(service: str, url: str) -> Any:
    return get_session().create_client(service, region_name=REGION, endpoint_url=url)


def _configuration(
    folder: Path, kinesis_local: Emulator, ministack: Emulator, port: int, *, stream_arn: str, queue_arn: str
) -> str:
    def mapping(name: str, lanes: int) -> dict[str, Any]:
        return {
            "FunctionName": name,
            "EventSourceArn": stream_arn,
            "StartingPosition": "TRIM_HORIZON",
            "BatchSize": 10,
            "ParallelizationFactor": lanes,
            "BisectBatchOnFunctionError": True,
            "MaximumRetryAttempts": 2,
            "DestinationConfig": {"OnFailure": {"Destination": queue_arn}},
        }

    return yaml.safe_dump(
        {
            "region": REGION,
            "endpoint_urls": {"kinesis": kinesis_local.url, "sqs": ministack.url},
            "listen": f"127.0.0.1:{port}",
            "store": f"sqlite://{folder}/state.db",
            "functions": {
                name: {"invoker": "python", "handler": f"handlers:{name}"}
                for name in ("one_lane", "four_lanes")
            },
            "mappings": [mapping("one_lane", 1), mapping("four_lanes", 4)],
        }
    )


@asynccontextmanager
async def _daemon(folder: Path, configuration: str, port: int) -> AsyncIterator[subprocess.Popen[bytes]]:
    (folder / "poller.yaml").write_text(configuration)
    (folder / "handlers.py").write_text(HANDLERS)
    with (folder / "daemon.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "poller", "run", "--config", str(folder / "poller.yaml")],
            cwd=folder,
            env=_environment(folder),
            stderr=log,
        )
    try:
        await _until(lambda: _status(port, "/readyz") == 200, within_s=20, folder=folder)
        yield process
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


def _environment(folder: Path) -> Mapping[str, str]:
    return os.environ | {"JOURNAL": str(folder), "PYTHONPATH": str(Path(__file__).parents[3])}


def _status(port: int, path: str) -> int:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=2) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return 0


async def _until(holds: Any, *, within_s: float, folder: Path) -> None:
    try:
        async with asyncio.timeout(within_s):
            while not await asyncio.to_thread(holds):
                await asyncio.sleep(0.1)
    except TimeoutError:
        pytest.fail("not in time; the daemon's last words:\n" + (folder / "daemon.log").read_text()[-4000:])


async def _write(kinesis: Any, written: Written) -> None:
    for number in range(ROUNDS):
        for chunk in (KEYS[:8], KEYS[8:]):
            # One record a key and call: PutRecords promises no order between records of one call.
            entries = [{"Data": json.dumps([key, number]).encode(), "PartitionKey": key} for key in chunk]
            while entries:
                reply = await kinesis.put_records(StreamName=STREAM, Records=entries)
                entries = [
                    entry
                    for entry, result in zip(entries, reply["Records"], strict=True)
                    if "ErrorCode" in result
                ]
        written.counts = dict.fromkeys(KEYS, number + 1)
        await asyncio.sleep(0.25)


async def _reshard(kinesis: Any) -> list[str]:
    """Split, merge the children, split their child; returns what was done."""
    done = []
    await asyncio.sleep(2)
    first = (await _open_shards(kinesis))[0]
    await _split(kinesis, first)
    done.append("split")
    await asyncio.sleep(4)
    children = [
        shard for shard in await _open_shards(kinesis) if shard.get("ParentShardId") == first["ShardId"]
    ]
    await kinesis.merge_shards(
        StreamName=STREAM,
        ShardToMerge=children[0]["ShardId"],
        AdjacentShardToMerge=children[1]["ShardId"],
    )
    done.append("merge")
    await asyncio.sleep(4)
    merged = [shard for shard in await _open_shards(kinesis) if "AdjacentParentShardId" in shard]
    await _split(kinesis, merged[0])
    done.append("split")
    return done


async def _open_shards(kinesis: Any) -> list[dict[str, Any]]:
    shards = (await kinesis.list_shards(StreamName=STREAM))["Shards"]
    return [shard for shard in shards if "EndingSequenceNumber" not in shard["SequenceNumberRange"]]


async def _split(kinesis: Any, shard: dict[str, Any]) -> None:
    low, high = (int(shard["HashKeyRange"][name]) for name in ("StartingHashKey", "EndingHashKey"))
    await kinesis.split_shard(
        StreamName=STREAM, ShardToSplit=shard["ShardId"], NewStartingHashKey=str((low + high) // 2 + 1)
    )


def _calls(folder: Path, name: str) -> list[dict[str, Any]]:
    path = folder / f"{name}.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def _taken(calls: Sequence[dict[str, Any]]) -> dict[str, list[int]]:
    """Numbers by key in the order in which the function first took them."""
    taken: dict[str, list[int]] = {key: [] for key in KEYS}
    for call in calls:
        for key, number in call["items"] if call["ok"] else []:
            if number not in taken[key]:
                taken[key].append(number)
    return taken


def _expected(written: Written) -> dict[str, list[int]]:
    return {
        key: [number for number in range(count) if (key, number) != POISON]
        for key, count in written.counts.items()
    }


@pytest.mark.timeout(150)
def test_split_merge_and_split_under_load_lose_and_reorder_nothing(
    tmp_path: Path, kinesis_local: Emulator, ministack: Emulator, account: str
) -> None:
    assert account
    asyncio.run(_scenario(tmp_path, kinesis_local, ministack))


async def _scenario(folder: Path, kinesis_local: Emulator, ministack: Emulator) -> None:
    port = free_port()
    async with _client("kinesis", kinesis_local.url) as kinesis, _client("sqs", ministack.url) as sqs:
        await kinesis.create_stream(StreamName=STREAM, ShardCount=2)
        await kinesis.get_waiter("stream_exists").wait(StreamName=STREAM, WaiterConfig={"Delay": 1})
        summary = await kinesis.describe_stream_summary(StreamName=STREAM)
        stream_arn = summary["StreamDescriptionSummary"]["StreamARN"]
        url = (await sqs.create_queue(QueueName=f"failed-{random.randrange(10**9)}"))["QueueUrl"]
        attributes = await sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])
        queue_arn = attributes["Attributes"]["QueueArn"]
        configuration = _configuration(
            folder, kinesis_local, ministack, port, stream_arn=stream_arn, queue_arn=queue_arn
        )
        written = Written()
        async with _daemon(folder, configuration, port) as process:
            async with asyncio.TaskGroup() as work:
                work.create_task(_write(kinesis, written))
                resharding = work.create_task(_reshard(kinesis))
            assert resharding.result() == ["split", "merge", "split"]
            names = ("one_lane", "four_lanes")

            def complete() -> bool:
                return all(
                    {key: sorted(numbers) for key, numbers in _taken(_calls(folder, name)).items()}
                    == _expected(written)
                    for name in names
                )

            await _until(complete, within_s=60, folder=folder)
            process.send_signal(signal.SIGTERM)
            assert await asyncio.to_thread(process.wait, 40) == 0
        for name in names:
            calls = _calls(folder, name)
            assert _taken(calls) == _expected(written), f"{name}: out of order"
            shards = {shard for call in calls for shard in call["shards"]}
            assert len(shards) == 7, "two shards, two of a split, one of a merge, two of a split"
            assert any(not call["ok"] for call in calls)
        await _assert_notices(sqs, url)


async def _assert_notices(sqs: Any, url: str) -> None:
    """The poison record, alone, once for each mapping."""
    reply = await sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10, WaitTimeSeconds=1)
    notices = [json.loads(message["Body"]) for message in reply["Messages"]]
    assert len(notices) == 2
    for notice in notices:
        assert notice["requestContext"]["condition"] == "RetryAttemptsExhausted"
        assert notice["requestContext"]["approximateInvokeCount"] == 3
        assert notice["KinesisBatchInfo"]["batchSize"] == 1
