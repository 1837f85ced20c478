"""Owns the list of failing messages of a queue, for the status: by message group, or by message on a standard queue.

A queue does not say what became of a message. A failing message is listed until it succeeds here, or until its visibility ends
after its last receive, because SQS then moves it to the dead-letter queue. Another worker may receive the message again, and this
worker does not learn about that. So the message is listed at most until STALE_S after it became visible.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from heapq import nlargest

from msgspec import structs

from poller.domain.invocations import FunctionError
from poller.domain.records import Epoch, Message

ITEMS_MAX = 1000
"""Groups or messages that are listed. Those that have failed longest are kept, because they show since when a queue is blocked."""
EXTRA_REMOVED = 100
"""When there are too many, this many more than necessary are removed at once."""
STALE_S = 60.0
"""If a message is not received again for this long after it became visible, another worker has it, or it was deleted or expired."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FailingItem:
    """One failing group or message: since when it fails, the last error, its messages without content, and when it is tried again."""

    since: Epoch
    error: str
    receives: int
    next_try: Epoch
    messages: tuple[Message, ...]
    cause: FunctionError | None = None


def waiting_since(messages: Sequence[Message], now: Epoch) -> Epoch:
    """Since when the oldest of these messages has been tried.

    The queue keeps the time of a message's first receive by any consumer. So it is still known after a restart, a change of the mapping
    or a move to another worker.
    """
    moments = [each.first_received for each in messages]
    return min((moment for moment in moments if 0 < moment <= now), default=now)


class FailureLog:
    """The messages that failed and have not succeeded since, oldest first."""

    def __init__(self) -> None:
        self._items: dict[str, FailingItem] = {}

    def failed(
        self,
        messages: Sequence[Message],
        error: str,
        *,
        now: Epoch,
        next_try: Epoch,
        cause: FunctionError | None = None,
    ) -> None:
        """These messages failed and are visible again at `next_try`. `cause` is the function's error."""
        by_key: dict[str, list[Message]] = {}
        for message in messages:
            by_key.setdefault(_key(message), []).append(message)
        for key, members in by_key.items():
            earlier = self._items.get(key)
            self._items[key] = FailingItem(
                since=min(waiting_since(members, now), earlier.since if earlier is not None else now),
                error=error,
                receives=max(1, members[0].receives),
                next_try=next_try,
                messages=tuple(_bare(each) for each in members),
                cause=cause,
            )
        if len(self._items) > ITEMS_MAX:
            excess = len(self._items) - ITEMS_MAX + EXTRA_REMOVED
            for key in nlargest(excess, self._items, key=lambda each: self._items[each].since):
                del self._items[key]

    def next_try(self, message: Message, moment: Epoch) -> None:
        """This message, which failed, is visible again at `moment` and not when its failure said. No effect if it was received since."""
        item = self._items.get(_key(message))
        if item is not None and any(
            (each.message_id, each.receives) == (message.message_id, message.receives)
            for each in item.messages
        ):
            self._items[_key(message)] = replace(item, next_try=moment)

    def done(self, messages: Sequence[Message]) -> None:
        """These messages succeeded."""
        if self._items:
            for message in messages:
                self._items.pop(_key(message), None)

    def current(
        self,
        now: Epoch,
        ours: Callable[[str], bool] = lambda _: False,
        *,
        receives_max: int | None = None,
    ) -> dict[str, FailingItem]:
        """The items that fail now, by group or message id. `ours` says whether a message was received again and runs here.

        `receives_max` is how often the queue gives a message out before it moves to the dead-letter queue; None without one.
        """
        found: dict[str, FailingItem] = {}
        for key, each in self._items.items():
            left = _left(each, now, ours, receives_max)
            if left:
                found[key] = each if len(left) == len(each.messages) else replace(each, messages=left)
        self._items = found
        return dict(found)


def _left(
    item: FailingItem, now: Epoch, ours: Callable[[str], bool], receives_max: int | None
) -> tuple[Message, ...]:
    """The messages that still fail, as far as we know."""
    if now < item.next_try:
        return item.messages
    stale = now >= item.next_try + STALE_S
    return tuple(
        each
        for each in item.messages
        if ours(each.message_id)
        or not (stale or (receives_max is not None and each.receives >= receives_max))
    )


def _bare(message: Message) -> Message:
    """The message without its content. The contents of a thousand messages could take a gigabyte."""
    return structs.replace(message, body=None, message_attributes={})


def _key(message: Message) -> str:
    return message.group or message.message_id or "a message without id"
