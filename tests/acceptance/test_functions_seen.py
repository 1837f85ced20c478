"""What a whole daemon shows of its functions: their lines and errors in its log and status, and a record that kills a server."""

import asyncio
import json
import signal
import sys
import urllib.request
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from adapters.demo.emulator import ACCOUNT, REGION, clients, credentials, emulator
from adapters.demo.processes import Running, free_port, plain_environment, running

pytestmark = pytest.mark.acceptance

ROOT = Path(__file__).parents[2]
WAIT_S_MAX = 60.0
RECEIVES_MAX = 3


class Scene:
    """A daemon, its queues on an emulator, and what it has written."""

    def __init__(self, folder: Path, sqs: Any, process: Running, listen: str) -> None:
        self.folder = folder
        self.sqs = sqs
        self.process = process
        self.listen = listen

    async def send(self, queue: str, *bodies: str) -> None:
        url = (await self.sqs.get_queue_url(QueueName=queue))["QueueUrl"]
        for body in bodies:
            await self.sqs.send_message(QueueUrl=url, MessageBody=body)

    def lines(self) -> list[dict[str, Any]]:
        """All that the daemon and its functions have written to standard output and error: JSON lines and nothing else."""
        return [json.loads(line) for line in self.process.log.read_text().splitlines()]

    def finished(self) -> list[dict[str, Any]]:
        return [line for line in self.lines() if line["event"] == "invocation_finished"]

    def count(self, word: str) -> int:
        """How many lines of the function have this word."""
        return sum(line["event"] == "function_log" and word in line["message"] for line in self.lines())

    async def until(self, holds: Any) -> None:
        async with asyncio.timeout(WAIT_S_MAX):
            while not holds():
                assert self.process.exit_status is None, self.process.tail()
                await asyncio.sleep(0.1)

    async def drained(self) -> None:
        self.process.signal(signal.SIGTERM)
        assert await self.process.ended(30.0) == 0, self.process.tail()

    def status(self) -> dict[str, Any]:
        with urllib.request.urlopen(f"http://{self.listen}/v1/mappings") as answer:
            found: dict[str, Any] = json.loads(answer.read())
        return found


@asynccontextmanager
async def scene(folder: Path, function: dict[str, Any], *, visibility_s: int) -> AsyncIterator[Scene]:
    """A daemon with one function on the queue `work`, whose dead letters go to `dead`."""
    async with emulator(folder) as url, clients(url) as services:
        sqs = services["sqs"]
        await sqs.create_queue(QueueName="dead")
        arn = f"arn:aws:sqs:{REGION}:{ACCOUNT}:"
        redrive = json.dumps({"deadLetterTargetArn": f"{arn}dead", "maxReceiveCount": str(RECEIVES_MAX)})
        attributes = {"VisibilityTimeout": str(visibility_s), "RedrivePolicy": redrive}
        await sqs.create_queue(QueueName="work", Attributes=attributes)
        listen = f"127.0.0.1:{free_port()}"
        settings = {
            "region": REGION,
            "endpoint_url": url,
            "listen": listen,
            "store": "memory://",
            "functions": {"talk": {"timeout_s": visibility_s, "max_concurrency": 4, **function}},
            "mappings": [{"FunctionName": "talk", "EventSourceArn": f"{arn}work", "BatchSize": 1}],
        }
        (folder / "poller.yaml").write_text(yaml.safe_dump(settings))
        command = [sys.executable, "-m", "poller", "run", "--config", str(folder / "poller.yaml")]
        env = plain_environment() | credentials() | {"PYTHONPATH": str(ROOT)}
        with running("daemon", command, env, folder) as process:
            await process.answers(f"http://{listen}/readyz", WAIT_S_MAX)
            yield Scene(folder, sqs, process, listen)


PYTHON = {"invoker": "python", "handler": "tests.acceptance.talking_function:handle", "workers": 4}
PROCESS = {
    "invoker": "process",
    "command": [sys.executable, "-m", "awslambdaric", "tests.acceptance.talking_function.handle"],
    "env": {"AWS_LAMBDA_LOG_FORMAT": "JSON", "AWS_LAMBDA_LOG_LEVEL": "INFO"},
}


@pytest.mark.parametrize("function", [PYTHON, PROCESS], ids=["python", "process"])
def test_each_error_and_each_line_of_a_function_is_in_the_log(
    tmp_path: Path, function: dict[str, Any]
) -> None:
    bodies = [f"different {number}" for number in range(20)]

    async def run() -> None:
        async with scene(tmp_path, function, visibility_s=60) as play:
            await play.send("work", *bodies, *["same"] * 13)
            await play.until(lambda: play.count("printed") == play.count("logged") == 33)
            await play.until(lambda: len(play.finished()) >= 21)
            [mapping] = play.status()["mappings"]
            await play.drained()
            errors = Counter(line["error"] for line in play.finished())
            assert {f"ValueError: nothing is different {number}" for number in range(20)} < errors.keys()
            assert sum(1 + line.get("untold", 0) for line in play.finished()) == 33
            news = [line for line in play.finished() if "stack_trace" in line]
            assert len(news) == 21
            assert "in handle" in news[0]["stack_trace"][0]
            lanes = [lane for lane in mapping["lanes"] if lane["error"]]
            assert {lane["error"]["errorType"] for lane in lanes} == {"ValueError", "KeyError"}
            assert "in handle" in lanes[0]["error"]["stackTrace"][0]

    asyncio.run(run())


def test_lines_of_calls_that_run_beside_each_other_have_their_own_request_id(tmp_path: Path) -> None:
    async def run() -> None:
        async with scene(tmp_path, PYTHON, visibility_s=60) as play:
            await play.send("work", *(f"fine {number}" for number in range(40)))
            await play.until(lambda: play.count("printed") == play.count("logged") == 40)
            await play.drained()
            said = [line for line in play.lines() if line["event"] == "function_log"]
            assert len({line["request_id"] for line in said}) == 40
            assert all(line["message"].endswith(line["request_id"]) for line in said)
            assert {line["level"] for line in said} == {"info"}
            assert {line["function"] for line in said} == {"talk"}

    asyncio.run(run())


def test_a_record_that_kills_its_server_ends_in_the_dead_letter_queue_and_holds_nothing_up(
    tmp_path: Path,
) -> None:
    port, journal = free_port(), tmp_path / "journal"
    command = [sys.executable, "-m", "tests.acceptance.talking_function", str(port), str(journal)]
    env = plain_environment() | {"PYTHONPATH": str(ROOT)}
    starts = 0

    async def keep_running(stack: ExitStack) -> None:
        """Starts the server anew whenever it has died, as a supervisor does."""
        nonlocal starts
        server = stack.enter_context(running("server", command, env, tmp_path))
        while True:
            if server.exit_status is not None:
                starts += 1
                server = stack.enter_context(running("server", command, env, tmp_path))
            await asyncio.sleep(0.2)

    async def dead_letters(play: Scene) -> list[str]:
        url = (await play.sqs.get_queue_url(QueueName="dead"))["QueueUrl"]
        reply = await play.sqs.receive_message(QueueUrl=url, WaitTimeSeconds=1, VisibilityTimeout=0)
        return [message["Body"] for message in reply.get("Messages", [])]

    async def run() -> None:
        function = {"invoker": "http", "url": f"http://127.0.0.1:{port}/", "max_concurrency": 1}
        with ExitStack() as stack:
            async with scene(tmp_path, function, visibility_s=5) as play, asyncio.TaskGroup() as tasks:
                keeping = tasks.create_task(keep_running(stack))
                await play.send("work", "fine 0", "poison", *(f"fine {number}" for number in range(1, 15)))
                async with asyncio.timeout(WAIT_S_MAX):
                    while await dead_letters(play) != ["poison"]:
                        await asyncio.sleep(0.2)
                await play.until(lambda: len(journal.read_bytes().splitlines()) >= 15)
                await play.drained()
                keeping.cancel()
                errors = {line["error"].partition(":")[0] for line in play.finished()}
                assert "Http.NoAnswer" in errors

    asyncio.run(run())
    assert RECEIVES_MAX <= starts <= 3 * RECEIVES_MAX
    bodies = {json.loads(line)["Records"][0]["body"] for line in journal.read_bytes().splitlines()}
    assert bodies == {f"fine {number}" for number in range(15)}
