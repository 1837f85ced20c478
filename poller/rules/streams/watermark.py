"""Owns the safe position of a shard: the end of the settled records that have no gap before them (aws-behaviour#checkpoints).

A shard is read in order, but its records are not settled in order. They are spread over lanes by key, and a lane that fails
and retries stays behind while the others go on:

    read       1  2  3  4  5  6  7  8
    lane       a  b  a  b  b  a  b  a
    settled    x  x  .  x  x  .  x  .      lane a retries record 3
                  ^ watermark: 2           settled ahead: 4-5, 7

The watermark is the last settled record before the first one that is not settled. It is the position of the checkpoint. A worker
that goes on there reads record 3 again, so that no record is skipped. The watermark never moves back.

Records 4, 5 and 7 are read again, too. The checkpoint's memo has them as spans, by first and last place, and
`SettledSpans` skips them. If the memo is lost or too large, they run a second time, which at-least-once delivery allows.

Each record gets an index when it is read, and is settled by that index exactly once. Every key is always in the same lane, so
the order of a key is kept although lanes do not wait for each other.
"""

from bisect import bisect_left
from collections import deque
from collections.abc import Sequence

from poller.domain.records import SHARD_END, Position
from poller.domain.streams.places import begin_of, end_of

type Span = tuple[int, int]
"""Where records begin and end that follow each other in the shard and are all settled (see `places`)."""


class Watermark:
    """Tracks records in the order of reading, and knows up to where all of them are settled.

    Each tracked record gets the next index, and is settled once, by that index. `position` moves only forward.
    """

    def __init__(self, position: Position) -> None:
        self._position = position
        self._unsettled_from = 0
        self._waiting: deque[str] = deque()
        self._settled: set[int] = set()
        self._ended = False

    @property
    def position(self) -> Position:
        """The safe position; SHARD_END once the end was read and everything is settled."""
        return self._position

    @property
    def span(self) -> int:
        """Records from the first unsettled one to the last one that was read."""
        return len(self._waiting)

    @property
    def tracked(self) -> int:
        """How many records were tracked in all; the next one gets this index."""
        return self._unsettled_from + len(self._waiting)

    def passed(self, index: int) -> bool:
        """Whether the safe position is behind this record."""
        return index < self._unsettled_from

    def waits(self, begin: int) -> bool:
        """Whether the record that begins here was tracked, and the safe position is not behind it yet."""
        found = bisect_left(self._waiting, begin, key=begin_of)
        return found < len(self._waiting) and begin_of(self._waiting[found]) == begin

    def track(self, place: str) -> int:
        """Takes the next record that was read; returns its index."""
        assert not self._ended, "a record behind the end of its shard"
        self._waiting.append(place)
        return self._unsettled_from + len(self._waiting) - 1

    def track_all(self, places: Sequence[str]) -> int:
        """Takes the next records that were read; returns the index of the first."""
        assert not self._ended or not places, "a record behind the end of its shard"
        first = self.tracked
        self._waiting.extend(places)
        return first

    def resolve(self, new: Sequence[int]) -> None:
        """Settles records by their indices. Each must be tracked and not settled yet."""
        if new and not self._settled and list(range(self._unsettled_from, new[-1] + 1)) == new:
            assert new[-1] < self.tracked, "settled, but never read"
            self._forward(len(new))
            return
        fresh = set(new)
        assert len(fresh) == len(new), "settled twice"
        assert self._settled.isdisjoint(fresh), "settled twice"
        if new:
            assert self._unsettled_from <= min(new), "settled twice"
            assert max(new) < self.tracked, "settled, but never read"
        self._settled |= fresh
        self._advance()

    def end(self) -> None:
        """Says that the shard has no more records."""
        self._ended = True
        self._advance()

    def settled_ahead(self) -> tuple[Span, ...]:
        """Settled records behind the safe position, as spans in order. A restart need not deliver them again."""
        spans: list[Span] = []
        first: str | None = None
        last = ""
        for offset, place in enumerate(self._waiting):
            if self._unsettled_from + offset in self._settled:
                first, last = first or place, place
            elif first is not None:
                spans.append((begin_of(first), end_of(last)))
                first = None
        if first is not None:
            spans.append((begin_of(first), end_of(last)))
        return tuple(spans)

    def _advance(self) -> None:
        count = 0
        while count < len(self._waiting) and self._unsettled_from + count in self._settled:
            self._settled.remove(self._unsettled_from + count)
            count += 1
        self._forward(count)

    def _forward(self, count: int) -> None:
        """Moves the position over the next `count` records, which are settled."""
        last = ""
        for _ in range(count):
            last = self._waiting.popleft()
        self._unsettled_from += count
        if last:
            moved = Position.after(last)
            assert moved > self._position, "the source went backwards"
            self._position = moved
        if self._ended and not self._waiting:
            self._position = SHARD_END


class SettledSpans:
    """Spans that an earlier run settled behind its position. `covers` is called for each record that is read again, in order."""

    def __init__(self, spans: Sequence[Span]) -> None:
        self._spans = deque(spans)

    def __bool__(self) -> bool:
        return bool(self._spans)

    def left(self, read_to: int) -> tuple[Span, ...]:
        """The spans, or parts of them, that were not read again yet: those behind the place that ends at `read_to`."""
        return tuple((max(first, read_to + 1), last) for first, last in self._spans if last > read_to)

    def covers(self, place: str) -> bool:
        """Whether the record is settled already. Places must come in ascending order.

        A whole record is, if all of its parts were settled. They were parts if aggregated records were taken apart then.
        """
        begin = begin_of(place)
        while self._spans and self._spans[0][1] < begin:
            self._spans.popleft()
        return bool(self._spans) and self._spans[0][0] <= begin and end_of(place) <= self._spans[0][1]
