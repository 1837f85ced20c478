"""Owns what the end of a daemon left undone: counted from the moment that it is asked to stop, and told when all has ended.

A stop that lets everything finish says nothing of it.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from poller.domain.records import MappingId
from poller.domain.telemetry import AnyTelemetryEvent, Released, ShardStopped, StopCutShort

CUT_OFF_TOLD_MAX = 20
"""Mappings whose calls were cut off that are named; the others are counted."""

type Calls = Counter[tuple[MappingId, str]]
"""How many calls there are of a mapping's function, which has the name."""


class StopTally:
    """An observer that counts what is given up after a stop, and keeps how many calls were cut off."""

    def __init__(self) -> None:
        self.calls: Calls = Counter()
        self.messages = 0
        self.shards = 0
        self._begun = False

    def begin(self) -> None:
        """The daemon is asked to stop."""
        self._begun = True

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
        """Calls that are under way when the block is left, whatever ends it, are cut off."""
        try:
            yield
        finally:
            self.calls = calls()

    def cut_short(self, grace_s: float) -> StopCutShort | None:
        """What is to be told; None when everything was finished."""
        if not (self.calls or self.messages):
            return None
        return StopCutShort(
            grace_s=grace_s,
            calls_cut_off=self.calls.total(),
            cut_off=_told(self.calls),
            handed_back=self.messages,
            shards_released=self.shards,
        )


def _told(calls: Calls) -> tuple[str, ...]:
    """Whose calls were cut off, most first."""
    most = sorted(calls.items(), key=lambda each: (-each[1], each[0]))
    told = [
        f"mapping {mapping}, function {function}: {number} call{'' if number == 1 else 's'}"
        for (mapping, function), number in most[:CUT_OFF_TOLD_MAX]
    ]
    more = most[CUT_OFF_TOLD_MAX:]
    rest = f"and {len(more)} more mappings: {sum(number for _, number in more)} calls"
    return (*told, rest) if more else tuple(told)
