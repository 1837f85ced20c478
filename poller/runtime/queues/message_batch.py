"""Owns the run of one batch: it is invoked as one or more events, is kept while the function refuses it, and is settled by message."""

from collections.abc import Sequence
from dataclasses import dataclass

from poller.domain.records import Epoch, Monotonic
from poller.domain.telemetry.labels import TaskKind
from poller.domain.telemetry.mapping_events import RetryAfterIgnored, Retrying
from poller.rules import responses
from poller.rules.backoff import wait_s
from poller.rules.queues.failing import waiting_since
from poller.rules.queues.interventions import HeldBatch
from poller.rules.queues.message_groups import Choice, with_followers
from poller.rules.queues.receive_batch import QueueItem, QueueItemsEvent
from poller.rules.responses import Deferred, Partial, ResponseReading, Verdict
from poller.rules.retry_after import RetryAfter
from poller.runtime.invoking import BatchInvoker, InvocationBatch
from poller.runtime.queues.capacity import Reservation
from poller.runtime.queues.deleter import Deleter
from poller.runtime.queues.in_flight import InFlight
from poller.runtime.queues.operations.skipping import skip_started
from poller.runtime.stopping import interrupted_by
from poller.runtime.watched_tasks import WatchedTasks

PERMIT_AFTER_STOP_S = 5.0
"""How long a batch waits for the function's rate or breaker after a stop. Then its messages are given back: the wait could last for hours."""
CHUNKS_AT_ONCE_MAX = 10
"""If each event has one group: events of one batch that run at the same time."""


@dataclass(slots=True)
class PollerProgress:
    """What a poller does at the moment, for the status."""

    state: str = "idle"
    items: tuple[QueueItem, ...] = ()
    attempts: int = 0
    blocked_since: Epoch | None = None
    next_try: Epoch | None = None
    error: str = ""
    waits_since: Monotonic | None = None
    """Since when its batch has waited, because the function refuses it or its groups are not ready. A try does not end this wait."""

    def wait(self, now: Monotonic) -> None:
        """The poller's batch waits. If it waits already, the time does not change."""
        self.waits_since = now if self.waits_since is None else self.waits_since

    def rest(self) -> None:
        """The poller has no batch."""
        self.state, self.error = "idle", ""
        self.items, self.attempts, self.blocked_since, self.waits_since = (), 0, None, None


class HeldRuns:
    """Runs the messages that were held for paused groups, in tasks of their own, so that no poller waits with them."""

    def __init__(self, scope: InFlight, deleter: Deleter, tasks: WatchedTasks) -> None:
        self._scope = scope
        self._deleter = deleter
        self._tasks = tasks

    def begin(self) -> None:
        """Runs those whose pause has ended, or that are to be skipped."""
        interventions = self._scope.tracker.interventions
        for held in interventions.runnable(self._scope.now):
            self._tasks.start(TaskKind.GROUPS, self._run(held), of="held")
            self._scope.capacity.away += 1
        self._scope.capacity.held = interventions.held_batches

    async def give_up(self) -> None:
        """Makes all held messages visible, because the mapping stops."""
        for held in self._scope.tracker.interventions.give_up():
            await self._scope.release(held.receive_id, held.items, started=False)

    async def _run(self, held: HeldBatch) -> bool:
        scope = self._scope
        scope.capacity.away -= 1
        if not held.whole:
            await scope.release(held.receive_id, held.items, started=False)
            return True
        reservation = scope.capacity.none_yet()
        try:
            run = BatchRun(
                scope, self._deleter, held.receive_id, held.items, PollerProgress(), waits_at_stop=False
            )
            await run.run(reservation)
        finally:
            reservation.free()
        return True


class BatchRun:
    """Runs one batch until each of its messages is deleted, failed or given back.

    With `waits_at_stop` what was not begun waits for capacity at a stop too, as long as that allows.
    """

    def __init__(
        self,
        scope: InFlight,
        deleter: Deleter,
        receive_id: int,
        items: Sequence[QueueItem],
        progress: PollerProgress,
        *,
        waits_at_stop: bool = True,
    ) -> None:
        self._scope = scope
        self._deleter = deleter
        self._receive_id = receive_id
        self._items = list(items)
        self._progress = progress
        self._waits_at_stop = waits_at_stop
        self._plan = scope.parts.plan
        self._permit_s_max = None if scope.parts.function.flow is None else PERMIT_AFTER_STOP_S
        self._one_group = self._plan.fifo and self._plan.queue.one_group_per_batch
        self._invoker = BatchInvoker(
            scope.parts.function,
            self._plan,
            ResponseReading(
                report_failures=self._plan.retry.report_failures, ignore_empty_items=True, retry_after=True
            ),
            clock=scope.parts.clock,
            observer=scope.parts.observer,
        )

    async def run(self, reservation: Reservation) -> None:
        """Runs the whole batch in the reserved slot. With one group per event, groups run at the same time in further free slots.

        The caller frees the slot. If groups run at the same time, it is freed here as soon as no event needs it.
        """
        extra = await self._more_room()
        if not extra:
            await self._work(reservation, stays=True)
            return
        async with self._scope.tasks() as workers:
            workers.start(TaskKind.GROUPS, self._work_in(reservation, stays=True))
            for each in extra:
                workers.start(TaskKind.GROUPS, self._work_in(each, stays=False))

    async def _more_room(self) -> list[Reservation]:
        if not self._one_group:
            return []
        groups = len({item.group for item in self._items})
        granted: list[Reservation] = []
        while len(granted) < min(groups, CHUNKS_AT_ONCE_MAX) - 1:
            more = await self._scope.capacity.reserve_now(extra=True)
            if more is None:
                break
            granted.append(more)
        return granted

    async def _work_in(self, reservation: Reservation, *, stays: bool) -> bool:
        try:
            await self._work(reservation, stays=stays)
            return True
        finally:
            reservation.free()
            if stays:
                self._progress.wait(self._scope.now)

    async def _work(self, reservation: Reservation, *, stays: bool) -> None:
        """Runs one event after the other. `stays`: waits for groups that are not ready yet."""
        while chunk := await self._next(reservation, stays=stays):
            if stays:
                self._progress.waits_since = None
            await self._through(chunk, reservation, stays=stays)

    async def _next(self, reservation: Reservation, *, stays: bool) -> Sequence[QueueItem]:
        while self._items:
            if not stays and not reservation.held:
                break
            if not await self._has_room(reservation) or not self._in_time() or self._scope.paused:
                await self._give_up()
                break
            choice = self._scope.choose(self._receive_id, self._items)
            self._items = list(choice.rest)
            await self._as_asked(choice)
            if (choice.paused or choice.skipped) and not choice.chunk:
                continue
            chunk: Sequence[QueueItem] = choice.chunk
            if choice.blocked:
                await self._scope.release(self._receive_id, choice.blocked, started=False)
                chunk = await self._still_wanted(chunk)
            if chunk:
                return chunk
            if not stays:
                break
            if self._items:
                await self._settlement(reservation)
        return ()

    async def _as_asked(self, choice: Choice) -> None:
        """Does what operators have asked of the items that leave the batch: they are held, or skipped."""
        if choice.paused:
            await self._scope.hold(self._receive_id, choice.paused)
        if choice.skipped:
            await skip_started(self._scope, self._receive_id, choice.skipped)

    async def _has_room(self, reservation: Reservation) -> bool:
        """Whether there is capacity for an event. If there is none yet, waits for it as long as a stop allows.

        What operators ask of the messages needs no capacity, and is done before and during the wait.
        """
        needs_s = self._scope.parts.longest_s if self._waits_at_stop else None
        while not reservation.held and not self._scope.paused:
            await self._do_asked()
            if not self._items or not await self._taken_again(reservation, needs_s=needs_s):
                break
        return reservation.held

    async def _do_asked(self) -> None:
        """Does what operators have asked of the messages that wait, and begins no event of the others."""
        before = len(self._items) + 1
        while self._items and len(self._items) < before:
            before = len(self._items)
            choice = self._scope.choose(self._receive_id, self._items, runs=False)
            self._items = list(choice.rest)
            await self._as_asked(choice)

    async def _taken_again(self, reservation: Reservation, *, needs_s: float | None) -> bool:
        """Waits for capacity, as long as a stop allows. Returns False if there will be none.

        Returns True also without capacity if an operator ended the wait, so that the caller looks again at what may run.
        """
        scope = self._scope
        async with interrupted_by(scope.stop, needs_s=needs_s, after_s=self._permit_s_max):
            with reservation.away():
                woken = await scope.controls.ended(reservation.again())
            return woken or reservation.held
        return False

    def _in_time(self) -> bool:
        """Whether an event that begins now may be expected to end within the time that a stop leaves."""
        return self._scope.stop.allows(self._scope.parts.longest_s)

    async def _settlement(self, reservation: Reservation) -> None:
        """Gives the capacity back and waits until messages leave, as long as an event could still begin after that."""
        self._progress.state = "waiting"
        self._progress.wait(self._scope.now)
        moving = self._scope.moving()
        async with interrupted_by(self._scope.stop, needs_s=self._scope.parts.longest_s):
            with reservation.away():
                await moving.wait()

    async def _give_up(self) -> None:
        """Releases the messages that were not started, because there is no time or no capacity for them."""
        items, self._items = self._items, []
        await self._scope.release(self._receive_id, items, started=False)

    async def _through(self, chunk: Sequence[QueueItem], reservation: Reservation, *, stays: bool) -> None:
        """Invokes the function until it takes the event, as long as messages of the event are still ours."""
        if not (chunk := await self._permitted(chunk, reservation)):
            return
        request_id = self._scope.parts.new_id()
        tries = 0
        verdict = await self._invoke(chunk, request_id, reservation, attempt=1)
        if isinstance(verdict, Deferred):
            self._scope.gate.refused()
        try:
            while isinstance(verdict, Deferred):
                if stays:
                    self._progress.wait(self._scope.now)
                kept = await self._keep(chunk, verdict, tries, reservation)
                kept = kept and await self._permitted(kept, reservation)
                if not kept:
                    return
                if len(kept) < len(chunk):
                    chunk, request_id = kept, self._scope.parts.new_id()
                tries += 1
                verdict = await self._invoke(chunk, request_id, reservation, attempt=tries + 1)
        finally:
            if tries or isinstance(verdict, Deferred):
                self._scope.gate.gone()
        self._settle(chunk, verdict)

    async def _keep(
        self, chunk: Sequence[QueueItem], verdict: Deferred, tries: int, reservation: Reservation
    ) -> Sequence[QueueItem]:
        """Gives the capacity back and waits for the next try; returns the messages that are still ours."""
        scope = self._scope
        self._count_refusal(tries)
        delay_s = max(wait_s(self._plan.queue.backoff, tries, scope.parts.rng), verdict.retry_after_s or 0.0)
        self._emit_retrying(verdict, tries, delay_s)
        until = scope.now + delay_s

        async def next_try() -> None:
            nonlocal until
            await scope.sleep(max(0.0, until - scope.now))
            until = scope.now
            await reservation.again()

        while True:
            woken = False
            async with interrupted_by(scope.stop):
                with reservation.away():
                    woken = scope.paused or await scope.controls.ended(next_try())
            if scope.stop.requested or not (woken or reservation.held):
                await scope.release(self._receive_id, chunk, started=True)
                return ()
            chunk = await self._still_wanted(chunk)
            if reservation.held or not chunk:
                return chunk

    async def _permitted(self, chunk: Sequence[QueueItem], reservation: Reservation) -> Sequence[QueueItem]:
        """Starts the permit of the next call; returns what may be passed to the function now.

        It waits for another permit if this one is used, or if the breaker has opened, as long as a stop allows.
        """
        scope = self._scope
        while chunk and not reservation.start(len(chunk)):
            self._progress.state = "waiting"
            taken = await self._taken_again(reservation, needs_s=scope.parts.longest_s)
            if scope.paused or not taken:
                await scope.release(self._receive_id, chunk, started=True)
                return ()
            chunk = await self._still_wanted(chunk)
        return chunk

    async def _still_wanted(self, chunk: Sequence[QueueItem]) -> Sequence[QueueItem]:
        """The items of a started event that may be passed to the function now. It is looked again after each wait."""
        scope = self._scope
        while chunk and not scope.paused:
            again = scope.retry(self._receive_id, chunk)
            if len(again.chunk) == len(chunk):
                return chunk
            chunk = again.chunk
            if again.blocked:
                await scope.release(self._receive_id, again.blocked, started=True)
            await self._as_asked(again)
        if chunk:
            await scope.release(self._receive_id, chunk, started=True)
        return ()

    def _count_refusal(self, tries: int) -> None:
        """Counts a refusal for the scaling rule. A batch that is refused again shows nothing about other batches."""
        scope = self._scope
        if not tries or scope.gate.everything_refused:
            scope.tracker.tally.count_refused()
        else:
            scope.tracker.tally.count_deferred()

    async def _invoke(
        self, chunk: Sequence[QueueItem], request_id: str, reservation: Reservation, *, attempt: int
    ) -> Verdict:
        self._progress.state, self._progress.items = "invoking", tuple(chunk)
        batch = InvocationBatch(
            event=QueueItemsEvent(chunk),
            identifiers=[item.message.message_id for item in chunk],
            request_id=request_id,
            attempt=attempt,
        )
        verdict = await self._invoker.invoke(
            batch, permit=reservation.permit, widened=lambda verdict: self._widened(verdict, chunk)
        )
        if responses.was_called(verdict):
            self._scope.gate.accepted()
        return verdict

    def _widened(self, verdict: Verdict, chunk: Sequence[QueueItem]) -> Verdict:
        """The verdict; with `group_aware_failures` later messages of failed groups fail too (aws-behaviour#reports-for-message-groups)."""
        if not isinstance(verdict, Partial) or not self._plan.queue.group_aware_failures:
            return verdict
        failed = with_followers([item.group for item in chunk], verdict.failed)
        return Partial(failed, verdict.response, verdict.state, verdict.retry_after)

    def _settle(self, chunk: Sequence[QueueItem], verdict: Verdict) -> None:
        if pending := self._scope.answered(self._receive_id, chunk, verdict):
            self._deleter.add(pending)
        if isinstance(verdict, Partial) and verdict.retry_after is not None and verdict.retry_after.ignored:
            self._emit_ignored(verdict.retry_after)
        self._progress.items, self._progress.blocked_since = (), None
        self._progress.attempts, self._progress.error = 0, ""

    def _emit_ignored(self, retry_after: RetryAfter) -> None:
        self._scope.parts.observer.on(
            RetryAfterIgnored(
                mapping=self._plan.mapping,
                function=self._plan.function,
                messages=retry_after.ignored,
                reason=retry_after.reason,
            )
        )

    def _emit_retrying(self, verdict: Deferred, tries: int, delay_s: float) -> None:
        now = self._scope.parts.clock.now()
        progress = self._progress
        progress.state, progress.attempts, progress.error = "waiting", tries + 1, verdict.error
        progress.blocked_since = waiting_since([item.message for item in progress.items], now)
        progress.next_try = Epoch(now + delay_s)
        self._scope.parts.observer.on(
            Retrying(mapping=self._plan.mapping, shard=None, attempt=tries + 1, wait_s=delay_s, free=True)
        )
