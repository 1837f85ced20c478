"""Owns which lane a record belongs to: one key, one lane (spec 5.1)."""

from zlib import crc32


def lane_of(key: str, lanes: int) -> int:
    """The lane of a partition key or item key; the same on every machine and in every run."""
    return crc32(key.encode("utf-8", "surrogatepass")) % lanes if lanes > 1 else 0
