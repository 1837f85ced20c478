"""Owns one poller of a queue: room first, then a receive, then a batch, in a loop."""

from collections.abc import Callable, Sequence
from typing import assert_never

from poller.errors import AccessDenied, PortError, ResourceMissing
from poller.records import Message, Monotonic
from poller.rules.events import MessageEncoder, encode_json
from poller.rules.filtering import Filter
from poller.rules.gathering import Close, Gathering, Letter, Receive, Rest
from poller.rules.polling import pause_s, poll_wait_s
from poller.rules.scaling import IDLE_S
from poller.runtime.queue_batch import BatchRun, Progress
from poller.runtime.queue_capacity import Reservation
from poller.runtime.queue_deleter import Deleter, Parcel
from poller.runtime.queue_scope import QueueScope
from poller.runtime.stopping import interrupted_by
from poller.status import LaneStatus
from poller.telemetry import Filtered

SLOW_RETRY_S = 10.0
"""The shortest wait before a queue that is missing or denied is asked again."""
REPEATED_PAUSE_S = 1.0
"""After a receive that brought only messages that we have already."""


class Intake:
    """What the pollers of one mapping do with received messages: filter and encode them."""

    def __init__(self, scope: QueueScope, deleter: Deleter) -> None:
        plan = scope.parts.plan
        self._scope = scope
        self._deleter = deleter
        self._filter = Filter.of(plan.filters, "sqs")
        self._encoder = MessageEncoder(
            source_arn=plan.source_arn, region=plan.region, windowed=plan.batch.window_s >= 1
        )

    def letters(self, messages: Sequence[Message]) -> list[Letter]:
        """The messages that the function is to get; the others are deleted."""
        kept: list[Letter] = []
        dropped: list[Message] = []
        for message in messages:
            view = self._encoder.view(message)
            if self._filter is None or self._filter.matches_sqs(view):
                kept.append(Letter(message, view, encode_json(view)))
            else:
                dropped.append(message)
        if self._filter is not None and messages:
            self._scope.parts.observer.on(
                Filtered(
                    mapping=self._scope.parts.plan.mapping,
                    shard=None,
                    records=len(dropped),
                    evaluated=len(messages),
                )
            )
        if dropped:
            self._deleter.add([Parcel(message, None) for message in dropped])
        return kept


class QueuePoller:
    """One poller. It leaves when `wanted` says so, between two batches."""

    def __init__(
        self,
        number: int,
        scope: QueueScope,
        deleter: Deleter,
        intake: Intake,
        wanted: Callable[[], bool],
    ) -> None:
        self.progress = Progress()
        self.receiving_since: Monotonic | None = None
        self._number = number
        self._scope = scope
        self._deleter = deleter
        self._intake = intake
        self._wanted = wanted
        self._idle_since = scope.now
        self._empty = 0
        self._pause_s = 0.0

    async def run(self) -> None:
        """Polls until the scope stops or the poller is no longer wanted."""
        stop = self._scope.stop
        while not stop.requested and self._wanted():
            self.progress.state = "idle"
            reservation = await self._reserve()
            if reservation is None:
                continue
            self._pause_s = 0.0
            try:
                await self._turn(reservation)
            finally:
                reservation.free()
            if self._pause_s:
                await stop.sleep(self._pause_s)

    def status(self) -> LaneStatus | None:
        """What the poller is doing; None while it has nothing to do."""
        progress = self.progress
        if progress.state == "idle":
            return None
        return LaneStatus(
            lane=f"poller {self._number}",
            state=progress.state,
            attempts=progress.attempts,
            blocked_since=progress.blocked_since,
            next_try=progress.next_try if progress.blocked_since is not None else None,
            last_error=progress.error,
            records_count=len(progress.letters),
        )

    async def _reserve(self) -> Reservation | None:
        """Room for one invocation; None when a stop came first or the world changed meanwhile."""
        scope = self._scope
        if self._deleter.roomy and scope.capacity.open.is_set():
            ready = await scope.capacity.reserve_now()
            if ready is not None:
                return ready
        granted: list[Reservation] = []
        async with interrupted_by(scope.stop):
            await self._deleter.room()
            await scope.capacity.open.wait()
            granted.append(await scope.capacity.reserve())
        if not granted:
            return None
        if scope.stop.requested or not scope.capacity.open.is_set() or not self._wanted():
            granted[0].free()
            return None
        return granted[0]

    async def _turn(self, reservation: Reservation) -> None:
        owner = self._scope.new_owner()
        letters = await self._gather()
        if not letters:
            return
        self._scope.enter(owner, letters)
        run = BatchRun(self._scope, self._deleter, owner, letters, self.progress)
        await run.run(reservation)

    async def _gather(self) -> list[Letter]:
        scope = self._scope
        gathering = Gathering(scope.parts.plan.batch)
        while True:
            share = scope.capacity.share()
            wait_s = poll_wait_s(share, visibility_s=scope.holds.terms.visibility_s)
            contended = share.waiting > 0 and not share.alone
            match gathering.step(now=scope.now, wait_s=wait_s, contended=contended):
                case Receive(messages_max, wait_s):
                    messages = await self._receive(messages_max, wait_s)
                    if messages is None:
                        break
                    letters = self._take(messages, long=share.roomy)
                    gathering.add(letters, drained=len(messages) < messages_max, now=scope.now)
                    if not gathering.letters or gathering.finished(scope.now):
                        break
                    self.progress.state = "gathering"
                    self.progress.letters = tuple(gathering.letters)
                case Rest(until):
                    if await scope.stop.sleep(until - scope.now):
                        break
                case Close():
                    break
                case step:
                    assert_never(step)
        return gathering.letters

    async def _receive(self, messages_max: int, wait_s: int) -> Sequence[Message] | None:
        """What the queue has; None after trouble or a stop."""
        scope = self._scope
        messages: Sequence[Message] | None = None
        if scope.stop.requested:
            return None
        self.receiving_since = scope.now
        try:
            async with interrupted_by(scope.stop):
                messages = await scope.parts.source.receive(messages_max=messages_max, wait_s=wait_s)
        except PortError as error:
            self._failed(error)
            return None
        finally:
            self.receiving_since = None
        if messages is not None:
            scope.source.failures, scope.source.reason = 0, ""
            self._count(len(messages), messages_max)
        return messages

    def _take(self, messages: Sequence[Message], *, long: bool) -> list[Letter]:
        fresh = self._scope.admit(messages)
        if fresh:
            self._idle_since, self._empty = self._scope.now, 0
        elif messages:
            self._pause_s = REPEATED_PAUSE_S
        else:
            self._rest(long=long)
        return self._intake.letters(fresh)

    def _rest(self, *, long: bool) -> None:
        now = self._scope.now
        if now - self._idle_since >= IDLE_S:
            self._idle_since = now
            self._scope.tally.idle += 1
        self._empty = 0 if long else self._empty + 1
        self._pause_s = 0.0 if long else pause_s(self._empty)

    def _count(self, brought: int, asked: int) -> None:
        tally = self._scope.tally
        if not brought:
            tally.empty += 1
        elif brought < asked:
            tally.some += 1
        else:
            tally.full += 1

    def _failed(self, error: PortError) -> None:
        scope = self._scope
        wait_s = scope.parts.port_wait_s(scope.source.failures)
        if isinstance(error, (AccessDenied, ResourceMissing)):
            wait_s = max(wait_s, SLOW_RETRY_S)
        scope.source.failures += 1
        scope.source.reason = error.reason
        scope.tally.refused += 1
        scope.tell_failed(error, wait_s=wait_s)
        self._pause_s = wait_s
