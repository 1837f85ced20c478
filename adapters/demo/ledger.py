"""Owns the checks of what the functions received: each record processed, each lane in order, one invocation per lane. Pure.

Order means at-least-once order. A delivery of a lane continues where the last one ended, or starts again at an earlier record
and repeats from there in order. A record that a delivery skips must have been given up.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from adapters.demo.journal import Line
from adapters.demo.load import Item, Source, by_lane, wanted

PROBLEMS_MAX = 50


@dataclass(slots=True)
class Track:
    """One lane: the expected records in order, and how far the functions have got."""

    expected: Sequence[Item]
    place: Mapping[Item, int]
    cursor: int = 0
    life: int = 0
    open: tuple[int, str] | None = None
    """The life and the request id of the invocation that has records of this lane now."""


@dataclass(slots=True)
class Tally:
    """Counts of one source."""

    invocations: int = 0
    failed_invocations: int = 0
    retried: int = 0
    """Deliveries of records that had failed before."""
    repeated: int = 0
    """Deliveries of records that had been processed already."""
    most_tries: int = 0


@dataclass(slots=True)
class Ledger:
    """Reads the lines of the journal and checks them."""

    load: Mapping[Source, Sequence[Item]]
    processed: set[Item] = field(default_factory=set)
    tries: dict[Item, int] = field(default_factory=dict)
    skipped: dict[Item, str] = field(default_factory=dict)
    """Records of a lane that a delivery skipped, each with the text of the problem."""
    problems: list[str] = field(default_factory=list)
    _disordered: set[Source] = field(default_factory=set)
    tallies: dict[Source, Tally] = field(default_factory=lambda: {source: Tally() for source in Source})
    _tracks: dict[tuple[Source, str], Track] = field(default_factory=dict)
    _wanted: set[Item] = field(default_factory=set)

    def __post_init__(self) -> None:
        """Prepares the lanes of the load."""
        for source, items in self.load.items():
            self._wanted.update(wanted(items))
            for lane, its in by_lane(wanted(items)).items():
                self._tracks[source, lane] = Track(its, {item: place for place, item in enumerate(its)})

    def take(self, line: Line) -> None:
        """Reads one line of the journal. Lines must come in their order."""
        for item in line.items:
            if item not in self._wanted:
                self._add_problem(
                    line.source, f"{name(item)} reached the function, but was filtered out or never written"
                )
        known = [item for item in line.items if item in self._wanted]
        lanes = by_lane(known) if line.source.ordered else {}
        if line.began:
            self._count(line, known)
            for lane, items in lanes.items():
                self._begin(self._tracks[line.source, lane], line, items)
            return
        tally = self.tallies[line.source]
        if line.failed:
            tally.failed_invocations += 1
        done = {item for index, item in enumerate(line.items) if index not in line.failed}
        self.processed |= done & self._wanted
        for lane, items in lanes.items():
            self._end(self._tracks[line.source, lane], line, [item for item in items if item in done])

    def _count(self, line: Line, items: Iterable[Item]) -> None:
        tally = self.tallies[line.source]
        tally.invocations += 1
        for item in items:
            tries = self.tries[item] = self.tries.get(item, 0) + 1
            tally.most_tries = max(tally.most_tries, tries)
            if item in self.processed:
                tally.repeated += 1
            elif tries > 1:
                tally.retried += 1

    def _begin(self, track: Track, line: Line, items: Sequence[Item]) -> None:
        places = [track.place[item] for item in items]
        if track.open is not None and track.open[0] == line.life:
            self._add_problem(line.source, f"{name(items[0])}: its lane was in two invocations at once")
        if any(later <= earlier for earlier, later in pairwise(places)):
            self._add_problem(
                line.source, f"{line.source} {items[0].lane}: {_numbers(items)} came in this order"
            )
        if track.life == line.life and places[0] < track.cursor and line.source.stream:
            self._add_problem(
                line.source, f"{name(items[0])} came again although the daemon had not been restarted"
            )
        there = set(places)
        for place in range(track.cursor, places[-1]):
            if place not in there:
                self._skip(track.expected[place], items)
        track.cursor, track.life, track.open = places[0], line.life, (line.life, line.request)

    def _end(self, track: Track, line: Line, done: Sequence[Item]) -> None:
        if track.open == (line.life, line.request):
            track.open = None
        # An invocation that outlived its daemon does not count for the lane's place.
        if track.life == line.life and done:
            track.cursor = max(track.cursor, track.place[done[-1]] + 1)

    def _skip(self, item: Item, by: Sequence[Item]) -> None:
        if item.source is Source.PAYMENTS and item in self.processed:
            return
        self.skipped.setdefault(item, f"{name(item)} was left out before {name(by[-1])}")

    def disordered(self, source: Source) -> bool:
        """Whether its function received something wrong."""
        return source in self._disordered

    def _add_problem(self, source: Source, text: str) -> None:
        self._disordered.add(source)
        if len(self.problems) < PROBLEMS_MAX:
            self.problems.append(text)


def name(item: Item) -> str:
    """Returns the name of an item in the report: source, lane and number."""
    return f"{item.source} {item.lane}/{item.number}"


def _numbers(items: Iterable[Item]) -> str:
    return ", ".join(str(item.number) for item in items)
