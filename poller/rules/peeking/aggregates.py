"""Owns how a Kinesis record is unpacked that has several user records inside, as the Kinesis Producer Library writes them.

A function gets such a record as it is, unless the mapping takes it apart (aws-behaviour#aggregated-records). Here a few of them are shown.
"""

from dataclasses import dataclass

from poller.domain.streams.aggregates import (
    DATA,
    KEY_INDEX,
    KEYS,
    RECORDS,
    NoMessage,
    fields,
    message_of,
)

USER_RECORDS_MAX = 100
"""User records of one record that are unpacked. All are counted."""
FIELDS_MAX = 50_000
"""Fields of one message that are read. It takes about thirty milliseconds. A Kinesis record of 1 MiB has fewer unless it is malicious."""


@dataclass(frozen=True, slots=True)
class Aggregate:
    """What is inside an aggregated record: the first user records with their keys, and how many there are.

    `complete` is False if there are so many that not all were counted.
    """

    records: tuple[tuple[str, bytes], ...]
    count: int
    complete: bool = True


def unpacked(raw: bytes) -> Aggregate | None:
    """The user records inside `raw`; None if it is no aggregated record. Raises nothing."""
    message = message_of(raw)
    if message is None:
        return None
    try:
        return _aggregate(message)
    except NoMessage:
        return None


def _aggregate(message: bytes) -> Aggregate:
    keys: list[bytes] = []
    inner: list[bytes] = []
    count = read = 0
    for number, value in fields(message):
        read += 1
        if read > FIELDS_MAX:
            break
        if number == KEYS and isinstance(value, bytes):
            keys.append(value)
        elif number == RECORDS and isinstance(value, bytes):
            count += 1
            if len(inner) < USER_RECORDS_MAX:
                inner.append(value)
    found = tuple(_user_record(each, keys) for each in inner)
    return Aggregate(found, count, complete=read <= FIELDS_MAX)


def _user_record(message: bytes, keys: list[bytes]) -> tuple[str, bytes]:
    index, data = None, b""
    for count, (number, value) in enumerate(fields(message)):
        if count > FIELDS_MAX // USER_RECORDS_MAX:
            break
        if number == KEY_INDEX and isinstance(value, int):
            index = value
        elif number == DATA and isinstance(value, bytes):
            data = value
    key = keys[index] if index is not None and index < len(keys) else b""
    return key.decode("utf-8", "replace"), data
