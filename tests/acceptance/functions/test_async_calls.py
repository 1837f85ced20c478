"""Asynchronous calls on two real daemons with one store while daemons are ended by SIGKILL: each call ends at a destination, none is lost."""

import asyncio
import json
import os
import random
import signal
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import botocore.session
import pytest
import yaml
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from adapters.demo.processes import HOST, Running, free_port, plain_environment, running
from tests.acceptance.test_invoke import END_S_MAX, KEY, READY_S_MAX, SECRET, SIGNED
from tests.emulators import Emulator

pytestmark = pytest.mark.acceptance

CALLS = int(os.environ.get("ASYNC_CALLS", "400"))
"""How many calls are made. Of twenty, two always fail, one fails once, two are slow, and five go to a function with a small rate."""
CLIENTS = 4
KILLS = 6
SETTLED_S_MAX = 300.0
HANDLER = "tests.acceptance.functions.queued_function.handler"


def configuration(folder: Path, store: str, endpoints: dict[str, str]) -> dict[str, Any]:
    targets = {
        end: {"Destination": (folder / name).as_uri()}
        for end, name in (("OnSuccess", "done"), ("OnFailure", "failed"))
    }
    common = {
        "invoker": "python",
        "handler": HANDLER,
        "timeout_s": 10,
        "workers": 4,
        "event_invoke_config": {"DestinationConfig": targets},
    }
    return {
        "region": "eu-west-1",
        "endpoint_urls": endpoints,
        "store": store,
        "mappings": [],
        "functions": {"fast": common, "limited": common | {"rate": {"invocations_per_s": 40}}},
        "api": {"access_keys_file": str(folder / "keys.yaml")},
        "tuning": {"async_retry_s": [0.5, 1], "lease_s": 4, "heartbeat_s": 1, "grace_s": 10},
    }


@asynccontextmanager
async def daemon(folder: Path, name: str) -> AsyncIterator[tuple[str, Running]]:
    port = free_port()
    words = [sys.executable, "-m", "poller", "run", "--config", str(folder / "poller.yaml")]
    words += ["--worker", name, "--listen", f"{HOST}:{port}"]
    env = plain_environment() | SIGNED | {"PYTHONPATH": os.getcwd(), "JOURNAL": str(folder / "journal")}
    with running(name, words, env, folder) as process:
        await process.answers(f"http://{HOST}:{port}/readyz", READY_S_MAX)
        yield f"http://{HOST}:{port}", process


def client(url: str) -> Any:
    session = botocore.session.Session()
    session.set_credentials(KEY, SECRET)
    config = Config(retries={"max_attempts": 0}, read_timeout=15, connect_timeout=5)
    return session.create_client("lambda", "eu-west-1", endpoint_url=url, config=config)


def events() -> Iterator[tuple[str, dict[str, Any]]]:
    """The functions that are called, and with what."""
    for number in range(CALLS):
        kind = number % 20
        more: dict[str, Any] = {"fail": 9} if kind < 2 else {"fail": 1} if kind == 2 else {}
        more |= {"sleep_s": 0.2} if kind in (3, 4) else {}
        yield ("limited" if kind > 14 else "fast"), {"n": number, **more}


def put_all(urls: dict[str, str], accepted: dict[str, dict[str, Any]]) -> None:
    """Puts all calls, by several clients at once."""
    calls = list(events())
    with ThreadPoolExecutor(CLIENTS) as pool:
        for done in [pool.submit(put, urls, accepted, calls[each::CLIENTS], each) for each in range(CLIENTS)]:
            done.result()


def put(
    urls: dict[str, str], accepted: dict[str, dict[str, Any]], calls: list[tuple[str, Any]], seed: int
) -> None:
    """Puts calls, each to a daemon that takes it."""
    rng = random.Random(seed)
    clients: dict[str, Any] = {}
    try:
        for function, event in calls:
            accepted[put_one(urls, clients, rng, function, event)] = event
    finally:
        for each in clients.values():
            each.close()


def put_one(
    urls: dict[str, str], clients: dict[str, Any], rng: random.Random, function: str, event: dict[str, Any]
) -> str:
    """Puts a call to the first daemon that takes it; returns its request id."""
    while True:
        url = rng.choice(list(urls.values()))
        if url not in clients:
            clients[url] = client(url)
        try:
            found = clients[url].invoke(
                FunctionName=function, InvocationType="Event", Payload=json.dumps(event).encode()
            )
        except (BotoCoreError, ClientError):
            time.sleep(0.05)
            continue
        assert found["StatusCode"] == 202
        found["Payload"].close()
        return str(found["ResponseMetadata"]["RequestId"])


def documents(folder: Path) -> Counter[str]:
    """How often each call is in the files of a destination."""
    found: Counter[str] = Counter()
    for each in folder.iterdir():
        for line in each.read_text().splitlines():
            found[json.loads(line)["requestContext"]["requestId"]] += 1
    return found


async def killed_and_started(folder: Path, urls: dict[str, str], done: asyncio.Event) -> None:
    """Two daemons, of which one after the other is killed and started again. At the end both are stopped."""
    async with AsyncExitStack() as stack:
        alive: dict[str, Running] = {}
        for name in ("ann", "bob"):
            urls[name], alive[name] = await stack.enter_async_context(daemon(folder, name))
        for round_ in range(KILLS):
            await asyncio.sleep(1.5)
            name = ("ann", "bob")[round_ % 2]
            alive[name].signal(signal.SIGKILL)
            await alive[name].ended(5.0)
            del urls[name]
            urls[name], alive[name] = await stack.enter_async_context(daemon(folder, name))
        await done.wait()
        for process in alive.values():
            process.signal(signal.SIGTERM)
        assert [await each.ended(END_S_MAX) for each in alive.values()] == [0, 0]


async def no_call_is_lost(folder: Path, store: str, endpoints: dict[str, str]) -> None:
    for name in ("done", "failed"):
        (folder / name).mkdir()
    (folder / "keys.yaml").write_text(f"{KEY}: {SECRET}\n")
    (folder / "poller.yaml").write_text(yaml.safe_dump(configuration(folder, store, endpoints)))
    urls: dict[str, str] = {}
    accepted: dict[str, dict[str, Any]] = {}
    done = asyncio.Event()

    def settled() -> bool:
        return accepted.keys() <= documents(folder / "done").keys() | documents(folder / "failed").keys()

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(killed_and_started(folder, urls, done))
        async with asyncio.timeout(READY_S_MAX):
            while len(urls) < 2:
                await asyncio.sleep(0.1)
        await asyncio.to_thread(put_all, urls, accepted)
        assert len(accepted) == CALLS
        async with asyncio.timeout(SETTLED_S_MAX):
            while not await asyncio.to_thread(settled):
                await asyncio.sleep(0.5)
        # Nothing may come twice at leisure: what is over is removed.
        await asyncio.sleep(3)
        done.set()
    succeeded, failed = documents(folder / "done"), documents(folder / "failed")
    for call, event in accepted.items():
        assert (call in failed) is (event.get("fail", 0) > 2), (call, event)
        assert (call in succeeded) is not (call in failed), (call, event)
    journal = Counter((folder / "journal").read_text().split())
    assert set(succeeded) <= set(journal)
    # A kill makes calls again that ran: those that one worker had at once, for each kill.
    again = sum(count - 1 for count in journal.values())
    assert again <= KILLS * 2 * 64


def test_no_asynchronous_call_is_lost_when_daemons_are_killed(tmp_path: Path) -> None:
    asyncio.run(no_call_is_lost(tmp_path, f"sqlite://{tmp_path}/state.db", {}))


def test_no_asynchronous_call_is_lost_when_daemons_are_killed_with_dynamodb(
    ministack: Emulator, account: str, tmp_path: Path
) -> None:
    asyncio.run(no_call_is_lost(tmp_path, "dynamodb://calls?create=true", {"dynamodb": ministack.url}))
