"""Owns what sources share: when an answer waits for its turn, and cursors that begin at a moment."""

from collections.abc import Sequence

from poller.domain.records import Cursor, Record

TURN_BYTES = 16 * 1024
"""An answer that is longer waits for a turn before it is decoded."""
_SCALE_MS = 1000


def to_cursor(iterator: str, since_ms: int = 0) -> Cursor:
    """A cursor that reads from `iterator` on and leaves out records from before `since_ms` (0: none) at first."""
    return Cursor(f"{since_ms};{iterator}")


def from_cursor(cursor: Cursor) -> tuple[int, str]:
    """`since_ms` and iterator of a cursor."""
    since_ms, _, iterator = cursor.partition(";")
    return int(since_ms), iterator


def begun[R: Record](records: Sequence[R], since_ms: int) -> Sequence[R]:
    """The records from the first one on that arrived at `since_ms` or later; later ones stay whatever their time."""
    for index, record in enumerate(records):
        if round(record.arrived * _SCALE_MS) >= since_ms:
            return records[index:]
    return ()
