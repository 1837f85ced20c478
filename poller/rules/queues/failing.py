"""Owns the picture of what fails on a queue: by message group, or by message on a standard queue; for people.

A queue does not say where a message went. One that fails is shown until it goes through here, or until its visibility has
run out after its last receive, since the next receive moves it to the dead-letter queue. Of one that may be received
again by another worker nothing more is heard: it is shown until STALE_S after it became visible.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from heapq import nlargest

from msgspec import structs

from poller.domain.invocations import FunctionError
from poller.domain.records import Epoch, Message

TROUBLES_MAX = 1000
"""Groups or messages that are remembered. The ones that have failed for longest are kept, because they show since when a queue is blocked."""
ROOM = 100
"""When there are too many, this many more than necessary are forgotten at once."""
STALE_S = 60.0
"""A message that is not received again for this long after it became visible was received by another worker, was deleted, or expired."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FailingItem:
    """One failing group or message: since when, the last error, its messages without what they hold, when it is tried again."""

    since: Epoch
    error: str
    receives: int
    next_try: Epoch
    messages: tuple[Message, ...]
    cause: FunctionError | None = None


def waiting_since(messages: Sequence[Message], now: Epoch) -> Epoch:
    """Since when the oldest of these messages has been tried.

    The queue keeps the time of a message's first receive, whoever received it: it outlives restarts, changes of the mapping and moves to other
    workers.
    """
    moments = [each.first_received for each in messages]
    return min((moment for moment in moments if 0 < moment <= now), default=now)


class FailureLog:
    """What failed and has not gone through since, oldest first."""

    def __init__(self) -> None:
        self._troubles: dict[str, FailingItem] = {}

    def failed(
        self,
        messages: Sequence[Message],
        error: str,
        *,
        now: Epoch,
        next_try: Epoch,
        cause: FunctionError | None = None,
    ) -> None:
        """These messages failed and are visible again at `next_try`; `cause` is what the function said."""
        by_key: dict[str, list[Message]] = {}
        for message in messages:
            by_key.setdefault(_key(message), []).append(message)
        for key, members in by_key.items():
            earlier = self._troubles.get(key)
            self._troubles[key] = FailingItem(
                since=min(waiting_since(members, now), earlier.since if earlier is not None else now),
                error=error,
                receives=max(1, members[0].receives),
                next_try=next_try,
                messages=tuple(_bare(each) for each in members),
                cause=cause,
            )
        if len(self._troubles) > TROUBLES_MAX:
            excess = len(self._troubles) - TROUBLES_MAX + ROOM
            for key in nlargest(excess, self._troubles, key=lambda each: self._troubles[each].since):
                del self._troubles[key]

    def done(self, messages: Sequence[Message]) -> None:
        """These messages went through."""
        if self._troubles:
            for message in messages:
                self._troubles.pop(_key(message), None)

    def current(
        self,
        now: Epoch,
        ours: Callable[[str], bool] = lambda _: False,
        *,
        receives_max: int | None = None,
    ) -> dict[str, FailingItem]:
        """What fails now, by group or message id. `ours` says whether a message came again and is being run.

        `receives_max` is how often the queue gives a message before the dead-letter queue gets it; None without one.
        """
        found: dict[str, FailingItem] = {}
        for key, each in self._troubles.items():
            left = _left(each, now, ours, receives_max)
            if left:
                found[key] = each if len(left) == len(each.messages) else replace(each, messages=left)
        self._troubles = found
        return dict(found)


def _left(
    trouble: FailingItem, now: Epoch, ours: Callable[[str], bool], receives_max: int | None
) -> tuple[Message, ...]:
    """The messages that still fail, as far as we know."""
    if now < trouble.next_try:
        return trouble.messages
    stale = now >= trouble.next_try + STALE_S
    return tuple(
        each
        for each in trouble.messages
        if ours(each.message_id)
        or not (stale or (receives_max is not None and each.receives >= receives_max))
    )


def _bare(message: Message) -> Message:
    """The message without its content. The contents of a thousand messages could take a gigabyte."""
    return structs.replace(message, body=None, message_attributes={})


def _key(message: Message) -> str:
    return message.group or message.message_id or "a message without id"
