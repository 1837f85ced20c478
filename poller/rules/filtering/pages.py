"""Owns how a page of a stream is filtered: in slices, so that a page does not block the event loop for long."""

from collections.abc import Callable, Sequence

from poller.domain.records import DynamoRecord, KinesisRecord, Record
from poller.rules.filtering import Slices

SLICE_BYTES = 24 * 1024
"""Bytes of the records in one slice. It takes well under a millisecond for common records, and about ten for the worst."""
RECORD_BYTES = 256
"""Bytes that a record counts in addition to its payload."""

type Matches = Callable[[Record], bool | Slices[bool]]


def judged(records: Sequence[Record], matches: Matches) -> Slices[list[bool]]:
    """Whether each record passes the filters."""
    passing: list[bool] = []
    left = SLICE_BYTES
    for record in records:
        answer = matches(record)
        passing.append(answer if answer is True or answer is False else (yield from answer))
        # Inlined for Kinesis, because a call for each record would cost a twentieth of a small match.
        left -= (
            len(record.data) + RECORD_BYTES if isinstance(record, KinesisRecord) else _change_bytes(record)
        )
        if left <= 0:
            left = SLICE_BYTES
            yield
    return passing


def _change_bytes(record: DynamoRecord) -> int:
    change = record.change
    return RECORD_BYTES + len(change.keys) + len(change.new_image) + len(change.old_image)
