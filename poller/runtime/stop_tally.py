"""Owns the count of what a daemon's end left unfinished, from the stop request on. It is reported after everything has ended.

If everything finished, there is no report.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from poller.domain.functions.calls import INVOKED
from poller.domain.records import MappingId
from poller.domain.telemetry.daemon_events import StopCutShort
from poller.domain.telemetry.mapping_events import Released, ShardStopped
from poller.domain.telemetry.observers import AnyTelemetryEvent
from poller.domain.wording.numbers_of import number_of

CUT_OFF_TOLD_MAX = 20
"""At most this many mappings with cancelled calls are named. The others are counted."""

type Calls = Counter[tuple[MappingId, str]]
"""The number of calls for each mapping and its function's name."""


class StopTally:
    """An observer that counts what is given up after a stop, and how many calls were cancelled."""

    def __init__(self) -> None:
        self.calls: Calls = Counter()
        self.messages = 0
        self.shards = 0
        self._begun = False

    def begin(self) -> None:
        """The daemon is asked to stop."""
        self._begun = True

    def wants(self, kind: type[AnyTelemetryEvent]) -> bool:
        """Whether events of this type are counted."""
        return kind in (Released, ShardStopped)

    def on(self, event: AnyTelemetryEvent) -> None:
        """Takes one event; returns at once."""
        if not self._begun:
            return
        match event:
            case Released():
                self.messages += event.messages
            case ShardStopped(ended=False):
                self.shards += 1
            case _:
                pass

    @contextmanager
    def counting(self, calls: Callable[[], Calls]) -> Iterator[None]:
        """Counts the calls that still run when the block is left as cut off."""
        try:
            yield
        finally:
            self.calls = calls()

    def cut_short(self, grace_s: float) -> StopCutShort | None:
        """The event to report; None if everything was finished."""
        if not (self.calls or self.messages):
            return None
        return StopCutShort(
            grace_s=grace_s,
            calls_cut_off=self.calls.total(),
            cut_off=_lines(self.calls),
            handed_back=self.messages,
            shards_released=self.shards,
        )


def _lines(calls: Calls) -> tuple[str, ...]:
    """The mappings with cancelled calls, those with the most calls first."""
    most = sorted(calls.items(), key=lambda each: (-each[1], each[0]))
    shown = [
        f"{_caller(mapping, function)}: {number_of(number, 'call')}"
        for (mapping, function), number in most[:CUT_OFF_TOLD_MAX]
    ]
    more = most[CUT_OFF_TOLD_MAX:]
    rest = (
        f"and {number_of(len(more), 'more mapping')}: {number_of(sum(number for _, number in more), 'call')}"
    )
    return (*shown, rest) if more else tuple(shown)


def _caller(mapping: MappingId, function: str) -> str:
    if mapping == INVOKED:
        return f"function {function}, called through the API"
    return f"mapping {mapping}, function {function}"
