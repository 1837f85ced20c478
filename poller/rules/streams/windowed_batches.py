"""Owns what tumbling windows change in a shard's batches: where a batch is cut, which calls close a window, what its events name.

The module `windows` explains windows, and has the open one. This module connects it with the batches of the shard's only lane.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import assert_never

from poller.domain.invocations import EncodedEvent
from poller.domain.records import Epoch, Monotonic, ShardId
from poller.domain.streams.places import name_of
from poller.rules.events import RecordEncoder, WindowFacts, build_windowed
from poller.rules.responses import Accepted, Deferred, Partial, Rejected, Verdict
from poller.rules.streams.attempts import BatchPart, BatchState, NewId, finish, interpose
from poller.rules.streams.batching import Buffer, Entry
from poller.rules.streams.windows import Closing, WindowMemo, Windows


@dataclass(frozen=True, slots=True)
class Windowing:
    """The settings of a mapping with tumbling windows: their length, and what their events name.

    A window whose time is over is checked every `recheck_s` seconds, while the source may still have records for it.
    """

    length_s: int
    shard: ShardId
    source_arn: str
    recheck_s: float


class WindowedBatches:
    """The batches of one shard with tumbling windows."""

    def __init__(self, windowing: Windowing, memo: WindowMemo | None) -> None:
        self._windowing = windowing
        self._windows = Windows(windowing.length_s, memo)
        self._caught_up_at = Epoch(0.0)

    @property
    def open(self) -> bool:
        """Whether a window is open."""
        return self._windows.open

    @property
    def end(self) -> Epoch | None:
        """When the open window ends; None without one."""
        return self._windows.end

    @property
    def counted(self) -> str:
        """The sequence number of the last record in the open window's state; empty without one."""
        return self._windows.counted

    @property
    def memo(self) -> WindowMemo | None:
        """The open window for the checkpoint; None without one."""
        return self._windows.memo()

    def read(self, *, caught_up: bool, asked: Epoch) -> None:
        """Says that a page was read. `caught_up` says that the source had nothing behind it when it was asked, at `asked`."""
        self._caught_up_at = asked if caught_up else Epoch(0.0)

    def closes_in_s(self, epoch: Epoch) -> float | None:
        """In how many seconds to check whether the open window closes by itself; None without one."""
        deadline = self._windows.deadline
        if deadline is None:
            return None
        left_s = deadline - epoch
        return left_s if left_s > 0 else self._windowing.recheck_s

    def closing_call(
        self, buffer: Buffer, *, ended: bool, new_id: NewId, now: Monotonic, epoch: Epoch
    ) -> BatchState | None:
        """The call that closes the open window, if it closes before the buffer's first record. `ended` says that the shard has ended."""
        windows = self._windows
        # If the source was last caught up before the window's end, it may still have records of the window.
        caught_up = windows.end is not None and self._caught_up_at >= windows.end
        closing = windows.closing(buffer.first_arrived, epoch=epoch, caught_up=caught_up, ended=ended)
        if closing is None:
            return None
        early = closing is Closing.EARLY
        return finish(early=early, ends=windows.end, counted=windows.counted, new_id=new_id, now=now)

    def take(self, buffer: Buffer, now: Monotonic, *, ended: bool) -> tuple[Entry, ...]:
        """The buffer's next batch if it closes now. It has records of one window only."""
        windows, first = self._windows, buffer.first_arrived
        if first is None:
            return ()
        together = buffer.leading(lambda arrived: windows.belongs(arrived, first))
        return buffer.take(now, closing=ended or together < len(buffer), records_max=together)

    def with_early_end(self, work: BatchState | None, *, new_id: NewId) -> BatchState | None:
        """The batch, after a closing call if the window's state grew too large (aws-behaviour#window-state-too-large)."""
        if work is None or not self._windows.overgrown or work.parts[0].final:
            return work
        return interpose(work, ends=self._windows.end, counted=self._windows.counted, new_id=new_id)

    def enter(self, work: BatchState | None) -> None:
        """Opens the window of the records that are about to be delivered, unless one is open.

        The newest record decides, because the rest of a batch whose window ended early may begin with late records.
        """
        if work is None or self._windows.open:
            return
        arrived = [entry.record.arrived for part in work.parts for entry in part.entries]
        if arrived:
            self._windows.enter(max(arrived))

    def answered(self, part: BatchPart, verdict: Verdict) -> None:
        """Takes the function's answer for this part: the window gets the returned state, or closes."""
        match verdict:
            case Accepted(state) if not part.final:
                self._windows.answered(state, name_of(part.entries[-1].record.sequence_number))
            case Accepted():
                self._windows.close()
            case Partial(failed, _, state) if min(failed) > 0:
                self._windows.answered(state, name_of(part.entries[min(failed) - 1].record.sequence_number))
            case Partial() | Rejected() | Deferred():
                pass
            case _:
                assert_never(verdict)

    def given_up(self, part: BatchPart) -> None:
        """Says that this part was discarded. If it was the last call of a window, the window is closed."""
        if part.final:
            self._windows.close()

    def facts(self, part: BatchPart) -> WindowFacts:
        """The window that a part is called in."""
        return self._windows.facts(final=part.final, early=part.early)

    def event(self, part: BatchPart, entries: Sequence[Entry], encoder: RecordEncoder) -> EncodedEvent:
        """The event for these entries of a part."""
        encoded = encoder.encode_all([entry.record for entry in entries])
        windowing = self._windowing
        return EncodedEvent(
            build_windowed(encoded, self.facts(part), shard=windowing.shard, source_arn=windowing.source_arn)
        )


def rest_until(
    gathered: Monotonic | None, windowed: WindowedBatches | None, now: Monotonic, epoch: Epoch
) -> Monotonic | None:
    """When a lane's batch is gathered or the open tumbling window may close, whichever is sooner; None if neither has a time."""
    closes_in_s = None if windowed is None else windowed.closes_in_s(epoch)
    if closes_in_s is None:
        return gathered
    closes = Monotonic(now + closes_in_s)
    return closes if gathered is None else min(gathered, closes)
