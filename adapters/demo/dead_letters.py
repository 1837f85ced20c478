"""Owns the collection of records that were given up: failure documents in a queue and a bucket, messages in dead-letter queues."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from adapters.demo.emulator import Clients
from adapters.demo.functions import items_of
from adapters.demo.load import Item, Kind, Source
from adapters.demo.resources import Resources
from adapters.demo.writing import Written

RECEIVES_MAX = 20
"""Receives from one queue in one round of collecting."""


@dataclass(slots=True)
class DeadLetters:
    """What was found so far: the items of each source, and the conditions that the documents give."""

    items: dict[Source, list[Item]] = field(default_factory=lambda: {source: [] for source in Source})
    conditions: dict[Source, list[str]] = field(default_factory=lambda: {source: [] for source in Source})
    unmatched: list[str] = field(default_factory=list)
    """Problems: documents that match no record that was written."""


class DeadLetterCollector:
    """Collects from the queues and the bucket. It deletes the messages that it receives."""

    def __init__(self, clients: Clients, resources: Resources, written: Written) -> None:
        self._clients = clients
        self._resources = resources
        self._written = written
        self._objects: set[str] = set()
        self._documents: list[str] = []
        """Documents of orders. One may arrive before the stream has answered with the record's sequence number."""
        self.found = DeadLetters()

    async def look(self) -> None:
        """Collects what has arrived since the last call."""
        for source, queue in self._resources.dead.items():
            for body in await self._bodies(queue.url):
                self._add_dead_letter(source, body)
        for body in await self._new_objects():
            document = json.loads(body)
            self._condition(Source.STOCK, document)
            self.found.items[Source.STOCK] += items_of(Source.STOCK, json.loads(document["payload"]))
        self._find_orders()

    def _add_dead_letter(self, source: Source, body: str) -> None:
        if source is Source.ORDERS:
            self._condition(source, json.loads(body))
            self._documents.append(body)
        else:
            self.found.items[source].append(Item.read(source, body))

    def _condition(self, source: Source, document: Mapping[str, Any]) -> None:
        self.found.conditions[source].append(document["requestContext"]["condition"])

    def _find_orders(self) -> None:
        """Finds the orders that the documents mean."""
        meant = [
            (body, between(json.loads(body)["KinesisBatchInfo"], self._written.places))
            for body in self._documents
        ]
        self.found.items[Source.ORDERS] = [item for _, items in meant for item in items]
        self.found.unmatched = [
            f"{Source.ORDERS}: a document names nothing that was written: {body}"
            for body, items in meant
            if not items
        ]

    async def _bodies(self, url: str) -> list[str]:
        bodies: list[str] = []
        for _ in range(RECEIVES_MAX):
            answer = await self._clients["sqs"].receive_message(
                QueueUrl=url, MaxNumberOfMessages=10, WaitTimeSeconds=0
            )
            messages = answer.get("Messages") or []
            for message in messages:
                bodies.append(message["Body"])
                await self._clients["sqs"].delete_message(
                    QueueUrl=url, ReceiptHandle=message["ReceiptHandle"]
                )
            if not messages:
                break
        return bodies

    async def _new_objects(self) -> list[str]:
        s3, bucket = self._clients["s3"], self._resources.bucket
        listed = (await s3.list_objects_v2(Bucket=bucket)).get("Contents") or []
        texts = []
        for key in (each["Key"] for each in listed if each["Key"] not in self._objects):
            answer = await s3.get_object(Bucket=bucket, Key=key)
            texts.append((await answer["Body"].read()).decode())
            self._objects.add(key)
        return texts


def between(batch: Mapping[str, Any], places: Mapping[tuple[str, int], Item]) -> list[Item]:
    """Returns the orders of a document's batch: those of its shard from its first to its last sequence number, without noise."""
    first, last = int(batch["startSequenceNumber"]), int(batch["endSequenceNumber"])
    return [
        item
        for (shard, number), item in places.items()
        if shard == batch["shardId"] and first <= number <= last and item.kind is not Kind.NOISE
    ]
