"""Owns one lane of a shard: takes its batches, and works each off until all of it is settled."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import assert_never

from poller.invocations import Ended, Event, Invocation, Outcome
from poller.plan import SourceKind
from poller.records import Epoch, Monotonic, ShardId
from poller.rules import attempts, failures, responses
from poller.rules.attempts import Advance, Discard, Effect, Invoke, Part, Retry, Split, Wait, Work
from poller.rules.flow import ShardFlow
from poller.rules.responses import Accepted, Deferred, Partial, Reading, Rejected, Verdict
from poller.runtime.delivery import Delivered, deliver
from poller.runtime.parts import StreamParts
from poller.runtime.stopping import Stop, interrupted_by, wait_until
from poller.status import FaultyRecord, LaneStatus
from poller.telemetry import (
    Bisected,
    Blocked,
    Condition,
    Discarded,
    InvocationFinished,
    InvocationStarted,
    Retrying,
)

FAULTY_RECORDS_MAX = 10
"""Records of a failing batch that a status names."""
KEY_CHARACTERS_MAX = 256
EXPIRY_MARGIN_S = 0.001
"""A wait for a record's expiry ends this much later, so that the age is exceeded and not just reached."""

type OnSettled = Callable[[], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Trouble:
    """Why a lane is blocked, for people."""

    since: Epoch
    error: str
    next_try: Epoch | None


class Lane:
    """One lane. `changed` is set by whoever gives it something to do; `on_settled` is called after each progress."""

    def __init__(
        self,
        index: int,
        flow: ShardFlow,
        shard: ShardId,
        parts: StreamParts,
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
        self._reading = Reading(
            report_failures=parts.plan.retry.report_failures,
            state_required=parts.plan.tumbling_window_s > 0,
        )
        self._state = "idle"
        self._trouble: Trouble | None = None

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
                    await self._work_off(work)
                elif self._flow.finished(self._index):
                    return
                else:
                    await self._rest()

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

    async def _work_off(self, work: Work) -> None:
        left: Work | None = work
        while left is not None:
            self._follow_retention()
            step = attempts.step(
                left,
                self._policy,
                now=self._parts.clock.monotonic(),
                epoch=self._parts.clock.now(),
            )
            if self._stop.lost or (self._stop.requested and not isinstance(step, Discard)):
                return
            left = await self._carry_out(left, step)
        self._state = "idle"

    def _follow_retention(self) -> None:
        retention_s = self._parts.retention.seconds
        if self._policy.retention_s != retention_s:
            self._policy = replace(self._policy, retention_s=retention_s)

    async def _carry_out(self, work: Work, step: attempts.Step) -> Work | None:
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

    async def _wait(self, work: Work, until: Monotonic) -> None:
        """Waits for the next try, or until the first record gets too old if that comes first."""
        self._state = "waiting"
        delay_s = self._left(until)
        expires = attempts.expires_at(work, self._policy)
        if expires is not None:
            delay_s = min(delay_s, max(0.0, expires - self._parts.clock.now()) + EXPIRY_MARGIN_S)
        await self._stop.sleep(delay_s)

    async def _invoke(self, work: Work, part: Part) -> Work | None:
        event = self._flow.event(part, part.entries)
        if event.size > self._parts.plan.batch.payload_bytes_max:
            if len(part.entries) > 1:
                # A window's members and state came on top of a batch that fits; only one record can be too big.
                return self._halve(work)
            verdict: Verdict = responses.oversized(event.size, self._parts.plan.batch.payload_bytes_max)
            return self._settle(work, part, verdict, duration_s=0.0)
        self._state = "invoking"
        called = await self._call(part, event)
        if called is None:
            return work
        outcome, duration_s = called
        verdict = responses.parse(
            outcome, [entry.record.sequence_number for entry in part.entries], self._reading
        )
        return self._settle(work, part, verdict, duration_s=duration_s)

    async def _call(self, part: Part, event: Event) -> tuple[Outcome, float] | None:
        """The outcome and how long it took; None when a stop came before the function had room."""
        function = self._parts.function
        clock = self._parts.clock
        entered = False
        async with interrupted_by(self._stop):
            await function.slots.acquire()
            entered = True
        if not entered:
            return None
        if self._stop.lost:
            function.slots.release()
            return None
        try:
            self._parts.observer.on(
                InvocationStarted(
                    mapping=self._parts.plan.mapping,
                    function=self._parts.plan.function,
                    records=len(part.entries),
                    request_id=part.request_id,
                    attempt=part.failures + 1,
                )
            )
            started = clock.monotonic()
            outcome = await function.call(
                Invocation(
                    function_arn=self._parts.plan.function_arn,
                    request_id=part.request_id,
                    event=event,
                    timeout_s=function.plan.timeout_s,
                )
            )
            return outcome, clock.monotonic() - started
        finally:
            function.slots.release()

    def _settle(self, work: Work, part: Part, verdict: Verdict, *, duration_s: float) -> Work | None:
        self._tell_finished(part, verdict, duration_s)
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

    def _halve(self, work: Work) -> Work | None:
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

    async def _discard(self, work: Work, discard: Discard) -> Work | None:
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
        context = failures.Context(
            mapping=plan.mapping,
            shard=self._shard,
            source_arn=plan.source_arn,
            function_arn=plan.function_arn,
            batch_info="KinesisBatchInfo" if kinesis else "DDBStreamBatchInfo",
        )
        notice = failures.notice(
            discard,
            context,
            payload=self._flow.event(discard.part, discard.entries).encoded(),
            now=self._parts.clock.now(),
            notice_id=self._parts.new_id(),
            window=self._flow.window(discard.part),
        )
        return await deliver(notice, destination, self._parts, self._stop)

    def _moved(self, left: Work | None) -> Work | None:
        left = self._flow.with_early_end(left, new_id=self._parts.new_id)
        self._flow.replace(self._index, left)
        self._on_settled()
        return left

    def _note_trouble(self, verdict: Verdict, left: Work | None) -> None:
        match verdict:
            case Rejected(error=error) | Deferred(error=error):
                self._trouble_goes_on(error, left)
            case Partial(failed) if min(failed) == 0:
                self._trouble_goes_on("the function reported the first record of its batch", left)
            case Accepted() | Partial():
                self._free()
            case _:
                assert_never(verdict)

    def _trouble_goes_on(self, error: str, left: Work | None) -> None:
        now = self._parts.clock.now()
        next_try = None if left is None else Epoch(now + self._left(left.resume_at))
        if self._trouble is not None:
            self._trouble = replace(self._trouble, error=error, next_try=next_try)
            return
        self._trouble = Trouble(since=now, error=error, next_try=next_try)
        self._tell_blocked(blocked=True)

    def _free(self) -> None:
        if self._trouble is not None:
            self._trouble = None
            self._tell_blocked(blocked=False)

    def _left(self, moment: Monotonic) -> float:
        return max(0.0, moment - self._parts.clock.monotonic())

    def _tell_blocked(self, *, blocked: bool) -> None:
        self._parts.observer.on(
            Blocked(
                mapping=self._parts.plan.mapping,
                shard=self._shard,
                lane=self._index,
                blocked=blocked,
            )
        )

    def _tell_finished(self, part: Part, verdict: Verdict, duration_s: float) -> None:
        ended, failed, error = described(verdict, len(part.entries))
        age_ms = None
        if part.entries:
            age_ms = max(0.0, (self._parts.clock.now() - part.entries[-1].record.arrived) * 1000.0)
        self._parts.observer.on(
            InvocationFinished(
                mapping=self._parts.plan.mapping,
                function=self._parts.plan.function,
                shard=self._shard,
                records=len(part.entries),
                failed=failed,
                ended=ended,
                duration_s=duration_s,
                request_id=part.request_id,
                iterator_age_ms=age_ms,
                error=error,
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
            records=_faulty(part) if part is not None and trouble is not None else (),
            records_count=len(part.entries) if part is not None else 0,
            retained_until=_retained_until(part, self._parts.retention.seconds) if part is not None else None,
        )


def described(verdict: Verdict, records: int) -> tuple[Ended, int, str]:
    """How an invocation ended, how many of its records failed, and the error."""
    match verdict:
        case Accepted():
            return Ended.SUCCESS, 0, ""
        case Partial(failed):
            return Ended.PARTIAL, len(failed), ""
        case Rejected(ended, error) | Deferred(ended, error):
            return ended, records, error
        case _:
            assert_never(verdict)


def _retained_until(part: Part, retention_s: float | None) -> Epoch | None:
    if retention_s is None or not part.entries:
        return None
    return Epoch(part.entries[0].record.arrived + retention_s)


def _faulty(part: Part) -> tuple[FaultyRecord, ...]:
    return tuple(
        FaultyRecord(
            identifier=entry.record.sequence_number,
            key=entry.record.key[:KEY_CHARACTERS_MAX],
            arrived=entry.record.arrived,
        )
        for entry in part.entries[:FAULTY_RECORDS_MAX]
    )
