"""Owns one lane of a shard: takes its batches, and works each off until all of it is settled."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import assert_never

from poller.domain.invocations import FunctionError
from poller.domain.plan import SourceKind
from poller.domain.records import Epoch, Monotonic, ShardId
from poller.domain.status import FaultyRecord, LaneStatus, error_document
from poller.domain.telemetry import (
    Bisected,
    Blocked,
    Condition,
    Discarded,
    Retrying,
)
from poller.domain.untrusted.texts import line_of
from poller.rules.responses import Accepted, Deferred, Partial, Rejected, ResponseReading, Verdict
from poller.rules.streams import attempts, failure_document
from poller.rules.streams.attempts import (
    Advance,
    BatchPart,
    BatchState,
    Discard,
    Effect,
    Invoke,
    Retry,
    Split,
    Wait,
)
from poller.rules.streams.flow import ShardFlow
from poller.runtime.invoking import BatchInvoker, InvocationBatch
from poller.runtime.stopping import Stop, wait_until
from poller.runtime.streams.context import StreamContext
from poller.runtime.streams.delivery import Delivered, deliver

FAULTY_RECORDS_MAX = 10
"""Records of a failing batch that a status names."""
KEY_CHARACTERS_MAX = 256
EXPIRY_MARGIN_S = 0.001
"""A wait for a record's expiry ends this much later, so that the age is exceeded and not just reached."""

FAILED_BEFORE = "it failed before this worker took the shard, and is tried again"

type OnSettled = Callable[[], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockedReason:
    """Why a lane is blocked, for people."""

    since: Epoch
    error: str
    next_try: Epoch | None
    cause: FunctionError | None = None


class Lane:
    """One lane. `changed` is set by whoever gives it something to do; `on_settled` is called after each progress."""

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
        self._policy = parts.plan.retry
        self._invoker = BatchInvoker(
            parts.function,
            parts.plan,
            ResponseReading(
                report_failures=parts.plan.retry.report_failures,
                state_required=parts.plan.tumbling_window_s > 0,
            ),
            clock=parts.clock,
            observer=parts.observer,
            shard=shard,
        )
        self._state = "idle"
        self._trouble: BlockedReason | None = None

    async def run(self) -> None:
        """Works until the scope stops or the shard has nothing more for this lane."""
        with self._stop.waking(self.changed):
            while not self._stop.requested:
                self.changed.clear()
                work = self._flow.begin(
                    self._index,
                    new_id=self._parts.new_id,
                    now=self._parts.clock.monotonic(),
                    epoch=self._parts.clock.now(),
                )
                if work is not None:
                    self._resume_trouble()
                    await self._work_off(work)
                elif self._flow.finished(self._index):
                    return
                else:
                    await self._rest()

    def may_end(self) -> bool:
        """Whether nothing is left to do here."""
        return self._stop.requested or self._flow.finished(self._index)

    async def _rest(self) -> None:
        """Waits for something to do, or for a window to run out."""
        deadline = self._flow.deadline(self._index)
        waits = [] if deadline is None else [self._left(deadline)]
        closes_at = self._flow.closes_at()
        if closes_at is not None:
            left_s = closes_at - self._parts.clock.now()
            waits.append(left_s if left_s > 0 else self._parts.tuning.idle_poll_s)
        self._state = "gathering" if waits else "idle"
        await wait_until(self.changed, min(waits, default=None))

    async def _work_off(self, work: BatchState) -> None:
        left: BatchState | None = work
        undelivered: BatchState | None = None
        while left is not None:
            self._follow_retention()
            step = attempts.step(
                left,
                self._policy,
                now=self._parts.clock.monotonic(),
                epoch=self._parts.clock.now(),
            )
            if self._stop.lost or left is undelivered:
                return
            if self._stop.requested and not isinstance(step, Discard):
                return
            undelivered = left if isinstance(step, Discard) else None
            left = await self._carry_out(left, step)
        self._state = "idle"

    def _follow_retention(self) -> None:
        retention_s = self._parts.retention.seconds
        if self._policy.retention_s != retention_s:
            self._policy = replace(self._policy, retention_s=retention_s)

    async def _carry_out(self, work: BatchState, step: attempts.BatchStep) -> BatchState | None:
        match step:
            case Wait(until):
                await self._wait(work, until)
                return work
            case Invoke(part):
                return await self._invoke(work, part)
            case Discard():
                return await self._discard(work, step)
            case _:
                assert_never(step)

    async def _wait(self, work: BatchState, until: Monotonic) -> None:
        """Waits for the next try, or until the first record gets too old if that comes first."""
        self._state = "waiting"
        delay_s = self._left(until)
        expires = attempts.expires_at(work, self._policy)
        if expires is not None:
            delay_s = min(delay_s, max(0.0, expires - self._parts.clock.now()) + EXPIRY_MARGIN_S)
        await self._stop.sleep(delay_s)

    async def _invoke(self, work: BatchState, part: BatchPart) -> BatchState | None:
        event = self._flow.event(part, part.entries)
        if event.size > self._parts.plan.batch.payload_bytes_max and len(part.entries) > 1:
            # A window's members and state came on top of a batch that fits; only one record can be too big.
            return self._halve(work)
        self._state = "invoking"
        batch = InvocationBatch(
            event=event,
            identifiers=[entry.record.sequence_number for entry in part.entries],
            request_id=part.request_id,
            attempt=part.failures + 1,
            newest=part.entries[-1].record.arrived if part.entries else None,
        )
        verdict = await self._invoker.invoke_in_slot(batch, self._stop)
        return work if verdict is None else self._settle(work, part, verdict)

    def _settle(self, work: BatchState, part: BatchPart, verdict: Verdict) -> BatchState | None:
        left, effects = attempts.settle(
            work,
            verdict,
            self._policy,
            new_id=self._parts.new_id,
            now=self._parts.clock.monotonic(),
            rng=self._parts.rng,
        )
        self._flow.answered(part, verdict)
        self._note_trouble(verdict, left)
        for effect in effects:
            self._apply(effect)
        return self._moved(left)

    def _halve(self, work: BatchState) -> BatchState | None:
        left, effects = attempts.halve(work, new_id=self._parts.new_id, now=self._parts.clock.monotonic())
        for effect in effects:
            self._apply(effect)
        return self._moved(left)

    def _apply(self, effect: Effect) -> None:
        mapping = self._parts.plan.mapping
        match effect:
            case Advance(entries):
                self._flow.resolve(entries)
            case Retry(attempt, wait_s, free):
                self._parts.observer.on(
                    Retrying(mapping=mapping, shard=self._shard, attempt=attempt, wait_s=wait_s, free=free)
                )
            case Split(records):
                self._parts.observer.on(Bisected(mapping=mapping, shard=self._shard, records=records))
            case _:
                assert_never(effect)

    async def _discard(self, work: BatchState, discard: Discard) -> BatchState | None:
        self._state = "discarding"
        delivered = await self._notify(discard)
        if delivered is Delivered.STOPPED or self._stop.lost:
            return work
        sequences = [entry.record.sequence_number for entry in discard.entries]
        self._parts.observer.on(
            Discarded(
                mapping=self._parts.plan.mapping,
                shard=self._shard,
                records=len(discard.entries),
                condition=discard.condition,
                delivered=delivered is Delivered.YES,
                destination=self._parts.destination is not None,
                first=sequences[0] if sequences else "",
                last=sequences[-1] if sequences else "",
            )
        )
        left, advance = attempts.drop(
            work, discard, new_id=self._parts.new_id, now=self._parts.clock.monotonic()
        )
        self._free()
        self._flow.given_up(discard.part)
        self._flow.resolve(advance.entries)
        return self._moved(left)

    async def _notify(self, discard: Discard) -> Delivered:
        destination = self._parts.destination
        if destination is None or discard.condition is Condition.RETENTION:
            return Delivered.DROPPED
        plan = self._parts.plan
        kinesis = plan.kind is SourceKind.KINESIS
        context = failure_document.Context(
            mapping=plan.mapping,
            shard=self._shard,
            source_arn=plan.source_arn,
            function_arn=plan.function_arn,
            batch_info="KinesisBatchInfo" if kinesis else "DDBStreamBatchInfo",
        )
        notice = failure_document.notice(
            discard,
            context,
            payload=self._flow.event(discard.part, discard.entries).encoded(),
            now=self._parts.clock.now(),
            notice_id=self._parts.new_id(),
            window=self._flow.window(discard.part),
        )
        return await deliver(notice, destination, self._parts, self._stop, on_failure=self._note_undelivered)

    def _note_undelivered(self, reason: str, wait_s: float) -> None:
        """It is the destination that keeps the batch from being given up, not the function."""
        next_try = Epoch(self._parts.clock.now() + wait_s)
        self._block(f"the on-failure destination did not take the batch: {reason}", next_try)

    def _moved(self, left: BatchState | None) -> BatchState | None:
        left = self._flow.with_early_end(left, new_id=self._parts.new_id)
        self._flow.replace(self._index, left)
        self._on_settled()
        return left

    def _note_trouble(self, verdict: Verdict, left: BatchState | None) -> None:
        match verdict:
            case Rejected(error=error, cause=cause):
                self._trouble_goes_on(error, left, cause)
            case Deferred(error=error):
                self._trouble_goes_on(error, left)
            case Partial(failed) if min(failed) == 0:
                self._trouble_goes_on("the function reported the first record of its batch", left)
            case Accepted() | Partial():
                self._free()
            case _:
                assert_never(verdict)

    def _trouble_goes_on(
        self, error: str, left: BatchState | None, cause: FunctionError | None = None
    ) -> None:
        now = self._parts.clock.now()
        next_try = None if left is None else Epoch(now + self._left(left.resume_at))
        self._block(error, next_try, cause)

    def _block(self, error: str, next_try: Epoch | None, cause: FunctionError | None = None) -> None:
        now = self._parts.clock.now()
        if self._trouble is not None:
            self._trouble = replace(self._trouble, error=error, next_try=next_try, cause=cause)
            return
        self._flow.block(self._index, now)
        self._trouble = BlockedReason(since=now, error=error, next_try=next_try, cause=cause)
        self._emit_blocked(blocked=True)

    def _resume_trouble(self) -> None:
        """The batch that begins may have blocked the lane before it was run here."""
        since = self._flow.blocked_since(self._index)
        if since is not None and self._trouble is None:
            self._trouble = BlockedReason(since=since, error=FAILED_BEFORE, next_try=None)
            self._emit_blocked(blocked=True, since=since)

    def _free(self) -> None:
        if self._trouble is not None:
            self._trouble = None
            self._flow.free(self._index)
            self._emit_blocked(blocked=False)

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
        """What the lane is doing."""
        work = self._flow.work(self._index)
        part = work.parts[0] if work is not None else None
        trouble = self._trouble
        return LaneStatus(
            lane=str(self._index),
            state=self._state,
            attempts=part.failures + part.deferrals if part is not None else 0,
            blocked_since=trouble.since if trouble is not None else None,
            next_try=trouble.next_try if trouble is not None else None,
            last_error=trouble.error if trouble is not None else "",
            error=error_document(trouble.cause) if trouble is not None else None,
            records=_faulty(part) if part is not None and trouble is not None else (),
            records_count=len(part.entries) if part is not None else 0,
            retained_until=_retained_until(part, self._parts.retention.seconds) if part is not None else None,
        )


def _retained_until(part: BatchPart, retention_s: float | None) -> Epoch | None:
    if retention_s is None or not part.entries:
        return None
    return Epoch(part.entries[0].record.arrived + retention_s)


def _faulty(part: BatchPart) -> tuple[FaultyRecord, ...]:
    return tuple(
        FaultyRecord(
            identifier=entry.record.sequence_number,
            key=line_of(entry.record.key or "", chars_max=KEY_CHARACTERS_MAX),
            arrived=entry.record.arrived,
        )
        for entry in part.entries[:FAULTY_RECORDS_MAX]
    )
