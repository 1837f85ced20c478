"""Rate and breaker of a function on two real daemons that share a store: held, shown, closed by the command, and within the rate."""

import asyncio
import json
import sys
import time
import urllib.request
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import yaml

from adapters.demo.emulator import ACCOUNT, REGION, clients, credentials, emulator
from adapters.demo.processes import free_port, plain_environment, running
from tests.acceptance.daemons import command

pytestmark = pytest.mark.acceptance

ROOT = Path(__file__).parents[2]
WAIT_S_MAX = 60.0
RATE = 20
MESSAGES = 100


def settings(url: str, listen: str, worker: str, folder: Path) -> dict[str, Any]:
    return {
        "region": REGION,
        "endpoint_url": url,
        "listen": listen,
        "worker": worker,
        "store": f"sqlite:///{folder}/state.db",
        "api": {"allow_unauthenticated": True},
        "functions": {
            "orders": {
                "invoker": "python",
                "handler": "tests.acceptance.breaker_function:handle",
                "workers": 4,
                "rate": {"invocations_per_s": RATE},
                "breaker": {"failures": 0.5, "window_s": 60, "open_s": 3600},
            }
        },
        "mappings": [
            {
                "FunctionName": "orders",
                "EventSourceArn": f"arn:aws:sqs:{REGION}:{ACCOUNT}:work",
                "BatchSize": 1,
            }
        ],
    }


def function_at(listen: str) -> dict[str, Any]:
    with urllib.request.urlopen(f"http://{listen}/v1/mappings") as answer:
        found = json.loads(answer.read())["functions"]
    return dict(found[0]) if found else {"breaker": {"state": ""}, "rate": {"share": 0.0}}


async def until(holds: Callable[[], bool], within_s: float = WAIT_S_MAX) -> float:
    began = time.monotonic()
    while not holds():
        assert time.monotonic() - began < within_s, "did not come true in time"
        await asyncio.sleep(0.05)
    return time.monotonic() - began


def lines(file: Path) -> list[str]:
    return file.read_text().splitlines() if file.exists() else []


def test_a_breaker_holds_two_daemons_and_the_command_closes_both(tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    broken.touch()

    async def run() -> None:
        async with emulator(tmp_path) as url, clients(url) as services:
            sqs = services["sqs"]
            queue = (await sqs.create_queue(QueueName="work", Attributes={"VisibilityTimeout": "30"}))[
                "QueueUrl"
            ]
            places = [f"127.0.0.1:{free_port()}" for _ in range(2)]
            env = plain_environment() | credentials()
            env |= {"PYTHONPATH": str(ROOT), "BREAKER_FOLDER": str(tmp_path)}
            with ExitStack() as stack:
                for number, listen in enumerate(places):
                    file = tmp_path / f"poller-{number}.yaml"
                    file.write_text(yaml.safe_dump(settings(url, listen, f"worker-{number}", tmp_path)))
                    words = [sys.executable, "-m", "poller", "run", "--config", str(file)]
                    process = stack.enter_context(running(f"daemon-{number}", words, env, tmp_path))
                    await process.answers(f"http://{listen}/readyz", WAIT_S_MAX)
                await until(lambda: [function_at(each)["rate"]["share"] for each in places] == [0.5, 0.5])
                for number in range(MESSAGES):
                    await sqs.send_message(QueueUrl=queue, MessageBody=str(number))
                await until(
                    lambda: [function_at(each)["breaker"]["state"] for each in places] == ["open"] * 2
                )
                await asyncio.sleep(1.0)
                calls = len(lines(tmp_path / "calls"))
                await asyncio.sleep(3.0)
                assert len(lines(tmp_path / "calls")) == calls, "nothing is called while both are open"
                shown = command("status", "--url", f"http://{places[0]}").out
                assert "function orders: 20 invocations/s, 50% of it here" in shown
                assert "poller breaker close orders" in shown

                broken.unlink()
                began = time.time()
                ended = command(
                    "breaker",
                    "close",
                    "orders",
                    "--url",
                    f"http://{places[0]}",
                    "--reason",
                    "repaired",
                    "--yes",
                )
                assert (ended.status, ended.err) == (0, "")
                assert "function orders: breaker closed here" in ended.out
                assert function_at(places[0])["breaker"]["state"] == "closed"
                await until(lambda: function_at(places[1])["breaker"]["state"] == "closed", within_s=5.0)
                await until(lambda: len({*lines(tmp_path / "done")}) == MESSAGES, within_s=90.0)
                times = [at for line in lines(tmp_path / "calls") if (at := float(line.split()[0])) >= began]
                assert within_rate(times)

    asyncio.run(run())


def within_rate(times: list[float]) -> bool:
    """Whether in no three seconds more calls began than the rate allows, and a second of it for what may be about to begin."""
    most = RATE * 3 + RATE + 2 * 2
    return all(sum(first <= each < first + 3.0 for each in times) <= most for first in times)
