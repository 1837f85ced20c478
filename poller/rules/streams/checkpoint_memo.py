"""Owns what a checkpoint remembers beside its position, and how that is written."""

from typing import Annotated

import msgspec

from poller.domain.records import SEQUENCE_DIGITS_MAX
from poller.rules.streams.blocked_since import BlockedMemo
from poller.rules.streams.windows import WindowMemo

MEMO_BYTES_MAX = 256 * 1024
"""A longer memo is not written: a restart may then deliver settled records again, which at-least-once allows."""

type _Place = Annotated[str, msgspec.Meta(pattern=f"^[0-9]{{1,{SEQUENCE_DIGITS_MAX}}}(:[0-9]{{1,7}})?$")]


class PartMemo(msgspec.Struct, frozen=True, array_like=True):
    """One part of a lane's batch: the place of its last record, its failures so far, and from when its age counts, in epoch seconds.

    Workers of older versions read the first two only.
    """

    last: _Place
    failures: int
    since: int = 0


class Memo(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a checkpoint remembers beside its position.

    Workers of other versions read and write the same memos. So a field keeps its name there even where the code uses another.

    `settled_ahead` has the spans that are settled behind the position. `settled_through` is a moment in epoch seconds, never too
    late: everything that had arrived by then is settled. `lanes` maps a lane to the parts of its batch, if that was split or has failed. It counts
    only while the mapping has `lane_count` lanes. `window` is the open tumbling window. `blocked` names the records that block
    their lanes, and since when.
    """

    lane_count: int = 1
    settled_through: int = msgspec.field(default=0, name="as_of")
    settled_ahead: tuple[tuple[_Place, _Place], ...] = msgspec.field(default=(), name="beyond")
    lanes: dict[int, tuple[PartMemo, ...]] = {}
    window: WindowMemo | None = None
    blocked: tuple[BlockedMemo, ...] = ()


def read(memo: bytes) -> Memo:
    """The memo of a checkpoint. A memo that cannot be read counts as empty, because records may then only run again."""
    if not memo:
        return Memo()
    try:
        return msgspec.json.decode(memo, type=Memo)
    except (msgspec.DecodeError, RecursionError):
        return Memo()
