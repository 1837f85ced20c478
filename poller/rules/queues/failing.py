"""Owns the list of failing messages of a queue, for the status: by message group, or by message on a standard queue.

A queue does not say what became of a message. A failing message is listed until it succeeds here, or until its visibility ends
after its last receive, because SQS then moves it to the dead-letter queue. Another worker may receive the message again, and this
worker does not learn about that. So the message is listed at most until STALE_S after it became visible.

As long as a failed message is hidden by its last receive here, nobody else has it. So an operator may retry it (it is made visible)
or skip it (it is moved or deleted) by its receipt. To move it takes its content, which is kept for a limited number of bytes.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from heapq import nlargest

from msgspec import structs

from poller.domain.invocations import FunctionError
from poller.domain.records import Epoch, Message, Monotonic
from poller.domain.untrusted.texts import line_of

ITEMS_MAX = 1000
"""Groups or messages that are listed. Those that have failed longest are kept, because they show since when a queue is blocked."""
EXTRA_REMOVED = 100
"""When there are too many, this many more than necessary are removed at once."""
KEPT_BYTES_MAX = 8 * 1024 * 1024
"""Bytes of contents that are kept for a mapping. A message without its content can be moved when it is received next."""
NOT_HIDDEN = Monotonic(0.0)
KEYS_NAMED_MAX = 10
"""Failing groups or messages that a refusal names."""
KEY_CHARS_MAX = 128
STALE_S = 60.0
"""If a message is not received again for this long after it became visible, another worker has it, or it was deleted or expired."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FailingItem:
    """One failing group or message: since when it fails, the last error, its messages, and when it is tried again.

    The messages failed together, and are in order. They are certainly hidden from others until `hidden_until`. They have their
    contents if these have `kept_bytes`, more than 0.
    """

    since: Epoch
    error: str
    receives: int
    next_try: Epoch
    messages: tuple[Message, ...]
    cause: FunctionError | None = None
    hidden_until: Monotonic = NOT_HIDDEN
    kept_bytes: int = 0

    def waits(self, now: Monotonic) -> bool:
        """Whether its messages wait for their next try, hidden from others."""
        return now < self.hidden_until

    def whole(self, message: Message) -> bool:
        """Whether one of its messages has its content, as far as it could be read."""
        return self.kept_bytes > 0 or bool(message.unreadable)


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
        self._kept_bytes = 0
        self._claimed: set[str] = set()

    def failed(
        self,
        messages: Sequence[Message],
        error: str,
        *,
        now: Epoch,
        next_try: Epoch,
        cause: FunctionError | None = None,
        hidden_until: Monotonic = NOT_HIDDEN,
    ) -> None:
        """These messages failed and are visible again at `next_try`. `cause` is the function's error.

        They have their newest receipts, by which they are hidden until `hidden_until`.
        """
        for key, members in by_key(messages).items():
            earlier = self._items.get(key)
            size = sum(map(_content_bytes, members)) if hidden_until else 0
            before = earlier.kept_bytes if earlier is not None else 0
            kept_bytes = size if self._kept_bytes - before + size <= KEPT_BYTES_MAX else 0
            item = FailingItem(
                since=_since(members, earlier, now),
                error=error,
                receives=max(1, members[0].receives),
                next_try=next_try,
                messages=tuple(members if kept_bytes else [_bare(each) for each in members]),
                cause=cause,
                hidden_until=hidden_until,
                kept_bytes=kept_bytes,
            )
            self._put(key, item)
        if len(self._items) > ITEMS_MAX:
            excess = len(self._items) - ITEMS_MAX + EXTRA_REMOVED
            for key in nlargest(excess, self._items, key=lambda each: self._items[each].since):
                self._drop(key)

    def next_try(self, message: Message, moment: Epoch, hidden_until: Monotonic) -> None:
        """This message, which failed, is visible again at `moment` and not when its failure said. No effect if it was received since.

        `hidden_until` is the same moment by the monotonic clock.
        """
        item = self._items.get(key_of(message))
        if item is not None and any(
            (each.message_id, each.receives) == (message.message_id, message.receives)
            for each in item.messages
        ):
            self._put(key_of(message), replace(item, next_try=moment, hidden_until=hidden_until))

    def done(self, messages: Sequence[Message]) -> None:
        """These messages succeeded."""
        if self._items:
            for message in messages:
                self._drop(key_of(message))

    def waiting(self, now: Monotonic) -> dict[str, FailingItem]:
        """The items whose messages wait for their next try, hidden from others, by group or message id. Claimed ones are left out."""
        return {
            key: each for key, each in self._items.items() if each.waits(now) and key not in self._claimed
        }

    def claim(self, key: str) -> bool:
        """Whether the item is not claimed yet. From now on it is, so that one operation at a time changes its messages."""
        if key in self._claimed:
            return False
        self._claimed.add(key)
        return True

    def unclaim(self, key: str) -> None:
        """The operation is done with the item."""
        self._claimed.discard(key)

    def shown(self, key: str, now: Epoch) -> None:
        """The messages of this item were made visible, or their time is over, so that they may be received by anybody."""
        item = self._items.get(key)
        if item is not None:
            self._put(key, _shown(item, now))

    def gone(self, key: str, message_ids: Collection[str], now: Epoch) -> FailingItem | None:
        """These messages of an item were deleted. Returns what is left of the item, None for nothing."""
        item = self._items.get(key)
        if item is None:
            return None
        left = tuple(each for each in item.messages if each.message_id not in message_ids)
        if not left:
            self._drop(key)
            return None
        kept_bytes = sum(map(_content_bytes, left)) if item.kept_bytes else 0
        rest = replace(_reduced(item, left, now), kept_bytes=kept_bytes)
        self._put(key, rest)
        return rest

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
                kept = _reduced(each, left, each.next_try)
                found[key] = _shown(kept, now) if kept.kept_bytes and now >= kept.next_try else kept
        self._items = found
        self._kept_bytes = sum(each.kept_bytes for each in found.values())
        return dict(found)

    def _put(self, key: str, item: FailingItem) -> None:
        earlier = self._items.get(key)
        self._kept_bytes += item.kept_bytes - (earlier.kept_bytes if earlier is not None else 0)
        self._items[key] = item

    def _drop(self, key: str) -> None:
        item = self._items.pop(key, None)
        if item is not None:
            self._kept_bytes -= item.kept_bytes


def _since(members: Sequence[Message], earlier: FailingItem | None, now: Epoch) -> Epoch:
    """Since when the group fails whose first failing message is the first of `members`. `earlier` is its failure before this one."""
    tried = waiting_since(members, now)
    if earlier is None:
        return tried
    if earlier.messages[0].message_id == members[0].message_id:
        return earlier.since
    if now < earlier.next_try:
        return min(tried, earlier.since)
    # The message that failed before is gone, since SQS gave out what is behind it. The group got on when it was visible last.
    return max(tried, earlier.next_try)


def _reduced(item: FailingItem, left: tuple[Message, ...], moment: Epoch) -> FailingItem:
    """The item with these of its messages, after others left at this moment. If the first one left, the group got on then."""
    return replace(item, messages=left, since=item.since if left[0] is item.messages[0] else moment)


def _shown(item: FailingItem, now: Epoch) -> FailingItem:
    """The item when its messages are visible: their contents are of no use any more."""
    return replace(
        item,
        next_try=min(item.next_try, now),
        messages=tuple(_bare(each) for each in item.messages),
        hidden_until=NOT_HIDDEN,
        kept_bytes=0,
    )


def _content_bytes(message: Message) -> int:
    """About how many bytes the content of a message takes, at least 1."""
    attributes = message.message_attributes
    return 1 + len(message.body or "") + (len(str(attributes)) if attributes else 0)


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


def meant(
    items: Mapping[str, FailingItem], group: str | None, *, batch: bool, alone: bool
) -> tuple[str, ...] | str:
    """The ids of the messages that a skip means by `first` (or `batch`), or one line that says why it is not clear; empty for nothing here.

    `items` fail here now. `alone`: no other worker polls the queue, so that nothing fails elsewhere.
    """
    if group is not None:
        item = items.get(group)
    elif len(items) > 1 or (items and not alone):
        named = ", ".join(line_of(key, chars_max=KEY_CHARS_MAX) for key in list(items)[:KEYS_NAMED_MAX])
        more = f" and {len(items) - KEYS_NAMED_MAX} more" if len(items) > KEYS_NAMED_MAX else ""
        fails = "several fail" if len(items) > 1 else "others may fail on other workers"
        return (
            f"say which one: {fails}, here {named}{more}; give the group, or the ids of messages as records"
        )
    else:
        item = next(iter(items.values()), None)
    if item is None:
        return ""
    ids = tuple(each.message_id for each in item.messages)
    return ids if batch else ids[:1]


def by_key(messages: Sequence[Message]) -> dict[str, list[Message]]:
    """These messages by the key under which they are listed."""
    found: dict[str, list[Message]] = {}
    for message in messages:
        found.setdefault(key_of(message), []).append(message)
    return found


def key_of(message: Message) -> str:
    """The key under which a message is listed: its group, or its id on a standard queue."""
    return message.group or message.message_id or "a message without id"
