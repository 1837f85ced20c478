"""Owns tumbling windows (spec 1.4, 7.1): which window a record is in, when one closes, and the state it carries.

Windows are aligned to multiples of their length since the epoch. A shard has one open window at most; a record that
arrives late belongs to the open one. A window opens with its first record and closes with a call of its own that has
no records.
"""

from dataclasses import dataclass, replace
from enum import Enum, auto

import msgspec

from poller.records import Epoch
from poller.rules.events import WindowFacts
from poller.rules.failures import seconds

STATE_BYTES_MAX = 1024 * 1024
"""A larger returned state ends its window early."""
FINAL_GRACE_S = 5.0
"""How long after its end an idle window stays open for records that are still under way (AWS: up to two minutes)."""
EMPTY_STATE = b"{}"


class Closing(Enum):
    """How the open window has to be closed."""

    FINAL = auto()
    EARLY = auto()


class WindowMemo(msgspec.Struct, frozen=True):
    """What a checkpoint remembers of an open window: its length and start in epoch seconds, and its state."""

    length_s: int
    start: int
    state: msgspec.Raw


@dataclass(frozen=True, slots=True)
class Window:
    """The open window."""

    start: int
    state: bytes = EMPTY_STATE


class Windows:
    """The windows of one shard. `memo` of another length is forgotten: its state belongs to other bounds."""

    def __init__(self, length_s: int, memo: WindowMemo | None = None) -> None:
        assert length_s > 0, "windows without a length"
        self._length_s = length_s
        self._open: Window | None = None
        if memo is not None and memo.length_s == length_s:
            self._open = Window(memo.start, bytes(memo.state))

    @property
    def open(self) -> bool:
        """Whether a window is open."""
        return self._open is not None

    @property
    def end(self) -> Epoch | None:
        """When the time of the open window is over."""
        return None if self._open is None else Epoch(self._open.start + self._length_s)

    @property
    def deadline(self) -> Epoch | None:
        """When an open window closes by itself if nothing more comes."""
        return None if self.end is None else Epoch(self.end + FINAL_GRACE_S)

    @property
    def overgrown(self) -> bool:
        """Whether the open window has to end early, because its state is too large to go on with."""
        return self._open is not None and len(self._open.state) > STATE_BYTES_MAX

    def enter(self, arrived: Epoch) -> None:
        """A record is about to be delivered: opens its window unless one is open."""
        if self._open is None:
            self._open = Window(self._start_of(arrived))

    def belongs(self, arrived: Epoch, first: Epoch) -> bool:
        """Whether a record can share a call with a batch whose first record arrived at `first`."""
        start = self._start_of(first) if self._open is None else self._open.start
        return self._start_of(arrived) <= start

    def closing(
        self, upcoming: Epoch | None, *, epoch: Epoch, caught_up: bool, ended: bool
    ) -> Closing | None:
        """Whether the open window closes now. `upcoming` is the arrival of the next record, None when none waits."""
        if self._open is None:
            return None
        if self.overgrown:
            return Closing.EARLY
        if upcoming is not None:
            return Closing.FINAL if self._start_of(upcoming) > self._open.start else None
        deadline = self.deadline
        assert deadline is not None
        return Closing.FINAL if ended or (caught_up and epoch >= deadline) else None

    def answered(self, state: bytes) -> None:
        """The function returned this state for the open window."""
        assert self._open is not None, "a state without a window"
        self._open = replace(self._open, state=state)

    def close(self) -> None:
        """The open window's last call was settled."""
        self._open = None

    def facts(self, *, final: bool, early: bool) -> WindowFacts:
        """The event members of a call in the open window."""
        assert self._open is not None, "a call outside of a window"
        start, end = self._open.start, self._open.start + self._length_s
        return WindowFacts(
            seconds(Epoch(start)), seconds(Epoch(end)), self._open.state, final=final, terminated_early=early
        )

    def memo(self) -> WindowMemo | None:
        """What a checkpoint should remember."""
        if self._open is None:
            return None
        return WindowMemo(self._length_s, self._open.start, msgspec.Raw(self._open.state))

    def _start_of(self, moment: Epoch) -> int:
        return int(moment // self._length_s) * self._length_s
