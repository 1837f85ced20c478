"""The Compose file is valid, and what it says works: its services run as processes here, with its commands, variables and files."""

import asyncio
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml

from adapters.demo.emulator import clients
from adapters.demo.processes import HOST, Running, free_port, plain_environment, running

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "deploy/compose"
READY_S_MAX = 60.0
LINES_S_MAX = 60.0


@pytest.fixture(scope="module")
def services() -> Mapping[str, Any]:
    """The services as Compose itself reads them."""
    program = shutil.which("docker-compose")
    assert program, "docker-compose is missing: install it (Debian: apt-get install docker-compose)"
    command = [program, "--file", str(FOLDER / "compose.yaml"), "config"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    found: Mapping[str, Any] = yaml.safe_load(done.stdout)["services"]
    return found


def test_only_this_machine_reaches_the_ports(services: Mapping[str, Any]) -> None:
    ports = [port for each in services.values() for port in each.get("ports", ())]
    assert ports
    assert all(str(port).startswith("127.0.0.1:") for port in ports)


def test_what_is_mounted_is_there(services: Mapping[str, Any]) -> None:
    mounted = [volume for each in services.values() for volume in each.get("volumes", ())]
    hosts = [Path(volume.partition(":")[0]) for volume in mounted if volume.startswith("/")]
    assert len(hosts) == 3
    assert [path for path in hosts if not path.exists()] == []


def test_the_emulator_is_the_one_that_the_tests_know() -> None:
    locked = re.search(r"^(ministack==\S+)", (ROOT / "requirements/dev.lock").read_text(), re.MULTILINE)
    assert locked
    assert f" {locked[1]}\n" in (FOLDER / "emulator/Dockerfile").read_text()


def test_the_services_do_what_they_are_for(services: Mapping[str, Any], tmp_path: Path) -> None:
    asyncio.run(_works(services, tmp_path))


async def _works(services: Mapping[str, Any], folder: Path) -> None:
    port, listen = free_port(), free_port()
    emulated, url = f"http://{HOST}:{port}", f"http://{HOST}:{listen}"

    def variables(name: str) -> dict[str, str]:
        """A service's variables, with addresses of this machine in place of the containers' names and ports."""
        given = {key: str(text) for key, text in services[name]["environment"].items()}
        assert given.get("AWS_ENDPOINT_URL") in {None, "http://aws:4566"}
        return {**given, **({"AWS_ENDPOINT_URL": emulated} if "AWS_ENDPOINT_URL" in given else {})}

    own = {"BIND_HOST": HOST, "GATEWAY_PORT": str(port)}
    emulator = running(
        "aws", [sys.executable, "-m", "ministack"], plain_environment() | variables("aws") | own, folder
    )
    with emulator as aws:
        await aws.answers(f"{emulated}/_ministack/health", READY_S_MAX)
        for _ in range(2):
            # `docker compose up` makes everything once more when it is called again.
            command = [sys.executable, str(FOLDER / "prepare.py")]
            with running("prepare", command, plain_environment() | variables("prepare"), folder) as prepare:
                assert await prepare.ended(READY_S_MAX) == 0, prepare.tail()
        await _sent(emulated)
        (app := folder / "app").symlink_to(FOLDER / "functions")
        options = ["--listen", f"{HOST}:{listen}", "--store", f"sqlite:{folder}/poller.db"]
        daemon = [
            sys.executable,
            "-P",
            "-m",
            "poller",
            "run",
            "--config",
            str(FOLDER / "poller.yaml"),
            *options,
        ]
        env = plain_environment() | variables("poller") | {"PYTHONPATH": str(app)}
        with running("poller", daemon, env, folder) as process:
            await process.answers(f"{url}/readyz", READY_S_MAX)
            assert "<title>" in await _text(url)
            await _said(process, {"mail: hello", "order: 7"})


async def _sent(emulated: str) -> None:
    async with clients(emulated) as found:
        queue = await found["sqs"].get_queue_url(QueueName="mails")
        await found["sqs"].send_message(QueueUrl=queue["QueueUrl"], MessageBody="hello")
        await found["kinesis"].put_record(StreamName="orders", Data=b"7", PartitionKey="a")


async def _text(url: str) -> str:
    async with aiohttp.ClientSession() as session, session.get(f"{url}/") as answer:
        return await answer.text()


async def _said(process: Running, expected: set[str]) -> None:
    """Waits until the functions have printed these lines."""
    async with asyncio.timeout(LINES_S_MAX):
        while missing := expected - set(_function_lines(process)):
            assert process.exit_status is None, f"{missing} {process.tail()}"
            await asyncio.sleep(0.1)


def _function_lines(process: Running) -> list[str]:
    lines = [json.loads(line) for line in process.log.read_text().splitlines() if line.startswith("{")]
    return [each["message"] for each in lines if each.get("event") == "function_log"]
