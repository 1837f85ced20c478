"""Owns how often a problem that repeats is logged: at once, then at growing intervals, and at once again after a quiet time.

A problem has a place (a shard's invocations, a call to the store) and a kind. The kind is the event's text without numbers,
ids and quoted words. Each kind is throttled on its own, so that a new kind of problem is logged at once although another one
repeats at the same place. The first few different texts of one kind are logged at once too.

An event that is not logged is suppressed: it is counted, and the last one is kept. When the interval is over, the last one is
logged with the count, even if nothing more happened. So logged and suppressed events together are all events.
"""

import heapq
import re
from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass, field

from poller.domain.records import Monotonic

FIRST_S = 10.0
"""After the first line there is at most one more in this time. The time doubles with each line."""
LONGEST_S = 600.0
QUIET_S = 1200.0
"""A problem that was not seen for this long counts as new."""
KEYS_MAX = 10_000
"""Problems that are remembered. Those that were not seen for longest are forgotten first."""
KINDS_MAX = 100
"""Kinds of one place that are told apart. More of them count as one kind, until one of these was not seen for `QUIET_S`."""
TEXTS_MAX = 32
"""Different texts of one kind that are logged at once."""
OTHER_KINDS = "other kinds"

_VARIABLE = re.compile(
    r"'[^']*'|\"[^\"]*\"|\b0x[0-9a-f]+\b|\b[0-9a-f]{8}-[0-9a-f-]{27}\b|\b(?=[a-f]*+[0-9])[0-9a-f]++\b|[0-9]+",
    re.IGNORECASE,
)


def kind_of(text: str) -> str:
    """Returns `text` without what differs from one record to the next: numbers, hexadecimal ids, quoted words."""
    return _VARIABLE.sub("#", text)


@dataclass(frozen=True, slots=True)
class LogEntry[E]:
    """An event to be logged.

    `suppressed`: how many events it stands for beside itself. `new`: this place, kind or text was not seen before.
    """

    event: E
    suppressed: int = 0
    new: bool = False


@dataclass(slots=True)
class _Problem[E]:
    interval_s: float
    next_at: Monotonic
    seen_at: Monotonic
    texts: set[int] = field(default_factory=set)
    suppressed: int = 0
    last: E | None = None

    def take(self) -> LogEntry[E]:
        """Returns the last suppressed event, which stands for the others."""
        assert self.last is not None, "nothing is suppressed"
        entry = LogEntry(self.last, self.suppressed - 1)
        self.suppressed, self.last = 0, None
        return entry


class LogThrottle[E]:
    """Remembers for each place and kind when an event was last logged."""

    def __init__(self, keys_max: int = KEYS_MAX) -> None:
        self._problems: OrderedDict[tuple[Hashable, str], _Problem[E]] = OrderedDict()
        self._kinds: dict[Hashable, set[str]] = {}
        self._due: list[tuple[Monotonic, int, tuple[Hashable, str]]] = []
        self._order = 0
        self._keys_max = keys_max

    def offer(self, place: Hashable, event: E, now: Monotonic, *, text: str = "") -> list[LogEntry[E]]:
        """Returns what is to be logged now that `event` has happened: the event itself, or nothing if it is suppressed.

        Making room for a new problem may end an old one. Its suppressed events are then returned too.
        """
        kind, lost = self._kind(place, text, now)
        return lost + self._of_kind((place, kind), event, now, text)

    def _of_kind(self, key: tuple[Hashable, str], event: E, now: Monotonic, text: str) -> list[LogEntry[E]]:
        problem = self._problems.get(key)
        if problem is None or now - problem.seen_at >= QUIET_S:
            return [*self._remember(key, text, now), LogEntry(event, new=True)]
        self._problems.move_to_end(key)
        problem.seen_at = now
        if hash(text) not in problem.texts and len(problem.texts) < TEXTS_MAX:
            problem.texts.add(hash(text))
            return [LogEntry(event, new=True)]
        if now < problem.next_at:
            self._count(key, problem, event)
            return []
        suppressed, problem.suppressed, problem.last = problem.suppressed, 0, None
        self._lengthen(problem, now)
        return [LogEntry(event, suppressed)]

    def due(self, now: Monotonic) -> list[LogEntry[E]]:
        """Returns the suppressed events whose interval is over."""
        found = []
        while self._due and self._due[0][0] <= now:
            _, _, key = heapq.heappop(self._due)
            problem = self._problems.get(key)
            if problem is not None and problem.suppressed and problem.next_at <= now:
                found.append(problem.take())
                self._lengthen(problem, now)
        return found

    def next_due(self) -> Monotonic | None:
        """Returns when `due` may have something next."""
        return self._due[0][0] if self._due else None

    def resolved(self, place: Hashable) -> list[LogEntry[E]]:
        """Ends the problems of a place, so that the next one is new. Returns what they still have to be logged."""
        gone = [self._problems.pop((place, kind), None) for kind in self._kinds.pop(place, ())]
        return [problem.take() for problem in gone if problem is not None and problem.suppressed]

    def flush(self) -> list[LogEntry[E]]:
        """Returns everything that is still suppressed, at the end of the log."""
        return [problem.take() for problem in self._problems.values() if problem.suppressed]

    def _kind(self, place: Hashable, text: str, now: Monotonic) -> tuple[str, list[LogEntry[E]]]:
        """Returns the kind of a text, and what is to be logged of kinds that are forgotten to make room for it."""
        kind, known = kind_of(text), self._kinds.get(place, set())
        if kind in known or len(known) < KINDS_MAX:
            return kind, []
        quiet = [each for each in known if now - self._problems[place, each].seen_at >= QUIET_S]
        lost = [self._problems.pop((place, each)) for each in quiet]
        known.difference_update(quiet)
        return kind if quiet else OTHER_KINDS, [problem.take() for problem in lost if problem.suppressed]

    def _count(self, key: tuple[Hashable, str], problem: _Problem[E], event: E) -> None:
        if not problem.suppressed:
            self._order += 1
            heapq.heappush(self._due, (problem.next_at, self._order, key))
        problem.suppressed += 1
        problem.last = event

    def _lengthen(self, problem: _Problem[E], now: Monotonic) -> None:
        problem.interval_s = min(2 * problem.interval_s, LONGEST_S)
        problem.next_at = Monotonic(now + problem.interval_s)

    def _remember(self, key: tuple[Hashable, str], text: str, now: Monotonic) -> list[LogEntry[E]]:
        """Remembers a new problem; returns what is to be logged of problems that are forgotten to make room."""
        gone = self._problems.pop(key, None)
        lost = [gone] if gone is not None else []
        self._problems[key] = _Problem(FIRST_S, Monotonic(now + FIRST_S), now, {hash(text)})
        self._kinds.setdefault(key[0], set()).add(key[1])
        while len(self._problems) > self._keys_max:
            (place, kind), oldest = self._problems.popitem(last=False)
            self._kinds[place].discard(kind)
            if not self._kinds[place]:
                del self._kinds[place]
            lost.append(oldest)
        return [problem.take() for problem in lost if problem.suppressed]
