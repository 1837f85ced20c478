"""Owns the promises of tumbling windows: each record counted once in its window's state, each window closed."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import msgspec

from poller.domain.invocations import Outcome, Succeeded
from poller.domain.records import ShardId
from poller.domain.rows import Checkpoint
from poller.rules.streams import checkpoint_memo
from tests.simulation.checks.ledger import Flight, Violation, names
from tests.simulation.services.faults import Marks
from tests.simulation.services.functions import Delivery
from tests.simulation.services.streams import Held

STATE_BYTES_MAX = 1024 * 1024
"""A larger state ends its window (aws-behaviour#window-state-too-large)."""

type WindowId = tuple[ShardId, float]
"""A shard and the epoch second at which the window begins."""
type RunId = tuple[str, int, ShardId]
"""A worker's time with a shard: worker, epoch, shard."""
type State = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Shelf:
    """What a shard has, and the sequence numbers of what has to be in its windows in the end."""

    records: Sequence[Held]
    due: set[int]
    done: set[int]
    """Those of `due` that the function has done."""


@dataclass(slots=True)
class WindowChecks:
    """The windows of one mapping; functions keep the numbers of the records that they have done as state."""

    length_s: int
    marks: Marks
    closed: set[WindowId] = field(default_factory=set)
    _ended_early: dict[WindowId, set[int]] = field(default_factory=dict)
    """What was counted in the parts of a window that ended early."""
    _finals: dict[ShardId, Delivery] = field(default_factory=dict)
    """The last final event of each shard."""
    _returned: dict[RunId, State] = field(default_factory=dict)
    """The state that the next call of a run has to carry."""
    _runs: dict[int, RunId] = field(default_factory=dict)
    """The run that a call in flight belongs to."""
    _open: dict[ShardId, float] = field(default_factory=dict)
    """The begin of each shard's open window."""
    _moved: set[ShardId] = field(default_factory=set)
    """Shards that a seek moved, and in which nothing was counted since."""
    _dropped: set[WindowId] = field(default_factory=set)
    """Windows that were closed before a seek took some of their records up again."""

    def begins(
        self,
        flight: Flight,
        shard: ShardId,
        records: Sequence[Held],
        shelf: Shelf,
        run: RunId | None,
        began: Checkpoint,
    ) -> None:
        """An event is handed to the function; `run` None: nobody holds the shard. `began` is the checkpoint at which the run began."""
        event = flight.delivery.event
        window = shard, self._start(flight.delivery)
        inside = [held for held in shelf.records if self._begin_of(held) == window[1]]
        if strangers := [each.sequence for each in records if each not in inside]:
            raise Violation(
                "window", f"{names(strangers)} of {shard} do not belong to the window from {window[1]}"
            )
        self._counted_once(_numbers(event["state"]), records, inside)
        if run is not None:
            self._runs[flight.number] = run
            self._goes_on(run, event, began)
        self._closed_before(shard, window[1], shelf)
        self._early_when_huge(flight.delivery, shard)
        if event["isWindowTerminatedEarly"]:
            self._rightly_early(flight.delivery)
        elif event["isFinalInvokeForWindow"]:
            wanted = {held.content.number for held in inside if held.sequence in shelf.due}
            self._complete(_numbers(event["state"]), wanted, window)
        if event["isFinalInvokeForWindow"]:
            self._finals[shard] = flight.delivery
        else:
            self._opened(window)

    def ends(self, flight: Flight, shard: ShardId, outcome: Outcome, *, progress: bool) -> None:
        """The worker has the outcome; `progress`: the function did some of the records."""
        run = self._runs.pop(flight.number, None)
        if not isinstance(outcome, Succeeded):
            return
        if flight.delivery.event["isFinalInvokeForWindow"]:
            self._close(shard, flight.delivery, run)
            self.marks.saw("window closed")
        elif run is not None and progress:
            self._moved.discard(shard)
            self._returned[run] = msgspec.json.decode(outcome.payload)["state"]

    def given_up(self, run: RunId) -> None:
        """The final call of the open window of a run was given up."""
        if (shard := run[2]) in self._finals:
            self._close(shard, self._finals[shard], run)
            self.marks.saw("window given up")

    def moved(self, shard: ShardId, again: Iterable[Held]) -> None:
        """A seek moves the shard: its open window is dropped, and what is processed again is counted again, from nothing.

        What a window has of records that are left out is never asked for, and neither is the close of a window with no other records.
        """
        if self._open.pop(shard, None) is not None:
            self.marks.saw("seek: open window dropped")
        windows = {(shard, self._begin_of(held)) for held in again}
        self._dropped |= windows & self.closed
        self.closed -= windows
        self._finals.pop(shard, None)
        for window in [each for each in self._ended_early if each[0] == shard]:
            del self._ended_early[window]
        for run in [each for each in self._returned if each[2] == shard]:
            del self._returned[run]
        self._moved.add(shard)

    def skipped(self, run: RunId, ends: Iterable[float], *, began: Checkpoint) -> None:
        """An operator gave up the call that closes the open window of a run, which is one of those that end then.

        A window whose state is too large ends early, and begins anew without what was counted in it. `began` is the checkpoint at
        which the run began.
        """
        shard = run[2]
        windows = [(shard, end - self.length_s) for end in ends]
        self.closed.update(windows)
        state = self._returned[run] if run in self._returned else _state_in(began)
        if _too_large(state):
            for window in windows:
                self._ended_early.setdefault(window, set()).update(_numbers(state))
            self.marks.saw("window skipped early")
        self._begin_from_nothing(run)
        self.marks.saw("window skipped")

    def left_open(self, shard: ShardId, done: Sequence[Held]) -> list[float]:
        """Windows of these records, all done by the function, that were never closed."""
        windows = sorted({self._begin_of(held) for held in done})
        return [each for each in windows if (shard, each) not in self.closed]

    def _start(self, delivery: Delivery) -> float:
        window = delivery.event["window"]
        start, end = (datetime.fromisoformat(window[each]).timestamp() for each in ("start", "end"))
        if end - start != self.length_s or start % self.length_s:
            raise Violation("window", f"from {start} to {end}, which is no window of {self.length_s} s")
        return start

    def _begin_of(self, held: Held) -> float:
        return held.arrived // self.length_s * self.length_s

    def _counted_once(self, numbers: Sequence[int], records: Sequence[Held], inside: Sequence[Held]) -> None:
        known = {held.content.number for held in inside}
        twice = {held.content.number for held in records} & set(numbers)
        if twice or len(numbers) != len(set(numbers)):
            raise Violation("window", f"{names(sorted(twice) or numbers)} would be counted twice")
        if foreign := set(numbers) - known:
            raise Violation("window", f"the state has {names(sorted(foreign))} of another window")

    def _goes_on(self, run: RunId, event: State, began: Checkpoint) -> None:
        """The state is what was returned last in this run; what an earlier run left is in its checkpoint, and nothing is left over a seek."""
        shard = run[2]
        if shard in self._moved and event["state"]:
            raise Violation("window", f"the state of {shard} is from before its seek")
        if event["state"] != (self._returned[run] if run in self._returned else _state_in(began)):
            raise Violation("window", f"the state of {shard} is not what the function returned last")

    def _closed_before(self, shard: ShardId, start: float, shelf: Shelf) -> None:
        """All windows before this one are closed in which something was done."""
        done = [held for held in shelf.records if held.sequence in shelf.done]
        if left := [each for each in self.left_open(shard, done) if each < start]:
            raise Violation("window", f"the windows of {shard} from {names(left)} were never closed")

    def _early_when_huge(self, delivery: Delivery, shard: ShardId) -> None:
        huge = _too_large(delivery.event["state"])
        early = delivery.event["isWindowTerminatedEarly"]
        if huge and not early:
            raise Violation("window", f"{shard} goes on with a state of more than 1 MB")
        if early and not huge:
            raise Violation("window", f"a window of {shard} ends early, its state is not too large")

    def _rightly_early(self, delivery: Delivery) -> None:
        if delivery.records or not delivery.event["isFinalInvokeForWindow"]:
            raise Violation("window", "a window ends early with an event that is not its final one")

    def _complete(self, numbers: Sequence[int], wanted: set[int], window: WindowId) -> None:
        """What the state lacks was counted before the window ended early, if it did."""
        missing = wanted - set(numbers) - self._ended_early.get(window, set())
        if missing:
            raise Violation("window", f"the final state lacks {names(sorted(missing))}")

    def _opened(self, window: WindowId) -> None:
        self.closed.discard(window)
        self._open[window[0]] = window[1]
        if window in self._ended_early:
            self.marks.saw("window begun anew")

    def _close(self, shard: ShardId, delivery: Delivery, run: RunId | None) -> None:
        window = shard, self._start(delivery)
        self.closed.add(window)
        if window in self._dropped:
            self._dropped.discard(window)
            self.marks.saw("seek: window closed again")
        if delivery.event["isWindowTerminatedEarly"]:
            self._ended_early.setdefault(window, set()).update(_numbers(delivery.event["state"]))
            self.marks.saw("window ended early")
        if run is not None:
            self._begin_from_nothing(run)

    def _begin_from_nothing(self, run: RunId) -> None:
        """The open window of this run's shard is closed: the next one has no state."""
        self._open.pop(run[2], None)
        for each in [run, *(each for each in self._returned if each[2] == run[2])]:
            self._returned[each] = {}


def _numbers(state: State) -> list[int]:
    return [int(each) for each in state.get("numbers", [])]


def _too_large(state: State) -> bool:
    return len(msgspec.json.encode(state)) > STATE_BYTES_MAX


def _state_in(checkpoint: Checkpoint) -> State:
    window = checkpoint_memo.read(checkpoint.memo).window
    return {} if window is None else dict(msgspec.json.decode(window.state))
