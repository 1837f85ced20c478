"""Owns order within message groups: one batch of a group runs at a time, and nothing runs before what failed.

SQS gives out the messages of a group in order (aws-behaviour#message-groups). While one of them is in flight, it holds back
those behind it. Three cases are left to us:

1. One receive brings several messages of a group, but they do not fit into one event. The rest waits for the first event.
2. A delete has taken effect, but its answer is still on the way. Another poller may already receive the next messages of the
   group. They wait until the earlier ones are settled here.
3. The visibility of a message lapses while it runs. SQS then gives out the messages behind it. They wait in the same way.

So each group has a queue of entries. An entry stands for the group's messages in one batch: how many of them are not settled, how
many of these run, and whether they are blocked. A receive id identifies the batch. Messages run only if their entry is the first
one and none of its messages runs.

A message that fails is not deleted: SQS gives it out again after its visibility timeout. The messages behind it must not run
before that. So a failure blocks its own entry and all later entries of the group. Messages of a blocked entry are given back
without a run, and are received again behind the failed one. Messages that are received while a blocked entry is still here have come
again too. They are earlier than the messages of the blocked entry, so they are not blocked with them. But a receive may bring messages of a
blocked entry once more, and later messages of the group behind them. `too_early` finds these later messages.

A message without a group is always ready.
"""

from collections import Counter, deque
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, auto

import msgspec

from poller.domain.policies import BatchPolicy
from poller.domain.records import UNKNOWN_GROUP, Message
from poller.rules.queues.receive_batch import QueueItem, fitting


class GroupState(Enum):
    """Whether the messages of a group may run now, for one batch."""

    READY = auto()
    WAITING = auto()
    """Earlier messages of the group are not settled yet."""
    BLOCKED = auto()
    """An earlier message of the group failed. These messages must be received again behind it."""


@dataclass(slots=True)
class GroupEntry:
    """The messages of one group in one batch: how many are not settled, how many of these run, whether they are blocked."""

    receive_id: int
    left: int
    running: int = 0
    blocked: bool = False


class Groups:
    """The entries of all groups that have messages in flight."""

    def __init__(self) -> None:
        self._entries: dict[str, deque[GroupEntry]] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def enter(self, receive_id: int, counts: Mapping[str, int]) -> None:
        """A batch brought this many messages of each group."""
        for group, count in counts.items():
            line = self._entries.setdefault(group, deque())
            if line and line[-1].receive_id == receive_id:
                line[-1].left += count
            else:
                line.append(GroupEntry(receive_id, count))

    def state(self, receive_id: int, group: str | None) -> GroupState:
        """Whether those messages of a group may run that are in this batch and do not run yet."""
        if group is None:
            return GroupState.READY
        line = self._entries[group]
        entry = _of(line, receive_id)
        if entry.blocked:
            return GroupState.BLOCKED
        return GroupState.READY if line[0] is entry and not entry.running else GroupState.WAITING

    def blocked(self, receive_id: int, group: str | None) -> bool:
        """Whether an earlier message of the group failed. It is asked for messages of this batch that run."""
        return group is not None and _of(self._entries[group], receive_id).blocked

    def longer(self, receive_id: int, items: Sequence[QueueItem]) -> set[str | None]:
        """The groups of these items of a batch that have more messages in it, which may be behind them."""
        here = Counter(item.message.group for item in items)
        return {each for each, count in here.items() if self._left(receive_id, each) > count}

    def _left(self, receive_id: int, group: str | None) -> int:
        return 0 if group is None else _of(self._entries[group], receive_id).left

    def too_early(self, messages: Sequence[Message], fresh: Collection[str]) -> frozenset[str]:
        """The `fresh` messages of one receive that came behind a message that is still here and blocked."""
        blocked: set[str] = set()
        early: set[str] = set()
        for message in messages:
            if (group := message.group) is None:
                continue
            if message.message_id in fresh:
                if group in blocked:
                    early.add(message.message_id)
            elif any(entry.blocked for entry in self._entries.get(group, ())):
                blocked.add(group)
        return frozenset(early)

    def start(self, receive_id: int, group: str) -> None:
        """One message of the group is passed to the function."""
        line = self._entries[group]
        entry = line[0]
        assert entry.receive_id == receive_id, f"group {group!r} runs out of turn"
        assert not entry.blocked, f"group {group!r} runs past a failed message"
        entry.running += 1

    def unstart(self, receive_id: int, group: str) -> None:
        """One message of the group that was passed to the function, and refused by it, waits again to be passed."""
        entry = _of(self._entries[group], receive_id)
        assert entry.running > 0, f"nothing of group {group!r} runs"
        entry.running -= 1

    def settle(self, receive_id: int, group: str, *, started: bool, done: bool, last: bool = False) -> None:
        """One message of the group is deleted (`done`), or will be received again.

        A message that will be received again blocks its own entry and all entries behind it. If it is the `last` one of its
        entry, the entry's other messages must run before it, and are not blocked. An entry that is blocked already blocks no
        others, because the entries behind it have messages that must run before it.
        """
        line = self._entries[group]
        entry = _of(line, receive_id)
        entry.left -= 1
        entry.running -= started
        assert entry.left >= entry.running >= 0, f"more messages of group {group!r} settled than received"
        if not (done or entry.blocked):
            for each in _from(line, entry):
                each.blocked = each.blocked or not last or each is not entry
        if not entry.left:
            line.remove(entry)
        if not line:
            del self._entries[group]


class Choice(msgspec.Struct, frozen=True, gc=False):
    """What happens to the items of a batch: `chunk` runs next as one event, `blocked` must be given back, `rest` stays in the batch.

    `lapsed` counts items that left the batch because they may be visible to others. `paused` items are of groups that an operator
    paused: they leave the batch and are kept until the pause ends. `skipped` ones are started, and are moved or deleted in place of a run.
    """

    chunk: tuple[QueueItem, ...]
    blocked: tuple[QueueItem, ...]
    rest: tuple[QueueItem, ...]
    lapsed: int = 0
    paused: tuple[QueueItem, ...] = ()
    skipped: tuple[QueueItem, ...] = ()


def choose(
    items: Sequence[QueueItem],
    state: Callable[[str | None], GroupState],
    policy: BatchPolicy | None,
    *,
    one_group: bool,
) -> Choice:
    """The next event of these items, in order. With `one_group` it holds only the first group that is ready. Without a policy there is none."""
    if policy is None:
        return Choice((), (), tuple(items))
    groups = [item.message.group for item in items]
    states = {group: state(group) for group in dict.fromkeys(groups)}
    ready = [item for item, group in zip(items, groups, strict=True) if states[group] is GroupState.READY]
    if one_group and ready:
        ready = [item for item in ready if item.group == ready[0].group]
    chunk = ready[: fitting(ready, policy)]
    if len(chunk) == len(items):
        return Choice(tuple(chunk), (), ())
    chosen = {item.message_id for item in chunk}
    return Choice(
        tuple(chunk),
        tuple(item for item in items if states[item.group] is GroupState.BLOCKED),
        tuple(
            item
            for item in items
            if states[item.group] is not GroupState.BLOCKED and item.message_id not in chosen
        ),
    )


def readable(messages: Sequence[Message]) -> tuple[list[Message], list[Message]]:
    """Splits one receive into messages that go on and messages that are left to their visibility timeout.

    Messages that cannot be read are left, and so are the messages behind them in their groups. A message whose group is
    not known may belong to any group.
    """
    taken: list[Message] = []
    left: list[Message] = []
    blocked: set[str] = set()
    for message in messages:
        group = message.group
        if message.unreadable and group is not None:
            blocked.add(group)
        stays = group is not None and (group in blocked or UNKNOWN_GROUP in blocked)
        (left if message.unreadable or stays else taken).append(message)
    return taken, left


def with_followers(groups: Sequence[str | None], failed: Collection[int]) -> frozenset[int]:
    """The failed places, and all places behind them that are of the same groups."""
    blocked: set[str] = set()
    places: set[int] = set()
    for place, group in enumerate(groups):
        if place in failed or group in blocked:
            places.add(place)
            if group is not None:
                blocked.add(group)
    return frozenset(places)


def _of(line: deque[GroupEntry], receive_id: int) -> GroupEntry:
    """The entry of this batch. It is nearly always the first one."""
    first = line[0]
    if first.receive_id == receive_id:
        return first
    return next(entry for entry in line if entry.receive_id == receive_id)


def _from(line: deque[GroupEntry], first: GroupEntry) -> list[GroupEntry]:
    """This entry and all entries behind it."""
    entries = list(line)
    return entries[next(place for place, entry in enumerate(entries) if entry is first) :]
