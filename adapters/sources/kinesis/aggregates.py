"""Owns how aggregated records of the Kinesis Producer Library are taken apart (aws-behaviour#aggregated-records).

What is not exactly of that form is a record like any other, and so is one whose keys are no partition keys: each user record repeats its
key, so that long ones would grow without bounds. A user record whose hash key is of another shard stays: its producer may not
send it again.
"""

import base64
import itertools
from collections.abc import Generator, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass

from poller.domain.records import AggregatedPart, KinesisRecord, Position
from poller.domain.streams.aggregates import (
    DATA,
    HASH_KEY_INDEX,
    HASH_KEYS,
    KEY_INDEX,
    KEYS,
    MAGIC_BASE64,
    RECORDS,
    NoMessage,
    fields,
    message_of,
)
from poller.domain.streams.places import place_of_part
from poller.loop_turns import LoopTurns
from poller.memory.answers import make_room, room_is_asked_for

HASH_KEY_MAX = 2**128 - 1
KEY_CHARS_MAX = 256
"""The service takes no longer partition key."""
SLICE = 400
"""Fields that are read in one slice of work. A user record has two or three."""

PARTS_SLICE = 200
"""User records that become records in one slice of work."""
PART_BYTES = 200
"""What a user record takes beside its data, roughly. The engine makes room for more than it is asked for, as for all of an answer."""

type Slices[T] = Generator[None, None, T]


@dataclass(frozen=True, slots=True)
class UserRecord:
    """One record that a producer put into an aggregated one. Its hash key decided over its shard."""

    key: str
    data: bytes
    explicit_hash_key: int | None = None


async def taken_apart(
    records: Sequence[KinesisRecord], turns: LoopTurns, *, behind: Position | None = None
) -> Sequence[KinesisRecord]:
    """These records, with the user records of aggregated ones in their place. Those up to `behind` are left out if it is inside of one.

    Small user records take many times the memory of the record that they came in, so there must be room for them first. Raises
    AnswerTooLarge.
    """
    found = records
    if any(each.data.startswith(MAGIC_BASE64) for each in records):
        if room_is_asked_for():
            await make_room(PART_BYTES * await turns.slices(_parts_of(records)))
        found = await turns.slices(_apart(records))
    if behind is None or not behind.partial:
        return found
    return [each for each in found if Position.after(each.sequence_number) > behind]


def _parts_of(records: Sequence[KinesisRecord]) -> Slices[int]:
    """How many user records these have at most."""
    parts = work = 0
    for record in records:
        message = message_of(_bytes_of(record.data)) if record.data.startswith(MAGIC_BASE64) else None
        # What is wrong with a message shows when it is taken apart.
        with suppress(NoMessage):
            for number, _ in fields(message or b""):
                parts += number == RECORDS
                work += 1
                if not work % SLICE:
                    yield
    return parts


def _apart(records: Sequence[KinesisRecord]) -> Slices[list[KinesisRecord]]:
    found: list[KinesisRecord] = []
    for record in records:
        inside = None
        if record.data.startswith(MAGIC_BASE64):
            inside = yield from user_records(_bytes_of(record.data))
        if inside is None:
            found.append(record)
            continue
        for number, each in enumerate(inside):
            found.append(_part(record, each, number, len(inside)))
            if not len(found) % PARTS_SLICE:
                yield
    return found


def _bytes_of(text: str) -> bytes:
    """What a text is in base64; nothing if it is not exactly that, which a service other than AWS may send."""
    try:
        return base64.b64decode(text, validate=True)
    except ValueError:
        return b""


def _part(whole: KinesisRecord, user: UserRecord, number: int, parts: int) -> KinesisRecord:
    data = base64.b64encode(user.data).decode()
    if parts == 1:
        return KinesisRecord(whole.sequence_number, whole.arrived, data, user.key, whole.dated)
    place = place_of_part(whole.sequence_number, number, parts)
    return AggregatedPart(place, whole.arrived, data, user.key, whole.dated)


def user_records(data: bytes) -> Slices[list[UserRecord] | None]:
    """The user records of an aggregated record, in order, in slices of work; None if the data are none, or one that holds nothing.

    The work is linear.
    """
    message = message_of(data)
    if message is None:
        return None
    try:
        return (yield from _records(message)) or None
    except (ValueError, IndexError):
        return None


def _records(message: bytes) -> Slices[list[UserRecord]]:
    keys: list[str] = []
    hash_keys: list[int | None] = []
    parts: list[bytes] = []
    work = itertools.count(1)
    for number, value in fields(message):
        if not next(work) % SLICE:
            yield
        if not isinstance(value, bytes):
            continue
        if number == KEYS:
            keys.append(_key(value))
        elif number == HASH_KEYS:
            hash_keys.append(_hash_key(value))
        elif number == RECORDS:
            parts.append(value)
    found: list[UserRecord] = []
    for part in parts:
        found.append((yield from _record(part, keys, hash_keys, work=work)))
    return found


def _key(text: bytes) -> str:
    key = text.decode()
    if len(key) > KEY_CHARS_MAX:
        raise ValueError("no partition key")
    return key


def _hash_key(text: bytes) -> int | None:
    """None if it is no number: a packer of records without one has written `undefined`, and the records are whole."""
    if not text.isdigit() or len(text) > len(str(HASH_KEY_MAX)) or int(text) > HASH_KEY_MAX:
        return None
    return int(text)


def _record(
    part: bytes, keys: list[str], hash_keys: list[int | None], *, work: Iterator[int]
) -> Slices[UserRecord]:
    """One user record. `work` counts the fields of all of them, since one alone may have millions."""
    key: int | None = None
    hash_key: int | None = None
    data: bytes | None = None
    for number, value in fields(part):
        if not next(work) % SLICE:
            yield
        if isinstance(value, bytes):
            data = value if number == DATA else data
        elif number == KEY_INDEX:
            key = value
        elif number == HASH_KEY_INDEX:
            hash_key = value
    if key is None or data is None:
        raise ValueError("a record without key or data")
    return UserRecord(keys[key], data, None if hash_key is None else hash_keys[hash_key])
