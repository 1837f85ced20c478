"""Owns the bare loop: it reads, calls the function for each batch and deletes, with as little as that needs.

    python -m benchmarks.end_to_end.bare_loop KIND INVOKER URL SERVER --size N --workers N [--timed]

It keeps no position and no order between batches, and minds no error. Prints how many records and batches it has taken on each
SIGUSR1. Ends with SIGTERM.
"""

import argparse
import asyncio
import json
import signal
from typing import Any

import aiohttp
import uvloop

from benchmarks.end_to_end.callers import Call, caller
from benchmarks.end_to_end.cases import INVOKERS
from benchmarks.loops import TARGETS, delete_request, kinesis_records, queue_records, receive_request
from benchmarks.signed_calls import SignedCalls

RECEIVED_MAX = 10


class BareLoop:
    """Loops of one kind; `counts` are records and batches."""

    def __init__(self, kind: str, calls: SignedCalls, call: Call, *, size: int) -> None:
        self.counts = [0, 0]
        self._kind = kind
        self._target = TARGETS["kinesis" if kind == "kinesis" else "sqs"]
        self._calls = calls
        self._call = call
        self._size = size

    async def run(self, number: int) -> None:
        """One loop, for ever."""
        if self._kind == "kinesis":
            await self._stream(number)
        else:
            await self._queue()

    async def _stream(self, number: int) -> None:
        shard = f"shardId-{number:020d}"
        iterator = (await self._asked("GetShardIterator", {"ShardId": shard}))["ShardIterator"]
        while True:
            page = await self._asked("GetRecords", {"ShardIterator": iterator})
            iterator = page["NextShardIterator"]
            records = page["Records"]
            for start in range(0, len(records), self._size):
                await self._hand_over(kinesis_records(records[start : start + self._size], shard))

    async def _queue(self) -> None:
        url = (await self._asked("GetQueueUrl", {"QueueName": "orders"}))["QueueUrl"]
        asked = receive_request(url, min(self._size, RECEIVED_MAX))
        while True:
            messages: list[dict[str, Any]] = []
            while len(messages) < self._size:
                found = (await self._asked("ReceiveMessage", asked))["Messages"]
                messages += found
                if len(found) < RECEIVED_MAX:
                    break
            if not messages:
                continue
            await self._hand_over(queue_records(messages))
            for start in range(0, len(messages), RECEIVED_MAX):
                deleted = delete_request(url, messages[start : start + RECEIVED_MAX])
                await self._asked("DeleteMessageBatch", deleted)

    async def _hand_over(self, records: list[dict[str, Any]]) -> None:
        await self._call({"Records": records})
        self.counts[0] += len(records)
        self.counts[1] += 1

    async def _asked(self, operation: str, parameters: dict[str, Any]) -> Any:
        return await self._calls.call(f"{self._target}.{operation}", parameters)


async def run(given: argparse.Namespace) -> None:
    """Runs the loops until SIGTERM."""
    loop = asyncio.get_running_loop()
    task = asyncio.current_task()
    assert task is not None
    loop.add_signal_handler(signal.SIGTERM, task.cancel)
    async with (
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session,
        caller(given.invoker, session, given.url, given.server, timed=given.timed) as call,
    ):
        calls = SignedCalls(session, given.url, "kinesis" if given.kind == "kinesis" else "sqs")
        bare = BareLoop(given.kind, calls, call, size=given.size)
        loop.add_signal_handler(signal.SIGUSR1, lambda: print(json.dumps(bare.counts), flush=True))
        print("ready", flush=True)
        async with asyncio.TaskGroup() as group:
            for number in range(given.workers):
                group.create_task(bare.run(number), name=f"worker {number}")


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.end_to_end.bare_loop")
    parser.add_argument("kind", choices=("kinesis", "sqs", "fifo"))
    parser.add_argument("invoker", choices=INVOKERS)
    parser.add_argument("url")
    parser.add_argument("server", help="the URL of the function behind HTTP")
    parser.add_argument("--size", type=int, required=True)
    parser.add_argument("--workers", type=int, required=True)
    parser.add_argument("--timed", action="store_true", help="the function notes how late its records are")
    try:
        uvloop.run(run(parser.parse_args()))
    except asyncio.CancelledError:
        return


if __name__ == "__main__":
    main()
