"""Two processes of one daemon share a stream while one of them is killed: nothing is lost, and each key stays in order."""

import asyncio
import json
import os
import signal
import time
from collections import defaultdict
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from adapters.demo.emulator import ACCOUNT, REGION, clients
from tests.acceptance.processes.journal_function import JOURNAL
from tests.acceptance.processes.supervised import Supervised, supervised
from tests.emulators import kinesis_local

pytestmark = pytest.mark.acceptance

STREAM = "readings"
SHARDS = 4
KEYS = 16
ROUNDS = 12
SETTLE_S_MAX = 120.0

type Line = tuple[int, str, list[list[Any]]]
"""The process, what happened, and the records: key and number of each."""


def _lines(journal: Path) -> list[Line]:
    return [tuple(json.loads(line)) for line in journal.read_text().splitlines()] if journal.exists() else []


async def _put(kinesis: Any, rounds: range) -> None:
    """Writes one record of every key in each round, so that the order within a key is certain."""
    for number in rounds:
        left = [f"key-{key}" for key in range(KEYS)]
        while left:
            records = [{"PartitionKey": key, "Data": json.dumps([key, number]).encode()} for key in left]
            answer = await kinesis.put_records(StreamName=STREAM, Records=records)
            results = zip(left, answer["Records"], strict=True)
            left = [key for key, each in results if "ErrorCode" in each]


def _done(journal: Path) -> set[tuple[str, int]]:
    return {(key, number) for _, what, items in _lines(journal) if what == "ended" for key, number in items}


async def _settled(daemon: Supervised, journal: Path, rounds: int) -> None:
    deadline = time.monotonic() + SETTLE_S_MAX
    while len(_done(journal)) < rounds * KEYS:
        assert time.monotonic() < deadline, daemon.running.tail()
        await asyncio.sleep(0.2)


@pytest.mark.timeout(600)
def test_a_killed_process_loses_no_record_and_breaks_no_order(tmp_path: Path) -> None:
    asyncio.run(_story(tmp_path))


async def _story(folder: Path) -> None:
    journal = folder / "journal.jsonl"
    with kinesis_local(folder) as emulator:
        async with clients(emulator.url) as made:
            kinesis = made["kinesis"]
            await kinesis.create_stream(StreamName=STREAM, ShardCount=SHARDS)
            summary: dict[str, Any] = {}
            while summary.get("StreamStatus") != "ACTIVE":
                await asyncio.sleep(0.2)
                answer = await kinesis.describe_stream_summary(StreamName=STREAM)
                summary = answer["StreamDescriptionSummary"]
            await _judged(folder, journal, kinesis, emulator.url)


async def _judged(folder: Path, journal: Path, kinesis: Any, url: str) -> None:
    mapping = {
        "FunctionName": "record",
        "EventSourceArn": f"arn:aws:kinesis:{REGION}:{ACCOUNT}:stream/{STREAM}",
        "StartingPosition": "TRIM_HORIZON",
        "BatchSize": 10,
    }
    handler = "tests.acceptance.processes.journal_function:record"
    with supervised(
        folder,
        env={JOURNAL: str(journal)},
        endpoint_url=url,
        functions={"record": {"invoker": "python", "handler": handler}},
        mappings=[mapping],
        tuning={"idle_poll_s": 0.5, "discovery_s": 5.0, "grace_s": 10.0},
    ) as daemon:
        await asyncio.to_thread(daemon.ready)
        await asyncio.to_thread(daemon.until, lambda: _shared(daemon), "both have shards")
        await _put(kinesis, range(ROUNDS))
        await _settled(daemon, journal, ROUNDS)
        assert len({pid for pid, _, _ in _lines(journal)}) == 2
        putting = asyncio.ensure_future(_put(kinesis, range(ROUNDS, 3 * ROUNDS)))
        await asyncio.sleep(0.5)
        os.kill(daemon.processes()[-1], signal.SIGKILL)
        await putting
        await _settled(daemon, journal, 3 * ROUNDS)
        await asyncio.to_thread(daemon.ready)
        daemon.running.signal(signal.SIGTERM)
        assert await asyncio.to_thread(daemon.ended) == 0
    _in_order(_lines(journal))


def _shared(daemon: Supervised) -> bool:
    status, body = daemon.get("/v1/mappings")
    shards = [each for one in json.loads(body)["mappings"] for each in one["shards"]] if status == 200 else []
    return len({each["owner"] for each in shards if each["owner"]}) == 2


def _in_order(lines: list[Line]) -> None:
    """Each record follows the one before it, or a run begins again further back; nothing is passed over."""
    begun: dict[str, list[int]] = defaultdict(list)
    for _, what, items in lines:
        if what == "began":
            for key, number in items:
                begun[key].append(number)
    assert len(begun) == KEYS
    for key, numbers in begun.items():
        assert numbers[0] == 0
        highest = 0
        for before, number in pairwise(numbers):
            assert number == before + 1 or number <= before, f"{key}: {number} after {before}"
            assert number <= highest + 1, f"{key}: {number} before {highest + 1}"
            highest = max(highest, number)
