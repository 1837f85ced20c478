"""Owns how long received messages stay ours: deadlines, when to extend them, receipts that come anew (spec 7.2)."""

import heapq
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import msgspec

from poller.records import Message, Monotonic

VISIBILITY_S_MAX = 43_200
"""SQS hides a message for 12 hours from its receive at most, extensions included."""
HOLD_S_MIN = 5
"""The shortest extension, for queues with a visibility timeout so short that extending by it would cost a call a second."""
TRUSTED_S_MIN = 3
"""Below this visibility timeout a receive call takes too large a part of it to count from the moment it was sent."""
WINDOW_MARGIN_S = 30
"""What AWS adds when it extends for a batching window (spec 7.2)."""
IDLE_RENEWALS_MAX = 100
"""Planned extensions of messages that are gone which may be kept, beside half of all."""
RENEWAL_S = 1.0
"""An extension that failed is not repeated sooner, unless too little time is left."""
RENEWAL_S_MIN = 0.2
"""With little time left it is repeated so soon."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What decides over visibility: the queue's own timeout, whether we extend, the window and the function's limit."""

    visibility_s: int
    extend: bool
    window_s: float
    timeout_s: float

    @property
    def hold_s(self) -> int:
        """Seconds of one extension."""
        return min(max(self.visibility_s, HOLD_S_MIN), VISIBILITY_S_MAX)

    @property
    def first_s(self) -> int | None:
        """Seconds of the single extension that AWS makes right after a receive; None for none."""
        needed_s = self.window_s + self.timeout_s
        if self.extend or self.window_s <= 0 or needed_s <= self.visibility_s:
            return None
        return min(math.ceil(needed_s) + WINDOW_MARGIN_S, VISIBILITY_S_MAX)


class Held(msgspec.Struct, eq=False):
    """A message that we have: its newest receipt, until when it is surely hidden, how often it was received."""

    message_id: str
    receipt: str
    receives: int
    taken: Monotonic
    until: Monotonic
    renewal: "Renewal | None" = None
    """Its planned extension."""


class Renewal(msgspec.Struct, eq=False):
    """A planned extension: of these messages, as far as they are still planned for it; `left` counts them."""

    held: tuple[Held, ...]
    left: int


class Admission(msgspec.Struct, frozen=True, gc=False):
    """What a receive brought: fresh messages, those that we have already, those that came too late to be ours."""

    fresh: tuple[Message, ...]
    repeated: int
    late: int


@dataclass(frozen=True, slots=True)
class Extend:
    """Hide these messages for `visibility_s` from now on."""

    held: tuple[Held, ...]
    visibility_s: int

    @property
    def until(self) -> Monotonic:
        """When the first of them comes into sight."""
        return min(each.until for each in self.held)


@dataclass(slots=True)
class Holds:
    """The messages of one queue mapping between receive and delete.

    A message that is received again while we have it, because its visibility lapsed or because the queue delivered it
    twice, is not run a second time: its newer receipt renews the hold.
    """

    terms: Terms
    _held: dict[str, Held] = field(default_factory=dict)
    _renewals: list[tuple[Monotonic, int, Renewal]] = field(default_factory=list)
    _entries: int = 0
    _idle: int = 0
    """Planned extensions of which no message is left."""

    def __len__(self) -> int:
        return len(self._held)

    def admit(self, messages: Sequence[Message], *, now: Monotonic) -> Admission:
        """Takes what one receive brought."""
        fresh: list[Message] = []
        planned: dict[Monotonic, list[Held]] = {}
        repeated = late = 0
        for message in messages:
            held = self._taken(message, now)
            known = self._held.get(message.message_id)
            if held.until <= now:
                late += 1
                continue
            if known is None:
                self._held[message.message_id] = held
                fresh.append(message)
            else:
                repeated += 1
                if held.receives <= known.receives:
                    continue
                known.receipt, known.receives = held.receipt, held.receives
                known.taken, known.until = held.taken, held.until
                self._drop_plan(known)
                held = known
            if (moment := self._first_renewal(held, now)) is not None:
                planned.setdefault(moment, []).append(held)
        self._schedule(planned)
        return Admission(tuple(fresh), repeated, late)

    @property
    def next_due(self) -> Monotonic | None:
        """When to ask for `due` again; None while nothing is to be extended."""
        return self._renewals[0][0] if self._renewals else None

    def due(self, now: Monotonic) -> list[Extend]:
        """The extensions that are to be made now; tell the result of each by `extended`, `gone` or `postponed`."""
        by_seconds: dict[int, list[Held]] = {}
        while self._renewals and self._renewals[0][0] <= now:
            _, _, renewal = heapq.heappop(self._renewals)
            self._idle -= not renewal.left
            for held in renewal.held:
                if held.renewal is renewal:
                    held.renewal = None
                    self._plan(held, now, by_seconds)
        return [Extend(tuple(held), seconds) for seconds, held in by_seconds.items()]

    def extended(self, held: Iterable[Held], *, until: Monotonic) -> None:
        """These messages are hidden until then."""
        planned: dict[Monotonic, list[Held]] = {}
        for each in held:
            each.until = until
            self._drop_plan(each)
            if self._has(each) and self.terms.extend and until <= each.taken + VISIBILITY_S_MAX - 1:
                planned.setdefault(self._renew_at(each, self.terms.hold_s), []).append(each)
        self._schedule(planned)

    def gone(self, held: Iterable[Held], *, now: Monotonic) -> None:
        """The receipts of these messages are no longer valid."""
        for each in held:
            each.until = min(each.until, now)
            self._drop_plan(each)

    def postponed(self, held: Iterable[Held], *, now: Monotonic, wait_s: float) -> None:
        """These extensions failed; they are due again after a wait, as long as the messages are ours.

        At least half of the time that is left stays for the next try.
        """
        planned: dict[Monotonic, list[Held]] = {}
        for each in held:
            self._drop_plan(each)
            half_s = max((each.until - now) / 2, RENEWAL_S_MIN)
            moment = Monotonic(now + min(max(wait_s, RENEWAL_S), half_s))
            if self._has(each) and moment < each.until:
                planned.setdefault(moment, []).append(each)
        self._schedule(planned)

    def lapsed(self, message_id: str, *, now: Monotonic) -> bool:
        """Whether a message may be visible to others."""
        held = self._held.get(message_id)
        return held is None or held.until <= now

    def until(self, message_id: str) -> Monotonic | None:
        """Until when a message is hidden; None for one that we do not have."""
        held = self._held.get(message_id)
        return None if held is None else held.until

    def receipt(self, message_id: str) -> str:
        """The newest receipt of a message that we have."""
        return self._held[message_id].receipt

    def forget(self, message_id: str) -> None:
        """The message is deleted or left to its visibility timeout."""
        held = self._held.pop(message_id, None)
        if held is not None:
            self._drop_plan(held)

    def _drop_plan(self, held: Held) -> None:
        """The message's extension is no longer planned.

        A planned extension without messages stays until its moment, which may be hours away, unless there are many.
        """
        renewal, held.renewal = held.renewal, None
        if renewal is None:
            return
        renewal.left -= 1
        if not renewal.left:
            self._idle += 1
            if self._idle > len(self._renewals) // 2 + IDLE_RENEWALS_MAX:
                self._renewals = [each for each in self._renewals if each[2].left]
                heapq.heapify(self._renewals)
                self._idle = 0

    def _has(self, held: Held) -> bool:
        """Whether the message is still here; it may have been deleted while its extension was on the way."""
        return self._held.get(held.message_id) is held

    def _taken(self, message: Message, now: Monotonic) -> Held:
        terms = self.terms
        visibility_s = max(terms.visibility_s, 1)
        since = message.received if visibility_s >= TRUSTED_S_MIN else now
        receives = int(message.attributes.get("ApproximateReceiveCount", "1"))
        until = Monotonic(since + visibility_s)
        return Held(message.message_id, message.receipt, receives, since, until)

    def _first_renewal(self, held: Held, now: Monotonic) -> Monotonic | None:
        """When a message is to be extended that was received now; None for never."""
        if self.terms.extend:
            return self._renew_at(held, max(self.terms.visibility_s, 1))
        return None if self.terms.first_s is None else now

    def _plan(self, held: Held, now: Monotonic, by_seconds: dict[int, list[Held]]) -> None:
        wanted_s = self.terms.hold_s if self.terms.extend else self.terms.first_s
        left_s = VISIBILITY_S_MAX - math.ceil(now - held.taken)
        if wanted_s is not None and now < held.until and left_s > 0:
            by_seconds.setdefault(min(wanted_s, left_s), []).append(held)

    @staticmethod
    def _renew_at(held: Held, seconds: int) -> Monotonic:
        """A third of the time is left for the call and its repetitions."""
        return Monotonic(held.until - seconds / 3)

    def _schedule(self, planned: Mapping[Monotonic, Sequence[Held]]) -> None:
        for moment, members in planned.items():
            renewal = Renewal(tuple(members), len(members))
            for held in members:
                held.renewal = renewal
            self._entries += 1
            heapq.heappush(self._renewals, (moment, self._entries, renewal))
