"""Owns how tests write records as producer libraries pack them."""

import hashlib
from collections.abc import Sequence

from poller.domain.streams.aggregates import MAGIC


def varint(value: int) -> bytes:
    """A number as Protocol Buffers writes it."""
    found = bytearray()
    while value > 0x7F:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*found, value])


def delimited(number: int, content: bytes) -> bytes:
    """A field with bytes."""
    return varint(number << 3 | 2) + varint(len(content)) + content


def packed(message: bytes) -> bytes:
    """A message with the magic bytes before it and its digest behind it."""
    return MAGIC + message + hashlib.md5(message, usedforsecurity=False).digest()


def aggregated(users: Sequence[tuple[str, bytes]]) -> bytes:
    """The data of a record with these user records inside, each with a key and its data."""
    keys = list(dict.fromkeys(key for key, _ in users))
    inner = [b"\x08" + varint(keys.index(key)) + delimited(3, data) for key, data in users]
    return packed(
        b"".join([delimited(1, key.encode()) for key in keys] + [delimited(3, each) for each in inner])
    )
