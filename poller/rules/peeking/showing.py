"""Owns how records become what an operator sees: place, key, time, size and verdict, and payloads within one bound."""

import binascii
from base64 import b64decode
from collections.abc import Sequence
from typing import assert_never

from poller.domain.peeking.answers import PeekedRecord, ShownPayload, UserRecord
from poller.domain.records import ABSENT, DynamoRecord, KinesisRecord, Record
from poller.domain.streams.places import name_of
from poller.domain.untrusted import numbers
from poller.domain.untrusted.json_values import json_value
from poller.domain.untrusted.texts import line_of
from poller.rules.filtering import Slices
from poller.rules.peeking.aggregates import unpacked
from poller.rules.peeking.payloads import PayloadRoom
from poller.rules.peeking.verdicts import RecordFilters, RecordVerdict
from poller.rules.streams.lanes import lane_of_record

KEY_CHARS_MAX = 256
NAME_CHARS_MAX = 32
_SIZE_MAX = 2**40


def shown_records(
    records: Sequence[Record], filters: RecordFilters, *, lanes: int, payloads: bool
) -> Slices[tuple[PeekedRecord, ...]]:
    """The records as they are shown, with their payloads if those may be seen."""
    room = PayloadRoom()
    found: list[PeekedRecord] = []
    for record in records:
        verdict = yield from filters.judge(record)
        found.append(_shown(record, verdict, lane_of_record(record, lanes), room if payloads else None))
        yield
    return tuple(found)


def _shown(record: Record, verdict: RecordVerdict, lane: int, room: PayloadRoom | None) -> PeekedRecord:
    match record:
        case KinesisRecord():
            return _shown_data(record, verdict, lane, room)
        case DynamoRecord():
            return _shown_change(record, verdict, lane, room)
        case _:
            assert_never(record)


def _shown_data(
    record: KinesisRecord, verdict: RecordVerdict, lane: int, room: PayloadRoom | None
) -> PeekedRecord:
    payload: ShownPayload | None = None
    users: tuple[UserRecord, ...] = ()
    count: int | None = None
    if room is not None:
        raw = _bytes_of(record.data)
        inside = unpacked(raw)
        if inside is None:
            payload = room.show(raw)
        else:
            count = inside.count
            users = tuple(
                UserRecord(key=_key(key), payload=room.show(data))
                for key, data in inside.records
                if room.left > 0
            )
    return PeekedRecord(
        sequence_number=name_of(record.sequence_number),
        key=_key(record.key),
        arrived=record.arrived,
        size_bytes=_decoded_bytes(record.data),
        lane=lane,
        verdict=verdict.verdict,
        pattern=verdict.pattern,
        reasons=verdict.reasons,
        payload=payload,
        user_records=users,
        user_records_count=count,
    )


def _shown_change(
    record: DynamoRecord, verdict: RecordVerdict, lane: int, room: PayloadRoom | None
) -> PeekedRecord:
    change = record.change
    keys, new_image, old_image = (
        None if room is None or raw is ABSENT else room.show(bytes(raw))
        for raw in (change.keys, change.new_image, change.old_image)
    )
    return PeekedRecord(
        sequence_number=record.sequence_number,
        key=_key(record.key),
        arrived=record.arrived,
        size_bytes=_change_bytes(record),
        lane=lane,
        verdict=verdict.verdict,
        pattern=verdict.pattern,
        reasons=verdict.reasons,
        event_name=line_of(record.event_name or "", chars_max=NAME_CHARS_MAX),
        keys=keys,
        new_image=new_image,
        old_image=old_image,
    )


def _change_bytes(record: DynamoRecord) -> int:
    """The size that the service names, or the length of keys and images."""
    change = record.change
    length = len(change.keys) + len(change.new_image) + len(change.old_image)
    try:
        named = None if change.size_bytes is ABSENT else json_value(change.size_bytes)
    except ValueError:
        return length
    return numbers.whole(named, most=_SIZE_MAX, default=length)


def _bytes_of(data: str) -> bytes:
    """The bytes in base64. A text that is no base64 is shown as it is: a function gets it in that form, too."""
    try:
        return b64decode(data, validate=True)
    except (binascii.Error, ValueError):
        return data.encode("utf-8", "replace")


def _decoded_bytes(data: str) -> int:
    return max(0, len(data) * 3 // 4 - data[-2:].count("="))


def _key(key: str | None) -> str:
    return line_of(key or "", chars_max=KEY_CHARS_MAX)
