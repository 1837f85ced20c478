"""Owns the demo's functions, written as a user writes them: called with an event and a context.

`stock` is called over HTTP, the others by the daemon itself. Each writes to a journal which records it received. The report is
made from the journal. The environment variable DEMO_JOURNAL names its file, DEMO_LIFE numbers the runs of the daemon, and
DEMO_PAUSE_S says how long an invocation takes.
"""

import asyncio
import base64
import json
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adapters.demo.journal import Journal, Line
from adapters.demo.load import Item, Kind, Source

JOURNAL = "DEMO_JOURNAL"
LIFE = "DEMO_LIFE"
PAUSE_S = "DEMO_PAUSE_S"


class CannotProcess(Exception):
    """A function could not process a record."""


@dataclass(frozen=True, slots=True)
class Job:
    """An event that a function is processing."""

    request: str
    items: tuple[Item, ...]
    names: tuple[str, ...]
    """The identifier of each item in a partial batch response."""


class Function:
    """What all four functions do: process the items and write to the journal what became of them."""

    def __init__(self, source: Source, journal: Journal, life: int) -> None:
        self._source = source
        self._journal = journal
        self._life = life

    def begin(self, event: dict[str, Any], request: str) -> Job:
        """Begins the processing of one event."""
        items = items_of(self._source, event)
        self._journal.write(Line(self._source, request, self._life, True, tuple(items)))
        return Job(request, tuple(items), tuple(map(identifier_of, event["Records"])))

    def finish(self, job: Job) -> Any:
        """Returns the partial batch response, or raises CannotProcess (orders)."""
        bad = next((index for index, item in enumerate(job.items) if self._fails(item)), None)
        failed = self._failed(job.items, bad)
        self._journal.write(Line(self._source, job.request, self._life, False, job.items, failed))
        if self._source is Source.ORDERS and failed:
            raise CannotProcess(f"cannot process {job.items[bad or 0].text()}")
        return {"batchItemFailures": [{"itemIdentifier": job.names[index]} for index in sorted(failed)]}

    def _failed(self, items: Sequence[Item], bad: int | None) -> frozenset[int]:
        """Returns the indices that are not processed if the item at `bad` is the first that fails."""
        if bad is None:
            return frozenset()
        match self._source:
            case Source.ORDERS:
                return frozenset(range(len(items)))
            case Source.STOCK:
                return frozenset(range(bad, len(items)))
            case Source.MAILS:
                later = range(bad + 1, len(items))
                return frozenset({bad, *(index for index in later if self._fails(items[index]))})
            case Source.PAYMENTS:
                return self._failed_groups(items, bad)

    def _failed_groups(self, items: Sequence[Item], bad: int) -> frozenset[int]:
        """Returns the same for a FIFO queue: after a failure the rest of its group is not processed; other groups go on."""
        stopped = {items[bad].lane}
        failed = {bad}
        for index in range(bad + 1, len(items)):
            item = items[index]
            if item.lane in stopped or self._fails(item):
                stopped.add(item.lane)
                failed.add(index)
        return frozenset(failed)

    def _fails(self, item: Item) -> bool:
        return item.kind is Kind.POISON or (item.kind is Kind.STUMBLE and self._journal.first_time(item))


async def orders(event: dict[str, Any], context: Any) -> Any:
    """Processes orders from the Kinesis stream; an exception fails the whole batch."""
    function = _function(Source.ORDERS)
    job = function.begin(event, context.aws_request_id)
    await asyncio.sleep(pause_s())
    return function.finish(job)


def mails(event: dict[str, Any], context: Any) -> Any:
    """Processes mails from the standard queue; reports only the failed ones."""
    return _worked(Source.MAILS, event, context)


def payments(event: dict[str, Any], context: Any) -> Any:
    """Processes payments from the FIFO queue; a failure stops its group."""
    return _worked(Source.PAYMENTS, event, context)


def _worked(source: Source, event: dict[str, Any], context: Any) -> Any:
    function = _function(source)
    job = function.begin(event, context.aws_request_id)
    time.sleep(pause_s())
    return function.finish(job)


def pause_s() -> float:
    """Returns how long an invocation takes, which is no time in `poller demo`."""
    return float(os.environ.get(PAUSE_S, "0"))


def _function(source: Source) -> Function:
    return Function(source, Journal(Path(os.environ[JOURNAL])), int(os.environ[LIFE]))


def items_of(source: Source, event: dict[str, Any]) -> list[Item]:
    """Returns the items in an event's records."""
    return [item_of(source, record) for record in event["Records"]]


def item_of(source: Source, record: dict[str, Any]) -> Item:
    """Returns the item in one record of an event."""
    match source:
        case Source.ORDERS:
            return Item.read(source, base64.b64decode(record["kinesis"]["data"]).decode())
        case Source.STOCK:
            image = record["dynamodb"]["NewImage"]
            fields = {"lane": image["sku"]["S"], "number": image["number"]["N"], "kind": image["kind"]["S"]}
            return Item.read(source, json.dumps(fields))
        case Source.MAILS | Source.PAYMENTS:
            return Item.read(source, record["body"])


def identifier_of(record: dict[str, Any]) -> str:
    """Returns the identifier of a record in a partial batch response: sequence number or message id."""
    if "kinesis" in record:
        return str(record["kinesis"]["sequenceNumber"])
    if "dynamodb" in record:
        return str(record["dynamodb"]["SequenceNumber"])
    return str(record["messageId"])
