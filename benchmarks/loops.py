"""The two loops that the daemon is measured against, as somebody would write them who needs no more.

    python -m benchmarks.loops plain|bare|invoker kinesis|dynamodb|sqs|fifo|http URL --workers N

`plain` is a loop over aiobotocore as it comes; `bare` is aiohttp, a SigV4 signature and orjson, and nothing else. Both
read, build the event that a function gets, as JSON, in batches of the default size, and hand it over; on queues they
delete what was handed over. They keep no position, no order between batches, no deadline, and mind no error. `invoker`
(with `http`) is the daemon's own HTTP invoker, called over and over with the event that the bare loop posts.

Prints the number of records so far on each SIGUSR1. Ends with SIGTERM.
"""

import argparse
import asyncio
import base64
import json
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import orjson
import uvloop
from aiobotocore.session import get_session

from adapters.invokers.http import open_http
from adapters.invokers.http_settings import HttpSettings
from benchmarks.function import taken
from benchmarks.signed_calls import REGION, SignedCalls
from poller.clock import LoopClock
from poller.domain.invocations import EncodedEvent, Invocation, Succeeded
from poller.plugins import Environment
from poller.ports import Invoker

STREAM_ARN = f"arn:aws:kinesis:{REGION}:111122223333:stream/orders"
TABLE_ARN = f"arn:aws:dynamodb:{REGION}:111122223333:table/orders/stream/2026-01-01T00:00:00.000"
QUEUE_ARN = f"arn:aws:sqs:{REGION}:111122223333:orders"
BATCH = 100
"""Records of a stream's batch, Lambda's default; a queue's is what one receive brings."""
SERVICES = {"kinesis": "kinesis", "dynamodb": "dynamodbstreams", "sqs": "sqs", "fifo": "sqs"}
TARGETS = {"kinesis": "Kinesis_20131202", "dynamodb": "DynamoDBStreams_20120810", "sqs": "AmazonSQS"}

type Count = list[int]
type Dumps = Callable[[object], bytes]
type Work = Callable[[int, Count], Awaitable[None]]


def kinesis_event(records: list[dict[str, Any]], shard: str, dumps: Dumps = orjson.dumps) -> bytes:
    """The event for these records of Kinesis; data is base64 text."""
    return dumps({"Records": kinesis_records(records, shard)})


def kinesis_records(records: list[dict[str, Any]], shard: str) -> list[dict[str, Any]]:
    """These records of Kinesis as an event has them."""
    return [
        {
            "kinesis": {
                "kinesisSchemaVersion": "1.0",
                "partitionKey": each["PartitionKey"],
                "sequenceNumber": each["SequenceNumber"],
                "data": each["Data"],
                "approximateArrivalTimestamp": each["ApproximateArrivalTimestamp"],
            },
            "eventSource": "aws:kinesis",
            "eventVersion": "1.0",
            "eventID": f"{shard}:{each['SequenceNumber']}",
            "eventName": "aws:kinesis:record",
            "invokeIdentityArn": "",
            "awsRegion": REGION,
            "eventSourceARN": STREAM_ARN,
        }
        for each in records
    ]


def dynamo_event(records: list[dict[str, Any]], dumps: Dumps = orjson.dumps) -> bytes:
    """The event for these records of DynamoDB Streams."""
    return dumps({"Records": [each | {"eventSourceARN": TABLE_ARN} for each in records]})


def queue_event(messages: list[dict[str, Any]], dumps: Dumps = orjson.dumps) -> bytes:
    """The event for these messages."""
    return dumps({"Records": queue_records(messages)})


def queue_records(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """These messages as an event has them."""
    return [
        {
            "messageId": each["MessageId"],
            "receiptHandle": each["ReceiptHandle"],
            "body": each["Body"],
            "attributes": each["Attributes"],
            "messageAttributes": each.get("MessageAttributes", {}),
            "md5OfBody": each["MD5OfBody"],
            "eventSource": "aws:sqs",
            "eventSourceARN": QUEUE_ARN,
            "awsRegion": REGION,
        }
        for each in messages
    ]


def library_json(value: object) -> bytes:
    """JSON by the standard library, as a loop has it that needs no other."""
    return json.dumps(value).encode()


class Plain:
    """Loops over one aiobotocore client."""

    def __init__(self, kind: str, client: Any) -> None:
        self._client = client
        self._kind = kind

    async def stream(self, number: int, count: Count) -> None:
        """Reads one shard for ever."""
        shard = f"shardId-{number:020d}"
        named = {"StreamARN" if self._kind == "kinesis" else "StreamArn": self._arn}
        found = await self._client.get_shard_iterator(
            ShardId=shard, ShardIteratorType="TRIM_HORIZON", **named
        )
        iterator = found["ShardIterator"]
        while True:
            page = await self._client.get_records(
                ShardIterator=iterator, **(named if self._kind == "kinesis" else {})
            )
            iterator = page["NextShardIterator"]
            records = page["Records"]
            for start in range(0, len(records), BATCH):
                taken(self._event(records[start : start + BATCH], shard))
            count[0] += len(records)

    async def queue(self, _number: int, count: Count) -> None:
        """Receives and deletes for ever."""
        url = (await self._client.get_queue_url(QueueName="orders"))["QueueUrl"]
        while True:
            answer = await self._client.receive_message(**receive_request(url, 10))
            messages = answer["Messages"]
            taken(queue_event(messages, library_json))
            await self._client.delete_message_batch(**delete_request(url, messages))
            count[0] += len(messages)

    @property
    def _arn(self) -> str:
        return STREAM_ARN if self._kind == "kinesis" else TABLE_ARN

    def _event(self, records: list[dict[str, Any]], shard: str) -> bytes:
        if self._kind == "kinesis":
            coded = [
                {
                    **each,
                    "Data": base64.b64encode(each["Data"]).decode(),
                    "ApproximateArrivalTimestamp": each["ApproximateArrivalTimestamp"].timestamp(),
                }
                for each in records
            ]
            return kinesis_event(coded, shard, library_json)
        dated = [
            {
                **each,
                "dynamodb": {
                    **each["dynamodb"],
                    "ApproximateCreationDateTime": each["dynamodb"][
                        "ApproximateCreationDateTime"
                    ].timestamp(),
                },
            }
            for each in records
        ]
        return dynamo_event(dated, library_json)


class Bare:
    """Loops over one aiohttp session, signing by hand."""

    def __init__(self, kind: str, session: aiohttp.ClientSession, url: str) -> None:
        self._kind = kind
        self._calls = SignedCalls(session, url, "dynamodb" if kind == "dynamodb" else SERVICES[kind])
        self._target = TARGETS["sqs" if kind == "fifo" else kind]

    async def stream(self, number: int, count: Count) -> None:
        """Reads one shard for ever."""
        shard = f"shardId-{number:020d}"
        found = await self._call("GetShardIterator", {"ShardId": shard})
        iterator = found["ShardIterator"]
        while True:
            page = await self._call("GetRecords", {"ShardIterator": iterator})
            iterator = page["NextShardIterator"]
            records = page["Records"]
            for start in range(0, len(records), BATCH):
                batch = records[start : start + BATCH]
                taken(kinesis_event(batch, shard) if self._kind == "kinesis" else dynamo_event(batch))
            count[0] += len(records)

    async def queue(self, _number: int, count: Count) -> None:
        """Receives and deletes for ever."""
        url = (await self._call("GetQueueUrl", {"QueueName": "orders"}))["QueueUrl"]
        asked = receive_request(url, 10)
        while True:
            messages = (await self._call("ReceiveMessage", asked))["Messages"]
            taken(queue_event(messages))
            await self._call("DeleteMessageBatch", delete_request(url, messages))
            count[0] += len(messages)

    async def _call(self, operation: str, parameters: dict[str, Any]) -> Any:
        return await self._calls.call(f"{self._target}.{operation}", parameters)


def receive_request(url: str, messages_max: int) -> dict[str, Any]:
    """The parameters of a long poll that asks for all attributes."""
    return {
        "QueueUrl": url,
        "MaxNumberOfMessages": messages_max,
        "WaitTimeSeconds": 20,
        "MessageSystemAttributeNames": ["All"],
        "MessageAttributeNames": ["All"],
    }


def delete_request(url: str, messages: list[dict[str, Any]]) -> dict[str, Any]:
    """The parameters of DeleteMessageBatch for these messages, ten at most."""
    entries = [
        {"Id": str(place), "ReceiptHandle": each["ReceiptHandle"]} for place, each in enumerate(messages)
    ]
    return {"QueueUrl": url, "Entries": entries}


async def posts(session: aiohttp.ClientSession, url: str, count: Count) -> None:
    """Posts one event of BATCH records to a function for ever."""
    event = posted()
    while True:
        async with session.post(url, data=event, headers={"Content-Type": "application/json"}) as response:
            await response.read()
        count[0] += BATCH


async def invocations(invoker: Invoker, count: Count) -> None:
    """Invokes with the same event for ever."""
    event = posted()
    while True:
        called = Invocation(
            "arn:aws:lambda:eu-west-1:111122223333:function:orders", "id", EncodedEvent(event), 30.0
        )
        assert isinstance(await invoker.invoke(called), Succeeded)
        count[0] += BATCH


def posted() -> bytes:
    """An event of BATCH records."""
    record = {
        "Data": base64.b64encode(bytes(1_024)).decode(),
        "SequenceNumber": "4" * 56,
        "PartitionKey": "device-7",
        "ApproximateArrivalTimestamp": 1767225600.125,
    }
    return kinesis_event([record] * BATCH, "shardId-000000000000")


@asynccontextmanager
async def worker(subject: str, kind: str, url: str) -> AsyncIterator[Work]:
    """What each worker does for ever."""
    queue = kind in ("sqs", "fifo")
    if subject == "plain":
        session = get_session()
        async with session.create_client(SERVICES[kind], region_name=REGION, endpoint_url=url) as client:
            plain = Plain(kind, client)
            yield plain.queue if queue else plain.stream
        return
    if subject == "invoker":
        settings = HttpSettings(function="orders", url=url)
        env = Environment(LoopClock())
        try:
            async with open_http(settings, env) as invoker:
                yield lambda _, count: invocations(invoker, count)
        finally:
            await env.shared.close()
        return
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector) as http:
        if kind == "http":
            yield lambda _, count: posts(http, url, count)
            return
        bare = Bare(kind, http, url)
        yield bare.queue if queue else bare.stream


async def run(subject: str, kind: str, url: str, workers: int) -> None:
    """Runs the workers until SIGTERM."""
    count = [0]
    loop = asyncio.get_running_loop()
    task = asyncio.current_task()
    assert task is not None
    loop.add_signal_handler(signal.SIGUSR1, lambda: print(json.dumps(count), flush=True))
    loop.add_signal_handler(signal.SIGTERM, task.cancel)
    async with worker(subject, kind, url) as work, asyncio.TaskGroup() as group:
        print("ready", flush=True)
        for number in range(workers):
            group.create_task(_forever(work, number, count), name=f"worker {number}")


async def _forever(work: Work, number: int, count: Count) -> None:
    await work(number, count)


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.loops")
    parser.add_argument("subject", choices=("plain", "bare", "invoker"))
    parser.add_argument("kind", choices=("kinesis", "dynamodb", "sqs", "fifo", "http"))
    parser.add_argument("url")
    parser.add_argument("--workers", type=int, required=True)
    given = parser.parse_args()
    try:
        uvloop.run(run(given.subject, given.kind, given.url, given.workers))
    except asyncio.CancelledError:
        return


if __name__ == "__main__":
    main()
