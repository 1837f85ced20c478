"""Owns one lane of a shard: carries out what the shard's flow chooses for it, and reports the effects."""

import asyncio
from collections.abc import Callable, Sequence
from typing import assert_never, cast

from poller.domain.invocations import Condition
from poller.domain.operations import OperatorPause
from poller.domain.records import Epoch, Monotonic, ShardId
from poller.domain.status import FaultyRecord, LaneStatus, error_document, pause_status
from poller.domain.streams.places import name_of
from poller.domain.telemetry.mapping_events import Bisected, Blocked, Discarded, Retrying
from poller.domain.untrusted.texts import line_of
from poller.rules.responses import ResponseReading
from poller.rules.streams.attempts import Advance, BatchPart, Retry, Split, retained_until
from poller.rules.streams.flow import ShardFlow
from poller.rules.streams.lanes import (
    DiscardPart,
    Done,
    Hold,
    InvokePart,
    LaneBlocked,
    LaneEffect,
    LaneFreed,
    Rest,
    WaitUntil,
)
from poller.runtime.invoking import BatchInvoker, InvocationBatch
from poller.runtime.stopping import Reason, Stop, wait_until
from poller.runtime.streams.context import StreamContext
from poller.runtime.streams.delivery import Delivered, deliver

FAULTY_RECORDS_MAX = 10
"""Records of a failing batch that a status names."""
KEY_CHARACTERS_MAX = 256

type OnSettled = Callable[[], None]


class Lane:
    """One lane. `changed` is set when the lane may have something to do. `on_settled` is called after each change of its state."""

    def __init__(
        self,
        index: int,
        flow: ShardFlow,
        shard: ShardId,
        parts: StreamContext,
        stop: Stop,
        on_settled: OnSettled,
    ) -> None:
        self.changed = asyncio.Event()
        self._index = index
        self._flow = flow
        self._shard = shard
        self._parts = parts
        self._stop = stop
        self._on_settled = on_settled
        self._invoker = BatchInvoker(
            parts.function,
            parts.plan,
            ResponseReading(
                report_failures=parts.plan.retry.report_failures,
                state_required=parts.plan.stream.tumbling_window_s > 0,
            ),
            clock=parts.clock,
            observer=parts.observer,
            shard=shard,
        )
        self._state = "idle"
        self._waits = Stop(self._holds)
        """Ends the lane's waits when the scope stops, or when an operator has done something. What runs then goes on."""
        self._recalled = False
        self._asked: list[tuple[Callable[[], object], asyncio.Future[object]]] = []
        self._over = False

    async def run(self) -> None:
        """Carries out the flow's commands until the scope stops or the shard has nothing more for this lane."""
        try:
            with self._stop.waking(self.changed), self._stop.listening(self._pass_stop_on):
                await self._run()
        finally:
            self._over = True
            for _, answer in self._asked:
                _set(answer, None)

    @property
    def calling(self) -> bool:
        """Whether a call runs, or waits until the function may be called."""
        return self._state == "invoking"

    @property
    def held_by(self) -> str:
        """What a call waits for, if it is the function's breaker or rate; else empty."""
        flow = self._parts.function.flow
        return flow.waits_for() if self.calling and flow is not None and self._invoker.held else ""

    def recall(self) -> None:
        """Ends the lane's wait for a slot, a retry or the next delivery. The flow is asked again when what runs has ended."""
        self._recalled = True
        self.changed.set()
        self._waits.request(Reason.REQUESTED)

    async def between_steps[T](self, act: Callable[[], T]) -> T | None:
        """The result of `act`, which is called when no call of the lane runs; None if the lane has ended before."""
        if self._over:
            return None
        answer: asyncio.Future[object] = asyncio.get_running_loop().create_future()
        self._asked.append((act, answer))
        self.recall()
        return cast("T | None", await answer)

    async def _run(self) -> None:
        while not self._stop.lost:
            self.changed.clear()
            if self._recalled:
                self._carry_out_asked()
            command, effects = self._flow.next(
                self._index,
                now=self._parts.clock.monotonic(),
                epoch=self._parts.clock.now(),
                retention_s=self._parts.retention.seconds,
                stopping=self._stop.requested,
            )
            if effects:
                self._report(effects)
            match command:
                case InvokePart():
                    await self._invoke(command)
                case DiscardPart():
                    if not await self._discard(command):
                        return
                case WaitUntil(until):
                    self._state = "waiting"
                    await self._waits.sleep(self._left(until))
                case Hold():
                    self._state = "paused" if self._pause is not None else "starting"
                    await self.changed.wait()
                case Rest(until):
                    self._state = "idle" if until is None else "gathering"
                    await wait_until(self.changed, None if until is None else self._left(until))
                case Done():
                    return
                case _:
                    assert_never(command)

    def _holds(self) -> bool:
        return not self._stop.lost

    def _pass_stop_on(self) -> None:
        self._waits.request(self._stop.reason, within_s=self._stop.left_s)

    def _carry_out_asked(self) -> None:
        """Does what was asked for between two steps, and makes waiting possible again."""
        self._recalled, self._waits = False, Stop(self._holds)
        if self._stop.requested:
            self._pass_stop_on()
        asked, self._asked = self._asked, []
        for act, answer in asked:
            if not answer.done():
                answer.set_result(act())

    @property
    def _pause(self) -> OperatorPause | None:
        interventions = self._flow.operator.interventions
        return interventions.pause(self._index) if interventions.paused(self._index) else None

    def may_end(self) -> bool:
        """Whether the lane has nothing left to do."""
        return self._stop.requested or self._flow.finished(self._index)

    async def _invoke(self, command: InvokePart) -> None:
        """Invokes the part, unless a stop or an operator comes before there is a slot."""
        self._state = "invoking"
        entries = command.part.entries
        batch = InvocationBatch(
            event=command.event,
            identifiers=[name_of(entry.record.sequence_number) for entry in entries],
            request_id=command.part.request_id,
            attempt=command.part.failures + 1,
            newest=entries[-1].record.arrived if entries else None,
        )
        verdict = await self._invoker.invoke_in_slot(batch, self._waits)
        if verdict is not None:
            clock = self._parts.clock
            self._report(self._flow.answered(self._index, verdict, now=clock.monotonic(), epoch=clock.now()))

    async def _discard(self, command: DiscardPart) -> bool:
        """Delivers the notice and reports the discard. Returns False when a stop came first: the batch is still unsettled.

        It is also unsettled when an operator came first. Then the flow is asked again.
        """
        self._state = "discarding"
        delivered = await self._deliver(command)
        if delivered is Delivered.STOPPED or self._stop.lost:
            return not self._stop.requested
        discard = command.discard
        names = [name_of(entry.record.sequence_number) for entry in discard.entries]
        self._parts.observer.on(
            Discarded(
                mapping=self._parts.plan.mapping,
                shard=self._shard,
                records=len(discard.entries),
                condition=discard.condition,
                delivered=delivered is Delivered.YES,
                destination=self._parts.destination is not None,
                first=names[0] if names else "",
                last=names[-1] if names else "",
            )
        )
        self._report(self._flow.discarded(self._index, now=self._parts.clock.monotonic()))
        # A discard without a notice waits for nothing, and there may be many in a row.
        await asyncio.sleep(0)
        return True

    async def _deliver(self, command: DiscardPart) -> Delivered:
        destination = self._parts.destination
        if destination is None or command.notice is None:
            return Delivered.DROPPED
        return await deliver(
            command.notice,
            destination,
            self._parts,
            self._waits,
            keep=command.discard.condition is Condition.SKIPPED,
            on_failure=self._undelivered,
        )

    def _undelivered(self, reason: str, wait_s: float) -> None:
        self._emit(self._flow.undelivered(self._index, reason, wait_s=wait_s, epoch=self._parts.clock.now()))

    def _report(self, effects: Sequence[LaneEffect]) -> None:
        """Emits these effects, and says that the shard's state has changed."""
        self._emit(effects)
        self._on_settled()

    def _emit(self, effects: Sequence[LaneEffect]) -> None:
        mapping = self._parts.plan.mapping
        for effect in effects:
            match effect:
                case Advance():
                    pass
                case LaneBlocked(since):
                    self._emit_blocked(blocked=True, since=since)
                case LaneFreed():
                    self._emit_blocked(blocked=False)
                case Retry(attempt, wait_s, free):
                    self._parts.observer.on(
                        Retrying(
                            mapping=mapping, shard=self._shard, attempt=attempt, wait_s=wait_s, free=free
                        )
                    )
                case Split(records):
                    self._parts.observer.on(Bisected(mapping=mapping, shard=self._shard, records=records))
                case _:
                    assert_never(effect)

    def _left(self, moment: Monotonic) -> float:
        return max(0.0, moment - self._parts.clock.monotonic())

    def _emit_blocked(self, *, blocked: bool, since: Epoch | None = None) -> None:
        self._parts.observer.on(
            Blocked(
                mapping=self._parts.plan.mapping,
                shard=self._shard,
                lane=self._index,
                blocked=blocked,
                since=since,
            )
        )

    def status(self) -> LaneStatus:
        """The status of the lane."""
        view, pause = self._flow.view(self._index), self._pause
        part, trouble = view.part, view.blocked
        return LaneStatus(
            lane=str(self._index),
            state="waiting" if self.held_by else self._state,
            attempts=part.failures + part.deferrals if part is not None else 0,
            blocked_since=trouble.since if trouble is not None else None,
            next_try=trouble.next_try if trouble is not None else None,
            last_error=trouble.error if trouble is not None else "",
            error=error_document(trouble.cause) if trouble is not None else None,
            records=_faulty(part) if part is not None and trouble is not None else (),
            records_count=len(part.entries) if part is not None else 0,
            retained_until=_retained_until(part, self._parts.retention.seconds) if part is not None else None,
            paused=None if pause is None else pause_status(pause),
        )


def _set(answer: asyncio.Future[object], result: object) -> None:
    if not answer.done():
        answer.set_result(result)


def _retained_until(part: BatchPart, retention_s: float | None) -> Epoch | None:
    if retention_s is None or not part.entries:
        return None
    return retained_until(part, part.entries[0], retention_s)


def _faulty(part: BatchPart) -> tuple[FaultyRecord, ...]:
    return tuple(
        FaultyRecord(
            identifier=name_of(entry.record.sequence_number),
            key=line_of(entry.record.key or "", chars_max=KEY_CHARACTERS_MAX),
            arrived=entry.record.arrived,
        )
        for entry in part.entries[:FAULTY_RECORDS_MAX]
    )
