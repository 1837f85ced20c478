"""Owns how often the same trouble is told: at once, then at growing intervals, and afresh after a quiet time.

Trouble has a place (a shard's invocations, a call to the store) and a kind. Kinds of one place are told independently of
each other: a new kind is told at once. Kinds go by text without numbers, ids and quoted words; texts of
one kind that differ are told at once too, as long as they are few.

Whatever is not told is counted. Its last event is kept, and is due when the interval is over, whether more comes or not:
what was told and what was counted are all that there was.
"""

import heapq
import re
from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass, field

from poller.domain.records import Monotonic

FIRST_S = 10.0
"""After the first telling, at most one more in this time; the time doubles with each telling."""
LONGEST_S = 600.0
QUIET_S = 1200.0
"""Trouble that was not seen for this long is new."""
KEYS_MAX = 10_000
"""Troubles that are remembered; the ones not seen for longest are forgotten first."""
KINDS_MAX = 100
"""Kinds of one place that are told apart; all others count as one kind, until one of these was not seen for `QUIET_S`."""
TEXTS_MAX = 32
"""Texts of one kind that are told at once."""
OTHER_KINDS = "other kinds"

_VARIABLE = re.compile(
    r"'[^']*'|\"[^\"]*\"|\b0x[0-9a-f]+\b|\b[0-9a-f]{8}-[0-9a-f-]{27}\b|\b(?=[a-f]*+[0-9])[0-9a-f]++\b|[0-9]+",
    re.IGNORECASE,
)


def kind_of(text: str) -> str:
    """`text` without what differs from one record to the next: numbers, hexadecimal ids, quoted words."""
    return _VARIABLE.sub("#", text)


@dataclass(frozen=True, slots=True)
class Telling[E]:
    """An event that is to be told. `untold`: those that are not; `new`: a trouble, kind or text that was not there before."""

    event: E
    untold: int = 0
    new: bool = False


@dataclass(slots=True)
class _Trouble[E]:
    interval_s: float
    next_at: Monotonic
    seen_at: Monotonic
    texts: set[int] = field(default_factory=set)
    untold: int = 0
    last: E | None = None

    def take(self) -> Telling[E]:
        """The last untold event, which stands for the others."""
        assert self.last is not None, "nothing is untold"
        telling = Telling(self.last, self.untold - 1)
        self.untold, self.last = 0, None
        return telling


class Repeats[E]:
    """Remembers by place and kind what was told when."""

    def __init__(self, keys_max: int = KEYS_MAX) -> None:
        self._troubles: OrderedDict[tuple[Hashable, str], _Trouble[E]] = OrderedDict()
        self._kinds: dict[Hashable, set[str]] = {}
        self._due: list[tuple[Monotonic, int, tuple[Hashable, str]]] = []
        self._entered = 0
        self._keys_max = keys_max

    def happened(self, place: Hashable, event: E, now: Monotonic, *, text: str = "") -> list[Telling[E]]:
        """What is to be told now that `event` has happened; counts it if it is not told.

        Beside the event there may be what is forgotten with it.
        """
        kind, lost = self._kind(place, text, now)
        return lost + self._of_kind((place, kind), event, now, text)

    def _of_kind(self, key: tuple[Hashable, str], event: E, now: Monotonic, text: str) -> list[Telling[E]]:
        trouble = self._troubles.get(key)
        if trouble is None or now - trouble.seen_at >= QUIET_S:
            return [*self._remember(key, text, now), Telling(event, new=True)]
        self._troubles.move_to_end(key)
        trouble.seen_at = now
        if hash(text) not in trouble.texts and len(trouble.texts) < TEXTS_MAX:
            trouble.texts.add(hash(text))
            return [Telling(event, new=True)]
        if now < trouble.next_at:
            self._count(key, trouble, event)
            return []
        untold, trouble.untold, trouble.last = trouble.untold, 0, None
        self._lengthen(trouble, now)
        return [Telling(event, untold)]

    def due(self, now: Monotonic) -> list[Telling[E]]:
        """What is to be told because its interval is over."""
        found = []
        while self._due and self._due[0][0] <= now:
            _, _, key = heapq.heappop(self._due)
            trouble = self._troubles.get(key)
            if trouble is not None and trouble.untold and trouble.next_at <= now:
                found.append(trouble.take())
                self._lengthen(trouble, now)
        return found

    def next_due(self) -> Monotonic | None:
        """When `due` may have something next."""
        return self._due[0][0] if self._due else None

    def over(self, place: Hashable) -> list[Telling[E]]:
        """The trouble has passed: its next time is a first time. Returns what is still to be told of it."""
        gone = [self._troubles.pop((place, kind), None) for kind in self._kinds.pop(place, ())]
        return [trouble.take() for trouble in gone if trouble is not None and trouble.untold]

    def rest(self) -> list[Telling[E]]:
        """All that is still to be told, at the end."""
        return [trouble.take() for trouble in self._troubles.values() if trouble.untold]

    def _kind(self, place: Hashable, text: str, now: Monotonic) -> tuple[str, list[Telling[E]]]:
        """The kind of a text, and what is to be told of kinds that are forgotten to make room for it."""
        kind, known = kind_of(text), self._kinds.get(place, set())
        if kind in known or len(known) < KINDS_MAX:
            return kind, []
        quiet = [each for each in known if now - self._troubles[place, each].seen_at >= QUIET_S]
        lost = [self._troubles.pop((place, each)) for each in quiet]
        known.difference_update(quiet)
        return kind if quiet else OTHER_KINDS, [trouble.take() for trouble in lost if trouble.untold]

    def _count(self, key: tuple[Hashable, str], trouble: _Trouble[E], event: E) -> None:
        if not trouble.untold:
            self._entered += 1
            heapq.heappush(self._due, (trouble.next_at, self._entered, key))
        trouble.untold += 1
        trouble.last = event

    def _lengthen(self, trouble: _Trouble[E], now: Monotonic) -> None:
        trouble.interval_s = min(2 * trouble.interval_s, LONGEST_S)
        trouble.next_at = Monotonic(now + trouble.interval_s)

    def _remember(self, key: tuple[Hashable, str], text: str, now: Monotonic) -> list[Telling[E]]:
        """Returns what is to be told of what is forgotten for it."""
        gone = self._troubles.pop(key, None)
        lost = [gone] if gone is not None else []
        self._troubles[key] = _Trouble(FIRST_S, Monotonic(now + FIRST_S), now, {hash(text)})
        self._kinds.setdefault(key[0], set()).add(key[1])
        while len(self._troubles) > self._keys_max:
            (place, kind), oldest = self._troubles.popitem(last=False)
            self._kinds[place].discard(kind)
            if not self._kinds[place]:
                del self._kinds[place]
            lost.append(oldest)
        return [trouble.take() for trouble in lost if trouble.untold]
