"""Owns one poller of a queue, a loop of three steps: reserve capacity, receive, run the batch."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import assert_never

import msgspec

from poller.domain.errors import AccessDenied, PortError, ResourceMissing
from poller.domain.records import Message, Monotonic
from poller.domain.status import LaneStatus
from poller.domain.telemetry.labels import TaskKind
from poller.domain.telemetry.mapping_events import Filtered
from poller.rules.events import encode_json
from poller.rules.filtering import Filter, Slices
from poller.rules.filtering.pages import SLICE_BYTES
from poller.rules.queues.in_flight import PendingDelete
from poller.rules.queues.message_encoder import MessageEncoder
from poller.rules.queues.polling import MESSAGES_MAX, Share, pause_s, poll_wait_s, repeated_pause_s
from poller.rules.queues.receive_batch import CloseBatch, Pause, QueueItem, Receive, items_of
from poller.rules.queues.scaling import IDLE_S
from poller.runtime.queues.bounded.queue_memory import PollerRoom, ReceiveRoom
from poller.runtime.queues.capacity import Reservation
from poller.runtime.queues.deleter import Deleter
from poller.runtime.queues.in_flight import InFlight
from poller.runtime.queues.message_batch import BatchRun, PollerProgress
from poller.runtime.stopping import unless_stopped
from poller.runtime.watched_tasks import WatchedTasks

SLOW_RETRY_S = 10.0
"""The shortest wait before the next receive from a queue that is missing or that denies access."""
LAPSED_PAUSE_S = 10.0
"""The pause after a receive from a queue with visibility timeout 0. Its messages are not hidden, so the next receive brings them again."""


type FilteredItems = dict[int, QueueItem | None]
"""Items by the `id()` of their messages; None for a message that no filter matches."""


class MessageIntake:
    """What the pollers of one mapping do with received messages: filter and encode them."""

    def __init__(self, scope: InFlight, deleter: Deleter) -> None:
        plan = scope.parts.plan
        self._scope = scope
        self._deleter = deleter
        self._filter = Filter.of(plan.filters, "sqs")
        self._payload_bytes_max = plan.batch.payload_bytes_max
        self._encoder = MessageEncoder(
            source_arn=plan.source_arn, region=plan.region, windowed=plan.batch.window_s >= 1
        )

    async def filtered(self, messages: Sequence[Message]) -> FilteredItems:
        """The items for the function. Many or long messages are filtered in slices, with other work between them."""
        if self._filter is None:
            items = items_of(messages, self._encoder, bytes_max=self._payload_bytes_max)
            if items is not None:
                return {id(item.message): item for item in items}
        return await self._scope.parts.turns.slices(self._filtered(messages))

    def _filtered(self, messages: Sequence[Message]) -> Slices[FilteredItems]:
        filtered: FilteredItems = {}
        size = 0
        for message in messages:
            if message.unreadable:
                continue
            view = self._encoder.view(message)
            answer = self._filter is None or self._filter.matches_sqs(view)
            passes = answer if isinstance(answer, bool) else (yield from answer)
            filtered[id(message)] = (
                QueueItem.encoded_as(encode_json(view), message, self._encoder) if passes else None
            )
            size += len(message.body or "")
            if size >= SLICE_BYTES:
                size = 0
                yield
        return filtered

    def taken(self, messages: Sequence[Message], filtered: FilteredItems) -> list[QueueItem]:
        """The items for the function. Messages that no filter matches are deleted."""
        kept: list[QueueItem] = []
        dropped: list[Message] = []
        for message in messages:
            item = filtered[id(message)]
            if item is None:
                dropped.append(message)
            else:
                kept.append(item)
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
            self._deleter.add([PendingDelete(message, None) for message in dropped])
        return kept


class Fetched(msgspec.Struct, frozen=True, gc=False):
    """The items of one receive. `drained`: the queue had fewer messages than the receive asked for."""

    items: Sequence[QueueItem]
    drained: bool


@dataclass(slots=True)
class PollBeside:
    """A poll in a task of its own, while a batch gathers. When `answered` is set, `fetched` is the result of `_fetch`."""

    fetched: Fetched | None = None
    answered: asyncio.Event = field(default_factory=asyncio.Event)


@dataclass(slots=True)
class Lately:
    """What a poller's last receives brought: since when nothing new, and how many in a row were empty or brought the same again."""

    idle_since: Monotonic
    empty: int = 0
    repeated: int = 0


class QueuePoller:
    """One poller. It ends between two batches when `wanted` is false. `tasks` runs polls that a stop does not wait for."""

    def __init__(
        self,
        number: int,
        scope: InFlight,
        deleter: Deleter,
        intake: MessageIntake,
        wanted: Callable[[], bool],
        *,
        tasks: WatchedTasks,
    ) -> None:
        self.progress = PollerProgress()
        self.receiving_since: Monotonic | None = None
        self._number = number
        self._scope = scope
        self._deleter = deleter
        self._intake = intake
        self._wanted = wanted
        self._tasks = tasks
        self._lately = Lately(scope.now)
        self._pause_s = 0.0
        plan = scope.parts.plan
        self._windowed = plan.batch.window_s > 0 and not plan.fifo
        self._left = False
        self._room = PollerRoom(scope.polls.memory)
        self._last_poll: PollBeside | None = None
        """The poll that was under way when a stop closed the poller's batch."""

    def may_end(self) -> bool:
        """Whether the poller has ended, or should stop."""
        return self._left or self._scope.stop.requested

    async def run(self) -> None:
        """Polls until the scope stops or the poller is no longer wanted."""
        try:
            await self._poll()
        finally:
            self._room.close()
        self._left = True

    async def _poll(self) -> None:
        stop = self._scope.stop
        while not stop.requested and self._wanted():
            self.progress.rest()
            reservation = await self._reserve()
            if reservation is None:
                self._room.close()
                continue
            self._pause_s = 0.0
            receive = self._scope.gate.begin()
            try:
                await self._turn(reservation)
            finally:
                reservation.free()
                self._room.close()
                self._scope.gate.end(receive)
            if self._pause_s:
                await self._scope.sleep(self._pause_s)

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
            records_count=len(progress.items),
        )

    async def _reserve(self) -> Reservation | None:
        """Reserves capacity for one invocation. Returns None if a stop came first, or if the poller may no longer receive."""
        scope = self._scope
        if self._deleter.roomy and scope.gate.open and not scope.paused and not self._room.lacking:
            ready = await scope.capacity.reserve_now()
            if ready is not None:
                return ready
        reservation = await unless_stopped(scope.stop, self._reserve_in_line())
        if reservation is None:
            return None
        if scope.stop.requested or scope.paused or not scope.gate.open or not self._wanted():
            reservation.free()
            return None
        return reservation

    async def _reserve_in_line(self) -> Reservation | None:
        """Waits until the poller may receive, then for room if some was lacking, and then for capacity."""
        await self._scope.controls.resumed()
        await self._deleter.room()
        await self._scope.gate.passed()
        async with self._room.waited_for():
            return await self._scope.capacity.reserve()

    async def _turn(self, reservation: Reservation) -> None:
        await self._run(
            await (self._gather(reservation) if self._windowed else self._gather_once(reservation)),
            reservation,
        )
        if self._last_poll is not None:
            self.progress.rest()
            await self._last_poll.answered.wait()
            fetched = self._last_poll.fetched
            await self._run(fetched.items if fetched is not None else (), reservation)

    async def _run(self, items: Sequence[QueueItem], reservation: Reservation) -> None:
        """Runs a batch. After a stop, messages without enough time are given back."""
        if not items:
            return
        receive_id = self._scope.tracker.begin(items)
        run = BatchRun(self._scope, self._deleter, receive_id, items, self.progress)
        await run.run(reservation)

    async def _gather_once(self, reservation: Reservation) -> Sequence[QueueItem]:
        """One receive is one batch when there is no window."""
        share = self._scope.capacity.share()
        asked = min(MESSAGES_MAX, self._scope.parts.plan.batch.records_max)
        with reservation.lent():
            fetched = await self._fetch(Receive(asked, self._wait_s(share)), long=share.roomy)
        return fetched.items if fetched is not None else ()

    async def _gather(self, reservation: Reservation) -> Sequence[QueueItem]:
        """Receives into the mapping's open batch; returns the batch that this poller must run, empty for none."""
        scope, batch = self._scope, self._scope.open_batch
        while True:
            share = scope.capacity.share()
            contended = (share.waiting > 0 and not share.alone) or (
                share.awaited and scope.capacity.queued > 0
            )
            step = batch.step(self._number, now=scope.now, wait_s=self._wait_s(share), contended=contended)
            if batch.opened_by(self._number) and not isinstance(step, CloseBatch):
                reservation.yield_permit()
            match step:
                case Receive():
                    with reservation.lent():
                        fetched = await self._fetch_beside_batch(step, long=share.roomy)
                    if fetched is None:
                        return batch.close(self._number)
                    items = batch.received(
                        self._number, fetched.items, drained=fetched.drained, now=scope.now
                    )
                    if items or not batch.opened_by(self._number):
                        return items
                    self.progress.state, self.progress.items = "gathering", batch.items
                case Pause(until):
                    with reservation.lent():
                        stopped = await scope.sleep(until - scope.now)
                    if stopped or scope.paused:
                        return batch.close(self._number)
                case CloseBatch():
                    return batch.close(self._number)
                case _:
                    assert_never(step)

    async def _fetch_beside_batch(self, ask: Receive, *, long: bool) -> Fetched | None:
        """As `_fetch`. At a stop, the opener of a batch runs the batch at once, and then the messages of its running poll."""
        scope = self._scope
        if scope.stop.requested or not scope.open_batch.opened_by(self._number):
            return await self._fetch(ask, long=long)

        poll = PollBeside()
        woken = asyncio.Event()

        async def fetch() -> bool:
            poll.fetched = await self._fetch(ask, long=long)
            poll.answered.set()
            woken.set()
            return True

        self._tasks.start(TaskKind.POLL, fetch(), of=str(self._number))
        with scope.stop.waking(woken):
            await woken.wait()
        if not poll.answered.is_set():
            self._last_poll = poll
        return poll.fetched

    async def _fetch(self, ask: Receive, *, long: bool) -> Fetched | None:
        """The items of one receive; None if it failed, or if a stop came before it, or without room in memory."""
        room = self._room.take(ask.messages_max)
        if room is None:
            return None
        with room:
            asked = min(ask.messages_max, room.messages_max)
            messages = await self._receive(Receive(asked, ask.wait_s), room)
            if messages is None:
                return None
            # Filters may take turns with other work, so they run before the messages are taken. Between taking them and `begin`
            # there is no await: the places in the groups follow the order of the receives.
            filtered = await self._intake.filtered(messages)
            items = self._take(messages, filtered, asked, long=long)
            return Fetched(items, drained=len(messages) < asked)

    async def _receive(self, ask: Receive, room: ReceiveRoom) -> Sequence[Message] | None:
        """The messages of one receive call; None if it failed, or if a stop or pause came before it. Neither interrupts a call."""
        scope = self._scope
        if scope.stop.requested or scope.paused:
            return None
        self.receiving_since = scope.now
        poll = scope.polls.begin(ask.wait_s)
        try:
            receive = partial(scope.parts.source.receive, wait_s=ask.wait_s)
            messages = await room.receive(lambda most: receive(messages_max=most), ask.messages_max)
        except PortError as error:
            self._failed(error)
            return None
        finally:
            scope.polls.end(poll)
            self.receiving_since = None
        scope.source.failures, scope.source.reason = 0, ""
        return messages

    def _wait_s(self, share: Share) -> int:
        scope = self._scope
        return poll_wait_s(
            share,
            visibility_s=scope.tracker.visibility.policy.visibility_s,
            grace_s=scope.parts.tuning.grace_s,
        )

    def _take(
        self, messages: Sequence[Message], filtered: FilteredItems, asked: int, *, long: bool
    ) -> list[QueueItem]:
        fresh = self._scope.received(messages, asked=asked)
        if fresh:
            self._lately = Lately(self._scope.now)
            if not self._scope.tracker.visibility.policy.visibility_s:
                self._pause_s = LAPSED_PAUSE_S
        elif messages:
            self._lately.repeated += 1
            self._pause_s = repeated_pause_s(self._lately.repeated)
        else:
            self._rest(long=long)
        return self._intake.taken(fresh, filtered)

    def _rest(self, *, long: bool) -> None:
        now, lately = self._scope.now, self._lately
        if now - lately.idle_since >= IDLE_S:
            lately.idle_since = now
            self._scope.tracker.tally.count_idle()
        lately.empty = 0 if long else lately.empty + 1
        self._pause_s = 0.0 if long else pause_s(lately.empty)

    def _failed(self, error: PortError) -> None:
        scope = self._scope
        wait_s = scope.parts.port_wait_s(scope.source.failures)
        if isinstance(error, (AccessDenied, ResourceMissing)):
            wait_s = max(wait_s, SLOW_RETRY_S)
        scope.source.failures += 1
        scope.source.reason = error.reason
        scope.tracker.tally.count_refused()
        scope.report_failed(error, wait_s=wait_s)
        self._pause_s = wait_s
