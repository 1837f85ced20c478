"""Owns order within message groups: one batch in flight per group, nothing before what failed (spec 5.3, 7.3).

SQS keeps a group's later messages back while an earlier one is in flight. What is left to us: messages that came in one
receive but do not go in one invocation, messages that arrive before the answer to our delete does, and messages that SQS
hands out again while we still run them. An owner is whoever received a batch; a ticket is an owner's place in a group.
"""

from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, auto

import msgspec

from poller.rules.gathering import Letter, fitting
from poller.rules.policies import BatchPolicy


class Standing(Enum):
    """How a letter's group stands for its owner."""

    READY = auto()
    WAITING = auto()
    """An earlier batch of the group is not settled yet."""
    SPOILED = auto()
    """An earlier message of the group failed: this one must come again behind it."""


@dataclass(slots=True)
class Ticket:
    """One owner's messages of one group: how many are unsettled, how many of these run, whether some failed."""

    owner: int
    left: int
    running: int = 0
    spoiled: bool = False


class Groups:
    """Who may run messages of which group now."""

    def __init__(self) -> None:
        self._tickets: dict[str, deque[Ticket]] = {}

    def __len__(self) -> int:
        return len(self._tickets)

    def enter(self, owner: int, counts: Mapping[str, int]) -> None:
        """`owner` received so many messages of each group."""
        for group, count in counts.items():
            line = self._tickets.setdefault(group, deque())
            if line and line[-1].owner == owner:
                line[-1].left += count
            else:
                line.append(Ticket(owner, count))

    def standing(self, owner: int, group: str | None) -> Standing:
        """How a message stands that `owner` has and that does not run yet."""
        if group is None:
            return Standing.READY
        line = self._tickets[group]
        ticket = _of(line, owner)
        if ticket.spoiled:
            return Standing.SPOILED
        return Standing.READY if line[0] is ticket and not ticket.running else Standing.WAITING

    def spoiled(self, owner: int, group: str | None) -> bool:
        """Whether an earlier message of the group failed, for a message that runs or is about to."""
        return group is not None and _of(self._tickets[group], owner).spoiled

    def start(self, owner: int, group: str) -> None:
        """One of the owner's messages is handed to the function."""
        line = self._tickets[group]
        ticket = line[0]
        assert ticket.owner == owner, f"group {group!r} runs out of turn"
        assert not ticket.spoiled, f"group {group!r} runs past a failed message"
        ticket.running += 1

    def settle(self, owner: int, group: str, *, started: bool, done: bool) -> None:
        """One of the owner's messages is deleted (`done`), or will come again.

        What comes again spoils all that was received behind it.
        """
        line = self._tickets[group]
        ticket = _of(line, owner)
        ticket.left -= 1
        ticket.running -= started
        assert ticket.left >= ticket.running >= 0, f"more messages of group {group!r} settled than received"
        if not done:
            for each in _from(line, ticket):
                each.spoiled = True
        if not ticket.left:
            line.remove(ticket)
        if not line:
            del self._tickets[group]


class Choice(msgspec.Struct, frozen=True, gc=False):
    """What of an owner's letters runs next as one event, what must be given back, and what stays."""

    chunk: tuple[Letter, ...]
    spoiled: tuple[Letter, ...]
    rest: tuple[Letter, ...]


def choose(
    letters: Sequence[Letter],
    standing: Callable[[str | None], Standing],
    policy: BatchPolicy,
    *,
    one_group: bool,
) -> Choice:
    """The next event of these letters, in order; `one_group`: of the first group that is ready alone."""
    groups = [letter.group for letter in letters]
    stands = {group: standing(group) for group in dict.fromkeys(groups)}
    ready = [letter for letter, group in zip(letters, groups, strict=True) if stands[group] is Standing.READY]
    if one_group and ready:
        ready = [letter for letter in ready if letter.group == ready[0].group]
    chunk = ready[: fitting(ready, policy)]
    if len(chunk) == len(letters):
        return Choice(tuple(chunk), (), ())
    chosen = {letter.message_id for letter in chunk}
    return Choice(
        tuple(chunk),
        tuple(letter for letter in letters if stands[letter.group] is Standing.SPOILED),
        tuple(
            letter
            for letter in letters
            if stands[letter.group] is not Standing.SPOILED and letter.message_id not in chosen
        ),
    )


def with_followers(groups: Sequence[str | None], failed: Collection[int]) -> frozenset[int]:
    """The failed places and, behind each, all later places of its group."""
    blocked: set[str] = set()
    places: set[int] = set()
    for place, group in enumerate(groups):
        if place in failed or group in blocked:
            places.add(place)
            if group is not None:
                blocked.add(group)
    return frozenset(places)


def _of(line: deque[Ticket], owner: int) -> Ticket:
    first = line[0]
    return first if first.owner == owner else next(ticket for ticket in line if ticket.owner == owner)


def _from(line: deque[Ticket], first: Ticket) -> list[Ticket]:
    tickets = list(line)
    return tickets[next(place for place, ticket in enumerate(tickets) if ticket is first) :]
