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
"""For a machine that does other things."""
SHARD = "shardId-000000000000"


@dataclass
class Site:
    """The emulator, the store and the daemons."""

    folder: Path
    endpoint: str
    services: Any
    stack: ExitStack
    mapping: dict[str, Any]
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
        return {
            "region": REGION,
            "endpoint_url": self.endpoint,
            "listen": f"{HOST}:{port}",
            "store": f"sqlite:///{self.folder}/poller.db",
            "worker": name,
            "functions": {
                "ship": {"invoker": "python", "handler": "tests.acceptance.operated_function:handle"}
            },
            "mappings": [{"FunctionName": "ship"} | self.mapping],
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
                    held = [each["owner"] for each in (found or {}).get("shards", ())]
                    if held == [name]:
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

    async def send(self, group: str, *texts: str) -> None:
        sqs = self.services["sqs"]
        url = (await sqs.get_queue_url(QueueName="work.fifo"))["QueueUrl"]
        for text in texts:
            await sqs.send_message(
                QueueUrl=url, MessageBody=text, MessageGroupId=group, MessageDeduplicationId=text
            )

    async def taken(self, queue: str) -> list[str]:
        """The bodies of the messages that a queue has got since the last look."""
        sqs, found = self.services["sqs"], []
        url = (await sqs.get_queue_url(QueueName=queue))["QueueUrl"]
        while messages := (await sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10)).get("Messages"):
            for message in messages:
                found.append(message["Body"])
                await sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
        return found

    async def notices(self) -> list[Any]:
        """The documents that the on-failure destination has got since the last look."""
        return [json.loads(text) for text in await self.taken("failed")]


def _arn(service: str, resource: str) -> str:
    return f"arn:aws:{service}:{REGION}:{ACCOUNT}:{resource}"


STREAM = {
    "EventSourceArn": _arn("kinesis", "stream/orders"),
    "StartingPosition": "TRIM_HORIZON",
    "DestinationConfig": {"OnFailure": {"Destination": _arn("sqs", "failed")}},
}
QUEUE = {"EventSourceArn": _arn("sqs", "work.fifo"), "BatchSize": 1}
VISIBILITY_S = 30
"""A failed message comes again after this time, unless an operator says otherwise."""


@asynccontextmanager
async def site(folder: Path, mapping: dict[str, Any]) -> AsyncIterator[Site]:
    (folder / "tokens.yaml").write_text(f"on-call: {{token: {TOKEN}, role: operate}}\n")
    (folder / "tokens.yaml").chmod(0o600)
    async with emulator(folder) as endpoint, clients(endpoint) as services:
        await services["kinesis"].create_stream(StreamName="orders", ShardCount=1)
        await services["sqs"].create_queue(QueueName="failed")
        await _make_queues(services["sqs"])
        with ExitStack() as stack:
            yield Site(folder, endpoint, services, stack, mapping)


async def _make_queues(sqs: Any) -> None:
    await sqs.create_queue(QueueName="dead.fifo", Attributes={"FifoQueue": "true"})
    redrive = {"deadLetterTargetArn": _arn("sqs", "dead.fifo"), "maxReceiveCount": "50"}
    attributes = {"FifoQueue": "true", "VisibilityTimeout": str(VISIBILITY_S)}
    await sqs.create_queue(
        QueueName="work.fifo", Attributes=attributes | {"RedrivePolicy": json.dumps(redrive)}
    )


@pytest.mark.timeout(280)
def test_a_blocked_shard_is_freed_paused_and_freed_again_over_a_dead_owner(tmp_path: Path) -> None:
    asyncio.run(_streams(tmp_path))


async def _streams(folder: Path) -> None:
    async with site(folder, STREAM) as place:
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
    ended = await place.asked(other, *words[1:], "--yes", "--json", "--reason", "ticket 4711")
    assert ended.status == 0, ended.err
    operation = json.loads(ended.out)
    assert operation["result"] == "1 record skipped, the destination has the notice"
    assert (operation["by"], operation["reason"]) == ("on-call", "ticket 4711")
    assert operation["ended"] - operation["created"] < OTHER_S_MAX + SLACK_S
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
    assert paused.out.startswith("pause in force; it lasts until poller resume "), paused.out
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


@pytest.mark.timeout(280)
def test_a_blocked_group_is_freed_and_paused_while_others_go_on(tmp_path: Path) -> None:
    asyncio.run(_queues(tmp_path))


async def _queues(folder: Path) -> None:
    async with site(folder, QUEUE) as place:
        for name in ("one", "two"):
            place.start(name)
            await place.ready(name)
        await _skip_of_a_group(place)
        await _retry_of_a_group(place)
        await _pause_of_a_group_over_a_dead_worker(place)


async def _skip_of_a_group(place: Site) -> None:
    """The command that `poller status` prints for the group moves the message to the dead-letter queue, and the group goes on."""
    await place.send("g", "bad-1", "2")
    await place.send("h", "h1")
    words = await _printed(place, "skip")
    assert words == ["poller", "skip", "ship", "--group", "g"]
    ended = await place.asked("two", *words[1:], "--yes")
    assert ended.status == 0, ended
    await place.until(lambda journal: sorted(journal) == ["2", "h1"], OTHER_S_MAX)
    assert await place.taken("dead.fifo") == ["bad-1"]


async def _retry_of_a_group(place: Site) -> None:
    """A message that failed is tried again at once, and not after its visibility timeout."""
    (place.folder / "broken").touch()
    await place.send("g", "3")
    words = await _printed(place, "retry")
    (place.folder / "broken").unlink()
    ended = await place.asked("one", *words[1:], "--yes")
    assert ended.status == 0, ended
    await place.until(lambda journal: journal[-1] == "3", OTHER_S_MAX)


async def _pause_of_a_group_over_a_dead_worker(place: Site) -> None:
    paused = await place.asked("one", "pause", "ship", "--group", "g", "--yes")
    assert paused.status == 0, paused
    await place.send("g", "4", "5")
    await place.send("h", "h2")
    await place.until(lambda journal: journal[-1] == "h2", OTHER_S_MAX)
    await asyncio.sleep(3.0)
    assert place.journal()[-1] == "h2"
    place.daemons["one"].signal(signal.SIGKILL)
    await place.daemons["one"].ended(5.0)
    await asyncio.sleep(3.0)
    assert place.journal()[-1] == "h2"
    resumed = await place.asked("two", "resume", "ship", "--yes")
    assert (resumed.status, resumed.out) == (0, "resume done: 1 pause has ended\n"), resumed.err
    # What the dead worker had received comes back after its visibility timeout, in order.
    await place.until(lambda journal: journal[-2:] == ["4", "5"], VISIBILITY_S + 10.0)


async def _printed(place: Site, verb: str) -> list[str]:
    """The command that `poller status` prints for what is blocked, on whichever worker sees it."""
    async with asyncio.timeout(START_S_MAX):
        while True:
            for name in place.ports:
                shown = (await place.asked(name, "status")).out.splitlines()
                found = [each.strip() for each in shown if each.strip().startswith(f"poller {verb}")]
                if found:
                    return shlex.split(found[0].partition(" --url ")[0])
            await asyncio.sleep(0.2)
