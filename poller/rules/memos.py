"""Owns what a checkpoint remembers beside its position, and how that is written."""

import msgspec

from poller.rules.windows import WindowMemo

MEMO_BYTES_MAX = 256 * 1024
"""A longer memo is not written: a restart may then deliver settled records again, which at-least-once allows."""


class PartMemo(msgspec.Struct, frozen=True, array_like=True):
    """One part of a lane's batch: its last sequence number and its failures so far."""

    last: str
    failures: int


class Memo(msgspec.Struct, frozen=True, omit_defaults=True):
    """Settled spans beyond the position, batches that were split or have failed, the open tumbling window.

    `as_of` is a moment in epoch seconds, never too late: what had arrived by then is settled. `lanes` maps a lane to the
    parts of its batch; it counts only while `lane_count` is the mapping's.
    """

    lane_count: int = 1
    as_of: int = 0
    beyond: tuple[tuple[str, str], ...] = ()
    lanes: dict[int, tuple[PartMemo, ...]] = {}
    window: WindowMemo | None = None


def read(memo: bytes) -> Memo:
    """A memo that cannot be read is as good as none: it only saves deliveries."""
    if not memo:
        return Memo()
    try:
        return msgspec.json.decode(memo, type=Memo)
    except msgspec.DecodeError:
        return Memo()
