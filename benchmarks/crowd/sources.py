"""Owns many queues or streams of one stub, each with records of its own at random moments. Their number ends their name."""

import asyncio
import json
import re
import time
from collections.abc import Awaitable, Callable
from itertools import count

from benchmarks.live import LiveShards, message, moments

BATCH = 10
"""Messages of one receive at most."""
WAIT_S = 20.0
HORIZON_S = 60.0
"""Records are sent for so long after the sources are opened."""
_NUMBER = re.compile(rb"orders-(\d+)")
_ITERATOR = re.compile(rb'"ShardIterator": ?"(\d+):(\d+)')
_PAD = "A" * 180

type Parts = tuple[bytes, ...]
type Answer = Callable[[bytes], Parts | Awaitable[Parts]]


def _number_of(body: bytes) -> int:
    """The number of the queue or stream that a request is about."""
    found = _NUMBER.search(body)
    assert found is not None, body
    return int(found[1])


class CrowdedQueues:
    """Queues whose messages come in their own time from `/open` on. Nothing comes again, whether it is deleted or not."""

    def __init__(self, queues: int, gap_s: float) -> None:
        self._queues, self._gap_s = queues, gap_s
        self._sent: list[list[float]] = [[] for _ in range(queues)]
        self._next = [0] * queues
        self._numbers = count(1)

    def answers(self) -> dict[bytes, Answer]:
        """By operation, those that differ from a single queue's."""
        return {b"GetQueueUrl": self._url, b"ReceiveMessage": self._receive, b"/open": self._open}

    def _open(self, _: bytes) -> Parts:
        self._sent = [moments(number, self._gap_s, HORIZON_S) for number in range(self._queues)]
        return (b"{}",)

    def _url(self, body: bytes) -> Parts:
        return (b'{"QueueUrl":"http://127.0.0.1/111122223333/orders-%d"}' % _number_of(body),)

    async def _receive(self, body: bytes) -> Parts:
        """Up to ten messages that are sent by now, or the first one to come within 20 seconds."""
        queue, until = _number_of(body), time.time() + WAIT_S
        while (now := time.time()) < until:
            sent, first = self._sent[queue], self._next[queue]
            if first >= len(sent) or sent[first] > now:
                comes = sent[first] if first < len(sent) else now + 1.0
                await asyncio.sleep(min(comes, until) - now)
                continue
            end = first
            while end < min(first + BATCH, len(sent)) and sent[end] <= now:
                end += 1
            self._next[queue] = end
            found = [message(next(self._numbers), sent[place]) for place in range(first, end)]
            return (json.dumps({"Messages": found}).encode(),)
        return (b"{}",)


class CrowdedStreams:
    """Streams of one shard each, whose records come in their own time from `/open` on. A shard has its stream's number."""

    def __init__(self, streams: int, gap_s: float) -> None:
        self._streams, self._gap_s = streams, gap_s
        self._live = LiveShards(streams, gap_s, 0.0)

    def answers(self) -> dict[bytes, Answer]:
        """By operation, those that differ from a single stream's."""
        return {b"ListShards": self._list, b"GetRecords": self._records, b"/open": self._open}

    def _open(self, _: bytes) -> Parts:
        self._live = LiveShards(self._streams, self._gap_s, HORIZON_S)
        return (b"{}",)

    def _list(self, body: bytes) -> Parts:
        shard = {
            "ShardId": f"shardId-{_number_of(body):020d}",
            "HashKeyRange": {"StartingHashKey": "0", "EndingHashKey": "1"},
            "SequenceNumberRange": {"StartingSequenceNumber": "1"},
        }
        return (json.dumps({"Shards": [shard]}).encode(),)

    def _records(self, body: bytes) -> Parts:
        found = _ITERATOR.search(body)
        assert found is not None, body
        shard = int(found[1])
        records, place = self._live.read(shard, int(found[2]))
        answer = {
            "NextShardIterator": f"{shard}:{place}:{_PAD}",
            "MillisBehindLatest": 0,
            "Records": records,
        }
        return (json.dumps(answer).encode(),)
