"""Owns what operators have asked of the messages of one queue mapping: which may not run now, and which are to be skipped.

A pause of the mapping stops its pollers, so it is seen before a receive. A pause of a message group cannot be: SQS gives out any group.
So messages of a paused group leave their batch when they would run, and are held until the pause ends. SQS gives out nothing of
a FIFO group while a message of it is in flight, so each paused group holds at most the messages of one receive, ten, however long its queue
is, and its order is kept. Held messages are extended. After 12 hours SQS shows them again, and they are received and held once more.
Contents are held up to HELD_BYTES_MAX. Messages beyond that are held without their contents. When the pause ends they are made
visible and received again, which uses up a receive.

A skip is armed by the ids of its messages. Each worker carries it out on those that it has: on failed ones that wait here, and on any
that would run here. It is armed for ARMED_S and then armed again, so that it ends soon when the store cannot be read. One that
is cancelled is unarmed at once.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import msgspec

from poller.domain.operations import OperationId, OperatorPause
from poller.domain.policies import BatchPolicy
from poller.domain.records import Message, Monotonic
from poller.rules.queues.message_groups import Choice, Groups, GroupState, choose
from poller.rules.queues.receive_batch import QueueItem

ARMED_S = 10.0
"""How long a skip is armed without being armed again. Open operations are read every two seconds."""
KEPT_S = 600.0
"""How long it is noted what becomes of the messages of a skip that is not armed any more."""
HELD_BYTES_MAX = 16 * 1024 * 1024
"""Bytes of contents that are held for the paused groups of a mapping."""


class HeldBatch(msgspec.Struct, frozen=True, gc=False):
    """Messages of one paused group with places in it under `receive_id`, in order. `size` in bytes is 0 if their contents were dropped."""

    receive_id: int
    items: tuple[QueueItem, ...]
    size: int

    @property
    def whole(self) -> bool:
        """Whether the messages have their contents, so that they can run."""
        return self.size > 0

    @property
    def group(self) -> str:
        """The message group."""
        group = self.items[0].group
        assert group is not None, "only messages of a group are held"
        return group


@dataclass(slots=True)
class ArmedSkip:
    """A skip that is carried out here: the messages that are not settled yet, and those that were settled here with what became of them."""

    records: frozenset[str]
    discard: bool
    until: Monotonic
    settled: dict[str, str] = field(default_factory=dict)
    copied: dict[str, str] = field(default_factory=dict)
    """Messages of which this worker has sent a copy, and to which queue. Only their delete is still due."""
    tries: int = 0
    """How often in a row a message could not be moved."""
    undeleted: int = 0
    """How often in a row a message could not be deleted."""
    reason: str = "cannot be moved"
    """Why the last one could not be moved or deleted, as the end of a sentence."""
    trouble: str = ""
    """Why the skip has failed, if another try is of no use without an operator."""
    withdrawn: bool = False
    """Whether it was ended before its time."""

    def armed(self, now: Monotonic) -> bool:
        """Whether messages are to be skipped now."""
        return now < self.until and not self.withdrawn


class QueueInterventions:
    """The pauses and skips of one queue mapping, and the messages that are held for paused groups."""

    def __init__(self) -> None:
        self.active = False
        """Whether there is any pause of a group, or any skip. Only then messages are looked at one by one."""
        self.paused: OperatorPause | None = None
        """The pause of the whole mapping."""
        self.known = True
        """Whether the pauses are known. If not, nothing may be received."""
        self.groups: Mapping[str, OperatorPause] = {}
        self._skips: dict[OperationId, ArmedSkip] = {}
        self._held: list[HeldBatch] = []
        self._held_bytes = 0
        self._ahead: dict[tuple[int, str], set[str]] = {}
        """Messages that the function refused before they were held. The others of their group and receive must run behind them."""

    @property
    def stopped(self) -> bool:
        """Whether nothing of the mapping may be received or begin."""
        return self.paused is not None or not self.known

    def pause(self, pauses: Sequence[OperatorPause] | None) -> None:
        """Takes all pauses that are in force; None: they are not known."""
        self.known = pauses is not None
        whole = [each for each in pauses or () if each.target.group is None]
        self.paused = min(whole, key=lambda each: each.since, default=None)
        if pauses is not None:
            self.groups = {each.target.group: each for each in pauses if each.target.group is not None}
        self._update()

    def arm(
        self, operation: OperationId, records: Iterable[str], *, discard: bool, now: Monotonic
    ) -> ArmedSkip:
        """Arms a skip of these messages for ARMED_S more."""
        skip = self._skips.get(operation)
        until = Monotonic(now + ARMED_S)
        if skip is None:
            skip = self._skips[operation] = ArmedSkip(frozenset(records), discard, until)
        skip.records, skip.until, skip.withdrawn = frozenset(records), until, False
        self._update()
        return skip

    def renew(self, skip: ArmedSkip, now: Monotonic) -> None:
        """A skip that is being carried out stays armed for ARMED_S more."""
        skip.until = Monotonic(now + ARMED_S)

    def armed(self, operation: OperationId, now: Monotonic) -> bool:
        """Whether this skip is armed."""
        skip = self._skips.get(operation)
        return skip is not None and skip.armed(now)

    def unarm(self, operation: OperationId) -> None:
        """Nothing more of this skip begins. It is still noted what becomes of its messages, as when its time is over."""
        skip = self._skips.get(operation)
        if skip is not None:
            skip.withdrawn = True

    def disarm(self, operation: OperationId) -> None:
        """The skip is over."""
        self._skips.pop(operation, None)
        self._update()

    def skip_of(self, message_id: str, now: Monotonic) -> ArmedSkip | None:
        """The armed skip of this message, if there is one and the message is not settled yet."""
        for operation, skip in list(self._skips.items()):
            if skip.until + KEPT_S <= now:
                self.disarm(operation)
            elif skip.armed(now) and message_id in skip.records and message_id not in skip.settled:
                return skip
        return None

    def settle(self, message_ids: Iterable[str], what: str) -> None:
        """These messages were settled here; `what` became of them."""
        for message_id in message_ids:
            for skip in self._skips.values():
                if message_id in skip.records:
                    skip.settled.setdefault(message_id, what)

    def hold(self, receive_id: int, items: Sequence[QueueItem]) -> frozenset[str]:
        """Holds messages of paused groups, with their places in these groups. Returns the ids of those whose contents are not here now."""
        bare = set[str]()
        by_group: dict[str | None, list[QueueItem]] = {}
        for item in items:
            by_group.setdefault(item.group, []).append(item)
        for members in by_group.values():
            size = sum(item.bytes_max for item in members)
            whole = self._held_bytes + size <= HELD_BYTES_MAX
            kept = members if whole else [_bare(item) for item in members]
            held = self._add(HeldBatch(receive_id, tuple(kept), size if whole else 0))
            bare.update(() if held.whole else (item.message_id for item in held.items))
        return frozenset(bare)

    def _add(self, batch: HeldBatch) -> HeldBatch:
        """Holds a batch, as one with those of the same group and receive, in order: what was started before is first.

        If the contents of some were dropped, so are those of the others, since it cannot run without all of them.
        """
        same = [
            each for each in self._held if (each.receive_id, each.group) == (batch.receive_id, batch.group)
        ]
        items = batch.items
        ahead = self._ahead.get((batch.receive_id, batch.group), set())
        for each in same:
            first = bool(ahead) and items[0].message_id in ahead
            items = (*items, *each.items) if first else (*each.items, *items)
        whole = batch.whole and all(each.whole for each in same)
        size = batch.size + sum(each.size for each in same) if whole else 0
        self._held_bytes += size - sum(each.size for each in same)
        self._held = [each for each in self._held if each not in same]
        held = HeldBatch(batch.receive_id, items if whole else tuple(map(_bare, items)), size)
        self._held.append(held)
        return held

    def behind(self, items: Sequence[QueueItem], receive_id: int) -> frozenset[str]:
        """Those of these items that must wait for held ones of their group and receive which are not among them."""
        if not self._ahead:
            return frozenset()
        here = {item.message_id for item in items}
        return frozenset(
            item.message_id
            for item in items
            if item.group is not None and self._ahead.get((receive_id, item.group), set()) - here
        )

    def left(self, receive_id: int, messages: Iterable[Message]) -> None:
        """These messages are started again, or have left."""
        for message in messages if self._ahead else ():
            key = receive_id, message.group or ""
            if key in self._ahead:
                self._ahead[key].discard(message.message_id)
                if not self._ahead[key]:
                    del self._ahead[key]
        self._update()

    def runnable(self, now: Monotonic) -> list[HeldBatch]:
        """Takes the held messages that may run now, or that are to be skipped, in the order in which they came."""
        if not self._held or self.stopped:
            return []
        return self._taken(
            {
                each.group
                for each in self._held
                if each.group not in self.groups
                or (self._skips and any(self.skip_of(item.message_id, now) for item in each.items))
            }
        )

    def give_up(self) -> list[HeldBatch]:
        """Takes all held messages, because the mapping stops."""
        return self._taken({each.group for each in self._held})

    @property
    def held_batches(self) -> int:
        """How many batches are held."""
        return len(self._held)

    @property
    def held_messages(self) -> int:
        """How many messages are held."""
        return sum(len(each.items) for each in self._held)

    def held(self) -> dict[str, int]:
        """How many messages are held, by group."""
        counts: dict[str, int] = {}
        for each in self._held:
            counts[each.group] = counts.get(each.group, 0) + len(each.items)
        return counts

    def choose_next(
        self,
        items: Sequence[QueueItem],
        groups: Groups,
        receive_id: int,
        policy: BatchPolicy | None,
        *,
        one_group: bool,
        now: Monotonic,
    ) -> Choice:
        """As `message_groups.choose`, with what operators have asked. The caller starts what is chosen or skipped.

        Without a policy nothing is chosen but what operators have asked for.
        """
        choice = self.split(items, groups, receive_id, now=now)
        if choice is None:
            behind = self.behind(items, receive_id)
            ready = [item for item in items if item.message_id not in behind]
            choice = choose(ready, partial(groups.state, receive_id), policy, one_group=one_group)
            if behind:
                rest = [item for item in items if item in choice.rest or item.message_id in behind]
                choice = msgspec.structs.replace(choice, rest=tuple(rest))
        self.left(receive_id, [item.message for item in choice.chunk or choice.skipped])
        return choice

    def split(
        self, items: Sequence[QueueItem], groups: Groups, receive_id: int, *, now: Monotonic
    ) -> Choice | None:
        """What operators have asked of the waiting items of a batch; None if that is nothing. The rest of it is to be chosen from again.

        Skips come first. A skip waits until it is the turn of its group, and nothing of the group runs while it is carried out.
        """
        state = {
            group: groups.state(receive_id, group) for group in dict.fromkeys(item.group for item in items)
        }
        armed = [item for item in items if self._skips and self.skip_of(item.message_id, now) is not None]
        ready = [item for item in armed if state[item.group] is GroupState.READY]
        if ready:
            chosen = {item.message_id for item in ready}
            rest = tuple(item for item in items if item.message_id not in chosen)
            return Choice((), (), rest, skipped=tuple(ready))
        paused = [
            item
            for item in items
            if item.group in self.groups and state[item.group] is not GroupState.BLOCKED
        ]
        if not paused:
            return None
        chosen = {item.message_id for item in paused}
        rest = tuple(item for item in items if item.message_id not in chosen)
        return Choice((), (), rest, paused=tuple(paused))

    def split_again(self, choice: Choice, groups: Groups, receive_id: int, *, now: Monotonic) -> Choice:
        """Takes what operators have asked of items that the function refused out of those that may be tried again.

        Those that are to be skipped stay started. Those of paused groups do not.
        """
        skipped = [item for item in choice.chunk if self.skip_of(item.message_id, now) is not None]
        left = [item for item in choice.chunk if item not in skipped]
        paused = [item for item in left if item.group in self.groups]
        for item in paused:
            if (group := item.group) is not None:
                groups.unstart(receive_id, group)
                self._ahead.setdefault((receive_id, group), set()).add(item.message_id)
        kept = tuple(item for item in left if item not in paused)
        return msgspec.structs.replace(choice, chunk=kept, paused=tuple(paused), skipped=tuple(skipped))

    def _taken(self, groups: Collection[str]) -> list[HeldBatch]:
        taken = [each for each in self._held if each.group in groups]
        self._held = [each for each in self._held if each.group not in groups]
        self._held_bytes -= sum(each.size for each in taken)
        return taken

    def _update(self) -> None:
        self.active = bool(self.groups or self._skips or self._ahead)


def _bare(item: QueueItem) -> QueueItem:
    """The item without its content."""
    message = msgspec.structs.replace(item.message, body=None, message_attributes={})
    return QueueItem(message, item.encoder, 0)
