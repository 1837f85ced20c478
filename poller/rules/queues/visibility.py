"""Owns how long received messages stay ours: until when each is hidden, and when to extend that.

SQS hides a received message from other consumers for the queue's visibility timeout (aws-behaviour#visibility). After that, SQS
gives the message to any consumer, whether it still runs here or not. This module answers three questions for each message:

- Until when is it certainly hidden? The time counts from the moment at which the receive was sent. SQS begins to count later than
  that, so the deadline here is never too late. With a timeout of one or two seconds this would leave too little time. There it
  counts from the answer.
- When must it be extended? When a third of the time is left. That is enough for the call and for further tries. A failed try leaves
  at least half of the remaining time for the next one. SQS hides a message for at most 12 hours. Then it is no longer extended.
- Is it still ours? A message whose deadline has passed may be with another consumer. It is neither started nor deleted here.

A message may be received again while it is here, because it lapsed or because a standard queue gave it out twice. It does not
run a second time. Its newer receipt replaces the older one, which may no longer be valid for the delete.

Messages that are due at the same moment share one planned extension, because SQS takes ten messages in one call.

With `extend_visibility: false` there is at most one extension, as with AWS: right after the receive, if a batching window needs it.
"""

import heapq
import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from sys import getsizeof

import msgspec

from poller.domain.records import Message, Monotonic, Undone

VISIBILITY_S_MAX = 43_200
"""SQS hides a message for 12 hours from its receive at most, extensions included (aws-behaviour#sizes-and-counts)."""
HOLD_S_MIN = 5
"""The shortest extension. With a very short visibility timeout, extensions by that timeout would cost a call a second."""
TRUSTED_S_MIN = 3
"""From this visibility timeout on, a message counts as hidden since the receive was sent; below it since the answer, because the call
itself takes too large a part of the timeout."""
WINDOW_MARGIN_S = 30
"""Seconds that AWS adds when it extends the visibility for a batching window (aws-behaviour#visibility)."""
IDLE_RENEWALS_MAX = 100
"""How many planned extensions without messages may be kept, in addition to half of all."""
RENEWAL_S = 1.0
"""The shortest wait before a failed extension is repeated, if enough time is left."""
RENEWAL_S_MIN = 0.2
"""The shortest wait before an extension is repeated when little time is left."""
MESSAGE_FACTOR = 3
"""The body of a message is in memory up to so many times: as it came, in its record, and in the event of a call."""
MESSAGE_BYTES = 2_000
"""What a message takes beside its body, roughly."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VisibilityPolicy:
    """The settings that visibility depends on: the queue's timeout, whether it is extended, the batching window, the function's limit."""

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
        """Seconds of the extension that AWS makes right after a receive; None if it makes none."""
        needed_s = self.window_s + self.timeout_s
        if self.extend or self.window_s <= 0 or needed_s <= self.visibility_s:
            return None
        return min(math.ceil(needed_s) + WINDOW_MARGIN_S, VISIBILITY_S_MAX)


class InFlightMessage(msgspec.Struct, eq=False):
    """A message between its receive and its end here.

    `receipt` is the newest receipt. `receives` is how often the message was received. `taken` is when its present visibility began,
    `until` the moment up to which it is certainly hidden.
    """

    message_id: str
    receipt: str
    receives: int
    taken: Monotonic
    until: Monotonic
    renewal: "Renewal | None" = None
    """The message's planned extension."""
    extending: bool = False
    """Whether an extension call is under way."""
    kept: bool = False
    """Whether it is extended in any case, because an operator paused its group."""
    size: int = 0
    """About how many bytes the message takes in memory."""


def size_of(message: Message) -> int:
    """About how many bytes a message takes in memory, with the copies of it that a call of the function needs."""
    size = getsizeof(message.body)
    if message.message_attributes:
        for name, value in message.message_attributes.items():
            size += getsizeof(name)
            if isinstance(value, dict):
                size += sum(map(getsizeof, value.values()))
    return MESSAGE_BYTES + MESSAGE_FACTOR * size


class Renewal(msgspec.Struct, eq=False):
    """A planned extension of messages. `held` may still have messages that left or have a newer plan; `left` counts the others."""

    held: tuple[InFlightMessage, ...]
    left: int


class Admission(msgspec.Struct, frozen=True, gc=False):
    """The messages of a receive: fresh ones, how many were already here, and how many were visible again when they came."""

    fresh: tuple[Message, ...]
    repeated: int
    late: int


@dataclass(frozen=True, slots=True)
class Extend:
    """Hide these messages for `visibility_s` seconds from now on."""

    held: tuple[InFlightMessage, ...]
    visibility_s: int

    @property
    def until(self) -> Monotonic:
        """When the first of these messages becomes visible."""
        return min(each.until for each in self.held)


@dataclass(slots=True)
class VisibilityTracker:
    """The deadlines, receipts and planned extensions of one queue mapping's messages."""

    policy: VisibilityPolicy
    held_bytes: int = 0
    """About how many bytes the messages take in memory."""
    _held: dict[str, InFlightMessage] = field(default_factory=dict)
    _renewals: list[tuple[Monotonic, int, Renewal]] = field(default_factory=list)
    _entries: int = 0
    _idle: int = 0
    """How many planned extensions have no message left."""

    def __len__(self) -> int:
        return len(self._held)

    def admit(self, messages: Sequence[Message], *, now: Monotonic) -> Admission:
        """Takes the messages of one receive. `now` is when it was answered."""
        # Each message comes through here, so the loop calls no methods of its own.
        fresh: list[Message] = []
        planned: dict[Monotonic, list[InFlightMessage]] = {}
        repeated = late = 0
        policy = self.policy
        visibility_s = max(policy.visibility_s, 1)
        moment = None if policy.extend or policy.first_s is None else now
        before: Monotonic | None = None
        for message in messages:
            since = message.received if visibility_s >= TRUSTED_S_MIN else now
            until = Monotonic(since + visibility_s)
            held = InFlightMessage(message.message_id, message.receipt, message.receives, since, until)
            known = self._held.get(held.message_id)
            if until <= now:
                late += 1
                continue
            if known is None:
                self._held[held.message_id] = held
                held.size = size_of(message)
                self.held_bytes += held.size
                fresh.append(message)
            else:
                repeated += 1
                if not _newer(held, known):
                    continue
                known.receipt, known.receives = held.receipt, held.receives
                known.taken, known.until = held.taken, held.until
                self._drop_plan(known)
                held = known
            if policy.extend and until != before:
                before, moment = until, _renew_at(until, visibility_s)
            if held.kept and not policy.extend:
                planned.setdefault(_renew_at(until, visibility_s), []).append(held)
            elif moment is not None:
                planned.setdefault(moment, []).append(held)
        self._schedule(planned)
        return Admission(tuple(fresh), repeated, late)

    def follow_queue(self, policy: VisibilityPolicy) -> None:
        """The queue's settings may have changed. Messages that are already here keep their deadlines."""
        self.policy = policy

    def follow_limit(self, timeout_s: float) -> None:
        """The function's time limit may have changed."""
        if timeout_s != self.policy.timeout_s:
            self.policy = replace(self.policy, timeout_s=timeout_s)

    @property
    def next_due(self) -> Monotonic | None:
        """When to call `due` again; None while no extension is planned."""
        return self._renewals[0][0] if self._renewals else None

    def due(self, now: Monotonic) -> list[Extend]:
        """The extensions to make now. Pass the result of each to `answered`, or call `postponed` if the call failed."""
        by_seconds: dict[int, list[InFlightMessage]] = {}
        while self._renewals and self._renewals[0][0] <= now:
            _, _, renewal = heapq.heappop(self._renewals)
            if not renewal.left:
                self._idle -= 1
            for held in renewal.held:
                if held.renewal is renewal:
                    held.renewal = None
                    self._plan(held, now, by_seconds)
        return [Extend(tuple(held), seconds) for seconds, held in by_seconds.items()]

    def answered(
        self,
        command: Extend,
        receipts: Sequence[str],
        undone: Sequence[Undone],
        *,
        sent: Monotonic,
        now: Monotonic,
    ) -> None:
        """Takes the queue's answer to an extension call that was sent at `sent` with these receipts."""
        for each in command.held:
            each.extending = False
        refused = {each.receipt: each.lapsed for each in undone}
        # A message that was received again during the call has another receipt, and its own deadline.
        same = [
            (held, refused.get(receipt))
            for held, receipt in zip(command.held, receipts, strict=True)
            if held.receipt == receipt
        ]
        until = Monotonic(sent + command.visibility_s)
        self.extended([held for held, lapsed in same if lapsed is None], until=until)
        self.gone([held for held, lapsed in same if lapsed is True], now=now)
        self.postponed([held for held, lapsed in same if lapsed is False], now=now, wait_s=0.0)

    def extended(self, held: Iterable[InFlightMessage], *, until: Monotonic) -> None:
        """These messages are hidden until `until`."""
        planned: dict[Monotonic, list[InFlightMessage]] = {}
        for each in held:
            each.until = until
            self._drop_plan(each)
            extend = self.policy.extend or each.kept
            if self._has(each) and extend and until <= each.taken + VISIBILITY_S_MAX - 1:
                planned.setdefault(_renew_at(until, self.policy.hold_s), []).append(each)
        self._schedule(planned)

    def gone(self, held: Iterable[InFlightMessage], *, now: Monotonic) -> None:
        """The queue no longer accepts the receipts of these messages: they are visible, or deleted."""
        for each in held:
            each.until = min(each.until, now)
            self._drop_plan(each)

    def postponed(self, held: Iterable[InFlightMessage], *, now: Monotonic, wait_s: float) -> None:
        """These extensions failed. They are planned again after a wait, for messages that are still hidden then.

        The wait takes at most half of the time that is left.
        """
        planned: dict[Monotonic, list[InFlightMessage]] = {}
        for each in held:
            each.extending = False
            self._drop_plan(each)
            half_s = max((each.until - now) / 2, RENEWAL_S_MIN)
            moment = Monotonic(now + min(max(wait_s, RENEWAL_S), half_s))
            if self._has(each) and moment < each.until:
                planned.setdefault(moment, []).append(each)
        self._schedule(planned)

    def keep(self, message_ids: Iterable[str], *, bare: Collection[str] = ()) -> None:
        """These messages wait until an operator ends a pause. They are extended until then, also without `extend_visibility`.

        Messages that are `bare` have no contents here any more, and take little.
        """
        for message_id in bare:
            if (each := self._held.get(message_id)) is not None:
                self.held_bytes += MESSAGE_BYTES - each.size
                each.size = MESSAGE_BYTES
        planned: dict[Monotonic, list[InFlightMessage]] = {}
        for message_id in message_ids:
            held = self._held.get(message_id)
            if held is not None and not held.kept:
                held.kept = True
                if not self.policy.extend:
                    self._drop_plan(held)
                    moment = _renew_at(held.until, max(self.policy.visibility_s, 1))
                    planned.setdefault(moment, []).append(held)
        self._schedule(planned)

    def lapsed_of(self, message_ids: Iterable[str], *, now: Monotonic) -> frozenset[str]:
        """Those of these messages that may be visible to others."""
        held = self._held
        return frozenset(
            [each for each in message_ids if (one := held.get(each)) is None or one.until <= now]
        )

    def entry(self, message_id: str) -> InFlightMessage | None:
        """The entry of a message; None if it is not here."""
        return self._held.get(message_id)

    def until(self, message_id: str) -> Monotonic | None:
        """Until when a message is hidden; None if it is not here."""
        held = self._held.get(message_id)
        return None if held is None else held.until

    def receipt(self, message_id: str) -> str:
        """The newest receipt of a message that is here."""
        return self._held[message_id].receipt

    def newest_receipt(self, message_id: str) -> str | None:
        """The newest receipt of a message; None if it is not here."""
        held = self._held.get(message_id)
        return None if held is None else held.receipt

    def receipts(self, message_ids: Iterable[str]) -> list[str]:
        """The newest receipts of messages that are here."""
        held = self._held
        return [held[each].receipt for each in message_ids]

    def forget(self, message_ids: Iterable[str]) -> None:
        """These messages are deleted, or are left to their visibility timeout."""
        for message_id in message_ids:
            held = self._held.pop(message_id, None)
            if held is not None:
                self.held_bytes -= held.size
                if held.renewal is not None:
                    self._drop_plan(held)

    def _drop_plan(self, held: InFlightMessage) -> None:
        """Takes the message out of its planned extension.

        A plan without messages is removed when it is due, which may be hours away, or when there are many of them.
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

    def _has(self, held: InFlightMessage) -> bool:
        """Whether the message is still here. It may have been deleted during its extension call."""
        return self._held.get(held.message_id) is held

    def _plan(
        self, held: InFlightMessage, now: Monotonic, by_seconds: dict[int, list[InFlightMessage]]
    ) -> None:
        wanted_s = self.policy.hold_s if self.policy.extend or held.kept else self.policy.first_s
        left_s = VISIBILITY_S_MAX - math.ceil(now - held.taken)
        if wanted_s is not None and now < held.until and left_s > 0:
            held.extending = True
            by_seconds.setdefault(min(wanted_s, left_s), []).append(held)

    def _schedule(self, planned: Mapping[Monotonic, Sequence[InFlightMessage]]) -> None:
        for moment, members in planned.items():
            renewal = Renewal(tuple(members), len(members))
            for held in members:
                held.renewal = renewal
            self._entries += 1
            heapq.heappush(self._renewals, (moment, self._entries, renewal))


def _renew_at(until: Monotonic, seconds: int) -> Monotonic:
    """When two thirds of the time are over. The last third is left for the call and its repetitions."""
    return Monotonic(until - seconds / 3)


def _newer(held: InFlightMessage, known: InFlightMessage) -> bool:
    """Whether `held` is from a later receive than `known`: by the queue's receive count, or by time without one."""
    if held.receives and known.receives:
        return held.receives > known.receives
    return held.taken > known.taken
