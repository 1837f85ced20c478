"""Owns what the pollers of one queue mapping have in common: the messages between receive and delete, and who is told."""

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from poller.errors import PortError, ServiceUnavailable
from poller.records import Epoch, Message, Monotonic, Undone
from poller.rules.gathering import Letter
from poller.rules.groups import Groups, Standing
from poller.rules.scaling import Seen
from poller.rules.troubles import Troubles
from poller.rules.visibility import Holds, Terms
from poller.runtime.parts import QueueParts
from poller.runtime.queue_capacity import Capacity
from poller.runtime.stopping import Stop
from poller.telemetry import Polled, PortFailed, Released

CALL_S_MAX = 30.0
"""How long one delete or extension may take before it counts as failed."""
RELEASE_S_MAX = 5.0
"""How long giving messages back may take; their visibility timeout does it otherwise."""


@dataclass(slots=True)
class Tally:
    """What happened since the last look at how many pollers there should be."""

    full: int = 0
    some: int = 0
    empty: int = 0
    idle: int = 0
    done: int = 0
    failed: int = 0
    refused: int = 0

    def take(self, *, waiting: int) -> Seen:
        """What was counted, and begins anew."""
        seen = Seen(
            full=self.full,
            some=self.some,
            empty=self.empty,
            idle=self.idle,
            done=self.done,
            failed=self.failed,
            refused=self.refused,
            waiting=waiting,
        )
        self.full = self.some = self.empty = self.idle = self.done = self.failed = self.refused = 0
        return seen


@dataclass(slots=True)
class Source:
    """How the queue's calls go: failures in a row, and why they fail; for those who wait and those who show it."""

    failures: int = 0
    reason: str = ""


@dataclass(slots=True, eq=False)
class QueueScope:
    """Shared by the pollers, the deleter and the keeper of one mapping."""

    parts: QueueParts
    stop: Stop
    capacity: Capacity
    holds: Holds
    groups: Groups = field(default_factory=Groups)
    troubles: Troubles = field(default_factory=Troubles)
    tally: Tally = field(default_factory=Tally)
    source: Source = field(default_factory=Source)
    taken: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when messages were taken whose visibility somebody must keep."""
    _moved: asyncio.Event = field(default_factory=asyncio.Event)
    _watched: bool = False
    _owners: int = 0

    @property
    def now(self) -> Monotonic:
        """The monotonic clock."""
        return self.parts.clock.monotonic()

    def new_owner(self) -> int:
        """A number for whoever gathers a batch."""
        self._owners += 1
        return self._owners

    def admit(self, messages: Sequence[Message]) -> tuple[Message, ...]:
        """Takes what a receive brought; returns what is to be looked at."""
        mapping = self.parts.plan.mapping
        self.parts.observer.on(Polled(mapping=mapping, shard=None, records=len(messages)))
        if not messages:
            return ()
        admission = self.holds.admit(messages, now=self.now)
        if admission.late:
            self.parts.observer.on(Released(mapping=mapping, messages=admission.late))
        self.taken.set()
        return admission.fresh

    def enter(self, owner: int, letters: Iterable[Letter]) -> None:
        """Letters take their places in their groups."""
        counts: dict[str, int] = {}
        for letter in letters:
            if (group := letter.group) is not None:
                counts[group] = counts.get(group, 0) + 1
        if counts:
            self.groups.enter(owner, counts)

    def standing(self, owner: int, group: str | None) -> Standing:
        """How a letter stands."""
        return self.groups.standing(owner, group)

    def start(self, owner: int, letters: Iterable[Letter]) -> None:
        """These letters are handed to the function."""
        for letter in letters:
            if letter.group is not None:
                self.groups.start(owner, letter.group)

    def settle(self, owner: int | None, messages: Iterable[Message], *, started: bool, done: bool) -> None:
        """These messages are deleted (`done`) or will come again. `owner` None: they never had a place."""
        for message in messages:
            self.holds.forget(message.message_id)
            if owner is not None and (group := message.group) is not None:
                self.groups.settle(owner, group, started=started, done=done)
        if self._watched:
            self._watched = False
            moved, self._moved = self._moved, asyncio.Event()
            moved.set()

    def fail(self, owner: int, letters: Sequence[Letter], error: str) -> None:
        """These letters failed; they are left to their visibility timeout."""
        messages = [letter.message for letter in letters]
        for message in messages:
            until = self.holds.until(message.message_id) or self.now
            self.troubles.failed([message], error, now=self.parts.clock.now(), next_try=self._epoch(until))
        self.settle(owner, messages, started=True, done=False)

    def drop_lapsed(self, owner: int, letters: Sequence[Letter], *, started: bool) -> list[Letter]:
        """Forgets letters that may be visible to others; returns those that are ours."""
        now = self.now
        lapsed = [letter.message for letter in letters if self.holds.lapsed(letter.message_id, now=now)]
        if not lapsed:
            return list(letters)
        self.settle(owner, lapsed, started=started, done=False)
        self.parts.observer.on(Released(mapping=self.parts.plan.mapping, messages=len(lapsed)))
        gone = {message.message_id for message in lapsed}
        return [letter for letter in letters if letter.message_id not in gone]

    async def release(self, owner: int, letters: Sequence[Letter], *, started: bool) -> None:
        """Makes letters visible again that were not run.

        Order is kept: SQS hands out nothing of a group while an earlier message of it is in flight, and when all of them
        are visible it begins with the first.
        """
        if not letters:
            return
        receipts = [self.holds.receipt(letter.message_id) for letter in letters]
        try:
            async with asyncio.timeout(RELEASE_S_MAX):
                await self.parts.source.extend(receipts, visibility_s=0)
        except TimeoutError:
            self.tell_failed(ServiceUnavailable(f"no answer within {RELEASE_S_MAX:g} s"), wait_s=0.0)
        except PortError as error:
            self.tell_failed(error, wait_s=0.0)
        finally:
            self.settle(owner, [letter.message for letter in letters], started=started, done=False)
            self.parts.observer.on(Released(mapping=self.parts.plan.mapping, messages=len(letters)))

    def moving(self) -> asyncio.Event:
        """Set with the next settlement."""
        self._watched = True
        return self._moved

    def tell_failed(self, error: PortError, *, wait_s: float) -> None:
        """A call to the queue failed."""
        self.parts.observer.on(
            PortFailed(
                mapping=self.parts.plan.mapping,
                shard=None,
                port="source",
                error=type(error).__name__,
                reason=error.reason,
                wait_s=wait_s,
            )
        )

    def _epoch(self, moment: Monotonic) -> Epoch:
        return Epoch(self.parts.clock.now() + moment - self.now)


async def delete(scope: QueueScope, receipts: Sequence[str]) -> Sequence[Undone] | PortError:
    """One delete call, bounded in time."""
    try:
        async with asyncio.timeout(CALL_S_MAX):
            return await scope.parts.source.delete(receipts)
    except TimeoutError:
        return ServiceUnavailable(f"no answer within {CALL_S_MAX:g} s")
    except PortError as error:
        return error


async def extend(
    scope: QueueScope, receipts: Sequence[str], *, visibility_s: int, within_s: float
) -> Sequence[Undone] | PortError:
    """One extension call, bounded in time."""
    limit_s = min(within_s, CALL_S_MAX)
    try:
        async with asyncio.timeout(limit_s):
            return await scope.parts.source.extend(receipts, visibility_s=visibility_s)
    except TimeoutError:
        return ServiceUnavailable(f"no answer within {limit_s:.1f} s")
    except PortError as error:
        return error


def terms_of(parts: QueueParts, visibility_s: int) -> Terms:
    """What decides over visibility for this mapping."""
    return Terms(
        visibility_s=visibility_s,
        extend=parts.plan.queue.extend_visibility,
        window_s=parts.plan.batch.window_s,
        timeout_s=parts.function.plan.timeout_s,
    )
