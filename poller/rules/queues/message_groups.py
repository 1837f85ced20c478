"""Owns order within message groups: one batch of a group runs at a time, and nothing runs before what failed.

SQS gives out the messages of a group in order (aws-behaviour#message-groups). While one of them is in flight, it holds back
those behind it. Three cases are left to us:

1. One receive brings several messages of a group, but they do not fit into one event. The rest waits for the first event.
2. A delete has taken effect, but its answer is still on the way. Another poller may receive the next messages of the group
   already. They wait until the earlier ones are settled here.
3. The visibility of a message lapses while it runs. SQS gives out what is behind it. That waits in the same way.

So each group has a line of tickets. A ticket is the place of one batch in the line: how many of its messages are not settled,
how many of these run, and whether they are blocked. A receive id names the batch. Messages run only if their ticket is the first
one and none of it runs.

A message that fails is not deleted: SQS gives it out again after its visibility timeout. What was received behind it must not
run before that. A failure therefore blocks its own ticket and all later ones of the group. Messages of a blocked ticket are given
back without a run, and come again behind the failed one. What enters while a blocked ticket is still here has come again, so it is
earlier than the messages of that ticket and is not blocked with them. Only a receive that brings messages of a blocked ticket once
more can have later ones behind these: `too_early` finds them.

A message without a group is always ready.
"""

from collections import deque
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
class Ticket:
    """The messages of one group in one batch: how many are not settled, how many of these run, whether they are blocked."""

    receive_id: int
    left: int
    running: int = 0
    blocked: bool = False


class Groups:
    """The lines of tickets of all groups that have messages in flight."""

    def __init__(self) -> None:
        self._tickets: dict[str, deque[Ticket]] = {}

    def __len__(self) -> int:
        return len(self._tickets)

    def enter(self, receive_id: int, counts: Mapping[str, int]) -> None:
        """A batch brought this many messages of each group."""
        for group, count in counts.items():
            line = self._tickets.setdefault(group, deque())
            if line and line[-1].receive_id == receive_id:
                line[-1].left += count
            else:
                line.append(Ticket(receive_id, count))

    def state(self, receive_id: int, group: str | None) -> GroupState:
        """Whether the messages of a group may run that are in this batch and do not run yet."""
        if group is None:
            return GroupState.READY
        line = self._tickets[group]
        ticket = _of(line, receive_id)
        if ticket.blocked:
            return GroupState.BLOCKED
        return GroupState.READY if line[0] is ticket and not ticket.running else GroupState.WAITING

    def blocked(self, receive_id: int, group: str | None) -> bool:
        """Whether an earlier message of the group failed, for messages of this batch that run."""
        return group is not None and _of(self._tickets[group], receive_id).blocked

    def too_early(self, messages: Sequence[Message], fresh: Collection[str]) -> frozenset[str]:
        """The `fresh` messages of one receive that came behind a message which we still have and which is blocked."""
        blocked: set[str] = set()
        early: set[str] = set()
        for message in messages:
            if (group := message.group) is None:
                continue
            if message.message_id in fresh:
                if group in blocked:
                    early.add(message.message_id)
            elif any(ticket.blocked for ticket in self._tickets.get(group, ())):
                blocked.add(group)
        return frozenset(early)

    def start(self, receive_id: int, group: str) -> None:
        """One message of the group is handed to the function."""
        line = self._tickets[group]
        ticket = line[0]
        assert ticket.receive_id == receive_id, f"group {group!r} runs out of turn"
        assert not ticket.blocked, f"group {group!r} runs past a failed message"
        ticket.running += 1

    def settle(self, receive_id: int, group: str, *, started: bool, done: bool) -> None:
        """One message of the group is deleted (`done`), or will be received again.

        A message that will be received again blocks its own ticket and all tickets behind it. A ticket that is blocked
        already blocks no others: the tickets behind it hold messages that must run before it.
        """
        line = self._tickets[group]
        ticket = _of(line, receive_id)
        ticket.left -= 1
        ticket.running -= started
        assert ticket.left >= ticket.running >= 0, f"more messages of group {group!r} settled than received"
        if not (done or ticket.blocked):
            for each in _from(line, ticket):
                each.blocked = True
        if not ticket.left:
            line.remove(ticket)
        if not line:
            del self._tickets[group]


class Choice(msgspec.Struct, frozen=True, gc=False):
    """What becomes of a batch's items: `chunk` runs next as one event, `blocked` must be given back, `rest` stays.

    `lapsed` counts items that left the batch because they may be visible to others.
    """

    chunk: tuple[QueueItem, ...]
    blocked: tuple[QueueItem, ...]
    rest: tuple[QueueItem, ...]
    lapsed: int = 0


def choose(
    items: Sequence[QueueItem],
    state: Callable[[str | None], GroupState],
    policy: BatchPolicy,
    *,
    one_group: bool,
) -> Choice:
    """The next event of these items, in order. With `one_group` it holds only the first group that is ready."""
    groups = [item.group for item in items]
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


def _of(line: deque[Ticket], receive_id: int) -> Ticket:
    """The ticket of this batch. It is nearly always the first."""
    first = line[0]
    if first.receive_id == receive_id:
        return first
    return next(ticket for ticket in line if ticket.receive_id == receive_id)


def _from(line: deque[Ticket], first: Ticket) -> list[Ticket]:
    """This ticket and all tickets behind it."""
    tickets = list(line)
    return tickets[next(place for place, ticket in enumerate(tickets) if ticket is first) :]
