"""Owns when failed messages of a queue are tried again: how long each waits, and the calls that change their visibility.

SQS has no other timer for a message than its visibility timeout. So a failed message that shall wait gets a new timeout, once,
right after it failed. The wait is what the function asked for with `retryAfterSeconds`, or else what the mapping's `retry_backoff`
gives for the message's receive count. A message with neither is left to the timeout that it has.

Four rules keep the order and the queue's own policies:

- The failed messages of one FIFO group in one event wait equally long, as long as the longest of their waits. SQS gives out nothing
  of a group while a message of it is hidden, so the whole group waits. The messages behind the failed ones are made visible at
  once, unrun, and come again behind them. The waits have no random part, because that could show a later message before an earlier one.
- A message that was received for the last time by the queue's redrive policy is left to its timeout: there is no next try to
  wait for, and the dead-letter queue gets it as soon as ever.
- SQS hides a message for at most 12 hours from its receive. A longer wait is cut to that.
- A message whose visibility is over may be with another consumer, so nothing is changed about it.

A call that fails is not repeated. The message then comes again after the timeout that it had before.
"""

import math
from collections.abc import Collection, Mapping, Sequence

import msgspec

from poller.domain.policies import RetryBackoff
from poller.domain.records import Message, Monotonic
from poller.rules.queues.visibility import VISIBILITY_S_MAX, InFlightMessage

DELAYS_MAX = 10
"""The most messages in one call of SQS that changes visibility."""
LIMIT_MARGIN_S = 5
"""SQS refuses a timeout that ends more than 12 hours after the receive. So much is left for the way of the call."""
_EXPONENT_MAX = 10_000
"""The largest exponent. Any cap is reached long before, unless the factor is 1."""
_MILLISECOND_DIGITS = 3


class PendingDelay(msgspec.Struct, frozen=True, gc=False):
    """A failed message that shall be tried again at `retry_at`. `held` is its entry from the time when it was in flight."""

    message: Message
    held: InFlightMessage
    retry_at: Monotonic


class DelayCall(msgspec.Struct, frozen=True, gc=False):
    """One call, to hide each of these messages for its seconds from now on. It is of no use after `until`."""

    delays: tuple[PendingDelay, ...]
    visibility_s: tuple[int, ...]

    @property
    def receipts(self) -> list[str]:
        """The receipts, in order."""
        return [each.held.receipt for each in self.delays]

    @property
    def until(self) -> Monotonic:
        """When the first of these messages becomes visible by itself."""
        return min(each.held.until for each in self.delays)


def backoff_s(policy: RetryBackoff, receives: int) -> float:
    """Seconds to wait after the failure of a message that was received so often. A count of 0, which is not known, is as 1."""
    exponent = min(max(receives, 1) - 1, _EXPONENT_MAX)
    try:
        wait_s = policy.base_s * policy.factor**exponent
    except OverflowError:
        return policy.cap_s
    return min(wait_s, policy.cap_s)


def waits_of(
    messages: Sequence[Message],
    asked: Mapping[int, float],
    policy: RetryBackoff | None,
    *,
    receives_max: int | None,
) -> dict[int, float]:
    """Seconds to wait by place in `messages`, which failed in one event. `asked` is what the function asked for, by place.

    Messages that are not in the result are left to their visibility timeout.
    """
    waits: dict[int, float] = {}
    longest: dict[str, float] = {}
    for place, message in enumerate(messages):
        wait_s = asked.get(place)
        if wait_s is None and policy is not None:
            wait_s = backoff_s(policy, message.receives)
        if wait_s is None or _last(message, receives_max):
            continue
        waits[place] = min(wait_s, float(VISIBILITY_S_MAX))
        if (group := message.group) is not None:
            longest[group] = max(waits[place], longest.get(group, 0.0))
    for place, message in enumerate(messages):
        if message.group in longest and not _last(message, receives_max):
            waits[place] = longest[message.group]
    return waits


def _last(message: Message, receives_max: int | None) -> bool:
    """Whether the queue gives the message out no more, because of its redrive policy."""
    return receives_max is not None and message.receives >= receives_max


class RetryDelays:
    """The failed messages of one queue mapping whose visibility is still to be changed.

    `receives_max` is how often the queue gives a message out before it moves to the dead-letter queue; None without one.
    """

    def __init__(self, policy: RetryBackoff | None, receives_max: int | None) -> None:
        self._policy = policy
        self._receives_max = receives_max
        self._pending: list[PendingDelay] = []

    def __len__(self) -> int:
        return len(self._pending)

    def follow_queue(self, receives_max: int | None) -> None:
        """The queue's settings may have changed."""
        self._receives_max = receives_max

    def failed(
        self,
        messages: Sequence[Message],
        held: Sequence[InFlightMessage | None],
        asked: Mapping[int, float],
        *,
        now: Monotonic,
    ) -> None:
        """These messages failed in one event. `held` are their entries while they were in flight, None for a message that lapsed."""
        if self._policy is None and not asked:
            return
        for place, wait_s in waits_of(messages, asked, self._policy, receives_max=self._receives_max).items():
            entry = held[place]
            if entry is not None and entry.until > now:
                self._pending.append(PendingDelay(messages[place], entry, Monotonic(now + wait_s)))

    def forget(self, message_ids: Collection[str]) -> None:
        """An operator decides about these messages, so they are not put off."""
        self._pending = [each for each in self._pending if each.message.message_id not in message_ids]

    def take(self, now: Monotonic, *, hidden_s_min: float = 0.0) -> list[DelayCall]:
        """The calls to make now, of ten messages each. Messages are hidden for at least `hidden_s_min` more seconds.

        A message whose extension is under way stays here until that call is over, because the later one of two calls counts.
        """
        pending = [each for each in self._pending if each.held.until > now]
        self._pending = [each for each in pending if each.held.extending]
        found = [
            (each, seconds)
            for each in pending
            if not each.held.extending and (seconds := _seconds(each, now, hidden_s_min)) is not None
        ]
        return [
            DelayCall(
                tuple(each for each, _ in found[start : start + DELAYS_MAX]),
                tuple(seconds for _, seconds in found[start : start + DELAYS_MAX]),
            )
            for start in range(0, len(found), DELAYS_MAX)
        ]


def _seconds(delay: PendingDelay, now: Monotonic, hidden_s_min: float) -> int | None:
    """Whole seconds of the new timeout, rounded up, so that the message is not tried too early. None: the 12 hours are over."""
    wanted_s = math.ceil(round(max(delay.retry_at - now, hidden_s_min, 0.0), _MILLISECOND_DIGITS))
    left_s = VISIBILITY_S_MAX - LIMIT_MARGIN_S - math.ceil(now - delay.held.taken)
    return min(wanted_s, left_s) if left_s > 0 else None
