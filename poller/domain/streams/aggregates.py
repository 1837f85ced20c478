"""Owns the form of an aggregated record of the Kinesis Producer Library (aws-behaviour#aggregated-records).

Four bytes say what it is, and the MD5 digest of what is between stands at the end. Between them is a message of Protocol Buffers:

    message AggregatedRecord { repeated string keys = 1; repeated string hash_keys = 2; repeated Inner records = 3; }
    message Inner { required uint64 key_index = 1; optional uint64 hash_key_index = 2; required bytes data = 3; }
"""

import base64
import hashlib
from collections.abc import Iterator

MAGIC = b"\xf3\x89\x9a\xc2"
MAGIC_BASE64 = base64.b64encode(MAGIC[:3]).decode()
"""How the data of such a record begins in base64."""
DIGEST_BYTES = 16
KEYS, HASH_KEYS, RECORDS = 1, 2, 3
KEY_INDEX, HASH_KEY_INDEX, DATA = 1, 2, 3
_VARINT, _EIGHT_BYTES, _BYTES, _FOUR_BYTES = 0, 1, 2, 5
OTHER = 0
"""Stands for the number of a field of four or eight bytes. The form has none, so it is a field of another version, whatever its number."""
_VARINT_BITS_MAX = 63


class NoMessage(ValueError):
    """The bytes are no message of Protocol Buffers."""


def message_of(data: bytes) -> bytes | None:
    """The message in the data of a record; None if that has not the form of an aggregated one, or another digest."""
    if not data.startswith(MAGIC) or len(data) < len(MAGIC) + DIGEST_BYTES:
        return None
    message = data[len(MAGIC) : -DIGEST_BYTES]
    digest = hashlib.md5(message, usedforsecurity=False).digest()
    return message if digest == data[-DIGEST_BYTES:] else None


def fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    """The number and the value of each field, in order: OTHER if it is of four or eight bytes. Raises NoMessage where the bytes are no field."""
    at, end = 0, len(message)
    while at < end:
        tag, at = _varint(message, at)
        number, kind = tag >> 3, tag & 7
        if number == 0:
            raise NoMessage("field 0")
        if kind == _VARINT:
            value, at = _varint(message, at)
            yield number, value
            continue
        if kind == _BYTES:
            size, at = _varint(message, at)
        elif kind in (_EIGHT_BYTES, _FOUR_BYTES):
            number, size = OTHER, 8 if kind == _EIGHT_BYTES else 4
        else:
            raise NoMessage(f"a field of kind {kind}")
        if size > end - at:
            raise NoMessage("a field that goes on behind the end")
        yield number, message[at : at + size]
        at += size


def _varint(message: bytes, at: int) -> tuple[int, int]:
    """The number at a place, seven bits in each byte, and the place behind it."""
    found = shift = 0
    while at < len(message):
        byte = message[at]
        at += 1
        found |= (byte & 0x7F) << shift
        if byte < 0x80:
            return found, at
        shift += 7
        if shift > _VARINT_BITS_MAX:
            raise NoMessage("a number of too many bytes")
    raise NoMessage("a number that goes on behind the end")
