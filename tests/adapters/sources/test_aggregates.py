"""Aggregated records: those of the Producer Library's own packer are taken apart, and nothing else is."""

import asyncio
import base64
import hashlib
import tracemalloc
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
from aws_kinesis_agg.aggregator import AggRecord  # type: ignore[import-untyped]  # it has no types
from hypothesis import given
from hypothesis import strategies as st

from adapters.sources.kinesis import aggregates
from adapters.sources.kinesis.aggregates import KEY_CHARS_MAX, PART_BYTES, SLICE, UserRecord, taken_apart
from poller.domain.records import Epoch, KinesisRecord, Position
from poller.domain.streams.aggregates import HASH_KEY_INDEX, KEY_INDEX, MAGIC, MAGIC_BASE64, fields
from poller.loop_turns import LoopTurns
from poller.memory.answers import AnswerTooLarge, answering

KEYS = st.text(st.characters(codec="utf-8"), min_size=1, max_size=40)
HASH_KEYS = st.none() | st.integers(0, 2**128 - 1).map(str)
RECORDS = st.lists(st.tuples(KEYS, HASH_KEYS, st.binary(min_size=1, max_size=300)), min_size=1, max_size=60)


def packed(records: list[tuple[str, str | None, bytes]]) -> bytes:
    """One aggregated record that holds these."""
    found: Any = AggRecord()
    for key, hash_key, data in records:
        assert found.add_user_record(key, data, hash_key)
    return bytes(found.get_contents()[2])


def user_records(data: bytes) -> list[UserRecord] | None:
    """What is inside, whatever the slices of work."""
    work = aggregates.user_records(data)
    while True:
        try:
            next(work)
        except StopIteration as done:
            found: list[UserRecord] | None = done.value
            return found


def framed(message: bytes) -> bytes:
    """A message in the form of an aggregated record."""
    return MAGIC + message + hashlib.md5(message, usedforsecurity=False).digest()


@given(RECORDS)
def test_what_was_packed_is_taken_apart_in_order(records: list[tuple[str, str | None, bytes]]) -> None:
    found = user_records(packed(records))
    assert found is not None
    assert [(each.key, each.data) for each in found] == [(key, data) for key, _, data in records]
    # The packer gives a record without a hash key of its own the digest of its key.
    given = [
        int(hash_key) if hash_key else (int(hashlib.md5(key.encode(), usedforsecurity=False).hexdigest(), 16))
        for key, hash_key, _ in records
    ]
    assert [each.explicit_hash_key in {mine, None} for each, mine in zip(found, given, strict=True)] == [
        True
    ] * len(records)


@given(RECORDS, st.data())
def test_a_changed_byte_or_a_missing_end_makes_it_a_record_like_any_other(
    records: list[tuple[str, str | None, bytes]], data: st.DataObject
) -> None:
    whole = packed(records)
    at = data.draw(st.integers(0, len(whole) - 1))
    assert user_records(whole[:at]) is None
    changed = bytearray(whole)
    changed[at] ^= data.draw(st.integers(1, 255))
    assert user_records(bytes(changed)) is None


@given(st.binary(max_size=400))
def test_a_message_that_is_none_is_a_record_like_any_other(message: bytes) -> None:
    found = user_records(framed(message))
    assert found is None or all(isinstance(each, UserRecord) for each in found)


@pytest.mark.parametrize(
    "message",
    [
        b"\x1a\x04\x08\x00\x1a\x00",
        b"\x0a\x01k\x1a\x04\x08\x05\x1a\x00",
        b"\x0a\x01k\x1a\x02\x08\x00",
        b"\x0a\x01k\x1a\x02\x1a\x00",
        b"\x0a\x01k\x1a\x06\x08\x00\x10\x02\x1a\x00",
        b"\x0a\x02\xff\xfe\x1a\x04\x08\x00\x1a\x00",
        b"\x0a\x7fk",
        b"\x0b\x01k",
        b"\xff" * 12,
        b"\x0a",
        b"\x02\x00",
    ],
    ids=[
        "no table of keys",
        "a key that is not in the table",
        "no data",
        "no key",
        "a hash key that is not in the table",
        "a key that is no text",
        "a length beyond the end",
        "a group",
        "a number without end",
        "a length that is not there",
        "field 0",
    ],
)
def test_a_message_with_a_fault_is_a_record_like_any_other(message: bytes) -> None:
    assert user_records(framed(message)) is None


@pytest.mark.parametrize(
    "odd", [b"undefined", b"", b"-1", b"null", b"\xff", b"9" * 40, b"1" * 10_000], ids=len
)
def test_a_hash_key_that_is_none_does_not_keep_its_record_packed(odd: bytes) -> None:
    record = b"\x08\x00\x10\x00\x1a\x02hi"
    size = bytes([len(odd) & 0x7F | 0x80, len(odd) >> 7]) if len(odd) > 0x7F else bytes([len(odd)])
    message = b"\x0a\x01k\x12" + size + odd + b"\x1a" + bytes([len(record)]) + record
    assert user_records(framed(message)) == [UserRecord("k", b"hi")]


def test_fields_of_later_versions_are_passed_over() -> None:
    tags = b"\x22\x04\x0a\x02ab"
    record = b"\x08\x00" + b"\x1a\x02hi" + tags + b"\x28\x07"
    message = b"\x0a\x01k" + b"\x1a" + bytes([len(record)]) + record + b"\x39" + b"8" * 8 + b"\x45" + b"4" * 4
    assert user_records(framed(message)) == [UserRecord("k", b"hi")]


@given(
    st.integers(1, 15),
    st.sampled_from([(0, b"\x07"), (1, b"8" * 8), (5, b"4" * 4)]),
    st.booleans(),
    st.booleans(),
)
def test_a_field_of_another_kind_than_the_form_has_is_passed_over_whatever_its_number(
    number: int, wire: tuple[int, bytes], inside: bool, first: bool
) -> None:
    """As Protocol Buffers do: what has the number of a known field and another kind is a field that nobody knows."""
    kind, value = wire
    odd = bytes([number << 3 | kind]) + value
    if inside and kind == 0 and number in (KEY_INDEX, HASH_KEY_INDEX):
        odd = bytes([number << 3 | 2, 1]) + b"x"
    record = b"\x08\x00\x1a\x02hi"
    if inside:
        record = odd + record if first else record + odd
    message = b"\x0a\x01k\x1a" + bytes([len(record)]) + record
    if not inside:
        message = odd + message if first else message + odd
    assert user_records(framed(message)) == [UserRecord("k", b"hi")]


def test_an_aggregated_record_that_holds_none_is_handed_over_as_it_is() -> None:
    assert user_records(framed(b"")) is None
    assert user_records(MAGIC) is None
    assert user_records(b"") is None


@given(st.text("84mawgoABC+/=é", max_size=40), st.booleans())
def test_data_that_are_no_base64_are_a_record_like_any_other(text: str, partial: bool) -> None:
    record = KinesisRecord("7", Epoch(1.0), MAGIC_BASE64 + text, "k", dated=True)
    behind = Position.after("6:2") if partial else None

    async def apart() -> list[str]:
        return [each.data for each in await taken_apart([record], LoopTurns(), behind=behind)]

    assert asyncio.run(apart()) == [record.data]


def test_a_key_that_is_longer_than_the_service_takes_makes_it_a_record_like_any_other() -> None:
    longest = "é" * KEY_CHARS_MAX
    found = user_records(packed([(longest, None, b"x")] * 2))
    assert found is not None
    assert [each.key for each in found] == [longest] * 2
    # The packer refuses longer keys.
    key = b"k" * (KEY_CHARS_MAX + 1)
    assert user_records(framed(b"\x0a" + varint(len(key)) + key + b"\x1a\x04\x08\x00\x1a\x00")) is None


def varint(number: int) -> bytes:
    """A number as the messages have it."""
    if number < 128:
        return bytes([number])
    return bytes([number & 127 | 128]) + varint(number >> 7)


@pytest.mark.parametrize(("parts", "fields_each"), [(1, 20_000), (100, 200), (10_000, 2)])
def test_no_slice_of_work_reads_more_fields_than_it_may(
    parts: int, fields_each: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = 0

    def counted(message: bytes) -> Iterator[tuple[int, int | bytes]]:
        nonlocal read
        for each in fields(message):
            read += 1
            yield each

    monkeypatch.setattr(aggregates, "fields", counted)
    part = b"\x08\x00" * (fields_each - 1) + b"\x1a\x01x"
    work = aggregates.user_records(framed(b"\x0a\x01k" + (b"\x1a" + varint(len(part)) + part) * parts))
    slices, last = [], 0
    with suppress(StopIteration):
        while True:
            next(work)
            slices.append(read - last)
            last = read
    assert read > parts * fields_each
    assert max(slices) <= SLICE
    assert read - last <= SLICE


class Room:
    """Counts what is asked for; has none beyond `most`."""

    def __init__(self, most: int = 2**40) -> None:
        self.asked: list[int] = []
        self._most = most

    async def make(self, answer_bytes: int) -> None:
        """As AnswerRoom."""
        self.asked.append(answer_bytes)
        if answer_bytes > self._most:
            raise AnswerTooLarge(answer_bytes, 0)

    def spare(self) -> None:
        """As AnswerRoom."""


def aggregated(parts: int, data: bytes) -> KinesisRecord:
    """A record with so many equal user records."""
    inner = b"\x08\x00\x1a" + bytes([len(data)]) + data
    message = b"\x0a\x01k" + parts * (b"\x1a" + bytes([len(inner)]) + inner)
    text = base64.b64encode(framed(message)).decode()
    return KinesisRecord("7", Epoch(1.0), text, "key", dated=True)


@given(st.lists(st.tuples(st.integers(1, 400), st.binary(max_size=60)), min_size=1, max_size=3))
def test_room_is_asked_for_before_user_records_take_it(wholes: list[tuple[int, bytes]]) -> None:
    records = [aggregated(parts, data) for parts, data in wholes]
    room = Room()

    async def main() -> int:
        with answering(room):
            tracemalloc.start()
            found = await taken_apart(records, LoopTurns())
            taken, _ = tracemalloc.get_traced_memory()
            tracemalloc.stop()
        assert len(found) == sum(parts for parts, _ in wholes)
        return taken

    taken = asyncio.run(main())
    assert room.asked == [sum(parts for parts, _ in wholes) * PART_BYTES]
    wire = sum(len(each.data) for each in records)
    # The least that the engine makes room for is one and a half times what it is asked for, over the answer and its parts.
    assert taken < 1.5 * (room.asked[0] + wire) + 20_000


def test_user_records_without_room_are_not_made() -> None:
    async def main() -> None:
        with answering(Room(1_000)), pytest.raises(AnswerTooLarge):
            await taken_apart([aggregated(100_000, b"")], LoopTurns())

    tracemalloc.start()
    asyncio.run(main())
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 4_000_000


def test_records_that_are_not_aggregated_ask_for_no_more_room() -> None:
    room = Room()
    record = KinesisRecord("7", Epoch(1.0), base64.b64encode(b"plain").decode(), "key", dated=True)

    async def main() -> None:
        with answering(room):
            assert await taken_apart([record], LoopTurns()) == [record]

    asyncio.run(main())
    assert room.asked == []
