"""Owns tumbling windows: which window a record is in, when one closes, and the state that it carries.

A mapping with `TumblingWindowInSeconds` lets a function add up over time (aws-behaviour#tumbling-windows). The function returns a
state, and the next call of the same window gets it. The last call of a window has no records, only the state, and says so.

    records   a  b  c                  | d  e
    calls     [a b]  {}    returns s1  | [d e]  {}    returns s3
              [c]    {s1}  returns s2  | []     {s3}  the last one
              []     {s2}  the last one

Windows begin at multiples of their length since the epoch. A record's time of arrival decides in which one it is. A record that
arrives late counts to the open window. Otherwise no batch has records of two windows. A shard has at most one open window, and one
lane. A window opens with its first record, and closes

- when the next record belongs to a later window;
- when its time has been over for some seconds and the source has nothing more, since some records may be read only then;
- when the shard has ended;
- early, when its state has grown too large. The next record opens a window with the same bounds.

The checkpoint's memo keeps the open window's start and state, so that another worker goes on with it.
"""

from dataclasses import dataclass, replace
from enum import Enum, auto

import msgspec

from poller.domain.records import Epoch
from poller.rules.events import WindowFacts
from poller.rules.streams.failure_document import seconds

STATE_BYTES_MAX = 1024 * 1024
"""A larger returned state ends its window early."""
FINAL_GRACE_S = 5.0
"""Seconds after its end until an idle window closes, so that late records can still arrive (on AWS up to two minutes)."""
EMPTY_STATE = b"{}"


class Closing(Enum):
    """How the open window has to be closed."""

    FINAL = auto()
    EARLY = auto()


class WindowMemo(msgspec.Struct, frozen=True, omit_defaults=True):
    """The open window in a checkpoint: its length in seconds, its start in epoch seconds, its state, and the last record counted in it.

    Workers of older versions do not write the last one.
    """

    length_s: int
    start: int
    state: msgspec.Raw
    counted: str = ""


@dataclass(frozen=True, slots=True)
class Window:
    """The open window. `counted` is the sequence number of the last record in its state; empty without one."""

    start: int
    state: bytes = EMPTY_STATE
    counted: str = ""


class Windows:
    """The windows of one shard. A `memo` with another length is ignored: its state was computed over other bounds."""

    def __init__(self, length_s: int, memo: WindowMemo | None = None) -> None:
        assert length_s > 0, "windows without a length"
        self._length_s = length_s
        self._open: Window | None = None
        if memo is not None and memo.length_s == length_s:
            self._open = Window(memo.start, bytes(memo.state), memo.counted)

    @property
    def open(self) -> bool:
        """Whether a window is open."""
        return self._open is not None

    @property
    def end(self) -> Epoch | None:
        """When the open window ends."""
        return None if self._open is None else Epoch(self._open.start + self._length_s)

    @property
    def counted(self) -> str:
        """The sequence number of the last record in the open window's state; empty without one."""
        return "" if self._open is None else self._open.counted

    @property
    def deadline(self) -> Epoch | None:
        """When the open window closes if no further record arrives."""
        return None if self.end is None else Epoch(self.end + FINAL_GRACE_S)

    @property
    def overgrown(self) -> bool:
        """Whether the open window must end early because its state is too large."""
        return self._open is not None and len(self._open.state) > STATE_BYTES_MAX

    def enter(self, arrived: Epoch) -> None:
        """Opens the window of a record that is about to be delivered, unless a window is open already."""
        if self._open is None:
            self._open = Window(self._start_of(arrived))

    def belongs(self, arrived: Epoch, first: Epoch) -> bool:
        """Whether a record fits into the window of a batch whose first record arrived at `first`."""
        start = self._start_of(first) if self._open is None else self._open.start
        return self._start_of(arrived) <= start

    def closing(
        self, upcoming: Epoch | None, *, epoch: Epoch, caught_up: bool, ended: bool
    ) -> Closing | None:
        """Whether and how the open window closes now. `upcoming` is the arrival time of the next record; None if there is none."""
        if self._open is None:
            return None
        if self.overgrown:
            return Closing.EARLY
        if upcoming is not None:
            return Closing.FINAL if self._start_of(upcoming) > self._open.start else None
        deadline = self.deadline
        assert deadline is not None
        return Closing.FINAL if ended or (caught_up and epoch >= deadline) else None

    def answered(self, state: bytes, counted: str) -> None:
        """Sets the state that the function returned for the open window, when it had done the records through `counted`."""
        assert self._open is not None, "a state without a window"
        self._open = replace(self._open, state=state, counted=counted)

    def close(self) -> None:
        """Closes the open window, whose last call was settled."""
        self._open = None

    def facts(self, *, final: bool, early: bool) -> WindowFacts:
        """The event members of a call in the open window."""
        assert self._open is not None, "a call outside of a window"
        start, end = self._open.start, self._open.start + self._length_s
        return WindowFacts(
            seconds(Epoch(start)), seconds(Epoch(end)), self._open.state, final=final, terminated_early=early
        )

    def memo(self) -> WindowMemo | None:
        """The open window for the checkpoint; None without one."""
        if self._open is None:
            return None
        state = msgspec.Raw(self._open.state)
        return WindowMemo(self._length_s, self._open.start, state, self._open.counted)

    def _start_of(self, moment: Epoch) -> int:
        return int(moment // self._length_s) * self._length_s
