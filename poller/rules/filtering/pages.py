"""Owns how a page of a stream is held against a mapping's filters: in slices, so that no page is one long step."""

from collections.abc import Callable, Sequence

from poller.domain.records import DynamoRecord, KinesisRecord, Record
from poller.rules.filtering import Slices

SLICE_BYTES = 24 * 1024
"""Records of one slice, by their size: well under a millisecond of common records, some ten of the worst."""
RECORD_BYTES = 256
"""What a record counts beside its payload."""

type Matches = Callable[[Record], bool | Slices[bool]]


def judged(records: Sequence[Record], matches: Matches) -> Slices[list[bool]]:
    """Whether each record passes."""
    passing: list[bool] = []
    left = SLICE_BYTES
    for record in records:
        answer = matches(record)
        passing.append(answer if answer is True or answer is False else (yield from answer))
        # Spelled out for Kinesis: a call for each record is a twentieth of a small match.
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
