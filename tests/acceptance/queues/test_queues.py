"""Ten thousand messages in two hundred groups on an emulator, one group failing, the daemon killed at random moments."""

import asyncio
import json
import signal
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import pytest
import yaml

from adapters.demo.emulator import REGION, clients, credentials, emulator
from adapters.demo.processes import Running, free_port, plain_environment, running
from tests.acceptance.queues.queue_function import JOURNAL

pytestmark = pytest.mark.acceptance

GROUPS = 200
EACH = 50
BAD = "g007:010:bad"
"""The message that always fails, behind ten good ones of its group."""
BACKLOG_MAX = 600
"""Messages written and not yet processed; the emulator is slow on deep queues."""
VISIBILITY_S = 4
RECEIVES_MAX = 12
"""More than kills may cost a message; the bad one is moved to the dead-letter queue after as many."""
BAD_FIRST = 6
"""The messages behind the bad one are written after so many of its receives.

They come with it in one batch, and each receive of it counts as one of theirs (aws-behaviour#dead-letter-queue). Written at once they
would be moved with it, or right after it, if the daemon is killed at their last receive, and those behind them would come first.
"""
KILLS = 12
WORKING_S_MAX = 2.5
"""For how long a daemon works before it is killed."""
START_S_MAX = 120.0
SETTLE_S_MAX = 300.0
"""These two end a test that hangs. Beside other work a start takes half a minute and not a second."""
LOOK_S = 0.1


@dataclass
class Account:
    """What the journal says, checked line by line."""

    path: Path
    done: Counter[str] = field(default_factory=Counter)
    received: Counter[str] = field(default_factory=Counter)
    calls: int = 0
    _open: dict[str, tuple[int, set[str]]] = field(default_factory=dict)
    _read: int = 0

    def look(self) -> None:
        """Reads what is new."""
        if not self.path.exists():
            return
        with self.path.open("rb") as journal:
            journal.seek(self._read)
            text = journal.read()
        whole = text[: text.rfind(b"\n") + 1]
        self._read += len(whole)
        for line in whole.splitlines():
            self._take(json.loads(line))

    def _take(self, line: dict[str, Any]) -> None:
        if "got" in line:
            self._begin(line["pid"], line["request"], line["got"])
        else:
            self._open.pop(line["request"])
            for body in line["done"]:
                self.done[body] += 1

    def _begin(self, pid: int, request: str, bodies: list[str]) -> None:
        self.calls += 1
        groups = {body.split(":")[0] for body in bodies}
        for other, busy in self._open.values():
            assert other != pid or not busy & groups, f"{busy & groups} in flight twice"
        self._open[request] = (pid, groups)
        inside: dict[str, int] = {}
        for body in bodies:
            group, number = body.split(":")[0], int(body.split(":")[1])
            self.received[body] += 1
            assert number > inside.get(group, -1), f"{bodies} is out of order"
            inside[group] = number
            for earlier in range(number):
                name = f"{group}:{earlier:03d}"
                assert name in bodies or self.done[name] or f"{name}:bad" == BAD, f"{body} before {name}"

    def daemon_gone(self) -> None:
        """What its process was at work on is over."""
        self._open.clear()


def body(group: int, number: int) -> str:
    text = f"g{group:03d}:{number:03d}"
    return f"{text}:bad" if f"{text}:bad" == BAD else text


@pytest.mark.timeout(1200)
def test_killed_over_and_over_a_fifo_queue_loses_nothing_and_keeps_its_groups_in_order(
    tmp_path: Path,
) -> None:
    seed = Random().randrange(2**32)
    print(f"seed {seed}")
    asyncio.run(_killed(tmp_path, Random(seed)))


async def _killed(folder: Path, rng: Random) -> None:
    account = Account(folder / "journal")
    async with emulator(folder) as url, clients(url) as services:
        sqs = services["sqs"]
        queue, dead = await _queues(sqs)
        _configure(folder, url)
        async with asyncio.TaskGroup() as scope:
            scope.create_task(_feed(sqs, queue, account), name="feeder")
            for _ in range(KILLS):
                with _daemon(folder) as process:
                    await _working(account, process)
                    await _watch(account, rng.uniform(0.0, WORKING_S_MAX))
                    process.signal(signal.SIGKILL)
                    await process.ended(5.0)
                account.look()
                account.daemon_gone()
            with _daemon(folder) as process:
                async with asyncio.timeout(SETTLE_S_MAX):
                    while not _complete(account):
                        await _watch(account, LOOK_S)
                        assert process.exit_status is None, process.tail()
                await _watch(account, 2.0)
                process.signal(signal.SIGTERM)
                assert await process.ended(15.0) == 0, process.tail()
        account.look()
        await _judge(sqs, queue, dead, account)


async def _judge(sqs: Any, queue: str, dead: str, account: Account) -> None:
    assert await _left(sqs, queue) == 0
    assert [message["Body"] for message in await _drain(sqs, dead)] == [BAD]
    assert BAD not in account.done
    repeated = sum(count > 1 for count in account.done.values())
    print(f"{account.calls} invocations, {repeated} messages done more than once")
    assert account.received[BAD] > BAD_FIRST
    others = max(count for name, count in account.received.items() if not name.startswith("g007"))
    assert others < RECEIVES_MAX


def _complete(account: Account) -> bool:
    """Whether every good message was done; those behind the bad one are done once it is in the dead-letter queue."""
    return len(account.done) == GROUPS * EACH - 1


async def _working(account: Account, process: Running) -> None:
    """Returns when the daemon has called its function."""
    before = account.calls
    async with asyncio.timeout(START_S_MAX):
        while account.calls == before:
            await _watch(account, LOOK_S)
            assert process.exit_status is None, process.tail()


async def _watch(account: Account, for_s: float) -> None:
    """Looks at the journal for a while."""
    loop = asyncio.get_running_loop()
    ends_at = loop.time() + for_s
    while (left_s := ends_at - loop.time()) > 0:
        account.look()
        await asyncio.sleep(min(LOOK_S, left_s))


async def _queues(sqs: Any) -> tuple[str, str]:
    dead = await sqs.create_queue(QueueName="dead.fifo", Attributes={"FifoQueue": "true"})
    arn = f"arn:aws:sqs:{REGION}:111122223333:dead.fifo"
    redrive = json.dumps({"deadLetterTargetArn": arn, "maxReceiveCount": str(RECEIVES_MAX)})
    queue = await sqs.create_queue(
        QueueName="work.fifo",
        Attributes={
            "FifoQueue": "true",
            "VisibilityTimeout": str(VISIBILITY_S),
            "RedrivePolicy": redrive,
        },
    )
    return queue["QueueUrl"], dead["QueueUrl"]


def _configure(folder: Path, url: str) -> None:
    settings = {
        "region": REGION,
        "endpoint_url": url,
        "listen": f"127.0.0.1:{free_port()}",
        "store": "memory://",
        "functions": {
            "work": {
                "invoker": "python",
                "handler": "tests.acceptance.queues.queue_function:handle",
                "timeout_s": 3,
                "max_concurrency": 12,
            }
        },
        "mappings": [
            {
                "FunctionName": "work",
                "EventSourceArn": f"arn:aws:sqs:{REGION}:111122223333:work.fifo",
                "FunctionResponseTypes": ["ReportBatchItemFailures"],
            }
        ],
    }
    (folder / "poller.yaml").write_text(yaml.safe_dump(settings))


@contextmanager
def _daemon(folder: Path) -> Iterator[Running]:
    env = plain_environment() | credentials()
    env |= {JOURNAL: str(folder / "journal"), "PYTHONPATH": str(Path(__file__).parents[3])}
    command = [sys.executable, "-m", "poller", "run", "--config", str(folder / "poller.yaml")]
    with running("daemon", command, env, folder) as process:
        yield process


async def _feed(sqs: Any, queue: str, account: Account) -> None:
    """Writes the messages of all groups in turns, ten in a call, never too many ahead of what is done. Those behind the bad one wait."""
    names = [body(group, number) for number in range(EACH) for group in range(GROUPS)]
    behind = [name for name in names if name.startswith(BAD.split(":")[0]) and name > BAD]
    names = [name for name in names if name not in behind]
    while names or behind:
        if behind and account.received[BAD] >= BAD_FIRST:
            await _send(sqs, queue, behind[:10])
            del behind[:10]
        elif names and GROUPS * EACH - len(behind) - len(names) - len(account.done) <= BACKLOG_MAX:
            await _send(sqs, queue, names[:10])
            del names[:10]
        else:
            await asyncio.sleep(LOOK_S / 2)


async def _send(sqs: Any, queue: str, names: Sequence[str]) -> None:
    entries = [
        {
            "Id": str(place),
            "MessageBody": name,
            "MessageGroupId": name.split(":")[0],
            "MessageDeduplicationId": name.replace(":", "-"),
        }
        for place, name in enumerate(names)
    ]
    reply = await sqs.send_message_batch(QueueUrl=queue, Entries=entries)
    assert len(reply["Successful"]) == len(entries)


async def _left(sqs: Any, queue: str) -> int:
    names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
    reply = await sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=names)
    return sum(int(reply["Attributes"][name]) for name in names)


async def _drain(sqs: Any, queue: str) -> list[dict[str, Any]]:
    reply = await sqs.receive_message(QueueUrl=queue, MaxNumberOfMessages=10, WaitTimeSeconds=1)
    found: list[dict[str, Any]] = reply.get("Messages", [])
    return found
