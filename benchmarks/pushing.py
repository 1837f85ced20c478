"""Owns how the stub pushes a stream's records: SubscribeToShard, whose answer is an event stream that goes on for five minutes.

A message of it is framed as AWS's services do (vnd.amazon.eventstream): lengths, a check sum of them, headers, the payload, and a check
sum of all that.
"""

import asyncio
import json
import struct
import time
import zlib
from collections.abc import AsyncIterator, Mapping

from benchmarks.live import LiveShards
from benchmarks.pages import FIRST_SEQUENCE

LASTS_S = 300.0
BEAT_S = 5.0
"""An event without records is sent if there was no other one for so long."""
HEAD = (
    b"HTTP/1.1 200 OK\r\nx-amzn-RequestId: 00000000-0000-4000-8000-000000000000\r\n"
    b"Content-Type: application/vnd.amazon.eventstream\r\nTransfer-Encoding: chunked\r\n\r\n"
)
END = b"0\r\n\r\n"
_TEXT = 7
"""The type of a header whose value is a text."""


def message(headers: Mapping[str, str], payload: bytes) -> bytes:
    """One message of an event stream."""
    packed = b"".join(
        struct.pack(
            f">B{len(name)}sBH{len(value)}s", len(name), name.encode(), _TEXT, len(value), value.encode()
        )
        for name, value in headers.items()
    )
    # Two lengths, their check sum, and the one of the whole message.
    lengths = struct.pack(">II", 16 + len(packed) + len(payload), len(packed))
    framed = lengths + struct.pack(">I", zlib.crc32(lengths)) + packed + payload
    return framed + struct.pack(">I", zlib.crc32(framed))


def event(kind: str, members: Mapping[str, object]) -> bytes:
    """A message with an event."""
    headers = {
        ":message-type": "event",
        ":event-type": kind,
        ":content-type": "application/x-amz-json-1.1",
    }
    return message(headers, json.dumps(members).encode())


def chunk(data: bytes) -> bytes:
    """As a part of an answer whose length is not known before."""
    return b"%x\r\n%b\r\n" % (len(data), data)


async def pushed(live: LiveShards, body: bytes) -> AsyncIterator[bytes]:
    """The answer to a subscription: each record in an event of its own at the moment at which it is sent."""
    asked = json.loads(body)
    shard, place = int(asked["ShardId"].rpartition("-")[2]), _place(asked["StartingPosition"])
    ends = time.time() + LASTS_S
    yield HEAD + chunk(event("initial-response", {}))
    while time.time() < ends:
        await asyncio.sleep(min(live.next_s(shard, place), BEAT_S))
        records, place = live.read(shard, place)
        yield chunk(_pushed(records, place))
    yield END


def _pushed(records: list[dict[str, object]], place: int) -> bytes:
    members: dict[str, object] = {
        "Records": records,
        "ContinuationSequenceNumber": str(FIRST_SEQUENCE + place - 1),
        "MillisBehindLatest": 0,
    }
    return event("SubscribeToShardEvent", members)


def _place(starting: Mapping[str, str]) -> int:
    """How many records are before the start of a subscription."""
    if starting["Type"] == "TRIM_HORIZON":
        return 0
    number = int(starting["SequenceNumber"]) - FIRST_SEQUENCE
    return number + (starting["Type"] == "AFTER_SEQUENCE_NUMBER")
