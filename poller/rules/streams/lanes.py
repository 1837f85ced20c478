"""Owns which lane a record belongs to: one key, one lane (aws-behaviour#parallel-lanes)."""

from zlib import crc32

from poller.domain.records import Record


def lane_of(key: str, lanes: int) -> int:
    """The lane of a partition key or item key; the same on every machine and in every run."""
    return crc32(key.encode("utf-8", "surrogatepass")) % lanes if lanes > 1 else 0


def lane_of_record(record: Record, lanes: int) -> int:
    """The lane of a record: of its key, or of its sequence number when it has no key."""
    key = record.key
    return lane_of(record.sequence_number if key is None else key, lanes)
