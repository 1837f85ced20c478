"""Functions of a daemon that is a process, called by AWS's own clients: in the daemon and in processes, with one outcome each."""

import asyncio
import base64
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import botocore.session
import pytest
import yaml
from botocore.config import Config
from botocore.exceptions import ClientError

from adapters.demo.processes import HOST, Running, free_port, plain_environment, running

pytestmark = pytest.mark.acceptance

READY_S_MAX = 30.0
END_S_MAX = 30.0
KEY, SECRET = "AKIDCALLER", "a-long-random-text"
SIGNED = {
    "AWS_ACCESS_KEY_ID": KEY,
    "AWS_SECRET_ACCESS_KEY": SECRET,
    "AWS_REGION": "eu-west-1",
    "AWS_DEFAULT_REGION": "eu-west-1",
}
HANDLER = "tests.acceptance.called_function.handler"
ARN = "arn:aws:lambda:eu-west-1:111122223333:function:{name}"
WAYS = ("here", "apart")
CONTEXT = base64.b64encode(b'{"custom": {"who": "me"}}').decode()


def functions() -> dict[str, Any]:
    common = {"invoker": "python", "handler": HANDLER, "timeout_s": 2}
    return {
        "here": common | {"arn": ARN.format(name="here"), "max_concurrency": 2},
        "apart": common | {"arn": ARN.format(name="apart"), "isolation": "process", "max_concurrency": 2},
        "limited": common | {"isolation": "process", "max_concurrency": 2, "timeout_s": 50},
        "broken": common | {"handler": "broken.handler"},
    }


@asynccontextmanager
async def daemon(folder: Path) -> AsyncIterator[tuple[str, Running]]:
    """A daemon without mappings, that has these functions."""
    port = free_port()
    (folder / "keys.yaml").write_text(f"{KEY}: {SECRET}\n")
    (folder / "broken.py").write_text('raise RuntimeError("no database")\n')
    config = folder / "poller.yaml"
    document = {
        "region": "eu-west-1",
        "listen": f"{HOST}:{port}",
        "store": "memory://",
        "mappings": [],
        "functions": functions(),
        "api": {"access_keys_file": str(folder / "keys.yaml")},
    }
    config.write_text(yaml.safe_dump(document))
    words = [sys.executable, "-m", "poller", "run", "--config", str(config)]
    env = plain_environment() | SIGNED | {"PYTHONPATH": os.getcwd()}
    with running("daemon", words, env, folder) as process:
        await process.answers(f"http://{HOST}:{port}/readyz", READY_S_MAX)
        yield f"http://{HOST}:{port}", process


def asked(folder: Path, use: Callable[[Any, str], Any]) -> Any:
    """What `use` makes of a client of the daemon. The daemon ends in peace afterwards."""

    async def run() -> Any:
        async with daemon(folder) as (url, process):
            found = await asyncio.to_thread(use, client(url), url)
            process.signal(signal.SIGTERM)
            assert await process.ended(END_S_MAX) == 0
            return found

    return asyncio.run(run())


def client(url: str) -> Any:
    session = botocore.session.Session()
    session.set_credentials(KEY, SECRET)
    config = Config(retries={"max_attempts": 0}, read_timeout=60)
    return session.create_client("lambda", "eu-west-1", endpoint_url=url, config=config)


def invoke(caller: Any, name: str, event: Any, **more: Any) -> tuple[Any, dict[str, Any]]:
    """The parsed payload, and the rest of the answer."""
    found = caller.invoke(FunctionName=name, Payload=json.dumps(event).encode(), **more)
    return json.loads(found.pop("Payload").read()), found


@pytest.mark.parametrize("name", WAYS)
def test_boto3_calls_a_function_wherever_it_lives(tmp_path: Path, name: str) -> None:
    def use(caller: Any, _: str) -> None:
        payload, answer = invoke(caller, name, {"n": 1}, LogType="Tail", ClientContext=CONTEXT)
        assert payload == {
            "n": 1,
            "request": answer["ResponseMetadata"]["RequestId"],
            "arn": ARN.format(name=name),
            "custom": {"who": "me"},
            "batch": 0,
        }
        assert (answer["StatusCode"], answer["ExecutedVersion"]) == (200, "$LATEST")
        log = base64.b64decode(answer["LogResult"]).decode()
        assert log.startswith(f"START RequestId: {payload['request']} Version: $LATEST\n")
        assert "called with 1\n" in log
        assert "REPORT RequestId" in log
        failed, answer = invoke(caller, name, {"fail": "no"})
        assert answer["FunctionError"] == "Unhandled"
        assert (failed["errorType"], failed["errorMessage"]) == ("ValueError", "no")
        assert "called_function.py" in "".join(failed["stackTrace"])
        for value in (None, 7, "text", [1, {"a": []}], True):
            assert invoke(caller, name, value)[0] == value
        late, answer = invoke(caller, name, {"sleep_s": 3})
        assert answer["FunctionError"] == "Unhandled"
        assert late["errorType"] == "Sandbox.Timedout"
        assert late["errorMessage"].endswith("Error: Task timed out after 2.00 seconds")

    asked(tmp_path, use)


def test_calls_beyond_the_limit_are_refused_and_those_within_it_are_not(tmp_path: Path) -> None:
    go = tmp_path / "go"

    def use(caller: Any, url: str) -> tuple[list[str], list[int]]:
        within: list[int] = []

        def held(n: int) -> None:
            event = {"n": n, "mark": str(tmp_path / f"began-{n}"), "until": str(go)}
            within.append(invoke(client(url), "limited", event)[1]["StatusCode"])

        threads = [threading.Thread(target=held, args=(n,)) for n in range(2)]
        for each in threads:
            each.start()
        while len(list(tmp_path.glob("began-*"))) < 2:
            time.sleep(0.02)
        refused: list[str] = []
        for n in range(6):
            with pytest.raises(ClientError) as caught:
                invoke(caller, "limited", {"n": n})
            answer: dict[str, Any] = dict(caught.value.response)
            refused.append(f"{answer['Error']['Code']} {answer['Reason']}")
        go.touch()
        for each in threads:
            each.join()
        return refused, within

    refused, within = asked(tmp_path, use)
    assert refused == ["TooManyRequestsException ReservedFunctionConcurrentInvocationLimitExceeded"] * 6
    assert within == [200, 200]


def test_the_aws_cli_calls_and_shows_functions(tmp_path: Path) -> None:
    def use(_: Any, url: str) -> None:
        def cli(*words: str) -> subprocess.CompletedProcess[str]:
            env = plain_environment() | SIGNED | {"AWS_CONFIG_FILE": "/dev/null", "AWS_PAGER": ""}
            return subprocess.run(
                [sys.executable, "-m", "awscli", "lambda", *words, "--endpoint-url", url, "--output", "json"],
                env=env,
                capture_output=True,
                text=True,
                check=False,
                timeout=60,
            )

        out = tmp_path / "out.json"
        done = cli(
            "invoke", "--function-name", "here", "--payload", '{"n": 5}', "--log-type", "Tail", str(out)
        )
        assert done.returncode == 0, done.stderr
        assert json.loads(out.read_text())["n"] == 5
        assert json.loads(done.stdout)["StatusCode"] == 200
        listed = json.loads(cli("list-functions").stdout)["Functions"]
        assert [each["FunctionName"] for each in listed] == ["apart", "broken", "here", "limited"]
        shown = json.loads(cli("get-function", "--function-name", ARN.format(name="here")).stdout)
        assert shown["Configuration"]["Timeout"] == 2
        missing = cli("get-function-configuration", "--function-name", "nothing")
        assert missing.returncode != 0
        assert "ResourceNotFoundException" in missing.stderr
        broken = cli("invoke", "--function-name", "broken", "--payload", "{}", str(out))
        assert "ResourceNotReadyException" in broken.stderr
        assert "no database" in broken.stderr

    asked(tmp_path, use)


def test_a_stop_waits_for_the_call_that_runs(tmp_path: Path) -> None:
    async def run() -> None:
        async with daemon(tmp_path) as (url, process):
            caller = client(url)
            await asyncio.to_thread(invoke, caller, "here", {"n": 0})
            began = time.monotonic()
            asking = asyncio.create_task(asyncio.to_thread(invoke, caller, "here", {"n": 1, "sleep_s": 1.5}))
            await asyncio.sleep(0.5)
            process.signal(signal.SIGTERM)
            payload, _ = await asking
            assert payload["n"] == 1
            assert time.monotonic() - began >= 1.5
            assert await process.ended(END_S_MAX) == 0

    asyncio.run(run())
