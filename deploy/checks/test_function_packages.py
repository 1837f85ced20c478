"""The ways to give functions packages of their own (docs/use/function-packages.md), each with a function that is called."""

import asyncio
import json
from pathlib import Path

import pytest
import yaml

from adapters.demo.emulator import clients, credentials, emulator
from adapters.demo.processes import HOST, Running, free_port, running
from deploy.checks.installing import install, make_environment, variables

READY_S_MAX = 120.0
CALLED_S_MAX = 120.0
CODE = """import {package}

def handler(event, context):
    print("{name} has", {package}.__name__, "from", {package}.__file__)
"""
WAYS = {"together": "iniconfig", "folder": "pluggy", "interpreter": "jmespath"}
"""The package that the function of each way imports. The environment of the daemon has none of the first two."""


@pytest.mark.parametrize("package", ["iniconfig", "pluggy"])
def test_the_daemon_has_none_of_the_packages(package: str, programs: Path) -> None:
    assert not list(programs.parent.glob(f"lib/*/site-packages/{package}"))


def test_each_way_gives_a_function_its_packages(programs: Path, tmp_path: Path) -> None:
    asyncio.run(_called(programs, tmp_path))


async def _called(programs: Path, folder: Path) -> None:
    shop, packages, own = folder / "shop", folder / "packages", folder / "own"
    shop.mkdir()
    for name, package in WAYS.items():
        (shop / f"{name}.py").write_text(CODE.format(name=name, package=package))
    install(programs, "iniconfig")
    install(programs, "pluggy", target=packages)
    interpreter = make_environment(own, "awslambdaric", "jmespath") / "python"
    expected = {"together": programs.parent, "folder": packages, "interpreter": own}
    async with emulator(folder) as url:
        async with clients(url) as found:
            for name in WAYS:
                queue = await found["sqs"].create_queue(QueueName=name)
                await found["sqs"].send_message(QueueUrl=queue["QueueUrl"], MessageBody=name)
        listen = f"{HOST}:{free_port()}"
        (shop / "poller.yaml").write_text(yaml.safe_dump(_document(url, listen, interpreter)))
        env = variables(programs, folder) | credentials() | {"PYTHONPATH": str(packages)}
        command = [str(programs / "poller"), "run", "--config", "poller.yaml"]
        with running("daemon", command, env, shop) as process:
            await process.answers(f"http://{listen}/readyz", READY_S_MAX)
            lines = await _lines(process, len(WAYS))
    assert set(lines) == set(WAYS)
    for name, file in lines.items():
        assert Path(file).is_relative_to(expected[name]), (name, file)


def _document(url: str, listen: str, interpreter: Path) -> dict[str, object]:
    process = {
        "invoker": "process",
        "command": [str(interpreter), "-m", "awslambdaric", "interpreter.handler"],
    }
    return {
        "region": "eu-west-1",
        "endpoint_url": url,
        "listen": listen,
        "store": "memory://",
        "functions": {
            "together": {"invoker": "python", "handler": "together:handler"},
            "folder": {"invoker": "python", "handler": "folder:handler"},
            "interpreter": process | {"env": {"PYTHONPATH": ""}},
        },
        "mappings": [
            {"FunctionName": name, "EventSourceArn": f"arn:aws:sqs:eu-west-1:111122223333:{name}"}
            for name in WAYS
        ],
    }


async def _lines(process: Running, count: int) -> dict[str, str]:
    """Waits until all functions have said where their packages are; returns that by their names."""
    async with asyncio.timeout(CALLED_S_MAX):
        while len(found := _said(process)) < count:
            assert process.exit_status is None, process.tail()
            await asyncio.sleep(0.1)
    return found


def _said(process: Running) -> dict[str, str]:
    log = process.log.read_text().splitlines()
    messages = [str(json.loads(line).get("message")) for line in log if line.startswith("{")]
    return {
        name: text.rpartition(" from ")[2]
        for text in messages
        for name in WAYS
        if text.startswith(f"{name} has ")
    }
