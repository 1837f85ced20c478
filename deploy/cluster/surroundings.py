"""Owns what a poller in the cluster works with: an emulator of AWS, a load whose order can be checked, and the function."""

import asyncio
import base64
import json
import sys
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aiohttp import web

from adapters.demo.emulator import ACCOUNT, READY_S_MAX, REGION, Clients, clients
from adapters.demo.processes import free_port, plain_environment, running
from deploy.cluster.network import HOST

TABLE, STREAM, QUEUE, FUNCTION = "poller-state", "orders", "mails", "keeper"
SHARDS, KEYS = 4, 24
EVENT_BYTES_MAX = 6 * 1024 * 1024
INVOCATION_S = 0.05
WRITE_S = 0.2
ROUNDS_MAX = 3_000


@dataclass(slots=True)
class Ledger:
    """What was written, and what arrived by whom."""

    written: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    """Key of the stream: how many of its records were written; they are numbered from 0."""
    arrived: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    """The same for what arrived, as long as it came in order."""
    messages_written: int = 0
    messages: set[int] = field(default_factory=set)
    disorder: list[str] = field(default_factory=list)
    repeats: int = 0
    pods: set[str] = field(default_factory=set)
    """Addresses of the pods that called the function."""
    news: asyncio.Event = field(default_factory=asyncio.Event)
    """Set whenever something arrives."""

    @property
    def complete(self) -> bool:
        """Whether all has arrived."""
        return self.arrived == self.written and len(self.messages) == self.messages_written

    def take(self, event: Any, pod: str) -> None:
        """Notes one event of a stream or the queue."""
        self.pods.add(pod)
        self.news.set()
        for record in event["Records"]:
            if "kinesis" in record:
                self._in_order(json.loads(base64.b64decode(record["kinesis"]["data"])))
            else:
                number = int(record["body"])
                self.repeats += number in self.messages
                self.messages.add(number)

    def _in_order(self, item: Any) -> None:
        """A record may come again, but none may come before the one that stands before it."""
        key, number = item["key"], item["number"]
        if number > self.arrived[key]:
            self.disorder.append(f"{key}: {number} came when {self.arrived[key]} was due")
        elif number < self.arrived[key]:
            self.repeats += 1
        else:
            self.arrived[key] += 1


@dataclass(frozen=True, slots=True)
class Surroundings:
    """All of it, as pods reach it."""

    endpoint: str
    function_url: str
    aws: Clients
    ledger: Ledger
    queue_url: str

    def configuration(self) -> dict[str, Any]:
        """The daemon's, as a user would write it into the overlay's `poller.yaml`."""
        sources = (f"kinesis:{REGION}:{ACCOUNT}:stream/{STREAM}", f"sqs:{REGION}:{ACCOUNT}:{QUEUE}")
        stream, queue = ({"FunctionName": FUNCTION, "EventSourceArn": f"arn:aws:{each}"} for each in sources)
        return {
            "region": REGION,
            "endpoint_url": self.endpoint,
            "listen": "0.0.0.0:8080",
            "api": {"reads": "open"},
            "store": f"dynamodb://{TABLE}",
            "functions": {FUNCTION: {"invoker": "http", "url": self.function_url, "timeout_s": 20}},
            "mappings": [stream | {"StartingPosition": "TRIM_HORIZON"}, queue],
        }

    async def write(self, enough: asyncio.Event) -> None:
        """Writes at a steady rate until it is enough."""
        for _ in range(ROUNDS_MAX):
            if enough.is_set():
                return
            await self._round()
            await asyncio.sleep(WRITE_S)
        raise AssertionError("the load ran longer than anybody should need it")

    async def _round(self) -> None:
        keys = [f"key-{each}" for each in range(KEYS)]
        items = [{"key": key, "number": self.ledger.written[key]} for key in keys]
        records = [{"PartitionKey": item["key"], "Data": json.dumps(item).encode()} for item in items]
        answer = await self.aws["kinesis"].put_records(StreamName=STREAM, Records=records)
        assert answer["FailedRecordCount"] == 0
        for key in keys:
            self.ledger.written[key] += 1
        body = str(self.ledger.messages_written)
        await self.aws["sqs"].send_message(QueueUrl=self.queue_url, MessageBody=body)
        self.ledger.messages_written += 1


@asynccontextmanager
async def surroundings(folder: Path) -> AsyncIterator[Surroundings]:
    """Everything stands at the pods' address of this machine until the block ends; its bridge must be there already."""
    port, ledger = free_port(), Ledger()
    endpoint = f"http://{HOST}:{port}"
    own = {"BIND_HOST": HOST, "MINISTACK_HOST": HOST, "GATEWAY_PORT": str(port)}
    env = plain_environment() | own | {"LOG_LEVEL": "WARNING", "MINISTACK_REGION": REGION}
    with running("emulator", [sys.executable, "-m", "ministack"], env, folder) as process:
        await process.answers(f"{endpoint}/_ministack/health", READY_S_MAX)
        async with clients(endpoint) as aws, _function(ledger) as url:
            yield Surroundings(endpoint, url, aws, ledger, await _resources(aws))


async def _resources(aws: Clients) -> str:
    """The table as docs/operate/kubernetes.md makes it, a stream, and a queue, whose URL is returned."""
    names = {"HASH": "pk", "RANGE": "sk"}
    await aws["dynamodb"].create_table(
        TableName=TABLE,
        BillingMode="PAY_PER_REQUEST",
        AttributeDefinitions=[{"AttributeName": name, "AttributeType": "S"} for name in names.values()],
        KeySchema=[{"AttributeName": name, "KeyType": kind} for kind, name in names.items()],
    )
    await aws["kinesis"].create_stream(StreamName=STREAM, ShardCount=SHARDS)
    await aws["kinesis"].get_waiter("stream_exists").wait(StreamName=STREAM)
    answer = await aws["sqs"].create_queue(QueueName=QUEUE, Attributes={"VisibilityTimeout": "30"})
    return str(answer["QueueUrl"])


@asynccontextmanager
async def _function(ledger: Ledger) -> AsyncIterator[str]:
    """A function behind HTTP; an invocation takes a while, so that pods are told to go in the middle of some."""

    async def invoke(request: web.Request) -> web.Response:
        event = await request.json()
        await asyncio.sleep(INVOCATION_S)
        ledger.take(event, str(request.remote))
        return web.json_response({"batchItemFailures": []})

    application = web.Application(client_max_size=EVENT_BYTES_MAX)
    application.router.add_post("/keeper", invoke)
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, HOST, 0).start()
        port = runner.addresses[0][1]
        yield f"http://{HOST}:{port}/keeper"
    finally:
        await runner.cleanup()
