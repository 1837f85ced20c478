"""Owns the messages of one queue mapping from their receive to their delete, release or failure.

Four pieces have to agree about each message: `visibility` knows how long the message is hidden from others, `message_groups`
knows its place in its group, `failing` remembers failures for people, and `poll_tally` counts for the scaling rule. This
module is the only one that changes more than one of them, and it fixes the order of these changes.

A message takes these steps:

1. `received` takes the messages of one receive. Only messages that are fresh, readable and not too early go on.
2. `begin` gives the messages of a batch their places in their groups, under a receive id. No other receive may be taken
   between the two steps on a FIFO queue, because the places follow the order of the receives.
3. `choose` takes the next event out of the batch and starts it. Messages that lapsed or are blocked leave the batch.
   `retry` checks a started event again, after the function refused it.
4. `answered` takes the function's verdict. Failed messages leave and block the messages behind them. The others are
   returned, and keep their places until they are deleted. `delays` then has the failed messages whose next try is to be put off;
   `delayed` takes the queue's answer to that.
   Messages that an operator skips are started by `choose`, too. Then they are deleted, or `unmoved`.
5. `start_delete` and `deleted` are the two ends of a delete call, `released` is the end of a call that makes messages
   visible. A message leaves for good there, and later messages of its group may then run.

`settlements` grows whenever messages leave. A batch whose groups are not ready can only become ready then.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from itertools import groupby
from operator import attrgetter
from typing import assert_never

import msgspec
from msgspec import structs

from poller.domain.invocations import FunctionError
from poller.domain.policies import BatchPolicy, RetryBackoff
from poller.domain.records import Epoch, Message, Monotonic, Undone
from poller.domain.untrusted.texts import line_of
from poller.rules.queues.failing import NOT_HIDDEN, FailingItem, FailureLog, by_key
from poller.rules.queues.interventions import QueueInterventions
from poller.rules.queues.message_groups import Choice, Groups, choose, readable
from poller.rules.queues.poll_tally import PollTally
from poller.rules.queues.receive_batch import QueueItem
from poller.rules.queues.retry_delays import DelayCall, RetryDelays
from poller.rules.queues.visibility import VisibilityPolicy, VisibilityTracker
from poller.rules.responses import Accepted, Deferred, Partial, Rejected, Verdict, cut, was_called

ID_CHARACTERS_MAX = 100
"""Characters of a message id that an error text quotes."""


class Reception(msgspec.Struct, frozen=True, gc=False):
    """The result of one receive.

    `fresh` messages go on. `unreadable` has one error text for each message that cannot be read. `left_alone` counts
    these messages and the messages behind them in their groups. `late` counts messages that were visible again, or too early
    in their group, when they came.
    """

    fresh: tuple[Message, ...]
    unreadable: tuple[str, ...] = ()
    left_alone: int = 0
    late: int = 0


class PendingDelete(msgspec.Struct, frozen=True, gc=False):
    """A message to delete, and the receive id of its batch (None: a filter dropped it, so it never had a place)."""

    message: Message
    receive_id: int | None


class DeleteCall(msgspec.Struct, frozen=True, gc=False):
    """One delete call: its messages, their newest receipts, and the ids that were visible to others when it began."""

    pending: Sequence[PendingDelete]
    receipts: Sequence[str]
    lapsed: frozenset[str]


class DeleteResult(msgspec.Struct, frozen=True, gc=False):
    """The result of a delete call.

    `again` needs another call. `messages` were deleted in time. `lapsed` may be processed again by another consumer.
    """

    again: Sequence[PendingDelete]
    messages: int
    lapsed: int


class InFlightTracker:
    """The messages of one queue mapping between receive and delete. `one_group`: an event holds one group only.

    `receives_max` is how often the queue gives a message out before it moves to the dead-letter queue; None without one.
    """

    def __init__(
        self,
        visibility: VisibilityPolicy,
        batch: BatchPolicy,
        *,
        one_group: bool,
        retry_backoff: RetryBackoff | None = None,
        receives_max: int | None = None,
        interventions: QueueInterventions | None = None,
    ) -> None:
        self.visibility = VisibilityTracker(visibility)
        self.delays = RetryDelays(retry_backoff, receives_max)
        self.tally = PollTally()
        self.settlements = 0
        """How often messages have left."""
        self._groups = Groups()
        self.interventions = interventions or QueueInterventions()
        self.failures = FailureLog()
        self._batch = batch
        self._one_group = one_group
        self._receives = 0

    def __len__(self) -> int:
        return len(self.visibility)

    def received(
        self, messages: Sequence[Message], *, asked: int, timeout_s: float, now: Monotonic, epoch: Epoch
    ) -> Reception:
        """Takes the messages of a receive that asked for `asked`. `timeout_s` is the function's present time limit."""
        taken = messages
        left: Sequence[Message] = ()
        if any(message.unreadable for message in messages):
            taken, left = readable(messages)
        unreadable = tuple(self._unreadable(message, epoch) for message in left if message.unreadable)
        fresh, late = self._admit(taken, timeout_s, now) if taken else ((), 0)
        self.tally.count_receive(messages=len(messages), fresh=len(fresh), asked=asked)
        return Reception(fresh, unreadable, len(left), late)

    def begin(self, items: Sequence[QueueItem]) -> int:
        """Gives the items of a new batch their places in their groups; returns the batch's receive id."""
        self._receives += 1
        counts = Counter(group for item in items if (group := item.message.group) is not None)
        if counts:
            self._groups.enter(self._receives, counts)
        return self._receives

    def choose(
        self, receive_id: int, items: Sequence[QueueItem], *, now: Monotonic, runs: bool = True
    ) -> Choice:
        """Takes the next event out of these items, or without `runs` only what operators asked for, and starts it. The caller passes it on."""
        policy = self._batch if runs else None
        ours = self.without_lapsed(receive_id, items, started=False, now=now)
        if self.interventions.active:
            choice = self.interventions.choose_next(
                ours, self._groups, receive_id, policy, one_group=self._one_group, now=now
            )
        else:
            state = partial(self._groups.state, receive_id)
            choice = choose(ours, state, policy, one_group=self._one_group)
        for item in choice.chunk or choice.skipped:
            if (group := item.message.group) is not None:
                self._groups.start(receive_id, group)
        return structs.replace(choice, lapsed=lapsed) if (lapsed := len(items) - len(ours)) else choice

    def retry(self, receive_id: int, chunk: Sequence[QueueItem], *, now: Monotonic) -> Choice:
        """Checks an event that the function refused: which items may be tried again, and which are blocked now."""
        ours = self.without_lapsed(receive_id, chunk, started=True, now=now)
        blocked = [item for item in ours if self._groups.blocked(receive_id, item.group)]
        kept = ours if not blocked else [item for item in ours if item not in blocked]
        choice = Choice(tuple(kept), tuple(blocked), (), len(chunk) - len(ours))
        asked = self.interventions
        return asked.split_again(choice, self._groups, receive_id, now=now) if asked.active else choice

    def hold(self, receive_id: int, items: Sequence[QueueItem]) -> None:
        """Holds these messages, which keep their places, until the pause of their group ends."""
        bare = self.interventions.hold(receive_id, items)
        self.visibility.keep([item.message_id for item in items], bare=bare)

    def unmoved(
        self, receive_id: int, items: Sequence[QueueItem], reason: str, *, now: Monotonic, epoch: Epoch
    ) -> None:
        """These messages were to be skipped, and could not be moved."""
        self._fail(receive_id, items, reason, None, now, epoch)

    def answered(
        self, receive_id: int, chunk: Sequence[QueueItem], verdict: Verdict, *, now: Monotonic, epoch: Epoch
    ) -> list[PendingDelete]:
        """Takes the function's verdict on a started event; returns the messages to delete."""
        match verdict:
            case Accepted():
                return self._done(receive_id, chunk)
            case Partial(failed, retry_after=retry_after):
                places = sorted(failed)
                reported = [chunk[place] for place in places]
                seconds = {} if retry_after is None else retry_after.seconds
                asked = {at: seconds[place] for at, place in enumerate(places) if place in seconds}
                self._delay(reported, asked, now)
                # The failures come last, because a group fails although other messages of it succeeded.
                done = self._done(
                    receive_id, [item for place, item in enumerate(chunk) if place not in failed]
                )
                self._fail(receive_id, reported, "the function reported it", None, now, epoch)
                return done
            case Rejected(error=error, cause=cause):
                if was_called(verdict):
                    self._delay(chunk, {}, now)
                self._fail(receive_id, chunk, error, cause, now, epoch)
                return []
            case Deferred():
                raise AssertionError("the function refused this event, so it must be tried again")
            case _:
                assert_never(verdict)

    def delayed(
        self, call: DelayCall, undone: Sequence[Undone], *, sent: Monotonic, now: Monotonic, epoch: Epoch
    ) -> int:
        """Takes the queue's answer to a call of `delays` that was sent at `sent`; returns how many messages are put off."""
        refused = {each.receipt for each in undone}
        count = 0
        for each, seconds in zip(call.delays, call.visibility_s, strict=True):
            if each.held.receipt not in refused:
                count += 1
                until = Monotonic(sent + seconds)
                self.failures.next_try(each.message, Epoch(epoch + (until - now)), until)
        return count

    def without_lapsed(
        self, receive_id: int, items: Sequence[QueueItem], *, started: bool, now: Monotonic
    ) -> list[QueueItem]:
        """Gives up items that may be visible to others; returns the items that are still ours."""
        gone = self.visibility.lapsed_of([item.message.message_id for item in items], now=now)
        if not gone:
            return list(items)
        kept: list[QueueItem] = []
        leading: list[Message] = []
        trailing: list[Message] = []
        groups = self._groups.longer(receive_id, items) if started else set[str | None]()
        for item in reversed(items):
            if item.message_id not in gone:
                kept.append(item)
                groups.add(item.message.group)
            elif item.message.group in groups:
                leading.append(item.message)
            else:
                trailing.append(item.message)
        # Nothing that is kept must run behind the trailing ones, so they do not block their batch.
        for lapsed, last in ((leading, False), (trailing, True)):
            if lapsed:
                self._settle(receive_id, lapsed, started=started, done=False, last=last)
        return kept[::-1]

    def released(self, receive_id: int, items: Sequence[QueueItem], *, started: bool) -> None:
        """These items were made visible, or are left to their visibility timeout because the call failed."""
        self._settle(receive_id, [item.message for item in items], started=started, done=False)

    def start_delete(self, pending: Sequence[PendingDelete], *, now: Monotonic) -> DeleteCall:
        """A delete call for these messages, with their newest receipts, because a message may have been received again."""
        ids = [each.message.message_id for each in pending]
        lapsed = self.visibility.lapsed_of(ids, now=now)
        return DeleteCall(pending, self.visibility.receipts(ids), lapsed)

    def deleted(self, call: DeleteCall, undone: Sequence[Undone]) -> DeleteResult:
        """Takes the queue's answer to a delete call."""
        if not undone and not call.lapsed:
            self._settle_deletes(call.pending, done=True)
            return DeleteResult((), len(call.pending), 0)
        refused = {each.receipt: each.lapsed for each in undone}
        done: list[PendingDelete] = []
        gone: list[PendingDelete] = []
        again: list[PendingDelete] = []
        for each, receipt in zip(call.pending, call.receipts, strict=True):
            if receipt not in refused:
                done.append(each)
            elif refused[receipt] and self.visibility.receipt(each.message.message_id) == receipt:
                gone.append(each)
            else:
                # A message that was received again during the call has a new receipt, which is worth another try.
                again.append(each)
        self._settle_deletes(done, done=True)
        self._settle_deletes(gone, done=False)
        late = [each for each in done if each.message.message_id in call.lapsed]
        return DeleteResult(again, len(done) - len(late), len(gone) + len(late))

    def delete_failed(self, pending: Sequence[PendingDelete]) -> Sequence[PendingDelete]:
        """These messages could not be deleted in any of the tries. They will be received again.

        Returns those that were received again already. They are done, so that only their delete is still due, and their new
        receipt is worth as many tries.
        """
        again = [
            structs.replace(each, message=structs.replace(each.message, receipt=newest))
            for each in pending
            if (newest := self.visibility.receipt(each.message.message_id)) != each.message.receipt
        ]
        ids = {each.message.message_id for each in again}
        self._settle_deletes([each for each in pending if each.message.message_id not in ids], done=False)
        return again

    def here(self, message: Message) -> bool:
        """Whether the message is in flight here."""
        return self.visibility.until(message.message_id) is not None

    def waiting(self, now: Monotonic) -> dict[str, FailingItem]:
        """The failing items whose messages wait for their next try, hidden from others, and are not back here yet."""
        found = self.failures.waiting(now)
        return {key: each for key, each in found.items() if not any(map(self.here, each.messages))}

    def failing(self, epoch: Epoch, *, receives_max: int | None) -> dict[str, FailingItem]:
        """The items that fail now, also while they are tried again; see `FailureLog.current`."""
        return self.failures.current(
            epoch,
            lambda message_id: self.visibility.until(message_id) is not None,
            receives_max=receives_max,
        )

    def _unreadable(self, message: Message, epoch: Epoch) -> str:
        """Records a message that cannot be read as failing; returns the error text."""
        named = line_of(message.message_id, chars_max=ID_CHARACTERS_MAX) or "without id"
        reason = cut(f"message {named} cannot be read: {message.unreadable}")
        visibility_s = self.visibility.policy.visibility_s
        next_try = Epoch(epoch + visibility_s)
        until = Monotonic(message.received + visibility_s) if message.receipt else NOT_HIDDEN
        self.failures.failed([message], reason, now=epoch, next_try=next_try, hidden_until=until)
        return reason

    def _admit(
        self, messages: Sequence[Message], timeout_s: float, now: Monotonic
    ) -> tuple[tuple[Message, ...], int]:
        """Tracks the messages of a receive; returns the fresh ones and how many came too late or too early."""
        self.visibility.follow_limit(timeout_s)
        admission = self.visibility.admit(messages, now=now)
        if not admission.repeated:
            return admission.fresh, admission.late
        early = self._groups.too_early(messages, {message.message_id for message in admission.fresh})
        if not early:
            return admission.fresh, admission.late
        self.visibility.forget(early)
        fresh = tuple(message for message in admission.fresh if message.message_id not in early)
        return fresh, admission.late + len(early)

    def _done(self, receive_id: int, items: Sequence[QueueItem]) -> list[PendingDelete]:
        self.tally.count_done()
        self.failures.done([item.message for item in items])
        if self.interventions.active:
            self.interventions.settle([item.message_id for item in items], "the function took it meanwhile")
        return [PendingDelete(item.message, receive_id) for item in items]

    def _delay(self, items: Sequence[QueueItem], asked: Mapping[int, float], now: Monotonic) -> None:
        """Puts off the next try of messages that failed in one call, while they are still in flight."""
        messages = [item.message for item in items]
        held = [self.visibility.entry(message.message_id) for message in messages]
        self.delays.failed(messages, held, asked, now=now)

    def _fail(
        self,
        receive_id: int,
        items: Sequence[QueueItem],
        error: str,
        cause: FunctionError | None,
        now: Monotonic,
        epoch: Epoch,
    ) -> None:
        """Records a failure. The messages are left to their visibility timeout."""
        self.tally.count_failed()
        messages = [item.message for item in items]
        for members in by_key(messages).values():
            untils = [self.visibility.until(each.message_id) or now for each in members]
            # SQS gives out nothing of a group while a message of it is hidden.
            self.failures.failed(
                [
                    structs.replace(
                        each, receipt=self.visibility.newest_receipt(each.message_id) or each.receipt
                    )
                    for each in members
                ],
                error,
                now=epoch,
                next_try=Epoch(epoch + max(untils) - now),
                cause=cause,
                hidden_until=min(untils),
            )
        self._settle(receive_id, messages, started=True, done=False)

    def _settle_deletes(self, pending: Sequence[PendingDelete], *, done: bool) -> None:
        for receive_id, own in groupby(pending, attrgetter("receive_id")):
            self._settle(receive_id, [each.message for each in own], started=True, done=done)

    def _settle(
        self,
        receive_id: int | None,
        messages: Sequence[Message],
        *,
        started: bool,
        done: bool,
        last: bool = False,
    ) -> None:
        """These messages leave: they are deleted (`done`), or will be received again. `last` is as for `Groups.settle`."""
        self.visibility.forget([message.message_id for message in messages])
        if receive_id is not None and self.interventions.active:
            self.interventions.left(receive_id, messages)
        for message in messages:
            if receive_id is not None and (group := message.group) is not None:
                self._groups.settle(receive_id, group, started=started, done=done, last=last)
        self.settlements += 1
