"""Owns what the demo creates on the emulator: a stream, a table, two queues, and their destinations and dead-letter queues."""

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from adapters.demo.emulator import ACCOUNT, REGION, Clients
from adapters.demo.load import Source
from adapters.demo.processes import Unusable

SHARDS = 3
VISIBILITY_S = 3
RECEIVES_MAX = 3
ACTIVE_S_MAX = 20.0
POLL_S = 0.05


@dataclass(frozen=True, slots=True)
class Queue:
    """A queue by its URL and its ARN."""

    url: str
    arn: str


@dataclass(frozen=True, slots=True)
class Resources:
    """The ARNs of the sources, the two queues to write to, and the places of records that are given up."""

    sources: Mapping[Source, str]
    queues: Mapping[Source, Queue]
    dead: Mapping[Source, Queue]
    """The dead-letter queues of the queues, and the on-failure queue of the orders."""
    bucket: str
    """The bucket that is the on-failure destination of the stock."""

    def destination(self, source: Source) -> str | None:
        """Returns the ARN of the on-failure destination of a stream's mapping."""
        if source is Source.ORDERS:
            return self.dead[source].arn
        return f"arn:aws:s3:::{self.bucket}" if source is Source.STOCK else None


async def create(clients: Clients, *, receives_max: int = RECEIVES_MAX) -> Resources:
    """Creates everything; a message goes to its dead-letter queue after `receives_max` receives."""
    sqs = clients["sqs"]
    bucket = "stock-failed"
    await clients["s3"].create_bucket(Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": REGION})
    failed = await _queue(sqs, "orders-failed", {})
    mails, dead_mails = await _with_dead_letters(sqs, "mails", {}, receives_max)
    payments, dead_payments = await _with_dead_letters(sqs, "payments", {"FifoQueue": "true"}, receives_max)
    return Resources(
        sources={
            Source.ORDERS: await _stream(clients["kinesis"], "orders"),
            Source.STOCK: await _table(clients["dynamodb"], "stock"),
            Source.MAILS: mails.arn,
            Source.PAYMENTS: payments.arn,
        },
        queues={Source.MAILS: mails, Source.PAYMENTS: payments},
        dead={Source.ORDERS: failed, Source.MAILS: dead_mails, Source.PAYMENTS: dead_payments},
        bucket=bucket,
    )


async def _stream(kinesis: Any, name: str) -> str:
    await kinesis.create_stream(StreamName=name, ShardCount=SHARDS)
    async with asyncio.timeout(ACTIVE_S_MAX):
        while True:
            summary = (await kinesis.describe_stream_summary(StreamName=name))["StreamDescriptionSummary"]
            if summary["StreamStatus"] == "ACTIVE":
                return str(summary["StreamARN"])
            await asyncio.sleep(POLL_S)


async def _table(dynamodb: Any, name: str) -> str:
    answer = await dynamodb.create_table(
        TableName=name,
        AttributeDefinitions=[{"AttributeName": "sku", "AttributeType": "S"}],
        KeySchema=[{"AttributeName": "sku", "KeyType": "HASH"}],
        BillingMode="PAY_PER_REQUEST",
        StreamSpecification={"StreamEnabled": True, "StreamViewType": "NEW_AND_OLD_IMAGES"},
    )
    arn = answer["TableDescription"].get("LatestStreamArn")
    if not arn:
        raise Unusable(f"table {name}: the emulator gave it no stream")
    return str(arn)


async def _with_dead_letters(
    sqs: Any, name: str, attributes: Mapping[str, str], receives_max: int
) -> tuple[Queue, Queue]:
    dead = await _queue(sqs, f"{name}-dead", attributes)
    policy = json.dumps({"deadLetterTargetArn": dead.arn, "maxReceiveCount": receives_max})
    own = {"RedrivePolicy": policy, "VisibilityTimeout": str(VISIBILITY_S)}
    return await _queue(sqs, name, {**attributes, **own}), dead


async def _queue(sqs: Any, name: str, attributes: Mapping[str, str]) -> Queue:
    full = f"{name}.fifo" if "FifoQueue" in attributes else name
    answer = await sqs.create_queue(QueueName=full, Attributes=dict(attributes))
    return Queue(str(answer["QueueUrl"]), f"arn:aws:sqs:{REGION}:{ACCOUNT}:{full}")
