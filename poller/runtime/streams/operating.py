"""Owns what operators do to one shard while this worker reads it: pauses, and the operations retry, reset and skip."""

import asyncio
from collections.abc import Callable, Iterable, Sequence
from functools import partial

from poller.domain.errors import LeaseLost
from poller.domain.operations import Action, Operation, OperationState, OperatorPause, PartResult
from poller.domain.records import Epoch, Monotonic, ShardId
from poller.domain.wording.numbers_of import number_of
from poller.ports import Clock
from poller.rules.operations.pauses import lanes_of
from poller.rules.streams.flow import ShardFlow
from poller.rules.streams.operations.interventions import PendingSkip
from poller.rules.streams.operations.on_batch import CLOSING_PREFIX
from poller.rules.streams.operations.verbs import NAMED_MAX, Refused, Resolved
from poller.runtime.operations.operable import ResolvedRecords
from poller.runtime.stopping import Stop, unless_stopped
from poller.runtime.streams.checkpoints import CheckpointWriter
from poller.runtime.streams.lane import Lane
from poller.runtime.streams.reader import ShardReader

type LaneAct = Callable[[int], object]


class ShardOperations:
    """Carries out operations on one shard.

    `over` is its end: operations that wait end with it. `waiting` has the skips whose records are not all settled; the shard calls
    `look` after each change of its state while there are any.
    """

    def __init__(
        self,
        shard: ShardId,
        flow: ShardFlow,
        lanes: Sequence[Lane],
        *,
        reader: ShardReader,
        checkpoints: CheckpointWriter,
        clock: Clock,
        destination: bool,
    ) -> None:
        self.over = Stop()
        self.waiting: dict[PendingSkip, asyncio.Event] = {}
        self._shard = shard
        self._flow = flow
        self._lanes = lanes
        self._reader = reader
        self._checkpoints = checkpoints
        self._clock = clock
        self._destination = destination

    def apply_pauses(self, pauses: Sequence[OperatorPause] | None) -> None:
        """Takes the pauses in force; None if they are not known yet. Wakes the lanes for which something has changed."""
        for lane in self._flow.operator.pause(pauses, self._shard):
            self._lanes[lane].recall()

    def look(self) -> None:
        """Ends the waits of skips whose records are all settled, or gone."""
        self._flow.operator.look()
        for skip, done in self.waiting.items():
            if not skip.left:
                done.set()

    async def carry_out(self, operation: Operation) -> PartResult | ResolvedRecords | None:
        """Carries out a retry, reset or skip. Returns when the effect has happened and is saved.

        Returns None for an operation on batches while those of an earlier run are still to be restored: it would not find them. Raises
        LeaseLost if the shard stops before that, unless the store has that it ended.
        """
        if self._is_early(operation):
            return None
        result = await unless_stopped(self.over, self._act(operation))
        if result is not None:
            return result
        if self._checkpoints.end_saved:
            return _done("the shard has ended: all its records are settled")
        raise LeaseLost("the shard has stopped here before the operation was carried out")

    def waits_for(self, operation: Operation) -> str:
        """What an operation waits for now: a batch of an earlier run, the destination of a notice, or a call; empty if none of them."""
        if self._is_early(operation):
            reason = self._reader.state.reason
            return "waits until the batch that had failed is read again" + (f": {reason}" if reason else "")
        lanes = self._with_batch(operation.request.target.lane)
        shown = [(self._lanes[lane], self._lanes[lane].status()) for lane in lanes]
        for _, status in shown:
            if status.state == "discarding":
                error = f": {status.last_error}" if status.last_error else ""
                return f"waits until the destination takes the notice of lane {status.lane}{error}"
        # A call of a blocked lane is more likely the one that is waited for.
        for lane, status in sorted(shown, key=lambda each: each[1].blocked_since is None):
            if lane.held_by:
                return f"waits for the call of lane {status.lane}, which waits for {lane.held_by}"
            if lane.calling:
                return f"waits until the running call of lane {status.lane} ends"
        return ""

    def _is_early(self, operation: Operation) -> bool:
        """Whether it is about batches, and those of an earlier run are still to be restored."""
        return not self._flow.operator.restored and _on_batches(operation)

    async def _act(self, operation: Operation) -> PartResult | ResolvedRecords:
        lane = operation.request.target.lane
        if lane is not None and isinstance(there := self._flow.operator.lane(lane), Refused):
            return _failed(there.reason)
        had, has = lanes_of(operation), len(self._flow.lanes)
        if "records" not in operation.notes and had not in {None, has}:
            other = f"lane {lane} has other keys than when this was asked for: there were {had} lanes, now there are {has}"
            return _failed(f"{other}; look at the status, then ask again")
        match operation.request.action:
            case Action.RETRY:
                return await self._retry(lane)
            case Action.RESET:
                return await self._reset(lane)
            case Action.SKIP if (noted := operation.notes.get("records")) is not None:
                return await self._skip(noted, send=operation.request.members.get("send", self._destination))
            case Action.SKIP:
                return await self._resolve(lane, operation.request.members["records"])
            case other:
                return _failed(f"{other} is not for one shard")

    async def _retry(self, named: int | None) -> PartResult:
        """A running call is left alone, because there is nothing to wait for."""
        lanes = self._with_batch(named)
        calling = [lane for lane in lanes if self._lanes[lane].calling]
        held = [lane for lane in calling if self._lanes[lane].held_by]
        tried = await self._in_each([lane for lane in lanes if lane not in calling], self._retry_lane)
        paused = [lane for lane in tried if self._flow.operator.interventions.paused(lane)]
        read = named is None and self._reader.retry()
        return _done(
            _sentence(
                (_lanes("tried again now", [lane for lane in tried if lane not in paused])),
                (_lanes("tried first when the pause ends", paused)),
                (_lanes(f"waits for {self._lanes[held[0]].held_by}", held) if held else ""),
                (
                    _lanes(
                        "called now or as soon as the function has a free slot",
                        [lane for lane in calling if lane not in held],
                    )
                ),
                "the shard is read again now" if read else "",
            )
            or "nothing waits for another try"
        )

    async def _reset(self, named: int | None) -> PartResult:
        reset = await self._in_each(self._with_batch(named), self._reset_lane)
        if not reset:
            return _done("no batch is tried now, so there is nothing to reset")
        await self._checkpoints.saved()
        return _done(_lanes("attempts and age count from now", reset))

    async def _resolve(self, named: int | None, records: str | Sequence[str]) -> PartResult | ResolvedRecords:
        verbs = self._flow.operator
        found: Resolved | Refused | None
        if not isinstance(records, str):
            found = verbs.listed(named, records)
        else:
            lane = verbs.lane(named)
            if isinstance(lane, Refused):
                return _failed(lane.reason)
            found = await self._lanes[lane].between_steps(partial(verbs.resolve, lane, records))
            if found is None:
                return _failed(f"lane {lane} has ended: all its records are settled")
        match found:
            case Resolved(ids):
                return ResolvedRecords(ids)
            case Refused(reason):
                return _failed(reason)

    async def _skip(self, records: Sequence[str], *, send: bool) -> PartResult:
        if send and not self._destination:
            return _failed(
                'the mapping has no on-failure destination; write "discard": true to drop the records'
            )
        verbs = self._flow.operator
        skip = verbs.skip(records, send=send)
        self.waiting[skip] = done = asyncio.Event()
        try:
            self.look()
            self._recall()
            await done.wait()
        finally:
            del self.waiting[skip]
            verbs.withdraw(skip)
            if skip.left:
                # A notice that could not be delivered is not waited for any more.
                self._recall()
        await self._checkpoints.saved()
        return _done(
            _sentence(
                f"{_what(skip.sent, records)} skipped, the destination has the notice" if skip.sent else "",
                f"{_what(skip.dropped, records)} skipped without a notice" if skip.dropped else "",
                f"{_what(skip.before, records)} settled before" if skip.before else "",
                f"{_what(skip.gone, records)} gone: removed by the source, or left out by a seek"
                if skip.gone
                else "",
            )
        )

    def _recall(self) -> None:
        for lane in self._lanes:
            lane.recall()

    def _with_batch(self, named: int | None) -> list[int]:
        lanes = self._flow.lanes if named is None else (named,)
        return [lane for lane in lanes if self._flow.operator.has_batch(lane)]

    async def _in_each(self, lanes: Iterable[int], act: LaneAct) -> list[int]:
        """Does this in each lane, when no call of it runs. Returns the lanes that had a batch then."""
        return [lane for lane in lanes if await self._lanes[lane].between_steps(partial(act, lane))]

    def _retry_lane(self, lane: int) -> bool:
        now, epoch = self._now()
        return self._flow.operator.retry(lane, now=now, epoch=epoch)

    def _reset_lane(self, lane: int) -> bool:
        now, epoch = self._now()
        return self._flow.operator.reset(lane, now=now, epoch=epoch)

    def _now(self) -> tuple[Monotonic, Epoch]:
        return self._clock.monotonic(), self._clock.now()


def _on_batches(operation: Operation) -> bool:
    """Whether it is about batches that are tried now. A retry is about the reader too, and a skip with ids waits for its records."""
    action = operation.request.action
    return action is Action.RESET or (action is Action.SKIP and "records" not in operation.notes)


def _done(text: str) -> PartResult:
    return PartResult(state=OperationState.DONE, result=text)


def _failed(text: str) -> PartResult:
    return PartResult(state=OperationState.FAILED, result=text)


def _lanes(what: str, lanes: Sequence[int]) -> str:
    """`lanes 0, 2: tried again now`; empty without lanes."""
    if not lanes:
        return ""
    more = f" and {len(lanes) - NAMED_MAX} more" if len(lanes) > NAMED_MAX else ""
    return f"lane{'s' if len(lanes) > 1 else ''} {', '.join(map(str, lanes[:NAMED_MAX]))}{more}: {what}"


def _what(count: int, records: Sequence[str]) -> str:
    """So many of these records, or the call that closes a window, in words."""
    if any(each.startswith(CLOSING_PREFIX) for each in records):
        return "the call that closes the window"
    return number_of(count, "record")


def _sentence(*parts: str) -> str:
    return "; ".join(part for part in parts if part)
