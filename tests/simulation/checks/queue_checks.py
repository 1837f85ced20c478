"""Owns the promises of queue mappings, checked at every effect against what the queue really holds."""

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from poller.domain.invocations import Outcome, Succeeded, Throttled, Unreachable
from poller.domain.plan import MappingPlan
from poller.domain.records import Message, Undone
from poller.runtime.queues.deleter import TRIES_MAX
from tests.simulation.checks.capacity_checks import CapacityChecks
from tests.simulation.checks.ledger import Flight, Violation, done_by, names
from tests.simulation.checks.retry_checks import RetryChecks
from tests.simulation.checks.stop_checks import StopChecks
from tests.simulation.checks.visibility_checks import VisibilityChecks
from tests.simulation.checks.window_fill_checks import WindowFillChecks
from tests.simulation.services.faults import Line, Marks
from tests.simulation.services.functions import Delivery
from tests.simulation.services.queues import FakeQueue, Letter

CALL_S_MAX = 2.0
"""Longer than any call is on its way."""
DELETE_S_MAX = 2.0
"""A delete waits for others to share its call, and then takes the call's time."""
ROOM_S = 0.5
"""A wait for room in memory that is shorter keeps nobody from a try."""
SEEN_S_MAX = 60.0
"""So long a worker may wait for a try and not see that the time of what waits with it ran out."""


@dataclass(slots=True)
class Handed:
    """One time that a message was handed out; `excused` when somebody else than the engine kept it from a function."""

    worker: str
    troubles: int
    """What had gone wrong before the worker asked for it, which may keep it from extending and deleting."""
    received: float = 0.0
    invoked: bool = False
    seen: bool = False
    """Whether the worker called a function with it since it has it, and be it that it refused or was not reached."""
    given_back: bool = False
    """Whether the worker gave it back after it was asked to stop."""
    excused: bool = False
    overtaken: bool = False
    """Whether the queue ever gave it out while it was hidden, as standard queues do: then nobody knows who has it when."""
    done_at: float | None = None
    """When the worker that has it knew that the function had done it."""
    since: float = 0.0
    """Since when the worker may have it: its time may have run out meanwhile, and it came again."""
    again_at: float | None = None
    """When it came to the worker again whose time for it had run out."""
    shown: bool = False
    """Whether the worker gave it back."""
    held_up: float | None = None
    """Since when it waits until the worker has room in memory; its time may run out meanwhile. None if it came soon."""


@dataclass(slots=True)
class QueueChecks:
    """The truth about one mapping of a queue, and its checkers; each raises Violation."""

    plan: MappingPlan
    queue: FakeQueue
    marks: Marks
    timeout_s: float = 0.0
    settled: set[str] = field(default_factory=set)
    failed: set[str] = field(default_factory=set)
    flights: dict[int, Flight] = field(default_factory=dict)
    visibility: VisibilityChecks = field(init=False)
    capacity: CapacityChecks = field(init=False)
    fill: WindowFillChecks = field(init=False)
    stops: StopChecks = field(init=False)
    retries: RetryChecks = field(init=False)
    _handed: dict[str, Handed] = field(default_factory=dict)
    _refused_before: set[tuple[str, str]] = field(default_factory=set)
    """Workers that may still have a message which the function had refused there before others got it, and the message."""
    _taken_over: dict[tuple[str, str], float] = field(default_factory=dict)
    """When a message that a worker waited with came to another one, by the first worker, which may not have seen yet that its time ran out."""
    _failed_deletes: Counter[str] = field(default_factory=Counter)
    """How many delete calls of a message have failed. After TRIES_MAX of them a worker may leave it to come again."""
    _anew: set[str] = field(default_factory=set)
    """Workers whose run of this mapping has ended while they went on."""

    def __post_init__(self) -> None:
        self.visibility = VisibilityChecks(self.plan, self.queue, self.marks, self.timeout_s)
        self.capacity = CapacityChecks(self.plan, self.marks)
        self.fill = WindowFillChecks(self.plan, self.marks)
        self.stops = StopChecks(self.marks, self.timeout_s)
        self.retries = RetryChecks(self.plan, self.queue, self.marks)

    def located(self, delivery: Delivery) -> list[Letter]:
        """The messages of an event."""
        return [self.queue.letters[each.identifier] for each in delivery.records]

    def domains(self, letters: Sequence[Letter]) -> frozenset[str]:
        """The message groups of a FIFO queue."""
        return frozenset(each.group for each in letters if each.group is not None)

    def receives(
        self,
        line: Line,
        messages: Sequence[Message],
        now: float,
        *,
        asked: int,
        troubles: int,
        abandoned: bool = False,
    ) -> None:
        """Messages were handed out; a message comes again only if it was tried, or if something else went wrong.

        So much had gone wrong between worker and queue when it `asked` for messages, and by now (`troubles`).
        `abandoned`: to a poll that the worker gave up, whose answer nobody can wait for.
        """
        worker = line.name
        self.capacity.receives(worker, now)
        left, running = self._left(messages), self._running(worker)
        for message in messages:
            before = self._handed.get(message.message_id)
            self.retries.received(self.queue.letters[message.message_id], now)
            if before is not None and self.queue.letters[message.message_id].early:
                # The first receipt can neither extend nor delete it any more, whoever has the newest one.
                before.overtaken = True
                continue
            mine = before if before is not None and before.worker == worker else None
            if line.stopping and not abandoned:
                self._not_caught_again(message.message_id, mine)
            if mine is not None and mine.troubles == troubles and not mine.overtaken:
                self._not_kept(message.message_id, mine, now)
                self.visibility.came_while_it_ran(message.message_id, running)
                self._not_wasted(message, mine)
            # After trouble the worker may have it still, and what becomes of that settles this time too.
            unsure = mine is not None and mine.troubles != troubles
            doubled = before is not None and before.overtaken
            lapsed = mine if mine is not None and not mine.shown else None
            if before is not None and mine is None:
                if self._waits(before):
                    self._refused_before.add((before.worker, message.message_id))
                if not before.shown and before.done_at is None:
                    self._taken_over[before.worker, message.message_id] = now
            refused = (worker, message.message_id) in self._refused_before
            # The worker's run of it, from before others had it, settles this time too.
            runs = message.message_id in running
            self._handed[message.message_id] = Handed(
                worker,
                asked,
                now,
                invoked=runs,
                seen=runs or refused or (mine is not None and self._waits(mine)),
                excused=unsure or message.message_id in left,
                overtaken=doubled,
                since=now if lapsed is None else lapsed.since,
                again_at=None if lapsed is None else now,
            )

    def _waits(self, before: Handed) -> bool:
        """Whether the worker still has what it gets once more, since the function refused it: then the newest receipt counts."""
        return before.seen and not before.invoked

    def _left(self, messages: Sequence[Message]) -> set[str]:
        """What of a receive nobody can run now: what cannot be read, and what is behind it in its message group."""
        left: set[str] = set()
        blocked: set[str | None] = set()
        for message in messages:
            group = self.queue.letters[message.message_id].group
            if message.unreadable or (group is not None and group in blocked):
                left.add(message.message_id)
                blocked.add(group)
        return left

    def given_back(self, line: Line, receipts: Sequence[str], now: float) -> None:
        """A worker shows these: what the function refused, what is blocked, and what there is no time for."""
        for receipt in receipts:
            letter = self.queue.owner_of(receipt)
            handed = self._handed[letter.message_id]
            if handed.worker != line.name:
                continue
            excused = handed.seen or handed.excused or handed.overtaken or handed.held_up is not None
            blocked = self._blocked(line, letter, now)
            if not (excused or blocked or self.capacity.may_be_without_part(line, now)):
                self.stops.gives_back_untried(line, letter.message_id, now)
            # Behind a change, the worker's next run may receive what the run before gave back at its end.
            anew = line.name in self._anew or line.name in self.stops.changing
            # What is behind a message whose time ran out is shown untried, and comes again.
            handed.excused = handed.excused or handed.seen or blocked or anew
            handed.shown, handed.seen = True, False
            self._refused_before.discard((line.name, letter.message_id))
            if line.stopping:
                handed.given_back = True
                self.marks.saw("given back at a stop")

    def _blocked(self, line: Line, letter: Letter, now: float) -> bool:
        """Whether the message must not run before earlier ones of its group that failed, or whose time ran out here."""
        if letter.group is None:
            return False
        since = self._handed[letter.message_id].since
        earlier = [
            each
            for each in self.queue.letters.values()
            if each.group == letter.group and each.sequence < letter.sequence
        ]
        if any(
            now - self._taken_over.get((line.name, each.message_id), -SEEN_S_MAX) < SEEN_S_MAX
            for each in earlier
        ):
            return True
        return self._failed_before(letter.group) or any(
            (handed := self._handed.get(each.message_id)) is not None
            and handed.worker == line.name
            and (
                # The worker gave the delete up, whether the queue carried it out or not.
                self._failed_deletes[each.message_id] >= TRIES_MAX
                or (not each.deleted and each.visible_at <= now)
                or (not each.deleted and handed.again_at is not None and handed.again_at > since)
            )
            for each in earlier
        )

    def begins_after_stop(self, line: Line, flight: Flight, letters: Sequence[Letter]) -> None:
        """A worker calls the function, perhaps while it stops."""
        received = [self._handed[letter.message_id].received for letter in letters]
        since_stop = line.stopped_at is not None and min(received) > line.stopped_at
        self.stops.begins(line, flight.issued, since_stop=since_stop)

    def begun_anew(self, worker: str) -> None:
        """The worker's run of this mapping ends, and another one begins."""
        self._anew.add(worker)
        for handed in self._handed.values():
            if handed.worker == worker:
                handed.excused, handed.seen = True, False

    def waits_for_room(self, messages: Sequence[Message], now: float) -> None:
        """These were handed out, and wait until the worker has room in memory."""
        for message in messages:
            self._handed[message.message_id].held_up = now

    def arrives(self, worker: str, messages: Sequence[Message], now: float) -> None:
        """A worker has these now."""
        for message in messages:
            handed = self._handed[message.message_id]
            if handed.worker == worker and handed.held_up is not None and now - handed.held_up < ROOM_S:
                handed.held_up = None

    def excuse(self, messages: Sequence[Message]) -> None:
        """These were handed out, but the worker never got them."""
        for message in messages:
            self._handed[message.message_id].excused = True

    def extends(
        self, line: Line, receipts: Sequence[str], visibility_s: int, *, asked: float, now: float
    ) -> None:
        """Messages are about to be hidden for so long from now on; 0 shows them. `asked` is when that was decided."""
        healthy, stopping = not line.faults, line.stopping
        others = [
            each
            for each in receipts
            if not self.retries.puts_off(
                each, visibility_s, asked=asked, now=now, stopping=stopping, healthy=healthy
            )
        ]
        if visibility_s and line.stumbles and self.plan.queue.retry_backoff is not None:
            # A worker that stood still takes a call that was answered meanwhile for one that timed out, and puts its messages off.
            return
        if others:
            self.visibility.extends(others, visibility_s, now, healthy=healthy)
            if not visibility_s:
                self.given_back(line, others, now)

    def tried(self, worker: str, delivery: Delivery) -> None:
        """A worker is about to call the function, which may not be reached."""
        for each in delivery.records:
            handed = self._handed[each.identifier]
            handed.seen = handed.seen or handed.worker == worker

    def begins(self, flight: Flight, letters: Sequence[Letter], *, ill: Collection[str]) -> None:
        """A batch is handed to the function."""
        others = list(self.flights.values())
        self.flights[flight.number] = flight
        for letter in letters:
            if self.plan.filters and not letter.content.keep:
                raise Violation("filter", f"{letter.message_id} was delivered, no filter matches it")
            handed = self._handed[letter.message_id]
            handed.invoked = handed.seen = True
            self._refused_before.discard((flight.worker, letter.message_id))
        if not self._held_up(flight):
            self._one_per_group(flight, others)
            self._in_group_order(letters)
        self._one_group(flight, letters, others)
        self.capacity.begins(flight, others, ill=ill)
        self._mark_repeats(letters)

    def ends(self, flight: Flight, outcome: Outcome | None, now: float) -> None:
        """The worker has the outcome, or never will."""
        del self.flights[flight.number]
        if outcome is None:
            return
        reports = self.plan.retry.report_failures
        named = done_by(outcome, flight.delivery, reports=reports, stream=False)
        done = self._without_followers(flight, named)
        failed = [each for each in self.located(flight.delivery) if each.message_id not in done]
        self.settled.update(done)
        for each in done:
            if self._handed[each].worker == flight.worker:
                self._handed[each].done_at = now
        self.failed.update(each.message_id for each in failed)
        if isinstance(outcome, Throttled | Unreachable):
            self._refused(flight)
        else:
            ill = {each.message_id for each in failed}
            shared = {each.message_id for each in failed if not self._only_with(flight.worker, each)}
            self.retries.failed(flight, outcome, failed, now, shared=shared)
            self.visibility.failed(
                {
                    each["messageId"]: each["receiptHandle"]
                    for each in flight.delivery.event["Records"]
                    if each["messageId"] in ill
                }
            )
        self._mark_answer(outcome, done, failed)

    def _only_with(self, worker: str, letter: Letter) -> bool:
        """Whether this worker has the message, and nobody else was given it meanwhile."""
        handed = self._handed[letter.message_id]
        return handed.worker == worker and not handed.overtaken

    def _refused(self, flight: Flight) -> None:
        """A refusal is no try: the worker keeps the messages, and they do not come again."""
        for each in flight.delivery.records:
            handed = self._handed[each.identifier]
            if handed.worker == flight.worker:
                handed.invoked = False

    def abandoned(self, delivery: Delivery) -> None:
        """The engine gave up waiting for a call, which may have had its effect or not."""
        for each in delivery.records:
            self._handed[each.identifier].invoked = True

    def deletes(self, worker: str, receipts: Sequence[str], undone: Sequence[Undone], asked: float) -> None:
        """Messages were deleted, as was decided on `asked`: each was done, or no filter matched it."""
        left = {each.receipt for each in undone}
        if any(each.lapsed for each in undone):
            self.marks.saw("lapsed receipt")
        self.delete_failed([each.receipt for each in undone if not each.lapsed])
        self.visibility.deletes(worker, [each for each in receipts if each not in left], asked)
        for receipt in receipts:
            letter = self.queue.owner_of(receipt)
            filtered = bool(self.plan.filters) and not letter.content.keep
            if filtered:
                self.marks.saw("filtered message deleted")
            if receipt not in left and not filtered and letter.message_id not in self.settled:
                raise Violation("delete", f"{letter.message_id} was deleted before it was done")

    def delete_failed(self, receipts: Sequence[str]) -> None:
        """A delete call failed for these, or the worker gave it up."""
        self._failed_deletes.update(self.queue.owner_of(receipt).message_id for receipt in receipts)

    def unsettled(self) -> list[str]:
        """Messages that are still in the queue."""
        return [letter.message_id for letter in self.queue.letters.values() if letter.here]

    def lost(self) -> list[str]:
        """Messages that left the queue without having been done, filtered or moved to the dead-letter queue."""
        return [
            letter.message_id
            for letter in self.queue.letters.values()
            if letter.deleted
            and letter.message_id not in self.settled
            and not (self.plan.filters and not letter.content.keep)
        ]

    def _running(self, worker: str) -> set[str]:
        here = [each for each in self.flights.values() if each.worker == worker]
        return {record.identifier for each in here for record in each.delivery.records}

    def _not_kept(self, message_id: str, before: Handed, now: float) -> None:
        """What is done is deleted soon, so that it does not come again."""
        if not self.plan.queue.extend_visibility or before.done_at is None:
            return
        late_s = now - before.done_at
        if late_s > DELETE_S_MAX:
            raise Violation("delete", f"{message_id} came again {late_s:.1f} s after it was done")

    def _not_caught_again(self, message_id: str, before: Handed | None) -> None:
        """What a worker gives back at a stop must not be caught by its own polls."""
        self.marks.saw("received after a stop")
        if before is not None and before.given_back:
            raise Violation("receive", f"{message_id} was given back at a stop and caught again")

    def _not_wasted(self, message: Message, before: Handed) -> None:
        if before.invoked or before.excused or before.held_up is not None:
            return
        if not self.plan.queue.extend_visibility:
            # What waits behind another event of its batch may run out of time, as on AWS.
            self.marks.saw("message lapsed while it waited")
            return
        if message.group is not None and self._failed_before(message.group):
            return
        raise Violation("receive", f"{message.message_id} came again and was never tried")

    def _failed_before(self, group: str) -> bool:
        """Whether a message of the group has failed or was refused, so that later ones come again behind it."""
        return any(self.queue.letters[each].group == group for each in self.failed)

    def _one_per_group(self, flight: Flight, others: Sequence[Flight]) -> None:
        for other in others:
            shared = other.domains & flight.domains
            if shared and not self._overtaken(other):
                raise Violation("one per group", f"{names(sorted(shared))} in flight twice")

    def _held_up(self, flight: Flight) -> bool:
        """Whether a worker that was stopped had sent this before, while its messages were still hidden from others."""
        return flight.began - flight.issued > CALL_S_MAX and self._overtaken(flight)

    def _overtaken(self, flight: Flight) -> bool:
        """Whether the queue has handed a message of this flight out again, or to the dead-letter queue: its visibility ran out."""
        letters = self.located(flight.delivery)
        handed = [each["receiptHandle"] for each in flight.delivery.event["Records"]]
        return any(
            letter.redriven or letter.receipt != receipt
            for letter, receipt in zip(letters, handed, strict=True)
        )

    def _in_group_order(self, letters: Sequence[Letter]) -> None:
        inside: dict[str, list[Letter]] = {}
        for letter in letters:
            if letter.group is not None:
                inside.setdefault(letter.group, []).append(letter)
        for group, batch in inside.items():
            order = [each.sequence for each in batch]
            if order != sorted(order):
                raise Violation("group order", f"an event has {names(order)} of {group}")
            self._after_earlier(group, batch)

    def _after_earlier(self, group: str, batch: Sequence[Letter]) -> None:
        inside = {each.message_id for each in batch}
        last = batch[-1].sequence
        for letter in self.queue.letters.values():
            earlier = letter.group == group and letter.sequence < last and letter.here
            if earlier and letter.message_id not in inside | self.settled and self._due(letter):
                raise Violation("group order", f"{batch[-1].message_id} before {letter.message_id}")

    def _due(self, letter: Letter) -> bool:
        return letter.content.keep or not self.plan.filters

    def _one_group(self, flight: Flight, letters: Sequence[Letter], others: Sequence[Flight]) -> None:
        """Where the mapping says so, an event holds one message group, and groups run side by side."""
        if not (self.plan.fifo and self.plan.queue.one_group_per_batch):
            return
        if len(flight.domains) > 1:
            raise Violation("one group", f"an event mixes {names(sorted(flight.domains))}")
        if len(letters) > 1:
            self.marks.saw("several messages of one group")
        if any(each.worker == flight.worker for each in others):
            self.marks.saw("groups side by side")

    def _without_followers(self, flight: Flight, done: Sequence[str]) -> list[str]:
        """Where the mapping says so, a message fails with an earlier one of its group in the same event."""
        if not self.plan.queue.group_aware_failures:
            return list(done)
        blocked: set[str] = set()
        kept: list[str] = []
        for letter in self.located(flight.delivery):
            if letter.message_id in done and letter.group not in blocked:
                kept.append(letter.message_id)
            elif letter.group is not None:
                blocked.add(letter.group)
        if len(kept) < len(done):
            self.marks.saw("followers held back")
        return kept

    def _mark_answer(self, outcome: Outcome, done: Sequence[str], failed: Sequence[Letter]) -> None:
        if not isinstance(outcome, Succeeded):
            return
        if failed and done:
            self.marks.saw("partial report of a queue")
        if not self.plan.retry.report_failures and b"batchItemFailures" in outcome.payload:
            self.marks.saw("report that does not count")

    def _mark_repeats(self, letters: Sequence[Letter]) -> None:
        if any(each.receives > 1 for each in letters):
            self.marks.saw("message delivered again")
        if len({each.group for each in letters}) > 1:
            self.marks.saw("mixed groups")
