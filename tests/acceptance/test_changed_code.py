"""A daemon whose function's code changes under load: taken up, broken, and mended; no message is lost, and each group keeps its order."""

import asyncio
import json
import os
import signal
import sys
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from adapters.demo.emulator import ACCOUNT, REGION, clients, credentials, emulator
from adapters.demo.processes import free_port, plain_environment, running

pytestmark = pytest.mark.acceptance

ROOT = Path(__file__).parents[2]
WAIT_S_MAX = 60.0
GROUPS = ("a", "b", "c")
APP = """
from pathlib import Path
from version import VERSION
JOURNAL = Path(__file__).parent.parent / "calls"
def handle(event, context):
    with JOURNAL.open("a") as file:
        for record in event["Records"]:
            file.write(f"{record['body']} {VERSION}\\n")
"""


def replace(path: Path, text: str) -> None:
    path.with_suffix(".new").write_text(text)
    os.replace(path.with_suffix(".new"), path)


def calls(folder: Path) -> list[tuple[str, int, int]]:
    """The group, number and version of each message that the function has seen."""
    file = folder / "calls"
    rows = [line.split() for line in file.read_text().splitlines()] if file.exists() else []
    return [(group, int(number), int(version)) for group, number, version in rows]


def read(listen: str, path: str) -> str:
    with urllib.request.urlopen(f"http://{listen}{path}") as answer:
        found: str = answer.read().decode()
    return found


@pytest.mark.parametrize("isolation", [None, "process"], ids=["in the daemon", "in processes"])
def test_code_that_changes_under_load_is_taken_up_and_nothing_is_lost(
    tmp_path: Path, isolation: str | None
) -> None:
    code = tmp_path / "code"
    code.mkdir()
    (code / "app.py").write_text(APP)
    (code / "version.py").write_text("VERSION = 1\n")
    (code / "__init__.py").touch()
    listen = f"127.0.0.1:{free_port()}"
    sent = 0

    async def until(holds: Callable[[], bool]) -> None:
        async with asyncio.timeout(WAIT_S_MAX):
            while not holds():
                await asyncio.sleep(0.1)

    def function() -> dict[str, Any]:
        found: dict[str, Any] = json.loads(read(listen, "/v1/mappings"))["functions"][0]["code"]
        return found

    def shows(value: str) -> bool:
        return f'poller_function_code_refused{{function="orders"}} {value}\n' in read(listen, "/metrics")

    def seen(version: int) -> bool:
        return any(each == version for _, _, each in calls(tmp_path))

    async def run() -> None:
        nonlocal sent
        async with emulator(tmp_path) as url, clients(url) as services:
            sqs = services["sqs"]
            attributes = {"FifoQueue": "true", "ContentBasedDeduplication": "true", "VisibilityTimeout": "30"}
            queue = (await sqs.create_queue(QueueName="work.fifo", Attributes=attributes))["QueueUrl"]
            settings = {
                "region": REGION,
                "endpoint_url": url,
                "listen": listen,
                "store": "memory://",
                "functions": {
                    "orders": {
                        "invoker": "python",
                        "handler": "app.handle",
                        "code": "code",
                        "reload": True,
                        "max_concurrency": 2,
                        "isolation": isolation,
                    }
                },
                "mappings": [
                    {
                        "FunctionName": "orders",
                        "EventSourceArn": f"arn:aws:sqs:{REGION}:{ACCOUNT}:work.fifo",
                        "BatchSize": 5,
                    }
                ],
            }
            (tmp_path / "poller.yaml").write_text(yaml.safe_dump(settings))
            words = [sys.executable, "-m", "poller", "run", "--config", "poller.yaml"]
            env = plain_environment() | credentials() | {"PYTHONPATH": str(ROOT)}
            with running("daemon", words, env, tmp_path) as process:
                await process.answers(f"http://{listen}/readyz", WAIT_S_MAX)

                async def send() -> None:
                    nonlocal sent
                    while True:
                        for group in GROUPS:
                            await sqs.send_message(
                                QueueUrl=queue, MessageBody=f"{group} {sent}", MessageGroupId=group
                            )
                        sent += 1
                        await asyncio.sleep(0.05)

                async with asyncio.TaskGroup() as tasks:
                    sending = tasks.create_task(send(), name="producer")
                    await until(lambda: seen(1))
                    replace(code / "version.py", "VERSION = 2\n")
                    await until(lambda: seen(2))

                    replace(code / "version.py", "VERSION = (3\n")
                    await until(lambda: bool(function()["refused"]))
                    before = len(calls(tmp_path))
                    await until(lambda: len(calls(tmp_path)) > before + 20)
                    assert "SyntaxError" in function()["refused"]
                    notes = json.loads(read(listen, "/v1/mappings"))["notes"]
                    assert any(
                        "its changed code is refused, the code from before runs on" in each for each in notes
                    )
                    await until(lambda: shows("1.0"))

                    replace(code / "version.py", "VERSION = 3\n")
                    await until(lambda: seen(3))
                    assert function()["refused"] == ""
                    await until(lambda: shows("0.0"))
                    sending.cancel()
                await until(lambda: len(set(calls(tmp_path))) >= len(GROUPS) * sent)
                process.signal(signal.SIGTERM)
                assert await process.ended(30.0) == 0, process.tail()
                said = [
                    (line["level"], line["ok"], line["version"])
                    for line in map(json.loads, process.log.read_text().splitlines())
                    if line["event"] == "code_reloaded"
                ]
                assert said == [("info", True, 1), ("error", False, 1), ("info", True, 2)]

    asyncio.run(run())
    for group in GROUPS:
        numbers = [number for each, number, _ in calls(tmp_path) if each == group]
        assert sorted(set(numbers)) == list(range(max(numbers) + 1))
        assert max(numbers) >= sent - 1
        assert numbers == sorted(numbers), "the order of the group"
        versions = [version for each, _, version in calls(tmp_path) if each == group]
        assert versions == sorted(versions)
