"""Owns sources whose records are sent one by one at random moments, each with the moment in it."""

import asyncio
import base64
import json
import random
import time
from bisect import bisect_right
from collections.abc import Iterator

from benchmarks.pages import FIRST_SEQUENCE

STREAM_GAP_S = 3.0
"""Between two records of a shard, on average, unless another time is asked for."""
QUEUE_GAP_S = 0.05
HORIZON_S = 600.0


def moments(seed: int, gap_s: float, horizon_s: float = HORIZON_S) -> list[float]:
    """Epoch seconds at which something is sent, from now on, for so long."""
    return list(_moments(random.Random(seed), time.time(), gap_s, horizon_s))


def _moments(rng: random.Random, now: float, gap_s: float, horizon_s: float) -> Iterator[float]:
    until = now + horizon_s
    while (now := now + rng.expovariate(1.0 / gap_s)) < until:
        yield now


def text(sent: float) -> str:
    """A body that says when it was sent."""
    return json.dumps({"sent": sent})


class LiveShards:
    """What the shards of a stream hold by now."""

    def __init__(self, shards: int, gap_s: float, horizon_s: float = HORIZON_S) -> None:
        self._sent = [moments(number, gap_s, horizon_s) for number in range(shards)]

    def read(self, shard: int, place: int) -> tuple[list[dict[str, object]], int]:
        """Records from a place on that were sent by now, and the place behind them."""
        sent = self._sent[shard]
        end = bisect_right(sent, time.time())
        return [_record(index, sent[index]) for index in range(place, end)], max(place, end)

    def next_s(self, shard: int, place: int) -> float:
        """Seconds until the record at a place is sent."""
        sent = self._sent[shard]
        return max(0.0, sent[place] - time.time()) if place < len(sent) else HORIZON_S


def _record(index: int, sent: float) -> dict[str, object]:
    return {
        "SequenceNumber": str(FIRST_SEQUENCE + index),
        "ApproximateArrivalTimestamp": round(sent, 3),
        "Data": base64.b64encode(text(sent).encode()).decode(),
        "PartitionKey": "device-7",
    }


class LiveQueue:
    """A queue that answers a receive when it has a message."""

    def __init__(self) -> None:
        self._sent = moments(0, QUEUE_GAP_S)
        self._next = 0

    async def receive(self) -> list[dict[str, object]]:
        """One message, when it is sent."""
        place = self._next
        if place >= len(self._sent):
            return []
        self._next += 1
        await asyncio.sleep(max(0.0, self._sent[place] - time.time()))
        return [message(place, self._sent[place])]


def message(index: int, sent: float) -> dict[str, object]:
    """A message that says when it was sent."""
    return {
        "MessageId": f"00000000-0000-4000-8000-{index:012d}",
        "ReceiptHandle": f"receipt-{index}",
        "MD5OfBody": "d41d8cd98f00b204e9800998ecf8427e",
        "Body": text(sent),
        "Attributes": {"ApproximateReceiveCount": "1", "SentTimestamp": str(int(sent * 1000))},
    }
