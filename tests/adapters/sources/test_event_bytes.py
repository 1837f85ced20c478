"""The bytes of an event stream, changed on the way: whatever they are, the reader gets events or a port error, and in no other order."""

import asyncio
import base64
import json
import struct
from binascii import crc32
from contextlib import suppress
from typing import Any

import pytest
from aiobotocore.eventstream import AioEventStream
from aiobotocore.parsers import AioResponseParserFactory
from botocore.eventstream import EventStreamBuffer
from botocore.session import Session
from hypothesis import given, settings
from hypothesis import strategies as st

from adapters.aws.event_streams import MESSAGE_BYTES_MAX, WholeMessages
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


def event(number: int, data_bytes: int = 1) -> bytes:
    data = base64.b64encode(b"x" * data_bytes).decode()
    record = {"SequenceNumber": str(number), "Data": data, "PartitionKey": "k"}
    members = {"Records": [record], "ContinuationSequenceNumber": str(number), "MillisBehindLatest": 0}
    headers = header(b":event-type", b"SubscribeToShardEvent") + header(b":message-type", b"event")
    return message(headers, json.dumps(members).encode())


class Bytes:
    """The body of an answer that is these bytes, in pieces."""

    def __init__(self, sent: bytes, size: int) -> None:
        self.content = WholeMessages(self)
        self._sent, self._size = sent, size

    async def readany(self) -> bytes:
        piece, self._sent = self._sent[: self._size], self._sent[self._size :]
        return piece

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


@pytest.mark.parametrize(
    ("total", "headers"),
    [
        (0, 0),
        (12, 0),
        (15, 0),
        (16, 1),
        (16, 1_000),
        (100, 85),
        (MESSAGE_BYTES_MAX + 1, 0),
        (2**32 - 1, 2**32 - 1),
    ],
)
def test_lengths_that_no_message_has_are_trouble_at_once(total: int, headers: int) -> None:
    lengths = struct.pack(">II", total, headers)
    prelude = lengths + struct.pack(">I", crc32(lengths))
    with pytest.raises(ServiceUnavailable):
        asyncio.run(read(event(1) + prelude))


def test_a_wrong_checksum_of_the_lengths_is_found_before_the_rest_is_waited_for() -> None:
    with pytest.raises(ServiceUnavailable, match="ChecksumMismatch"):
        asyncio.run(read(struct.pack(">III", 1_000_000, 0, 0)))


def test_the_work_for_a_message_does_not_grow_with_the_square_of_its_pieces(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    copied = 0
    add = EventStreamBuffer.add_data

    def counted(buffer: Any, data: bytes) -> None:
        nonlocal copied
        add(buffer, data)
        copied += len(buffer._data)

    monkeypatch.setattr(EventStreamBuffer, "add_data", counted)
    sent = event(1, 200_000)
    assert asyncio.run(read(sent, 100)) == [1]
    assert copied < 2 * len(sent)


def test_of_messages_that_come_at_once_one_is_parsed_in_a_pass_of_the_loop() -> None:
    async def main() -> None:
        passes = 0

        def count() -> None:
            nonlocal passes
            passes += 1
            counting = loop.call_soon(count)
            counts.append(counting)

        loop = asyncio.get_running_loop()
        counts: list[asyncio.Handle] = []
        count()
        # The reader passes over events of other names.
        other = message(header(b":event-type", b"Later") + header(b":message-type", b"event"), b"{}")
        assert await read(50 * other + event(1), 100_000) == [1]
        assert passes > 50
        counts[-1].cancel()

    asyncio.run(main())
