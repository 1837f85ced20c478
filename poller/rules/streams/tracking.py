"""Owns a shard's records between reading and settling: which of them are new, and up to where all of them are settled."""

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from operator import itemgetter

from poller.domain.records import SHARD_END, Epoch, Position, Record
from poller.domain.streams.places import text_of_begin, text_of_end
from poller.rules.streams.batching import Entry
from poller.rules.streams.resuming import EarlierRun
from poller.rules.streams.watermark import Span, Watermark

SETTLED_THROUGH_STEP_S = 600
"""A checkpoint's `settled_through` is a multiple of this, so that an idle shard writes a checkpoint only once in this time."""
EMPTY_PAGES = 10
"""So many empty pages without a record between them show that the source has nothing more. One may be empty although more follows, as on DynamoDB."""


@dataclass(frozen=True, slots=True)
class PageIntake:
    """How many records of a page were taken in, and how many were not, by reason.

    No filter matched the `filtered` ones. An earlier run had settled the `skipped` ones. The `repeated` ones were read before in
    this run, because the source went back; they are ignored.
    """

    taken: int
    filtered: int
    skipped: int
    repeated: int


@dataclass(frozen=True, slots=True)
class TakenPage:
    """The records of a page that are to be delivered, with their indices in the watermark.

    `missing` are those that would be delivered, too, if no earlier run had settled them, each with its index.
    """

    indices: Sequence[int]
    records: Sequence[Record]
    intake: PageIntake
    missing: Sequence[tuple[int, Record]]

    @property
    def complete(self) -> bool:
        """Whether all records that had not been read before are to be delivered."""
        return not self.intake.filtered and not self.intake.skipped


class RecordTracker:
    """The records of one shard from its position on."""

    def __init__(self, position: Position, earlier: EarlierRun, *, settled_through: Epoch) -> None:
        self._watermark = Watermark(position)
        self._earlier = earlier
        self._settled_through = settled_through
        self._read_to = position
        self._newest = position
        self._ended = position == SHARD_END
        self._gaps = False
        """Whether records may be settled behind others that are not, in a shard with one lane."""
        self._caught_up = False
        self._empty_pages = 0
        """Pages since the last record, behind which the source had nothing when it was asked."""

    @property
    def position(self) -> Position:
        """The safe position."""
        return self._watermark.position

    @property
    def read_to(self) -> Position:
        """The position behind the last record that was read."""
        return self._read_to

    @property
    def settled_through(self) -> Epoch:
        """A moment, never too late: everything that had arrived by then is settled. 0 when that is not known."""
        return self._settled_through

    @property
    def saved_through(self) -> int:
        """`settled_through` as a checkpoint has it."""
        return int(self._settled_through // SETTLED_THROUGH_STEP_S) * SETTLED_THROUGH_STEP_S

    @property
    def span(self) -> int:
        """Records from the first unsettled one to the last one that was read."""
        return self._watermark.span

    @property
    def restored(self) -> bool:
        """Whether the unfinished batches of an earlier run are restored, as far as the source has their records now."""
        return self._earlier.restored or (self._caught_up and self._earlier.all_unread(self._read_to))

    @property
    def ended(self) -> bool:
        """Whether the shard was read to its end."""
        return self._ended

    def restart_at(self, position: Position) -> None:
        """Makes reading go on at another position."""
        self._read_to = position

    def take(
        self, records: Sequence[Record], passing: Sequence[bool] | None, *, caught_up: bool, asked: Epoch
    ) -> TakenPage:
        """Tracks a page's records, in order. Those that need no delivery are settled at once.

        `caught_up` says that the source had nothing behind them when it was asked, at `asked`. `passing` says for each record
        whether the mapping's filters let it through; None if all pass.
        """
        self._caught_up = caught_up
        # An empty page that does not show the end does not unsay those that did: what comes then is new.
        self._empty_pages = 0 if records else self._empty_pages + caught_up
        fresh, passing = self._fresh(records, passing)
        first = self._watermark.track_all([record.sequence_number for record in fresh])
        settled: list[int] = []
        indices, wanted, skipped, missing = self._wanted(fresh, passing, first, settled)
        if settled:
            self._watermark.resolve(settled)
        if fresh:
            self._read_to = self._newest = Position.after(fresh[-1].sequence_number)
        if not self._watermark.span and (caught_up or fresh):
            self._note_settled_through(asked if caught_up else _arrived(fresh))
        taken = len(wanted)
        intake = PageIntake(taken, len(fresh) - taken - skipped, skipped, len(records) - len(fresh))
        return TakenPage(indices, wanted, intake, missing)

    def settle(self, entries: Sequence[Entry]) -> None:
        """Settles these entries, which were delivered or discarded."""
        self._watermark.resolve([entry.index for entry in entries])
        if entries and self._watermark.passed(entries[-1].index):
            self._note_settled_through(_arrived([entry.record for entry in entries]))

    def expect_skips(self) -> None:
        """Says that records will be settled out of their order. What the source has nothing of is looked for from now on."""
        self._gaps = True
        self._empty_pages = 0

    def settled_among(self, begins: Iterable[int]) -> set[int]:
        """Those of these beginnings of records that are settled, as far as that is known. It looks at all that was read."""
        settled, spans = self.position.end, self._spans()
        ended = self.position == SHARD_END
        return {begin for begin in begins if ended or begin <= settled or _covered(spans, begin)}

    def gone_among(self, begins: Iterable[int]) -> set[int]:
        """Those of these beginnings of records, none of them settled, that will not be read any more.

        The source has removed them, or reading goes on behind them. That shows when a later record is read, or nothing for long.
        """
        newest, nothing_more = self._newest.end, self._empty_pages >= EMPTY_PAGES
        return {
            begin
            for begin in begins
            if (nothing_more if begin > newest else not self._watermark.waits(begin))
        }

    def read_out(self) -> None:
        """Says that the shard has no more records."""
        self._ended = True

    def end(self) -> None:
        """Makes the shard count as settled to its end as soon as all its records are settled."""
        self._watermark.end()

    def settled_ahead(self, *, lanes: int) -> tuple[tuple[str, str], ...]:
        """The spans that are settled behind the safe position: by this run, and by earlier runs if they were not read again yet.

        With one lane, only filtered records can be settled there, and skipped ones. Filtered ones need not be remembered: the filter
        drops them again.
        """
        if lanes == 1 and not (self._gaps or self._earlier.remembers_settled):
            return ()
        return tuple((text_of_begin(begin), text_of_end(end)) for begin, end in self._spans())

    def _spans(self) -> tuple[Span, ...]:
        """In order: those of earlier runs lie behind what was read."""
        return (*self._watermark.settled_ahead(), *self._earlier.settled_behind(self._newest.end))

    def _fresh(
        self, records: Sequence[Record], passing: Sequence[bool] | None
    ) -> tuple[Sequence[Record], Sequence[bool] | None]:
        """The records that were not read before, nearly always all of them, and which of them pass the filters."""
        if not records or Position.after(records[0].sequence_number) > self._newest:
            return records, passing
        places = [
            place
            for place, record in enumerate(records)
            if Position.after(record.sequence_number) > self._newest
        ]
        kept = None if passing is None else [passing[place] for place in places]
        return [records[place] for place in places], kept

    def _wanted(
        self, fresh: Sequence[Record], passing: Sequence[bool] | None, first: int, settled: list[int]
    ) -> tuple[Sequence[int], Sequence[Record], int, Sequence[tuple[int, Record]]]:
        """The records that are to be delivered, with their indices, how many an earlier run settled, and those of them that pass.

        Adds the indices of all others to `settled`.
        """
        if passing is None and not self._earlier.has_settled:
            return range(first, first + len(fresh)), fresh, 0, ()
        earlier = self._earlier if self._earlier.has_settled else None
        indices: list[int] = []
        wanted: list[Record] = []
        missing: list[tuple[int, Record]] = []
        skipped = 0
        for index, record in enumerate(fresh, first):
            if earlier is not None and earlier.settled(record.sequence_number):
                skipped += 1
                settled.append(index)
                if passing is None or passing[index - first]:
                    missing.append((index, record))
            elif passing is None or passing[index - first]:
                indices.append(index)
                wanted.append(record)
            else:
                settled.append(index)
        return indices, wanted, skipped, missing

    def _note_settled_through(self, moment: Epoch) -> None:
        self._settled_through = max(self._settled_through, moment)


def _covered(spans: Sequence[Span], begin: int) -> bool:
    """Whether one of these spans, which are in order, has the record that begins here."""
    place = bisect_right(spans, begin, key=itemgetter(0))
    return place > 0 and begin <= spans[place - 1][1]


def _arrived(records: Sequence[Record]) -> Epoch:
    """When the last of these records arrived that has a time; 0 if none has. The moment of a read would be too late."""
    return next((record.arrived for record in reversed(records) if record.dated), Epoch(0.0))
