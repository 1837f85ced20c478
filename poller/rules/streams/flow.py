"""Owns one shard's records between the source and the function. Only it and the verbs of operators change more than one of its pieces.

A shard is read in order and worked off in lanes. Each key belongs to one lane, so a lane that fails and retries holds back its own
keys only. A lane has one batch at a time, and `attempts` says what happens to it. Records are settled when they were accepted, filtered
or discarded. The position is the last settled record without a gap before it (`watermark`), so a slow lane holds the position
back while the others go on. The checkpoint's memo has what is settled ahead of it (`resuming`).

The runtime drives the machine with these verbs. A verb changes all state before it returns, and returns effects to report.

1. `accept` takes in a page, while `hungry`. `end` says that no page follows.
2. `next` chooses what a lane does now, and begins its next batch when one closes. The runtime carries the command out at once,
   without an `await` before it starts. `next` may be called again at any time, as when a stop came before the command was started.
3. `answered` follows an `InvokePart`, and takes the verdict. `discarded` follows a `DiscardPart` whose notice was delivered or
   dropped. `undelivered` says that a delivery failed and is tried again: the lane is blocked meanwhile.
4. `checkpoint` says at any moment what the store should keep. A machine that is made from it goes on and skips no record.
5. `operator` has the verbs of people: pause, retry, reset and skip. `next` carries out skips and returns `Hold` for paused lanes.

Inside a verb the order is always the same. First the window takes the answer. Then the lane is blocked, under the first record of
its batch, or freed. Then entries are settled. At last the lane holds what is left of the batch, after a call that ends the window
early if one is due.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import assert_never

import msgspec

from poller.domain.invocations import Condition, Event, Notice
from poller.domain.policies import BatchPolicy, RetryPolicy
from poller.domain.records import SHARD_END, Epoch, Monotonic, Position, Record
from poller.domain.rows import Checkpoint
from poller.rules.backoff import Chance
from poller.rules.events import RecordEncoder, RecordsEvent
from poller.rules.responses import Verdict
from poller.rules.streams import attempts, checkpoint_memo, failure_document
from poller.rules.streams.attempts import (
    Advance,
    BatchPart,
    BatchState,
    Discard,
    Invoke,
    NewId,
    Wait,
    first_run,
)
from poller.rules.streams.batching import Entry
from poller.rules.streams.blocked_since import BlockedSince, cause_of, error_of, first_of
from poller.rules.streams.checkpoint_memo import MEMO_BYTES_MAX, Memo
from poller.rules.streams.lanes import (
    Done,
    Gaps,
    Hold,
    Holding,
    InvokePart,
    LaneBlocked,
    LaneCommand,
    LaneEffect,
    LaneFreed,
    LaneState,
    LaneView,
    Rest,
    WaitUntil,
    look_far,
    spread,
)
from poller.rules.streams.operations.on_batch import leads, without
from poller.rules.streams.operations.verbs import OperatorVerbs
from poller.rules.streams.resuming import EarlierRun
from poller.rules.streams.tracking import PageIntake, RecordTracker
from poller.rules.streams.windowed_batches import WindowedBatches, Windowing, rest_until


class ShardFlow:
    """The state of one shard while this worker reads it.

    `notices` has what the notices of discarded batches name; None if the mapping has no destination.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        *,
        batch: BatchPolicy,
        retry: RetryPolicy,
        lanes: int,
        look_ahead_records_max: int,
        encoder: RecordEncoder,
        new_id: NewId,
        rng: Chance,
        windowing: Windowing | None = None,
        notices: failure_document.Context | None = None,
    ) -> None:
        assert windowing is None or lanes == 1, "windows need one lane"
        memo = checkpoint_memo.read(checkpoint.memo)
        self._earlier = EarlierRun(memo, lanes=lanes)
        self._tracker = RecordTracker(
            checkpoint.position, self._earlier, settled_through=Epoch(memo.settled_through)
        )
        self._lanes = [LaneState(batch) for _ in range(lanes)]
        self._blocked = BlockedSince(memo.blocked)
        self._gaps = Gaps(lanes)
        self._windowed = None if windowing is None else WindowedBatches(windowing, memo.window)
        self._retry = retry
        self._event_bytes_max = batch.payload_bytes_max
        self._look_ahead_records_max = look_ahead_records_max
        self._encoder = encoder
        self._notices = notices
        self._new_id = new_id
        self._rng = rng
        self.operator = OperatorVerbs(
            self._lanes, self._tracker, self._blocked, windowed=self._windowed, backoff=retry.backoff
        )
        self._interventions = self.operator.interventions

    @property
    def position(self) -> Position:
        """The safe position."""
        return self._tracker.position

    @property
    def read_to(self) -> Position:
        """The position behind the last record that was read."""
        return self._tracker.read_to

    @property
    def settled_through(self) -> Epoch | None:
        """A moment, never too late: everything that had arrived by then is settled. None when that is not known."""
        return self._tracker.settled_through or None

    @property
    def lanes(self) -> range:
        """The lanes' indices."""
        return range(len(self._lanes))

    @property
    def hungry(self) -> bool:
        """Whether there is room for another page: a lane needs records, and not too many are held for the others."""
        if self._tracker.ended:
            return False
        if any(self._earlier.unread(lane, self.read_to) for lane in self.lanes):
            return True
        wanted = not all(lane.buffer.full for lane in self._lanes)
        if len(self._lanes) == 1:
            return wanted
        return wanted and self._tracker.span < self._look_ahead_records_max and not look_far(self._lanes)

    @property
    def holding(self) -> Holding:
        """What the records take in memory that are not settled."""
        size = sum([lane.held_bytes for lane in self._lanes])
        return Holding(size, not self._earlier.restored or all(lane.batch is None for lane in self._lanes))

    @property
    def done(self) -> bool:
        """Whether the shard was read and settled to its end."""
        return self.position == SHARD_END

    @property
    def read_out(self) -> bool:
        """Whether the shard was read to its end."""
        return self._tracker.ended

    def finished(self, lane: int) -> bool:
        """Whether the lane has nothing left and will get nothing more."""
        idle = self._tracker.ended and self._lanes[lane].empty
        return idle and not (self._windowed is not None and self._windowed.open)

    def view(self, lane: int) -> LaneView:
        """What the lane does now, for its status."""
        work = self._lanes[lane].batch
        return LaneView(None if work is None else work.parts[0], self._blocked.reason(lane))

    def restart_at(self, position: Position) -> None:
        """Makes reading go on at another position, because the source lost the records before it."""
        self._tracker.restart_at(position)

    def accept(
        self,
        records: Sequence[Record],
        *,
        caught_up: bool,
        asked: Epoch,
        passing: Sequence[bool] | None = None,
    ) -> PageIntake:
        """Takes in a page's records, in order.

        `caught_up` says that the source had nothing behind them when it was asked, at `asked`. `passing` says for each record
        whether the mapping's filters let it through; None if all pass.
        """
        if self._windowed is not None:
            self._windowed.read(caught_up=caught_up, asked=asked)
        page = self._tracker.take(records, passing, caught_up=caught_up, asked=asked)
        lanes = self._lanes
        # Some records of an answer may wait for long. They are copied, so that they do not keep the whole answer in memory.
        apart = len(lanes) > 1 or not page.complete
        taken = [record.detached() for record in page.records] if apart else page.records
        entries = map(Entry, page.indices, taken, self._encoder.sizes(taken))
        spread(self._gaps.marked(entries, page.missing), lanes)
        return page.intake

    def end(self) -> None:
        """Says that the shard has no more records."""
        self._tracker.read_out()
        self._end_if_settled()

    def next(
        self,
        lane: int,
        *,
        now: Monotonic,
        epoch: Epoch,
        retention_s: float | None = None,
        stopping: bool = False,
    ) -> tuple[LaneCommand, Sequence[LaneEffect]]:
        """Chooses what the lane does now. `retention_s` is how long the source keeps records; None when it does not say.

        With `stopping`, no batch begins and nothing is invoked. A part that is due to be discarded still is.
        """
        state = self._lanes[lane]
        effects: list[LaneEffect] = []
        if self._interventions.busy:
            command = self._by_operator(lane, effects, now, epoch, stopping=stopping)
            if command is not None:
                return command, effects
        if state.batch is None and not stopping:
            effects += self._begin(lane, now, epoch)
        if self._retry.retention_s != retention_s:
            self._retry = replace(self._retry, retention_s=retention_s)
        while (work := state.batch) is not None:
            match attempts.step(work, self._retry, now=now, epoch=epoch):
                case Discard() as step:
                    step = step if self._notices is None else first_run(step)
                    return state.offer(step, partial(self._notice, step, epoch)), effects
                case _ if stopping:
                    return Done(), effects
                case Wait(until):
                    return WaitUntil(attempts.sooner(until, work, self._retry, now=now, epoch=epoch)), effects
                case Invoke(part) as step:
                    event = self._event(part, part.entries)
                    if event.size <= self._event_bytes_max or len(part.entries) <= 1:
                        state.choose(step)
                        return InvokePart(part, event), effects
                    # The batch fits by itself, but not with the window's members and state.
                    left, split = attempts.halve(work, new_id=self._new_id, now=now)
                    effects += split
                    self._hold(lane, left)
                case never:
                    assert_never(never)
        if stopping or self.finished(lane):
            return Done(), effects
        return Rest(rest_until(self._lanes[lane].buffer.deadline, self._windowed, now, epoch)), effects

    def answered(self, lane: int, verdict: Verdict, *, now: Monotonic, epoch: Epoch) -> Sequence[LaneEffect]:
        """Takes the verdict on the call with the part that `next` returned."""
        work, part = self._lanes[lane].invoked()
        left, settled = attempts.settle(
            work, verdict, self._retry, new_id=self._new_id, now=now, rng=self._rng
        )
        if self._windowed is not None:
            self._windowed.answered(part, verdict)
        effects: list[LaneEffect] = []
        error = error_of(verdict)
        if error is None:
            effects += [LaneFreed()] if self._blocked.free(lane) else []
        else:
            assert left is not None, "nothing is left of a failed batch"
            next_try, cause = Epoch(epoch + max(0.0, left.resume_at - now)), cause_of(verdict)
            if self._blocked.block(lane, first_of(part), epoch, error=error, next_try=next_try, cause=cause):
                effects.append(LaneBlocked())
        for effect in settled:
            if isinstance(effect, Advance):
                self._tracker.settle(effect.entries)
        self._hold(lane, left)
        return effects + settled

    def undelivered(self, lane: int, reason: str, *, wait_s: float, epoch: Epoch) -> Sequence[LaneEffect]:
        """Says that the destination did not take the notice. The next try is in `wait_s` seconds; the lane is blocked until then."""
        work, discard = self._lanes[lane].discarding()
        error = f"the on-failure destination did not take the batch: {reason}"
        next_try = Epoch(epoch + wait_s)
        new = self._blocked.block(lane, first_of(work.parts[0]), epoch, error=error, next_try=next_try)
        if new and discard.condition is Condition.SKIPPED:
            self._interventions.undelivered(lane)
        return (LaneBlocked(),) if new else ()

    def discarded(self, lane: int, *, now: Monotonic) -> Sequence[LaneEffect]:
        """Says that the discard that `next` returned was carried out."""
        work, discard = self._lanes[lane].discarding()
        skip = discard.condition is Condition.SKIPPED
        left, settled = (without if skip else attempts.drop)(work, discard, new_id=self._new_id, now=now)
        sent = self._lanes[lane].notified
        frees = not skip or self._interventions.carried_out(lane, discard, sent=sent) or leads(work, discard)
        effects = [LaneFreed()] if frees and self._blocked.free(lane) else []
        if self._windowed is not None:
            self._windowed.given_up(discard.part)
        self._tracker.settle(settled.entries)
        self._hold(lane, left)
        return (*effects, settled)

    def checkpoint(self) -> Checkpoint:
        """What the store should keep of this moment."""
        if self.done:
            return Checkpoint(SHARD_END)
        ahead = self._tracker.settled_ahead(lanes=len(self._lanes))
        kept = {lane: self._earlier.parts(lane) or self._lanes[lane].memos() for lane in self.lanes}
        parts = {lane: memos for lane, memos in kept.items() if memos}
        window = self._windowed.memo if self._windowed is not None else None
        settled_through = self._tracker.saved_through
        blocked = self._blocked.memo(self.position.end)
        memo = msgspec.json.encode(Memo(len(self._lanes), settled_through, ahead, parts, window, blocked))
        if window is None and len(memo) > MEMO_BYTES_MAX:
            memo = msgspec.json.encode(Memo(settled_through=settled_through, blocked=blocked))
        return Checkpoint(self.position, memo)

    def _by_operator(
        self, lane: int, effects: list[LaneEffect], now: Monotonic, epoch: Epoch, *, stopping: bool
    ) -> LaneCommand | None:
        """What the lane does because of a skip or a pause; None if neither concerns it now.

        A paused lane begins no batch, except to show which one had failed before, and to find records that are to be skipped.
        """
        interventions, paused = self._interventions, self._interventions.paused(lane)
        if stopping:
            return Done() if paused else None
        if self._lanes[lane].batch is None and (
            interventions.skips or self._earlier.parts(lane) or not paused
        ):
            effects += self._begin(lane, now, epoch)
        if (found := interventions.next_skip(self._lanes[lane].batch)) is not None:
            step, send = found
            return self._lanes[lane].offer(step, partial(self._notice, step, epoch) if send else None)
        return Hold() if paused and not self.finished(lane) else None

    def _begin(self, lane: int, now: Monotonic, epoch: Epoch) -> Sequence[LaneEffect]:
        """Begins the lane's next batch if one closes now. A batch of an earlier run comes first, after all of it was read."""
        buffer, windowed, ended = self._lanes[lane].buffer, self._windowed, self._tracker.ended
        work: BatchState | None = None
        if self._earlier.parts(lane):
            if self._earlier.unread(lane, None if ended else self.read_to):
                return ()
            work = self._earlier.restore(lane, buffer, new_id=self._new_id, now=now, epoch=epoch)
        if work is None and windowed is not None:
            work = windowed.closing_call(buffer, ended=ended, new_id=self._new_id, now=now, epoch=epoch)
        if work is None:
            entries = (
                buffer.take(now, closing=ended)
                if windowed is None
                else windowed.take(buffer, now, ended=ended)
            )
            work = attempts.start(entries, new_id=self._new_id, now=now, epoch=epoch) if entries else None
        if work is None:
            return ()
        work = self._hold(lane, work)
        assert work is not None
        since = self._blocked.begin(lane, first_of(work.parts[0]))
        return () if since is None else (LaneBlocked(since),)

    def _hold(self, lane: int, work: BatchState | None) -> BatchState | None:
        """Makes this the lane's batch, after a call that ends its window early if one is due. None means that all is settled."""
        if self._windowed is not None:
            work = self._windowed.with_early_end(work, new_id=self._new_id)
            self._windowed.enter(work)
        self._lanes[lane].hold(work)
        if self._tracker.ended:
            self._end_if_settled()
        return work

    def _end_if_settled(self) -> None:
        """Ends the shard if its last window is closed, because the checkpoint must keep the window's state until then."""
        if self._windowed is None or all(self.finished(lane) for lane in self.lanes):
            self._tracker.end()

    def _event(self, part: BatchPart, entries: Sequence[Entry]) -> Event:
        """The event for these entries of a part. Without windows it is encoded only when its bytes are needed."""
        if self._windowed is not None:
            return self._windowed.event(part, entries, self._encoder)
        size = sum([entry.size for entry in entries])
        return RecordsEvent(self._encoder, [entry.record for entry in entries], size)

    def _notice(self, discard: Discard, epoch: Epoch) -> Notice | None:
        """The notice of a discard; None without a destination, or for records that the source does not keep any longer."""
        if self._notices is None or discard.condition is Condition.RETENTION:
            return None
        return failure_document.notice(
            discard,
            self._notices,
            payload=self._event(discard.part, discard.entries).encoded(),
            now=epoch,
            notice_id=self._new_id(),
            window=None if self._windowed is None else self._windowed.facts(discard.part),
        )
