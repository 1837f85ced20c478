"""Failed messages on an emulator's queues whose visibility timeout is long: they come again when mapping or function says, in order."""

import asyncio
import json
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml

from adapters.demo.emulator import REGION, clients, credentials, emulator
from adapters.demo.processes import free_port, plain_environment, running
from tests.acceptance.queues.queue_function import JOURNAL

pytestmark = pytest.mark.acceptance

ARNS = f"arn:aws:sqs:{REGION}:111122223333"
VISIBILITY_S = 100
"""Longer than the test: what comes again comes because of a changed timeout."""
LATE_S_MAX = 3.0
SETTLE_S_MAX = 60.0
STANDARD: list[dict[str, Any]] = [
    {"name": "good"},
    {"name": "backoff", "fails": 3},
    {"name": "asked", "fails": 2, "later": 3},
    {"name": "at once", "fails": 1, "later": 0},
    {"name": "wrong", "fails": 1, "later": -5},
    {"name": "too late", "fails": 1, "later": 500},
]
GROUPED: list[tuple[str, dict[str, Any]]] = [
    ("a", {"name": "a1", "fails": 2, "later": 3}),
    ("a", {"name": "a2"}),
    ("b", {"name": "b1"}),
    ("a", {"name": "a3", "fails": 1}),
    ("a", {"name": "a4"}),
]


@pytest.mark.timeout(150)
def test_failed_messages_come_again_when_the_mapping_or_the_function_says(tmp_path: Path) -> None:
    asyncio.run(_run(tmp_path))


async def _run(folder: Path) -> None:
    async with emulator(folder) as url, clients(url) as services:
        sqs = services["sqs"]
        standard, fifo = await _queues(sqs)
        for body in STANDARD:
            await sqs.send_message(QueueUrl=standard, MessageBody=json.dumps(body))
        for group, body in GROUPED:
            await sqs.send_message(
                QueueUrl=fifo,
                MessageBody=json.dumps(body),
                MessageGroupId=group,
                MessageDeduplicationId=body["name"],
            )
        _configure(folder, url)
        env = plain_environment() | credentials()
        env |= {JOURNAL: str(folder / "journal"), "PYTHONPATH": str(Path(__file__).parents[3])}
        command = [sys.executable, "-m", "poller", "run", "--config", str(folder / "poller.yaml")]
        with running("daemon", command, env, folder) as process:
            async with asyncio.timeout(SETTLE_S_MAX):
                while await _left(sqs, standard) > 1 or await _left(sqs, fifo):
                    await asyncio.sleep(0.1)
                    assert process.exit_status is None, process.tail()
            log = process.tail()
        hidden = await _left(sqs, standard)
    assert hidden == 1, "only the message that is to wait for 500 s is left"
    _judge(folder / "journal")
    assert "retry_after_ignored" in log


def _judge(journal: Path) -> None:
    lines = [json.loads(line) for line in journal.read_text().splitlines()]
    tries: dict[str, list[float]] = {}
    for line in lines:
        tries.setdefault(line["name"], []).append(line["at"])
    gaps = {name: [after - before for before, after in pairwise(times)] for name, times in tries.items()}
    # The function asked for -5 s, which is no wait: the mapping's back-off counts.
    expected = {
        "good": [],
        "backoff": [1, 2, 4],
        "asked": [3, 3],
        "at once": [0],
        "wrong": [1],
        "too late": [],
        "a1": [3, 3],
        "b1": [],
    }
    for name, waits in expected.items():
        assert len(gaps[name]) == len(waits), f"{name}: {gaps[name]}"
        for gap, wait_s in zip(gaps[name], waits, strict=True):
            assert wait_s <= gap < wait_s + LATE_S_MAX, f"{name}: {gaps[name]}"
    first = [line["name"] for line in lines if line["name"].startswith("a") and line["name"][1:].isdigit()]
    assert first == ["a1", "a1", "a1", "a2", "a3", "a3", "a4"], "the group stays in order"
    assert tries["b1"][0] < tries["a1"][1], "the other group does not wait"


async def _queues(sqs: Any) -> tuple[str, str]:
    visibility = {"VisibilityTimeout": str(VISIBILITY_S)}
    standard = await sqs.create_queue(QueueName="later", Attributes=visibility)
    fifo = await sqs.create_queue(QueueName="later.fifo", Attributes={**visibility, "FifoQueue": "true"})
    return standard["QueueUrl"], fifo["QueueUrl"]


async def _left(sqs: Any, queue: str) -> int:
    names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
    reply = await sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=names)
    return sum(int(reply["Attributes"][name]) for name in names)


def _configure(folder: Path, url: str) -> None:
    mapping = {
        "FunctionName": "work",
        "FunctionResponseTypes": ["ReportBatchItemFailures"],
        "retry_backoff": {"base_s": 1, "factor": 2, "cap_s": 10},
    }
    settings = {
        "region": REGION,
        "endpoint_url": url,
        "listen": f"127.0.0.1:{free_port()}",
        "store": "memory://",
        "functions": {
            "work": {"invoker": "python", "handler": "tests.acceptance.queues.retry_function:handle"}
        },
        "mappings": [
            {**mapping, "EventSourceArn": f"{ARNS}:later"},
            # One message an event, so that a batch never goes on behind a failed message of its group.
            {**mapping, "EventSourceArn": f"{ARNS}:later.fifo", "BatchSize": 1},
        ],
    }
    (folder / "poller.yaml").write_text(yaml.safe_dump(settings))
