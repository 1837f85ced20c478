"""Owns what the stream sources share: the limit for decoding an answer at once, and cursors that start at a time.

A cursor is the service's iterator with a start time before it. Some services cannot start exactly at a time. Then the first
records of an iterator may be too old, and are left out until one arrived at the start time or later.
"""

from collections.abc import Sequence

from poller.domain.records import Cursor, Record

TURN_BYTES = 16 * 1024
"""A longer answer waits for a turn of the event loop before it is decoded."""
_SCALE_MS = 1000


def to_cursor(iterator: str, since_ms: int = 0) -> Cursor:
    """Returns a cursor that reads from `iterator` on and skips the first records if they are older than `since_ms`; 0 skips none."""
    return Cursor(f"{since_ms};{iterator}")


def from_cursor(cursor: Cursor) -> tuple[int, str]:
    """Returns `since_ms` and the iterator of a cursor."""
    since_ms, _, iterator = cursor.partition(";")
    return int(since_ms), iterator


def records_since[R: Record](records: Sequence[R], since_ms: int) -> Sequence[R]:
    """Returns the records from the first one on that arrived at `since_ms` or later, whatever the times of those after it."""
    for index, record in enumerate(records):
        if round(record.arrived * _SCALE_MS) >= since_ms:
            return records[index:]
    return ()
