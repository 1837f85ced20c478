"""The bytes of an event stream, changed on the way: whatever they are, the reader gets events or a port error, and in no other order."""

import asyncio
import base64
import json
import struct
from binascii import crc32
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

import pytest
from aiobotocore.eventstream import AioEventStream
from aiobotocore.parsers import AioResponseParserFactory
from botocore.session import Session
from hypothesis import given, settings
from hypothesis import strategies as st

from adapters.sources.kinesis.subscription import Subscription
from poller.clock import LoopClock
from poller.domain.errors import PortError, ServiceUnavailable
from poller.domain.records import Position
from poller.loop_turns import LoopTurns

EVENTS: Any = Session().get_service_model("kinesis").shape_for("SubscribeToShardEventStream")
EVENTS_MAX = 50


def header(name: bytes, value: bytes) -> bytes:
    return bytes([len(name)]) + name + b"\x07" + struct.pack(">H", len(value)) + value


def message(headers: bytes, payload: bytes) -> bytes:
    """A message with right checksums."""
    prelude = struct.pack(">II", 16 + len(headers) + len(payload), len(headers))
    body = prelude + struct.pack(">I", crc32(prelude)) + headers + payload
    return body + struct.pack(">I", crc32(body))


def event(number: int) -> bytes:
    data = base64.b64encode(b"x").decode()
    record = {"SequenceNumber": str(number), "Data": data, "PartitionKey": "k"}
    members = {"Records": [record], "ContinuationSequenceNumber": str(number), "MillisBehindLatest": 0}
    headers = header(b":event-type", b"SubscribeToShardEvent") + header(b":message-type", b"event")
    return message(headers, json.dumps(members).encode())


class Bytes:
    """The body of an answer that is these bytes, in pieces."""

    def __init__(self, sent: bytes, size: int) -> None:
        self.content = self
        self._sent, self._size = sent, size

    async def iter_chunks(self) -> AsyncIterator[tuple[bytes, bool]]:
        for at in range(0, len(self._sent), self._size):
            yield self._sent[at : at + self._size], True

    def close(self) -> None:
        """Nothing is open."""


def as_sent(value: Any) -> Any:
    return value


async def read(sent: bytes, size: int = 64) -> list[int]:
    """The sequence numbers that come of these bytes. Raises PortError."""
    factory = AioResponseParserFactory()
    # As the clients have it: blobs stay text.
    factory.set_parser_defaults(timestamp_parser=as_sent, blob_parser=as_sent)
    parser: Any = factory.create_parser("json")
    stream: Any = AioEventStream(Bytes(sent, size), EVENTS, parser._event_stream_parser, "SubscribeToShard")
    found = Subscription(stream, Position.horizon(), LoopTurns(), clock=LoopClock(), began_s=0.0)
    got: list[int] = []
    try:
        for _ in range(EVENTS_MAX):
            await found.wait(1.0)
            got += [int(each.sequence_number) for each in found.read(100)]
            if found.over:
                return got
    finally:
        found.close()
    raise AssertionError("it does not end")


@given(st.data())
@settings(max_examples=150)
def test_changed_bytes_are_events_or_a_port_error(data: st.DataObject) -> None:
    sent = bytearray(b"".join(event(number) for number in range(1, 4)))
    for _ in range(data.draw(st.integers(0, 3))):
        sent[data.draw(st.integers(0, len(sent) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(sent)))
    with suppress(PortError):
        got = asyncio.run(read(bytes(sent[:cut]), data.draw(st.integers(1, 200))))
        assert got == list(range(1, len(got) + 1))


@given(st.binary(max_size=60), st.binary(max_size=60), st.integers(-20, 20))
@settings(max_examples=150)
def test_messages_with_right_checksums_and_any_content_are_events_or_a_port_error(
    headers: bytes, payload: bytes, more: int
) -> None:
    prelude = struct.pack(">II", max(0, 16 + len(headers) + len(payload) + more), max(0, len(headers) - more))
    body = prelude + struct.pack(">I", crc32(prelude)) + headers + payload
    whole = body + struct.pack(">I", crc32(body))
    for sent in (whole, message(headers, payload)):
        with suppress(PortError):
            assert asyncio.run(read(event(1) + sent)) == [1]


def test_whole_events_are_read_whatever_the_pieces() -> None:
    sent = b"".join(event(number) for number in range(1, 4))
    assert [asyncio.run(read(sent, size)) for size in (1, 7, 500, 9_999)] == [[1, 2, 3]] * 4


def test_another_checksum_is_trouble_of_the_service() -> None:
    sent = bytearray(event(1) + event(2))
    sent[-1] ^= 1
    with pytest.raises(ServiceUnavailable, match="ChecksumMismatch"):
        asyncio.run(read(bytes(sent)))
