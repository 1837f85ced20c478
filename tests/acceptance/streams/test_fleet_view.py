"""Three real processes on one store: each shows every shard, while one is stopped, killed and drained. `poller status` asks them."""

import asyncio
import json
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml

from adapters.demo.emulator import ACCOUNT, REGION, clients, credentials
from adapters.demo.processes import HOST, Running, free_port, plain_environment, running
from poller.commands.daemon_client import DaemonClient
from poller.commands.status.command import fetch
from poller.domain.status import DaemonStatus, ShardStatus, WorkerState
from tests.acceptance.daemons import Ended, command
from tests.acceptance.streams.fleet_function import BAD
from tests.emulators import kinesis_local, ministack

pytestmark = pytest.mark.acceptance

STREAM = "sales"
MAPPING = "5d1f3a52-7f0e-4b52-9d9f-0c1c8a1b6a02"
ANN, BOB, CID = "ann", "bob", "cid"
SHARDS = 6
LOOK_S = 0.2
READY_S_MAX = 60.0
FRESH_S = 5.0
LEASE_S = 20.0
SLACK_S = 6.0
"""For an emulator, three daemons and a command on two busy cores."""


@dataclass(slots=True)
class Fleet:
    """The workers and how to ask them."""

    folder: Path
    store: str
    endpoints: dict[str, str]
    stack: AsyncExitStack
    workers: dict[str, Running] = field(default_factory=dict)
    urls: dict[str, str] = field(default_factory=dict)

    def start(self, name: str) -> None:
        """Starts a worker."""
        port = free_port()
        config = self.folder / f"{name}.yaml"
        config.write_text(yaml.safe_dump(self._configuration(name, port)))
        env = plain_environment() | credentials() | {"PYTHONPATH": str(Path(__file__).parents[3])}
        run = [sys.executable, "-m", "poller", "run", "--config", str(config)]
        self.workers[name] = self.stack.enter_context(running(name, run, env, self.folder))
        self.urls[name] = f"http://{HOST}:{port}"

    def _configuration(self, worker: str, port: int) -> dict[str, Any]:
        arn = f"arn:aws:kinesis:{REGION}:{ACCOUNT}:stream/{STREAM}"
        return {
            "region": REGION,
            "endpoint_urls": self.endpoints,
            "listen": f"{HOST}:{port}",
            "store": self.store,
            "worker": worker,
            "functions": {
                "sell": {"invoker": "python", "handler": "tests.acceptance.streams.fleet_function:sell"}
            },
            "mappings": [
                {
                    "UUID": MAPPING,
                    "FunctionName": "sell",
                    "EventSourceArn": arn,
                    "StartingPosition": "TRIM_HORIZON",
                }
            ],
            "tuning": {"idle_poll_s": 0.5, "discovery_s": 10.0, "grace_s": 5.0, "lease_s": LEASE_S},
        }

    async def ask(self, name: str, *words: str) -> Ended:
        """What `poller status` says, asking this worker."""
        return await asyncio.to_thread(command, "status", "--url", self.urls[name], *words)

    async def status(self, name: str) -> DaemonStatus:
        """The status that this worker gives, asked as the command asks. The command itself takes seconds to start on a busy machine."""
        body = await asyncio.to_thread(fetch, DaemonClient(self.urls[name]))
        return msgspec.json.decode(body, type=DaemonStatus)

    async def until(
        self, holds: Callable[[DaemonStatus], bool], *names: str, within_s: float
    ) -> DaemonStatus:
        """Waits until the status through each of these workers is so; returns the last one."""
        ends = time.monotonic() + within_s
        while True:
            found = [await self.status(name) for name in names]
            if all(holds(each) for each in found):
                return found[-1]
            assert time.monotonic() < ends, f"not within {within_s:g} s: {shards(found[-1])}"
            await asyncio.sleep(LOOK_S)


def shards(status: DaemonStatus) -> dict[str, ShardStatus]:
    """The shards by id."""
    return {each.shard: each for mapping in status.mappings for each in mapping.shards}


def owners(status: DaemonStatus) -> set[str]:
    """Who has shards."""
    return {each.owner for each in shards(status).values()}


def complete(*names: str) -> Callable[[DaemonStatus], bool]:
    """Whether these workers have all shards, as evenly as can be, one is blocked, and nothing is old."""

    def holds(status: DaemonStatus) -> bool:
        found = shards(status).values()
        counts = [sum(each.owner == name for each in found) for name in names]
        states = sorted(each.state for each in found)
        fresh = not any(each.out_of_date or (each.age_s or 0) > FRESH_S for each in found)
        even = len(found) == sum(counts) == SHARDS and max(counts) - min(counts) <= 1
        return even and fresh and states == ["blocked"] + ["reading"] * (SHARDS - 1)

    return holds


@asynccontextmanager
async def site(folder: Path, kind: str) -> AsyncIterator[Fleet]:
    """An emulator with a stream, one record of which fails, and a store."""
    async with AsyncExitStack() as stack:
        kinesis_url = stack.enter_context(kinesis_local(folder)).url
        endpoints, store = {"kinesis": kinesis_url}, f"sqlite://{folder}/state.db"
        if kind == "dynamodb":
            endpoints["dynamodb"] = stack.enter_context(ministack(folder)).url
            store = "dynamodb://fleet?create=true"
        kinesis = (await stack.enter_async_context(clients(kinesis_url)))["kinesis"]
        await kinesis.create_stream(StreamName=STREAM, ShardCount=SHARDS)
        async with asyncio.timeout(READY_S_MAX):
            while True:
                answer = await kinesis.describe_stream_summary(StreamName=STREAM)
                if answer["StreamDescriptionSummary"]["StreamStatus"] == "ACTIVE":
                    break
                await asyncio.sleep(LOOK_S)
        for key in (*(f"key-{n}" for n in range(40)), BAD):
            data = json.dumps({"key": key}).encode()
            await kinesis.put_record(StreamName=STREAM, PartitionKey=key, Data=data)
        yield Fleet(folder, store, endpoints, stack)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("kind", ["sqlite", "dynamodb"])
def test_each_worker_shows_all_shards_while_one_is_stopped_killed_and_drained(
    tmp_path: Path, kind: str
) -> None:
    asyncio.run(_story(tmp_path, kind))


async def _story(folder: Path, kind: str) -> None:
    async with site(folder, kind) as fleet:
        for name in (ANN, BOB, CID):
            fleet.start(name)
            await fleet.workers[name].answers(f"{fleet.urls[name]}/healthz", READY_S_MAX)
        status = await fleet.until(complete(ANN, BOB, CID), ANN, BOB, CID, within_s=READY_S_MAX)
        (blocked,) = [each for each in shards(status).values() if each.state == "blocked"]
        (lane,) = [each for each in blocked.lanes if each.blocked_since is not None]
        assert "ValueError" in lane.last_error
        assert lane.last_error.isprintable()
        victim = blocked.owner
        first, second = (name for name in (ANN, BOB, CID) if name != victim)
        await _alone(fleet, victim, through=first)
        await _stopped(fleet, victim, first, second)
        await _killed(fleet, victim, first, second)
        await _drained(fleet, first, second)


async def _alone(fleet: Fleet, name: str, *, through: str) -> None:
    answer = await fleet.ask(through, "--worker", name, "--json")
    status = msgspec.json.decode(answer.out, type=DaemonStatus)
    assert (status.worker, status.only, owners(status)) == (through, name, {name})
    page = (await fleet.ask(through, "--worker", name)).out
    assert f"only worker {name} is shown" in page
    assert "blocked" in page
    unknown = await fleet.ask(through, "--worker", "nobody")
    assert (unknown.status, unknown.out) == (2, "")
    assert f"no worker is called 'nobody'; workers: {ANN}, {BOB}, {CID}" in unknown.err


async def _stopped(fleet: Fleet, victim: str, first: str, second: str) -> None:
    fleet.workers[victim].signal(signal.SIGSTOP)

    def marked(status: DaemonStatus) -> bool:
        (worker,) = [each for each in status.workers if each.worker == victim]
        theirs = [each for each in shards(status).values() if each.owner == victim]
        return worker.out_of_date and bool(theirs) and all(each.out_of_date for each in theirs)

    status = await fleet.until(marked, first, within_s=LEASE_S)
    assert [each.state for each in shards(status).values()].count("blocked") == 1
    assert {each.owner for each in shards(status).values() if each.out_of_date} == {victim}
    await fleet.until(complete(first, second), first, second, within_s=LEASE_S + 3 * SLACK_S)
    page = (await fleet.ask(second)).out
    assert f"worker {victim}: dead, out of date: last heard" in page
    fleet.workers[victim].signal(signal.SIGCONT)
    await fleet.until(complete(ANN, BOB, CID), ANN, BOB, CID, within_s=READY_S_MAX)


async def _killed(fleet: Fleet, victim: str, first: str, second: str) -> None:
    fleet.workers[victim].signal(signal.SIGKILL)
    await fleet.until(complete(first, second), first, second, within_s=LEASE_S + 3 * SLACK_S)
    status = await fleet.status(first)
    seen = {each.worker: each.state for each in status.workers}
    assert seen.get(victim, WorkerState.DEAD) is WorkerState.DEAD, "or its row is gone already"


async def _drained(fleet: Fleet, leaver: str, last: str) -> None:
    fleet.workers[leaver].signal(signal.SIGTERM)
    assert await fleet.workers[leaver].ended(20.0) == 0
    status = await fleet.until(complete(last), last, within_s=READY_S_MAX)
    assert leaver not in {each.worker for each in status.workers}
