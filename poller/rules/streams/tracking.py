"""Owns a shard's records between reading and settling: which of them are new, and up to where all of them are settled."""

from collections.abc import Sequence
from dataclasses import dataclass

from poller.domain.records import SHARD_END, Epoch, Position, Record
from poller.rules.streams.batching import Entry
from poller.rules.streams.resuming import EarlierRun
from poller.rules.streams.watermark import Span, Watermark

AS_OF_STEP_S = 600
"""How finely a checkpoint tells the moment up to which everything is settled; an idle shard is written that often."""


@dataclass(frozen=True, slots=True)
class PageIntake:
    """What became of a page: records taken in, records that no filter matched, records that need no delivery.

    `skipped` were settled by an earlier run. `repeated` had been read before: a source that goes back is not believed.
    """

    taken: int
    filtered: int
    skipped: int
    repeated: int


@dataclass(frozen=True, slots=True)
class TakenPage:
    """The records of a page that are to be delivered, with their indices in the watermark."""

    indices: Sequence[int]
    records: Sequence[Record]
    intake: PageIntake

    @property
    def complete(self) -> bool:
        """Whether all records that had not been read before are to be delivered."""
        return not self.intake.filtered and not self.intake.skipped


class RecordTracker:
    """The records of one shard from its position on."""

    def __init__(self, position: Position, earlier: EarlierRun, *, as_of: Epoch) -> None:
        self._watermark = Watermark(position)
        self._earlier = earlier
        self._as_of = as_of
        self._read_to = position
        self._newest = position
        self._ended = position == SHARD_END

    @property
    def position(self) -> Position:
        """The safe position."""
        return self._watermark.position

    @property
    def read_to(self) -> Position:
        """Behind the last record that was read."""
        return self._read_to

    @property
    def as_of(self) -> Epoch:
        """A moment, never too late: what had arrived by then is settled. 0 when that is not known."""
        return self._as_of

    @property
    def span(self) -> int:
        """Records from the first unsettled one to the last one that was read."""
        return self._watermark.span

    @property
    def ended(self) -> bool:
        """Whether the shard was read to its end."""
        return self._ended

    def restart_at(self, position: Position) -> None:
        """Reading goes on at another place."""
        self._read_to = position

    def take(
        self, records: Sequence[Record], passing: Sequence[bool] | None, *, caught_up: bool, asked: Epoch
    ) -> TakenPage:
        """Tracks a page's records, in order. Those that need no delivery are settled at once.

        `caught_up`: the source had nothing behind them when it was `asked`. `passing`: which of them the mapping's filters
        let through; None for all.
        """
        fresh, passing = self._fresh(records, passing)
        first = self._watermark.track_all([record.sequence_number for record in fresh])
        settled: list[int] = []
        indices, wanted, skipped = self._wanted(fresh, passing, first, settled)
        if settled:
            self._watermark.resolve(settled)
        if fresh:
            self._read_to = self._newest = Position.after(fresh[-1].sequence_number)
        if not self._watermark.span and (caught_up or fresh):
            self._settled_as_of(asked if caught_up else fresh[-1].arrived)
        taken = len(wanted)
        intake = PageIntake(taken, len(fresh) - taken - skipped, skipped, len(records) - len(fresh))
        return TakenPage(indices, wanted, intake)

    def settle(self, entries: Sequence[Entry]) -> None:
        """These entries were delivered or discarded."""
        self._watermark.resolve(entry.index for entry in entries)
        if entries and self._watermark.passed(entries[-1].index):
            self._settled_as_of(entries[-1].record.arrived)

    def read_out(self) -> None:
        """The shard has no more records."""
        self._ended = True

    def end(self) -> None:
        """The shard counts as settled to its end as soon as all its records are."""
        self._watermark.end()

    def settled_ahead(self, *, lanes: int) -> tuple[Span, ...]:
        """What is settled behind the safe position, in this run and, as far as it was not read again, in earlier ones.

        With one lane only filtered records are, which need no memory: the filter drops them again.
        """
        if lanes == 1 and not self._earlier.remembers_settled:
            return ()
        return (*self._watermark.beyond(), *self._earlier.settled_behind(self._newest.sequence))

    def _fresh(
        self, records: Sequence[Record], passing: Sequence[bool] | None
    ) -> tuple[Sequence[Record], Sequence[bool] | None]:
        """The records behind everything that was read before, nearly always all of them, with what passes of them."""
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
    ) -> tuple[Sequence[int], Sequence[Record], int]:
        """The records that are to be delivered, with their indices, and how many an earlier run settled.

        Adds the indices of all others to `settled`.
        """
        if passing is None and not self._earlier.has_settled:
            return range(first, first + len(fresh)), fresh, 0
        earlier = self._earlier if self._earlier.has_settled else None
        indices: list[int] = []
        wanted: list[Record] = []
        skipped = 0
        for index, record in enumerate(fresh, first):
            if earlier is not None and earlier.settled(record.sequence_number):
                skipped += 1
                settled.append(index)
            elif passing is None or passing[index - first]:
                indices.append(index)
                wanted.append(record)
            else:
                settled.append(index)
        return indices, wanted, skipped

    def _settled_as_of(self, moment: Epoch) -> None:
        self._as_of = max(self._as_of, moment)
