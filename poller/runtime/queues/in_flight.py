"""Owns what the pollers of one queue mapping share: its messages in flight, its calls to the queue, and the events about both.

`InFlightTracker` decides about the messages. This module passes the time to it, emits the events, and wakes batches that wait
until other messages leave.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from poller.domain.errors import PortError, RecordUnreadable, ServiceUnavailable
from poller.domain.records import Message, Monotonic, QueueFacts, Undone
from poller.domain.telemetry.mapping_events import Deleted, Polled, Released
from poller.rules.queues.in_flight import InFlightTracker, PendingDelete
from poller.rules.queues.interventions import QueueInterventions
from poller.rules.queues.message_groups import Choice
from poller.rules.queues.open_batch import OpenBatch
from poller.rules.queues.receive_batch import QueueItem
from poller.rules.queues.visibility import VisibilityPolicy
from poller.rules.responses import Verdict
from poller.runtime.port_failures import report_failure
from poller.runtime.queues.bounded.queue_memory import QueueMemory
from poller.runtime.queues.capacity import QueueCapacity
from poller.runtime.queues.context import QueueContext
from poller.runtime.queues.open_receives import Polls
from poller.runtime.queues.operations.controls import QueueControls
from poller.runtime.queues.refusals import RefusalGate
from poller.runtime.stopping import Stop
from poller.runtime.watched_tasks import WatchedTasks

CALL_S_MAX = 30.0
"""How long one delete or extension may take before it counts as failed."""
PAUSE_STEP_S = 1.0
"""How often is looked whether a pause has ended, while its messages wait to be given back."""
RELEASE_S_MAX = 5.0
"""How long one release may take. After that the messages are left to their visibility timeout."""


@dataclass(slots=True)
class SourceHealth:
    """How calls to the queue go: `failures` in a row, and the `reason` of the last one."""

    failures: int = 0
    reason: str = ""


@dataclass(slots=True, eq=False)
class InFlight:
    """Shared by the pollers, the deleter and the visibility extender of one mapping."""

    parts: QueueContext
    stop: Stop
    capacity: QueueCapacity
    tracker: InFlightTracker
    source: SourceHealth = field(default_factory=SourceHealth)
    controls: QueueControls = field(default_factory=QueueControls)
    polls: Polls = field(init=False)
    open_batch: OpenBatch = field(init=False)
    gate: RefusalGate = field(init=False)
    taken: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when messages were received, so that an extension may be due earlier than before."""
    failed: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when messages failed whose next try is to be put off."""
    resume_held: Callable[[], None] = field(default=lambda: None)
    """Runs the held messages whose pause has ended."""
    _moved: asyncio.Event = field(default_factory=asyncio.Event)
    _watched: bool = False
    _settlements: int = 0
    """The tracker's settlements that waiting batches know about."""

    def __post_init__(self) -> None:
        self.polls = Polls(self.parts.clock, QueueMemory(self.parts.memory))
        self.open_batch = OpenBatch(self.parts.plan.batch)
        self.gate = RefusalGate(self.parts.clock)
        self.controls.changed = self.look_again

    @property
    def now(self) -> Monotonic:
        """The monotonic clock."""
        return self.parts.clock.monotonic()

    @property
    def paused(self) -> bool:
        """Whether an operator paused the mapping, so that nothing may be received or begin."""
        return self.controls.stopped

    async def sleep(self, delay_s: float) -> bool:
        """Waits `delay_s` seconds or until a stop or an operator ends the wait. Returns whether the scope is asked to stop."""
        return await self.controls.sleep(self.stop, delay_s)

    def tasks(self) -> WatchedTasks:
        """A group for tasks of the mapping."""
        return WatchedTasks(self.parts.observer, self.parts.plan.mapping)

    def received(self, messages: Sequence[Message], *, asked: int) -> tuple[Message, ...]:
        """Takes the messages of a receive that asked for `asked`; returns the messages to filter and run."""
        parts, mapping = self.parts, self.parts.plan.mapping
        reception = self.tracker.received(
            messages, asked=asked, timeout_s=parts.limit_s, now=self.now, epoch=parts.clock.now()
        )
        self._count()
        parts.observer.on(Polled(mapping=mapping, shard=None, records=len(messages)))
        for reason in reception.unreadable:
            self.report_failed(RecordUnreadable(reason))
        self._emit_released(reception.left_alone)
        self._emit_released(reception.late)
        if len(messages) > reception.left_alone:
            self.taken.set()
        return reception.fresh

    def choose(self, receive_id: int, items: Sequence[QueueItem], *, runs: bool = True) -> Choice:
        """Takes and starts the next event of a batch. If nothing `runs`, only takes what operators have asked for."""
        return self._chosen(self.tracker.choose(receive_id, items, now=self.now, runs=runs))

    def retry(self, receive_id: int, chunk: Sequence[QueueItem]) -> Choice:
        """The items of a refused event that may be tried again."""
        return self._chosen(self.tracker.retry(receive_id, chunk, now=self.now))

    def answered(
        self, receive_id: int, chunk: Sequence[QueueItem], verdict: Verdict
    ) -> Sequence[PendingDelete]:
        """Takes the verdict on an event; returns the messages to delete."""
        pending = self.tracker.answered(
            receive_id, chunk, verdict, now=self.now, epoch=self.parts.clock.now()
        )
        if self.tracker.delays:
            self.failed.set()
        self._wake()
        return pending

    async def delete(self, pending: Sequence[PendingDelete]) -> Sequence[PendingDelete]:
        """One delete call; returns the messages that need another one."""
        return (await self.delete_one(pending))[0]

    async def delete_one(
        self, pending: Sequence[PendingDelete]
    ) -> tuple[Sequence[PendingDelete], Sequence[Undone] | PortError]:
        """As `delete`. The second value is what the queue did not delete, or why the call failed."""
        call = self.tracker.start_delete(pending, now=self.now)
        undone = await _deleted(self.parts, call.receipts)
        if isinstance(undone, PortError):
            self.report_failed(undone)
            return pending, undone
        result = self.tracker.deleted(call, undone)
        self._wake()
        self._emit_deleted(messages=result.messages, lapsed=result.lapsed)
        return result.again, undone

    def delete_failed(self, pending: Sequence[PendingDelete]) -> Sequence[PendingDelete]:
        """Gives up the delete of these messages. Returns those that are to be tried with a newer receipt."""
        again = self.tracker.delete_failed(pending)
        self._wake()
        self._emit_deleted(failed=len(pending) - len(again))
        return again

    async def release(self, receive_id: int, items: Sequence[QueueItem], *, started: bool) -> None:
        """Makes items visible again that were not run.

        This keeps the order: SQS gives out no message of a group while an earlier one is in flight, and begins with the first
        one when all are visible. After a stop, it waits first until running polls are answered, because they would receive the
        released messages.
        """
        if self.stop.requested or self.paused:
            await self._polls_answered()
            items = self._without_lapsed(receive_id, items, started=started)
        if not items:
            return
        receipts = [self.tracker.visibility.receipt(item.message_id) for item in items]
        try:
            async with asyncio.timeout(RELEASE_S_MAX):
                await self.parts.source.extend(receipts, visibility_s=0)
        except TimeoutError:
            self.report_failed(ServiceUnavailable(f"no answer within {RELEASE_S_MAX:g} s"))
        except PortError as error:
            self.report_failed(error)
        finally:
            self.tracker.released(receive_id, items, started=started)
            self._wake()
            self._emit_released(len(items))

    async def hold(self, receive_id: int, items: Sequence[QueueItem]) -> None:
        """Holds items of paused groups until the pause ends. After a stop they are made visible, for the next worker."""
        if self.stop.requested:
            await self.release(receive_id, items, started=False)
            return
        self.tracker.hold(receive_id, items)
        self._count()
        self.capacity.held = self.tracker.interventions.held_batches
        self.taken.set()

    def unmoved(self, receive_id: int, items: Sequence[QueueItem], reason: str) -> None:
        """These items were to be skipped, and could not be moved."""
        self.tracker.unmoved(receive_id, items, reason, now=self.now, epoch=self.parts.clock.now())
        self._wake()

    def look_again(self) -> None:
        """Wakes all batches that wait, because an operator asked for something."""
        moved, self._moved = self._moved, asyncio.Event()
        self._watched = False
        moved.set()
        self.resume_held()

    def moving(self) -> asyncio.Event:
        """An event that is set when messages leave next."""
        self._watched = True
        return self._moved

    def report_failed(self, error: PortError, *, wait_s: float = 0.0) -> None:
        """Reports that a call to the queue failed; `wait_s` is the time until the next try."""
        mapping = self.parts.plan.mapping
        report_failure(self.parts.observer, error, mapping=mapping, port="source", wait_s=wait_s)

    async def _polls_answered(self) -> None:
        """Waits until running polls are answered, or until a pause ends, after which they may catch messages."""
        while self.paused and not self.stop.requested and self.polls.left_s:
            await self.polls.answered_within(PAUSE_STEP_S)
        if self.stop.requested:
            await self.polls.answered()

    def _chosen(self, choice: Choice) -> Choice:
        self._wake()
        self._emit_released(choice.lapsed)
        return choice

    def _without_lapsed(
        self, receive_id: int, items: Sequence[QueueItem], *, started: bool
    ) -> Sequence[QueueItem]:
        ours = self.tracker.without_lapsed(receive_id, items, started=started, now=self.now)
        self._wake()
        self._emit_released(len(items) - len(ours))
        return ours

    def _wake(self) -> None:
        """Wakes the batches that wait for messages to leave, if some left."""
        if self._settlements == self.tracker.settlements:
            return
        self._settlements = self.tracker.settlements
        self._count()
        if self._watched:
            self._watched = False
            moved, self._moved = self._moved, asyncio.Event()
            moved.set()

    def _count(self) -> None:
        """Counts what the messages take. What paused groups hold is not settled before an operator ends the pause."""
        tracker = self.tracker
        held = tracker.interventions.held_messages
        self.polls.memory.hold(tracker.visibility.held_bytes, starving=0 < held == len(tracker))

    def _emit_released(self, messages: int) -> None:
        if messages:
            self.parts.observer.on(Released(mapping=self.parts.plan.mapping, messages=messages))

    def _emit_deleted(self, *, messages: int = 0, lapsed: int = 0, failed: int = 0) -> None:
        if messages or lapsed or failed:
            self.parts.observer.on(
                Deleted(mapping=self.parts.plan.mapping, messages=messages, lapsed=lapsed, failed=failed)
            )


async def extend(
    scope: InFlight, receipts: Sequence[str], *, visibility_s: int | Sequence[int], within_s: float
) -> Sequence[Undone] | PortError:
    """One call that changes visibility, with a time limit."""
    limit_s = min(within_s, CALL_S_MAX)
    try:
        async with asyncio.timeout(limit_s):
            return await scope.parts.source.extend(receipts, visibility_s=visibility_s)
    except TimeoutError:
        return ServiceUnavailable(f"no answer within {limit_s:.1f} s")
    except PortError as error:
        return error


async def _deleted(parts: QueueContext, receipts: Sequence[str]) -> Sequence[Undone] | PortError:
    """One delete call with a time limit."""
    try:
        async with asyncio.timeout(CALL_S_MAX):
            return await parts.source.delete(receipts)
    except TimeoutError:
        return ServiceUnavailable(f"no answer within {CALL_S_MAX:g} s")
    except PortError as error:
        return error


def tracker_of(
    parts: QueueContext, facts: QueueFacts, interventions: QueueInterventions | None = None
) -> InFlightTracker:
    """The tracker of this mapping, for a queue with these settings."""
    plan = parts.plan
    return InFlightTracker(
        visibility_policy(parts, facts.visibility_timeout_s),
        plan.batch,
        one_group=plan.fifo and plan.queue.one_group_per_batch,
        retry_backoff=plan.queue.retry_backoff,
        receives_max=facts.redrive_receives_max,
        interventions=interventions,
    )


def visibility_policy(parts: QueueContext, visibility_s: int) -> VisibilityPolicy:
    """The visibility policy of this mapping, for a queue with this visibility timeout."""
    return VisibilityPolicy(
        visibility_s=visibility_s,
        extend=parts.plan.queue.extend_visibility,
        window_s=parts.plan.batch.window_s,
        timeout_s=parts.limit_s,
    )
