"""Owns how an aggregated record of the Kinesis Producer Library is taken apart (aws-behaviour#aggregated-records).

The form is the library's published one: four bytes that say so, a message of Protocol Buffers, and the MD5 digest of the message. The
message has a table of partition keys, one of explicit hash keys, and the user records, which name their keys by index. What is not
exactly of this form is a record like any other.
"""

import base64
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

MAGIC = b"\xf3\x89\x9a\xc2"
MAGIC_BASE64 = base64.b64encode(MAGIC[:3]).decode()
"""How the data of such a record begins in base64."""
DIGEST_BYTES = 16
RECORDS_MAX = 1_000_000
"""A record of Kinesis, 10 MiB at most, has room for fewer."""
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_VARINT_BITS_MAX = 63


@dataclass(frozen=True, slots=True)
class UserRecord:
    """One record that a producer put into an aggregated one."""

    key: str
    data: bytes
    explicit_hash_key: str | None = None


def user_records(data: bytes) -> list[UserRecord] | None:
    """The user records of an aggregated record, in order; None if the data are none, or one that holds nothing. The work is linear."""
    if not data.startswith(MAGIC) or len(data) < len(MAGIC) + DIGEST_BYTES:
        return None
    message, digest = data[len(MAGIC) : -DIGEST_BYTES], data[-DIGEST_BYTES:]
    if hashlib.md5(message, usedforsecurity=False).digest() != digest:
        return None
    try:
        return _records(message) or None
    except (ValueError, IndexError):
        return None


def _records(message: bytes) -> list[UserRecord]:
    keys: list[str] = []
    hash_keys: list[str] = []
    parts: list[bytes] = []
    for number, value in _fields(message):
        match number, value:
            case 1, bytes():
                keys.append(value.decode())
            case 2, bytes():
                hash_keys.append(value.decode())
            case 3, bytes():
                parts.append(value)
    if len(parts) > RECORDS_MAX:
        raise ValueError("too many records")
    return [_record(each, keys, hash_keys) for each in parts]


def _record(part: bytes, keys: list[str], hash_keys: list[str]) -> UserRecord:
    key: int | None = None
    hash_key: int | None = None
    data: bytes | None = None
    for number, value in _fields(part):
        match number, value:
            case 1, int():
                key = value
            case 2, int():
                hash_key = value
            case 3, bytes():
                data = value
    if key is None or data is None:
        raise ValueError("a record without key or data")
    return UserRecord(keys[key], data, None if hash_key is None else hash_keys[hash_key])


def _fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    """The fields of a message, each with its number. Raises ValueError or IndexError if it is none."""
    at = 0
    while at < len(message):
        tag, at = _varint(message, at)
        number, kind = tag >> 3, tag & 7
        if number == 0:
            raise ValueError("field 0")
        if kind == _VARINT:
            value, at = _varint(message, at)
            yield number, value
            continue
        if kind == _BYTES:
            size, at = _varint(message, at)
        elif kind in {_FIXED64, _FIXED32}:
            size = 8 if kind == _FIXED64 else 4
        else:
            raise ValueError(f"a field of kind {kind}")
        if at + size > len(message):
            raise ValueError("a field that goes on behind the end")
        yield number, message[at : at + size]
        at += size


def _varint(message: bytes, at: int) -> tuple[int, int]:
    """A number of variable length, and the place behind it."""
    found = shift = 0
    while True:
        byte = message[at]
        at += 1
        found |= (byte & 0x7F) << shift
        if byte < 0x80:
            return found, at
        shift += 7
        if shift > _VARINT_BITS_MAX:
            raise ValueError("a number of too many bytes")
