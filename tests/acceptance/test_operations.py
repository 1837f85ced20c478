"""Operations by the commands on two real daemons with one SQLite store: through the owner, through the other worker, over SIGKILL."""

import asyncio
import json
import shlex
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from adapters.demo.emulator import ACCOUNT, REGION, clients, credentials, emulator
from adapters.demo.processes import HOST, Running, free_port, plain_environment, running
from tests.acceptance.daemons import Ended, command
from tests.acceptance.operated_function import FOLDER

pytestmark = pytest.mark.acceptance

TOKEN = "on-call-of-the-test"
LEASE_S = 6.0
START_S_MAX = 40.0
OWNER_S_MAX = 2.0
OTHER_S_MAX = 5.0
SLACK_S = 4.0
"""For the start of a command, which is a process of its own, on a machine that does other things."""
SHARD = "shardId-000000000000"


@dataclass
class Site:
    """The emulator, the store and the daemons."""

    folder: Path
    endpoint: str
    services: Any
    stack: ExitStack
    ports: dict[str, int] = field(default_factory=dict)
    daemons: dict[str, Running] = field(default_factory=dict)

    def start(self, name: str) -> None:
        """Starts a worker, or starts it again."""
        self.ports[name] = port = free_port()
        config = self.folder / f"{name}.yaml"
        config.write_text(yaml.safe_dump(self._settings(name, port)))
        env = plain_environment() | credentials() | {FOLDER: str(self.folder)}
        env |= {"PYTHONPATH": str(Path(__file__).parents[2])}
        words = [sys.executable, "-m", "poller", "run", "--config", str(config)]
        self.daemons[name] = self.stack.enter_context(running(name, words, env, self.folder))

    def _settings(self, name: str, port: int) -> dict[str, Any]:
        arn = f"arn:aws:{{}}:{REGION}:{ACCOUNT}:{{}}"
        stream = {
            "FunctionName": "ship",
            "EventSourceArn": arn.format("kinesis", "stream/orders"),
            "StartingPosition": "TRIM_HORIZON",
            "DestinationConfig": {"OnFailure": {"Destination": arn.format("sqs", "failed")}},
        }
        return {
            "region": REGION,
            "endpoint_url": self.endpoint,
            "listen": f"{HOST}:{port}",
            "store": f"sqlite:///{self.folder}/poller.db",
            "worker": name,
            "functions": {
                "ship": {"invoker": "python", "handler": "tests.acceptance.operated_function:handle"}
            },
            "mappings": [stream],
            "api": {"tokens_file": str(self.folder / "tokens.yaml")},
            "tuning": {"lease_s": LEASE_S, "heartbeat_s": 1.0, "idle_poll_s": 0.3},
        }

    async def ready(self, name: str) -> None:
        await self.daemons[name].answers(f"{self.url(name)}/readyz", START_S_MAX)

    def url(self, name: str) -> str:
        return f"http://{HOST}:{self.ports[name]}"

    async def asked(self, name: str, *words: str) -> Ended:
        """Runs a command against a worker."""
        env = {"POLLER_TOKEN": TOKEN, "COLUMNS": "200", "NO_COLOR": "1"}
        return await asyncio.to_thread(command, *words, "--url", self.url(name), env=env)

    async def status(self, name: str) -> Any:
        """The first mapping as a worker shows it."""
        ended = await self.asked(name, "status", "--json")
        return json.loads(ended.out)["mappings"][0] if ended.status == 0 else None

    async def owner(self) -> tuple[str, str]:
        """The worker that has the shard, and the other one."""
        async with asyncio.timeout(START_S_MAX):
            while True:
                for name in self.ports:
                    found = await self.status(name)
                    held = [each for each in (found or {}).get("shards", ()) if each["state"] != "elsewhere"]
                    if held:
                        return name, next((each for each in self.ports if each != name), name)
                await asyncio.sleep(0.2)

    async def blocked(self, name: str) -> None:
        """Returns when the shard is blocked."""
        async with asyncio.timeout(START_S_MAX):
            while True:
                found = await self.status(name)
                if found and any(each["state"] == "blocked" for each in found["shards"]):
                    return
                await asyncio.sleep(0.2)

    async def put(self, *texts: str) -> None:
        for text in texts:
            await self.services["kinesis"].put_record(
                StreamName="orders", Data=text.encode(), PartitionKey="k"
            )

    def journal(self) -> list[str]:
        path = self.folder / "journal"
        return path.read_text().split() if path.exists() else []

    async def until(self, holds: Callable[[list[str]], bool], within_s: float) -> float:
        """Waits until the journal is as it should be; returns how long that took."""
        began = time.monotonic()
        while not holds(self.journal()):
            if time.monotonic() - began > within_s:
                tails = "\n".join(each.tail() for each in self.daemons.values())
                raise AssertionError(f"not within {within_s} s: {self.journal()}\n{tails}")
            await asyncio.sleep(0.05)
        return time.monotonic() - began

    async def notices(self) -> list[Any]:
        """The documents that the on-failure destination has got since the last look."""
        sqs, found = self.services["sqs"], []
        url = (await sqs.get_queue_url(QueueName="failed"))["QueueUrl"]
        while messages := (await sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10)).get("Messages"):
            for message in messages:
                found.append(json.loads(message["Body"]))
                await sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
        return found


@asynccontextmanager
async def site(folder: Path) -> AsyncIterator[Site]:
    (folder / "tokens.yaml").write_text(f"on-call: {{token: {TOKEN}, role: operate}}\n")
    (folder / "tokens.yaml").chmod(0o600)
    async with emulator(folder) as endpoint, clients(endpoint) as services:
        await services["kinesis"].create_stream(StreamName="orders", ShardCount=1)
        await services["sqs"].create_queue(QueueName="failed")
        with ExitStack() as stack:
            found = Site(folder, endpoint, services, stack)
            yield found


@pytest.mark.timeout(280)
def test_a_blocked_shard_is_freed_paused_and_freed_again_over_a_dead_owner(tmp_path: Path) -> None:
    asyncio.run(_streams(tmp_path))


async def _streams(folder: Path) -> None:
    async with site(folder) as place:
        await place.put("bad-1", "2", "3")
        for name in ("one", "two"):
            place.start(name)
            await place.ready(name)
        owner, other = await place.owner()
        await place.blocked(owner)
        await _skip_as_status_says(place, owner, other)
        await _retry_at_once(place, owner)
        await _pause_over_a_dead_owner(place, owner, other)
        await _skip_of_a_dead_owner(place, owner, other)


async def _skip_as_status_says(place: Site, owner: str, other: str) -> None:
    """The command that `poller status` prints frees the shard, sent to the other worker too."""
    shown = (await place.asked(owner, "status")).out.splitlines()
    (line,) = [each.strip() for each in shown if each.strip().startswith("poller skip")]
    words = shlex.split(line.partition(" --url ")[0])
    assert words == ["poller", "skip", "ship", "--shard", SHARD]
    dry = await place.asked(other, *words[1:], "--dry-run")
    assert dry.status == 0
    assert dry.out.startswith("would do: ")
    began = time.monotonic()
    ended = await place.asked(other, *words[1:], "--yes", "--reason", "ticket 4711")
    assert (ended.status, ended.out) == (
        0,
        "skip done: 1 record skipped, the destination has the notice\n",
    ), ended.err
    assert time.monotonic() - began < OTHER_S_MAX + SLACK_S
    await place.until(lambda journal: journal == ["2", "3"], OTHER_S_MAX)
    (notice,) = await place.notices()
    assert notice["requestContext"]["condition"] == "SkippedByOperator"
    assert notice["KinesisBatchInfo"]["batchSize"] == 1


async def _retry_at_once(place: Site, owner: str) -> None:
    """After four tries or so the back-off is longer than what a retry takes."""
    (place.folder / "broken").touch()
    await place.put("4")
    await place.blocked(owner)
    async with asyncio.timeout(START_S_MAX):
        while True:
            found = await place.status(owner)
            lane = found["shards"][0]["lanes"][0]
            if (
                lane["attempts"] >= 4
                and lane["next_try"] is not None
                and lane["next_try"] - time.time() > 5.0
            ):
                break
            await asyncio.sleep(0.1)
    (place.folder / "broken").unlink()
    reset = await place.asked(owner, "reset", "ship", "--yes", "--no-wait")
    assert reset.status == 0, reset.err
    ended = await place.asked(owner, "retry", "ship", "--shard", "0", "--yes")
    assert ended.status == 0, ended.err
    await place.until(lambda journal: journal[-1] == "4", OWNER_S_MAX)


async def _pause_over_a_dead_owner(place: Site, owner: str, other: str) -> None:
    """A pause through the other worker holds, and still holds when the owner is dead."""
    paused = await place.asked(other, "pause", "stream/orders", "--yes", "--reason", "repair")
    assert paused.status == 0, paused.err
    assert paused.out.startswith("pause running: it lasts until poller resume"), paused.out
    await place.put("5")
    await asyncio.sleep(3.0)
    assert place.journal()[-1] == "4"
    place.daemons[owner].signal(signal.SIGKILL)
    await place.daemons[owner].ended(5.0)
    del place.ports[owner]
    found, _ = await place.owner()
    assert found == other
    await asyncio.sleep(3.0)
    assert place.journal()[-1] == "4"
    shown = (await place.asked(other, "status")).out
    assert "paused by on-call for" in shown
    assert ": repair" in shown
    listed = (await place.asked(other, "operations", "--state", "running")).out
    assert "pause the whole mapping of ship" in listed
    resumed = await place.asked(other, "resume", "ship", "--yes")
    assert (resumed.status, resumed.out) == (0, "resume done: 1 pause has ended\n"), resumed.err
    await place.until(lambda journal: journal[-1] == "5", OTHER_S_MAX)


async def _skip_of_a_dead_owner(place: Site, owner: str, other: str) -> None:
    """The owner dies with the operation, and the next one carries it out."""
    place.start(owner)
    await place.ready(owner)
    await place.put("bad-6", "7")
    holder, second = await place.owner()
    await place.blocked(holder)
    place.daemons[holder].signal(signal.SIGKILL)
    await place.daemons[holder].ended(5.0)
    del place.ports[holder]
    ended = await place.asked(second, "skip", "ship", "--shard", "0", "--yes", "--discard")
    assert (ended.status, ended.out) == (0, "skip done: 1 record skipped without a notice\n"), ended.err
    await place.until(lambda journal: journal[-1] == "7", OTHER_S_MAX)
    assert await place.notices() == []
    assert sorted(place.journal(), key=int) == ["2", "3", "4", "5", "7"]
