"""Owns the report of a demo: what became of every record, and every problem. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from adapters.demo.dead_letters import DeadLetters
from adapters.demo.ledger import Ledger, name
from adapters.demo.load import Item, Kind, Source, by_lane
from poller.domain.wording.numbers_of import inflected, number_of

SHOWN_MAX = 5
"""Records that one sentence names."""

type Counters = Mapping[Source, Mapping[str, float]]
"""The daemon's counters of each source."""


@dataclass(frozen=True, slots=True)
class Blocked:
    """The longest time that a lane of a source was blocked, as the daemon's status showed it."""

    for_s: float
    where: str
    error: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """The figures of one source."""

    source: Source
    written: int
    processed: int
    filtered: int
    invocations: int
    failed_invocations: int
    retried: int
    repeated: int
    most_tries: int
    lanes: int
    """Keys, items or groups whose order was checked and was right; 0 if the source has no order or it was wrong."""
    bisections: int
    discarded: int
    buried: tuple[str, ...]
    """The names of the records at the destination or in the dead-letter queue."""
    conditions: tuple[str, ...] = ()
    blocked: Blocked | None = None


@dataclass(frozen=True, slots=True)
class Report:
    """What happened. The demo succeeded if there are no problems."""

    rows: tuple[Row, ...]
    problems: tuple[str, ...]
    notes: tuple[str, ...] = ()
    seconds: float = 0.0

    def document(self) -> dict[str, Any]:
        """Returns the report as JSON values."""
        return {"ok": not self.problems, **asdict(self)}


@dataclass(slots=True)
class Evidence:
    """Everything that a report is made of. `counters` None: they were not read, or several daemons did the work."""

    load: Mapping[Source, Sequence[Item]]
    ledger: Ledger
    dead_letters: DeadLetters
    counters: Counters | None = None
    blocked: dict[Source, Blocked] = field(default_factory=dict)
    left: dict[Source, int] = field(default_factory=dict)
    """The number of messages that are still in each queue."""

    def outstanding(self, source: Source) -> list[Item]:
        """Returns the items that are neither processed nor given up. Poison must be given up."""
        buried = set(self.dead_letters.items[source])
        return [
            item
            for item in self.load[source]
            if item.kind is not Kind.NOISE
            and item not in buried
            and (item.kind is Kind.POISON or item not in self.ledger.processed)
        ]

    def unfiltered(self, source: Source) -> int:
        """Returns how many records the filter has still to leave out."""
        if self.counters is None or not source.filtered:
            return 0
        noise = len([item for item in self.load[source] if item.kind is Kind.NOISE])
        return noise - int(self.counters[source].get("filtered_out_event_count", 0))

    @property
    def complete(self) -> bool:
        """Whether every record is where it should be."""
        return not any(
            self.outstanding(source) or self.unfiltered(source) > 0 or self.left.get(source)
            for source in Source
        )


def make_report(evidence: Evidence, *, lenient: bool = False, seconds: float = 0.0) -> Report:
    """Makes the report of what is known now.

    `lenient` is for daemons that were killed. Then even good messages may have been received so often that they are in the
    dead-letter queue.
    """
    problems = [
        *evidence.ledger.problems,
        *evidence.dead_letters.unmatched,
        *(problem for source in Source for problem in _problems(evidence, source, lenient=lenient)),
    ]
    rows = tuple(_row(evidence, source) for source in Source)
    return Report(rows, tuple(problems), tuple(_notes(evidence)), seconds)


def _row(evidence: Evidence, source: Source) -> Row:
    tally = evidence.ledger.tallies[source]
    counters = (evidence.counters or {}).get(source, {})
    items = evidence.load[source]
    return Row(
        source=source,
        written=len(items),
        processed=len([item for item in items if item in evidence.ledger.processed]),
        filtered=int(counters.get("filtered_out_event_count", 0)),
        invocations=tally.invocations,
        failed_invocations=tally.failed_invocations,
        retried=tally.retried,
        repeated=tally.repeated,
        most_tries=tally.most_tries,
        lanes=len(by_lane(items)) if source.ordered and not evidence.ledger.disordered(source) else 0,
        bisections=int(counters.get("bisections", 0)),
        discarded=int(sum(value for key, value in counters.items() if key.startswith("discarded_records/"))),
        buried=tuple(name(item) for item in evidence.dead_letters.items[source]),
        conditions=tuple(sorted(set(evidence.dead_letters.conditions[source]))),
        blocked=evidence.blocked.get(source),
    )


def _problems(evidence: Evidence, source: Source, *, lenient: bool) -> list[str]:
    place = "its on-failure destination" if source.stream else "its dead-letter queue"
    buried = set(evidence.dead_letters.items[source])
    missing = evidence.outstanding(source)
    found: list[str] = []
    if never := [item for item in missing if item not in evidence.ledger.tries]:
        found.append(f"{source}: never reached the function and not in {place}: {_names(never)}")
    if unfinished := [item for item in missing if item in evidence.ledger.tries]:
        found.append(f"{source}: tried, but neither processed nor in {place}: {_names(unfinished)}")
    found += [
        f"{text}, and it is not in {place}"
        for item, text in evidence.ledger.skipped.items()
        if item.source is source and item not in buried
    ]
    healthy = [item for item in buried if item.kind is not Kind.POISON and not _behind_poison(item, buried)]
    if healthy and not lenient:
        found.append(f"{source}: in {place} although nothing is wrong with them: {_names(healthy)}")
    if (unfiltered := evidence.unfiltered(source)) > 0:
        found.append(
            f"{source}: the daemon filtered out {number_of(unfiltered, 'record')} fewer than the filter says"
        )
    if left := evidence.left.get(source, 0):
        found.append(
            f"{source}: {number_of(left, 'message')} {inflected(left, 'is', 'are')} still in the queue"
        )
    return found


def _behind_poison(item: Item, buried: set[Item]) -> bool:
    """Whether a message was behind poison in its FIFO group, so that it was received as often without being processed."""
    return item.source is Source.PAYMENTS and any(
        other.kind is Kind.POISON and other.lane == item.lane and other.number < item.number
        for other in buried
    )


def _notes(evidence: Evidence) -> list[str]:
    buried = evidence.dead_letters.items[Source.PAYMENTS]
    behind = [item for item in buried if item.kind is not Kind.POISON]
    if not behind:
        return []
    return [
        f"{_names(behind)} stood behind the poison of their group in its batches, were received as often, and so are in "
        "the dead-letter queue too: what AWS does with FIFO batches"
    ]


def _names(items: Sequence[Item]) -> str:
    shown = ", ".join(f"{item.lane}/{item.number}" for item in items[:SHOWN_MAX])
    return shown if len(items) <= SHOWN_MAX else f"{shown} and {len(items) - SHOWN_MAX} more"
