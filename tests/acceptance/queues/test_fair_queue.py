"""Twenty messages of one tenant on a standard queue of an emulator, one of them bad, and a daemon that reads them."""

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from adapters.demo.emulator import REGION, clients, credentials, emulator
from adapters.demo.processes import free_port, plain_environment, running
from tests.acceptance.queues.queue_function import JOURNAL

pytestmark = pytest.mark.acceptance

ARNS = f"arn:aws:sqs:{REGION}:111122223333"
MESSAGES = [f"g{number:03d}:000" + ":bad" * (number == 7) for number in range(20)]
BAD = MESSAGES[7]
RECEIVES_MAX = 3
SETTLE_S_MAX = 90.0


@pytest.mark.timeout(150)
def test_a_bad_message_of_a_tenant_goes_to_the_dead_letter_queue_alone(tmp_path: Path) -> None:
    asyncio.run(_run(tmp_path))


async def _run(folder: Path) -> None:
    async with emulator(folder) as url, clients(url) as services:
        sqs = services["sqs"]
        queue, dead = await _queues(sqs)
        for body in MESSAGES:
            await sqs.send_message(QueueUrl=queue, MessageBody=body, MessageGroupId="tenant")
        _configure(folder, url)
        env = plain_environment() | credentials()
        env |= {JOURNAL: str(folder / "journal"), "PYTHONPATH": str(Path(__file__).parents[3])}
        command = [sys.executable, "-m", "poller", "run", "--config", str(folder / "poller.yaml")]
        with running("daemon", command, env, folder) as process:
            async with asyncio.timeout(SETTLE_S_MAX):
                while not (found := await _received(sqs, dead)):
                    assert process.exit_status is None, process.tail()
        assert [each["Body"] for each in found] == [BAD]
        assert found[0]["Attributes"]["DeadLetterQueueSourceArn"] == f"{ARNS}:tenants"
    lines = [json.loads(line) for line in (folder / "journal").read_text().splitlines()]
    assert sorted(body for line in lines for body in line.get("done", ())) == sorted({*MESSAGES} - {BAD})
    assert sum(BAD in line.get("got", ()) for line in lines) == RECEIVES_MAX


async def _queues(sqs: Any) -> tuple[str, str]:
    dead = await sqs.create_queue(QueueName="tenants-dead")
    policy = {"deadLetterTargetArn": f"{ARNS}:tenants-dead", "maxReceiveCount": str(RECEIVES_MAX)}
    attributes = {"VisibilityTimeout": "2", "RedrivePolicy": json.dumps(policy)}
    queue = await sqs.create_queue(QueueName="tenants", Attributes=attributes)
    return queue["QueueUrl"], dead["QueueUrl"]


async def _received(sqs: Any, queue: str) -> list[dict[str, Any]]:
    reply = await sqs.receive_message(
        QueueUrl=queue, MaxNumberOfMessages=10, WaitTimeSeconds=1, MessageSystemAttributeNames=["All"]
    )
    found: list[dict[str, Any]] = reply.get("Messages", [])
    return found


def _configure(folder: Path, url: str) -> None:
    function = {
        "invoker": "python",
        "handler": "tests.acceptance.queues.queue_function:handle",
        "timeout_s": 2,
    }
    mapping = {
        "FunctionName": "work",
        "EventSourceArn": f"{ARNS}:tenants",
        "FunctionResponseTypes": ["ReportBatchItemFailures"],
        "FilterCriteria": {"Filters": [{"Pattern": '{"attributes": {"MessageGroupId": ["tenant"]}}'}]},
    }
    settings = {
        "region": REGION,
        "endpoint_url": url,
        "listen": f"127.0.0.1:{free_port()}",
        "store": "memory://",
        "functions": {"work": function},
        "mappings": [mapping],
    }
    (folder / "poller.yaml").write_text(yaml.safe_dump(settings))
