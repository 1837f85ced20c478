"""Owns how a Kinesis record is unpacked that has several user records inside, as the Kinesis Producer Library writes them.

The data begins with four magic bytes and ends with the MD5 of what is between them, which is a message of Protocol Buffers:

    message AggregatedRecord { repeated string keys = 1; repeated string hash_keys = 2; repeated Inner records = 3; }
    message Inner { required uint64 key_index = 1; optional uint64 hash_key_index = 2; required bytes data = 3; }

A function gets such a record as it is (aws-behaviour#aggregated-records).
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

MAGIC = b"\xf3\x89\x9a\xc2"
_DIGEST_BYTES = 16
USER_RECORDS_MAX = 100
"""User records of one record that are unpacked. All are counted."""
FIELDS_MAX = 50_000
"""Fields of one message that are read. It takes about thirty milliseconds. A Kinesis record of 1 MiB has fewer unless it is malicious."""
VARINT_BYTES_MAX = 10
_VARINT, _EIGHT_BYTES, _BYTES, _FOUR_BYTES = 0, 1, 2, 5
_KEYS, _RECORDS = 1, 3
_KEY_INDEX, _DATA = 1, 3


class _Malformed(ValueError):
    """The bytes are no such message."""


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
    if not raw.startswith(MAGIC) or len(raw) < len(MAGIC) + _DIGEST_BYTES:
        return None
    message = raw[len(MAGIC) : -_DIGEST_BYTES]
    if hashlib.md5(message, usedforsecurity=False).digest() != raw[-_DIGEST_BYTES:]:
        return None
    try:
        return _aggregate(message)
    except _Malformed:
        return None


def _aggregate(message: bytes) -> Aggregate:
    keys: list[bytes] = []
    inner: list[bytes] = []
    count = fields = 0
    for number, value in _fields(message):
        fields += 1
        if fields > FIELDS_MAX:
            break
        if number == _KEYS and isinstance(value, bytes):
            keys.append(value)
        elif number == _RECORDS and isinstance(value, bytes):
            count += 1
            if len(inner) < USER_RECORDS_MAX:
                inner.append(value)
    found = tuple(_user_record(each, keys) for each in inner)
    return Aggregate(found, count, complete=fields <= FIELDS_MAX)


def _user_record(message: bytes, keys: list[bytes]) -> tuple[str, bytes]:
    index, data = None, b""
    for count, (number, value) in enumerate(_fields(message)):
        if count > FIELDS_MAX // USER_RECORDS_MAX:
            break
        if number == _KEY_INDEX and isinstance(value, int):
            index = value
        elif number == _DATA and isinstance(value, bytes):
            data = value
    key = keys[index] if index is not None and index < len(keys) else b""
    return key.decode("utf-8", "replace"), data


def _fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    """The number and the value of each field, in order. Raises _Malformed where the bytes are no field."""
    at, end = 0, len(message)
    while at < end:
        tag, at = _varint(message, at)
        number, kind = tag >> 3, tag & 7
        if kind == _VARINT:
            value, at = _varint(message, at)
            yield number, value
            continue
        if kind == _BYTES:
            size, at = _varint(message, at)
        elif kind in (_EIGHT_BYTES, _FOUR_BYTES):
            size = 8 if kind == _EIGHT_BYTES else 4
        else:
            raise _Malformed
        if size > end - at:
            raise _Malformed
        yield number, message[at : at + size]
        at += size


def _varint(message: bytes, at: int) -> tuple[int, int]:
    """The number at a place, seven bits in each byte, and the place behind it."""
    value = 0
    for index, byte in enumerate(message[at : at + VARINT_BYTES_MAX]):
        value |= (byte & 0x7F) << (7 * index)
        if byte < 0x80:
            return value, at + index + 1
    raise _Malformed
