"""Owns the stub: an HTTP server of canned AWS answers in a process of its own, so that no emulator is the bottleneck.

    python -m benchmarks.stub kinesis|dynamodb|sqs|fifo|large-sqs|live-kinesis|limited-kinesis|live-sqs|crowded-kinesis|crowded-sqs|throttling|none
        --shards N

Prints its port on the first line of stdout, then serves until its standard input closes. Shards, the only state, are
in the read tokens; messages are numbered. A POST to /open or /close lets streams have records, or not, so that a
subject can take its shards in peace. `limited-kinesis` refuses reads beyond AWS's limit, and counts on /counts. Any other path but / is a function that answers {};
with `--notes` it notes how long its records were on the way.
"""

import argparse
import asyncio
import itertools
import json
import re
import sys
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import cast

import uvloop

from benchmarks.crowd.sources import CrowdedQueues, CrowdedStreams
from benchmarks.function import note
from benchmarks.live import STREAM_GAP_S, LiveQueue, LiveShards
from benchmarks.pages import (
    EMPTY,
    MESSAGES,
    PAGE_RECORDS,
    Page,
    dynamo_pages,
    kinesis_pages,
    messages_template,
)
from benchmarks.pushing import pushed
from benchmarks.shared_reads.limited_stream import LimitedReads, Refusal

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_TARGET = re.compile(rb"\r\nx-amz-target: *[\w.]*\.(\w+)", re.IGNORECASE)
_ITERATOR = re.compile(rb'"ShardIterator": ?"(\d+):(\d+)')
_LIMIT = re.compile(rb'"Limit": ?(\d+)')
_ASKED = re.compile(rb'"MaxNumberOfMessages": ?(\d+)')
_SHARD = re.compile(rb'"ShardId": ?"shardId-0*(\d+)')
_RECEIPT = re.compile(rb'"Id": ?"([\w-]+)"')
_HEAD = (
    b"HTTP/1.1 200 OK\r\nx-amzn-RequestId: 00000000-0000-4000-8000-000000000000\r\n"
    b"Content-Type: application/x-amz-json-1.1\r\nContent-Length: %d\r\n\r\n"
)
_REFUSED_HEAD = _HEAD.replace(b"200 OK", b"400 Bad Request")
_THROTTLED_HEAD = _HEAD.replace(b"200 OK", b"429 Too Many Requests")
_FACTS = b"/configuration"
"""The end of the path of GetFunctionConfiguration."""
_PAD = b"A" * 180
"""A read token of AWS has some 200 characters."""

KINDS = (
    "kinesis",
    "dynamodb",
    "sqs",
    "fifo",
    "large-sqs",
    "live-kinesis",
    "limited-kinesis",
    "live-sqs",
    "crowded-kinesis",
    "crowded-sqs",
    "throttling",
    "none",
)
LARGE_BYTES = 1024 * 1024
LATER_MAX = 4
"""Answers that one connection waits for; a client has one request on the way."""

_SUMMARY = {
    "StreamName": "orders",
    "StreamARN": "arn:aws:kinesis:eu-west-1:111122223333:stream/orders",
    "StreamStatus": "ACTIVE",
    "StreamCreationTimestamp": 1767225600.0,
    "RetentionPeriodHours": 24,
}

type Parts = tuple[bytes, ...]
type Answered = Parts | Awaitable[Parts] | AsyncIterator[bytes]
"""An answer, now or later, or the pieces of one that goes on."""
type Answer = Callable[[bytes], Answered]


class Streams:
    """Answers for a stream of `shards` shards that all hold the same pages."""

    def __init__(self, pages: list[Page], shards: int) -> None:
        self._pages = pages
        self._shards = shards
        self._closed = False

    def answers(self) -> dict[bytes, Answer]:
        """By operation."""
        return {
            b"ListShards": self._list,
            b"DescribeStream": self._describe,
            b"DescribeStreamSummary": lambda _: (
                json.dumps({"StreamDescriptionSummary": _SUMMARY}).encode(),
            ),
            b"GetShardIterator": self._iterator,
            b"GetRecords": self._records,
            b"/open": lambda _: self._turn(closed=False),
            b"/close": lambda _: self._turn(closed=True),
        }

    def _turn(self, *, closed: bool) -> Parts:
        self._closed = closed
        return (b"{}",)

    def _listed(self) -> list[dict[str, object]]:
        return [
            {
                "ShardId": f"shardId-{number:020d}",
                "HashKeyRange": {"StartingHashKey": "0", "EndingHashKey": "1"},
                "SequenceNumberRange": {"StartingSequenceNumber": "1"},
            }
            for number in range(self._shards)
        ]

    def _list(self, _: bytes) -> Parts:
        return (json.dumps({"Shards": self._listed()}).encode(),)

    def _describe(self, _: bytes) -> Parts:
        return (json.dumps({"StreamDescription": {"Shards": self._listed()}}).encode(),)

    def _iterator(self, body: bytes) -> Parts:
        found = _SHARD.search(body)
        assert found is not None
        return (b'{"ShardIterator":"%d:0:%b"}' % (int(found[1]), _PAD),)

    def _records(self, body: bytes) -> Parts:
        found = _ITERATOR.search(body)
        assert found is not None
        shard, number = int(found[1]), int(found[2])
        limit = _LIMIT.search(body)
        most = int(limit[1]) if limit is not None else PAGE_RECORDS
        at, first = divmod(number, PAGE_RECORDS)
        page = self._pages[at].cut(first, most) if at < len(self._pages) and not self._closed else EMPTY
        behind_ms = 0 if page is EMPTY else 1_000
        following = number + page.records
        head = b'{"NextShardIterator":"%d:%d:%b","MillisBehindLatest":%d,' % (
            shard,
            following,
            _PAD,
            behind_ms,
        )
        return (head, page.tail)


def asked_for(body: bytes) -> int:
    """How many messages a receive asks for."""
    asked = _ASKED.search(body)
    return int(asked[1]) if asked is not None else MESSAGES


class Queues:
    """Answers for a queue that is never empty."""

    def __init__(self, *, fifo: bool) -> None:
        self._templates = [messages_template(fifo=fifo, messages=each + 1) for each in range(MESSAGES)]
        self._numbers = itertools.count(1)
        self._fifo = fifo

    def answers(self) -> dict[bytes, Answer]:
        """By operation."""
        attributes = {"VisibilityTimeout": "300", "ApproximateNumberOfMessages": "1000"} | (
            {"FifoQueue": "true"} if self._fifo else {}
        )
        described = (json.dumps({"Attributes": attributes}).encode(),)
        found = (b'{"QueueUrl":"http://127.0.0.1/111122223333/orders"}',)
        return {
            b"GetQueueUrl": lambda _: found,
            b"GetQueueAttributes": lambda _: described,
            b"ReceiveMessage": self._receive,
            b"DeleteMessageBatch": self._done,
            b"ChangeMessageVisibilityBatch": self._done,
        }

    def _receive(self, body: bytes) -> Answered:
        return (self._templates[asked_for(body) - 1] % {b"n": next(self._numbers)},)

    def _done(self, body: bytes) -> Parts:
        entries = b",".join(b'{"Id":"%b"}' % each for each in _RECEIPT.findall(body))
        return (b'{"Successful":[%b]}' % entries,)


class LargeQueues(Queues):
    """A queue of messages of 1 MiB that is never empty."""

    def __init__(self) -> None:
        super().__init__(fifo=False)
        self._body = b"x" * LARGE_BYTES

    def _receive(self, body: bytes) -> Parts:
        parts: list[bytes] = []
        for _ in range(asked_for(body)):
            number = next(self._numbers)
            head = b'{"MessageId":"%d","ReceiptHandle":"%d","MD5OfBody":"","Attributes":{},"Body":"' % (
                number,
                number,
            )
            parts += [b"," if parts else b"", head, self._body, b'"}']
        return (b'{"Messages":[', *parts, b"]}")


class LiveStream(Streams):
    """A stream whose records come one by one."""

    def __init__(self, shards: int, gap_s: float) -> None:
        super().__init__([], shards)
        self._live = LiveShards(shards, gap_s)

    def answers(self) -> dict[bytes, Answer]:
        """By operation."""
        return super().answers() | {b"SubscribeToShard": lambda body: pushed(self._live, body)}

    def _records(self, body: bytes) -> Parts:
        found = _ITERATOR.search(body)
        assert found is not None
        shard = int(found[1])
        records, place = self._live.read(shard, int(found[2]))
        following = f"{shard}:{place}:{_PAD.decode()}"
        answer = {"NextShardIterator": following, "MillisBehindLatest": 0, "Records": records}
        return (json.dumps(answer).encode(),)


class LiveQueues(Queues):
    """A queue whose messages come one by one."""

    def __init__(self) -> None:
        super().__init__(fifo=False)
        self._live = LiveQueue()

    async def _receive(self, _: bytes) -> Parts:
        return (json.dumps({"Messages": await self._live.receive()}).encode(),)


class Throttling(tuple[bytes, ...]):
    """An answer of a function that is called too often."""

    __slots__ = ()


_HEADS = {Refusal: _REFUSED_HEAD, Throttling: _THROTTLED_HEAD}


class Connection(asyncio.Protocol):
    """One connection; requests are answered in order, each in one write."""

    def __init__(self, answers: dict[bytes, Answer], function: Answer) -> None:
        self._answers = answers
        self._function = function
        self._received = bytearray()
        self._transport: asyncio.Transport | None = None
        self._later: deque[asyncio.Future[None]] = deque(maxlen=LATER_MAX)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keeps the transport."""
        # uvloop's transports are asyncio's in all but their base class.
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Answers every request that is complete."""
        self._received += data
        for head, body in self._requests():
            parts = self._answer(head, body)
            if isinstance(parts, tuple):
                self._send(parts)
            elif isinstance(parts, AsyncIterator):
                self._later.append(asyncio.ensure_future(self._send_on(parts)))
            else:
                self._later.append(asyncio.ensure_future(self._send_later(parts)))

    def connection_lost(self, _error: Exception | None) -> None:
        """Nobody waits for answers any more."""
        for each in self._later:
            each.cancel()

    async def _send_later(self, parts: Awaitable[Parts]) -> None:
        self._send(await parts)

    async def _send_on(self, pieces: AsyncIterator[bytes]) -> None:
        async for piece in pieces:
            assert self._transport is not None
            self._transport.write(piece)

    def _send(self, parts: Parts) -> None:
        assert self._transport is not None
        head = _HEADS.get(type(parts), _HEAD)
        self._transport.writelines((head % sum(map(len, parts)), *parts))

    def _requests(self) -> Iterator[tuple[bytes, bytes]]:
        while (end := self._received.find(b"\r\n\r\n")) >= 0:
            head = bytes(self._received[:end])
            found = _LENGTH.search(head)
            behind = end + 4 + (int(found[1]) if found else 0)
            if len(self._received) < behind:
                return
            body = bytes(self._received[end + 4 : behind])
            del self._received[:behind]
            yield head, body

    def _answer(self, head: bytes, body: bytes) -> Answered:
        target = _TARGET.search(head)
        name = target[1] if target is not None else head.split(b" ", 2)[1]
        if name.endswith(_FACTS):
            return (b'{"Timeout":30}',)
        return self._answers.get(name, self._function)(body)


def answers(kind: str, *, shards: int, pages: int, gap_s: float) -> dict[bytes, Answer]:
    """The answers of one kind of source, or none for a function alone."""
    match kind:
        case "kinesis":
            return Streams(kinesis_pages(pages), shards).answers()
        case "dynamodb":
            return Streams(dynamo_pages(pages), shards).answers()
        case "sqs" | "fifo":
            return Queues(fifo=kind == "fifo").answers()
        case "large-sqs":
            return LargeQueues().answers()
        case "live-kinesis":
            return LiveStream(shards, gap_s).answers()
        case "limited-kinesis":
            return LimitedReads(LiveStream(shards, gap_s).answers()).answers()
        case "live-sqs":
            return LiveQueues().answers()
        case "throttling":
            return {b"/": lambda _: Throttling()}
        case "crowded-kinesis":
            return Streams([], 0).answers() | CrowdedStreams(shards, gap_s).answers()
        case "crowded-sqs":
            return Queues(fifo=False).answers() | CrowdedQueues(shards, gap_s).answers()
        case _:
            return {}


def function(notes: Path | None) -> Answer:
    """A function that does nothing, or notes how long its records were on the way."""

    def noting(body: bytes) -> Parts:
        assert notes is not None
        note(json.loads(body), notes)
        return (b"{}",)

    return (lambda _: (b"{}",)) if notes is None else noting


async def serve(made: dict[bytes, Answer], function: Answer) -> None:
    """Serves until standard input closes."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Connection(made, function), "127.0.0.1", 0, backlog=1_024)
    print(server.sockets[0].getsockname()[1], flush=True)
    closed = asyncio.Event()
    loop.add_reader(sys.stdin.fileno(), closed.set)
    await closed.wait()
    server.close()


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.stub")
    parser.add_argument("kind", choices=KINDS)
    parser.add_argument("--shards", type=int, default=1)
    parser.add_argument("--pages", type=int, default=64)
    parser.add_argument("--gap", type=float, default=STREAM_GAP_S)
    parser.add_argument(
        "--notes", type=Path, help="where the function notes how long records were on the way"
    )
    given = parser.parse_args()
    made = answers(given.kind, shards=given.shards, pages=given.pages, gap_s=given.gap)
    uvloop.run(serve(made, function(given.notes)))


if __name__ == "__main__":
    main()
