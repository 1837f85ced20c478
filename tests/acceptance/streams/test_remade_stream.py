"""A real stream is deleted and made again under its name, under two workers and while none runs."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from aiobotocore.session import get_session

from adapters.demo.processes import free_port
from tests.conftest import REGION
from tests.emulators import Emulator

pytestmark = pytest.mark.acceptance

STREAM = "made-again"
HANDLER = """
import base64, os

def take(event, context):
    with open(os.environ["JOURNAL"], "a") as journal:
        for record in event["Records"]:
            journal.write(base64.b64decode(record["kinesis"]["data"]).decode() + "\\n")
"""
NOTICED_S_MAX = 90.0


@contextmanager
def _workers(folder: Path, names: Sequence[str]) -> Iterator[None]:
    started = []
    for name in names:
        with (folder / f"{name}.log").open("ab") as log:
            words = ["run", "--config", str(folder / "poller.yaml"), "--worker", name]
            words += ["--listen", f"127.0.0.1:{free_port()}"]
            started.append(
                subprocess.Popen(
                    [sys.executable, "-m", "poller", *words],
                    cwd=folder,
                    env=os.environ
                    | {"JOURNAL": str(folder / "journal"), "PYTHONPATH": str(Path(__file__).parents[3])},
                    stderr=log,
                )
            )
    try:
        yield
    finally:
        for process in started:
            process.send_signal(signal.SIGTERM)
        assert [process.wait(60) for process in started] == [0] * len(started)


async def _until_taken(folder: Path, wanted: set[str]) -> None:
    journal = folder / "journal"
    try:
        async with asyncio.timeout(NOTICED_S_MAX):
            while not journal.exists() or not wanted <= set(journal.read_text().split()):
                await asyncio.sleep(0.2)
    except TimeoutError:
        pytest.fail(f"{wanted} were not taken; the workers' last words:\n{_last_words(folder)}")


async def _made(kinesis: Any, *, shards: int) -> None:
    await kinesis.create_stream(StreamName=STREAM, ShardCount=shards)
    await kinesis.get_waiter("stream_exists").wait(StreamName=STREAM, WaiterConfig={"Delay": 1})


async def _made_again(kinesis: Any, *, shards: int) -> None:
    await kinesis.delete_stream(StreamName=STREAM)
    await kinesis.get_waiter("stream_not_exists").wait(StreamName=STREAM, WaiterConfig={"Delay": 1})
    # The emulator tells times of creation to the second.
    await asyncio.sleep(2)
    await _made(kinesis, shards=shards)


async def _put(kinesis: Any, word: str, count: int) -> set[str]:
    words = {f"{word}-{number}" for number in range(count)}
    entries = [{"Data": each.encode(), "PartitionKey": each} for each in sorted(words)]
    assert (await kinesis.put_records(StreamName=STREAM, Records=entries))["FailedRecordCount"] == 0
    return words


def _last_words(folder: Path) -> str:
    return "\n".join(each.read_text()[-3000:] for each in folder.glob("*.log"))


def _losses(folder: Path) -> dict[str, str]:
    """What workers said of losses, by position. Workers that restart the mapping at one moment may both say it."""
    lines = [line for each in folder.glob("*.log") for line in each.read_text().splitlines()]
    events = [json.loads(line) for line in lines if '"records_lost"' in line]
    return {event["position"]: event["loss"] for event in events}


def test_a_stream_that_is_made_again_under_its_name_is_begun_again(
    kinesis_local: Emulator, account: str, tmp_path: Path
) -> None:
    asyncio.run(_made_again_twice(kinesis_local, tmp_path))


async def _made_again_twice(kinesis_local: Emulator, tmp_path: Path) -> None:
    async with get_session().create_client(
        "kinesis", region_name=REGION, endpoint_url=kinesis_local.url
    ) as kinesis:
        await _made(kinesis, shards=2)
        summary = (await kinesis.describe_stream_summary(StreamName=STREAM))["StreamDescriptionSummary"]
        mapping = {
            "FunctionName": "take",
            "EventSourceArn": summary["StreamARN"],
            "StartingPosition": "TRIM_HORIZON",
        }
        (tmp_path / "handlers.py").write_text(HANDLER)
        configuration = {
            "region": REGION,
            "endpoint_urls": {"kinesis": kinesis_local.url},
            "store": f"sqlite://{tmp_path}/state.db",
            "functions": {"take": {"invoker": "python", "handler": "handlers:take"}},
            "mappings": [mapping],
        }
        (tmp_path / "poller.yaml").write_text(yaml.safe_dump(configuration))
        with _workers(tmp_path, ["ann", "bob"]):
            await _until_taken(tmp_path, await _put(kinesis, "first", 20))
            await _made_again(kinesis, shards=2)
            await _until_taken(tmp_path, await _put(kinesis, "second", 20))
        assert list(_losses(tmp_path).values()) == ["stream_remade"] * 2
        await _made_again(kinesis, shards=1)
        third = await _put(kinesis, "third", 20)
        with _workers(tmp_path, ["cat"]):
            await _until_taken(tmp_path, third)
        assert list(_losses(tmp_path).values()) == ["stream_remade"] * 4
