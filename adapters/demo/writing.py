"""Owns the writing of the load to the sources: in order within each lane, all lanes concurrently."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import batched

from adapters.demo.emulator import Clients
from adapters.demo.load import Item, Source, by_lane
from adapters.demo.processes import Unusable
from adapters.demo.resources import Resources
from poller.domain.wording.numbers_of import number_of

MESSAGES_MAX = 10
"""Messages in one SendMessageBatch, which is AWS's limit."""


@dataclass(slots=True)
class Written:
    """What was written so far: the number of items of each source, and the place of each order in Kinesis."""

    counts: dict[Source, int] = field(default_factory=lambda: dict.fromkeys(Source, 0))
    places: dict[tuple[str, int], Item] = field(default_factory=dict)
    """The orders by shard and sequence number."""


class Writer:
    """Writes items to their sources."""

    def __init__(self, clients: Clients, resources: Resources, written: Written) -> None:
        self._clients = clients
        self._resources = resources
        self._written = written

    async def write(self, items: Sequence[Item], *, over_s: float = 0.0) -> None:
        """Writes items of one source, spread over `over_s`; returns when all are written."""
        async with asyncio.TaskGroup() as scope:
            for lane, its in by_lane(items).items():
                scope.create_task(self._write_lane(its, over_s), name=f"write {lane}")

    async def _write_lane(self, items: Sequence[Item], over_s: float) -> None:
        size = 1 if items[0].source.stream else MESSAGES_MAX
        pause_s = over_s * size / len(items)
        for some in batched(items, size, strict=False):
            match items[0].source:
                case Source.ORDERS:
                    await self._put_record(some[0])
                case Source.STOCK:
                    await self._put_item(some[0])
                case Source.MAILS | Source.PAYMENTS:
                    await self._send(some)
            self._written.counts[items[0].source] += len(some)
            await asyncio.sleep(pause_s)

    async def _put_record(self, item: Item) -> None:
        answer = await self._clients["kinesis"].put_record(
            StreamName="orders", PartitionKey=item.lane, Data=item.text().encode()
        )
        self._written.places[answer["ShardId"], int(answer["SequenceNumber"])] = item

    async def _put_item(self, item: Item) -> None:
        fields = {
            "sku": {"S": item.lane},
            "number": {"N": str(item.number)},
            "kind": {"S": item.kind.value},
        }
        await self._clients["dynamodb"].put_item(TableName="stock", Item=fields)

    async def _send(self, items: Sequence[Item]) -> None:
        entries = [self._entry(index, item) for index, item in enumerate(items)]
        url = self._resources.queues[items[0].source].url
        answer = await self._clients["sqs"].send_message_batch(QueueUrl=url, Entries=entries)
        if failed := answer.get("Failed"):
            raise Unusable(
                f"{items[0].source}: SendMessageBatch refused {number_of(len(failed), 'message')}: {failed[0]}"
            )

    def _entry(self, index: int, item: Item) -> dict[str, str]:
        entry = {"Id": str(index), "MessageBody": item.text()}
        if item.source is Source.PAYMENTS:
            unique = f"{item.lane}-{item.number}"
            entry |= {"MessageGroupId": item.lane, "MessageDeduplicationId": unique}
        return entry
