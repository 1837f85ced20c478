"""Owns LastProcessingResult of stream mappings: the result of the last invocation, or the problem that prevents one (aws-behaviour#last-processing-result)."""

from collections import deque
from dataclasses import dataclass

from poller.domain.records import MappingId, Monotonic
from poller.domain.telemetry import (
    AnyTelemetryEvent,
    InvocationFinished,
    Observer,
    Observers,
    Polled,
    PortFailed,
    TaskEnded,
)
from poller.ports import Clock
from poller.rules.reconciling import NOTHING_YET, problem_of, result_of

PORTS = frozenset({"source", "discovery", "invoker"})
"""Ports whose trouble keeps records from the function; trouble of the store or a destination is told elsewhere."""
ENDED_SHOWN_MAX = 10
_NOTED = frozenset({InvocationFinished, PortFailed, Polled, TaskEnded})
"""What `_note` knows. Most events are others, and each batch tells several."""


@dataclass(slots=True)
class _Result:
    function: str = NOTHING_YET
    trouble: str = ""


class LastResults:
    """An observer that passes events on to others and remembers the result of each mapping. Discards do not change it.

    `ended` has the last tasks that ended by themselves, and when.
    """

    def __init__(self, *observers: Observer, clock: Clock) -> None:
        self.ended: deque[tuple[Monotonic, TaskEnded]] = deque(maxlen=ENDED_SHOWN_MAX)
        self._clock = clock
        self._observer = Observers(observers)
        self._results: dict[MappingId, _Result] = {}

    def on(self, event: AnyTelemetryEvent) -> None:
        """Takes one event; returns at once."""
        if type(event) in _NOTED:
            self._note(event)
        self._observer.on(event)

    def _note(self, event: AnyTelemetryEvent) -> None:
        match event:
            case InvocationFinished():
                found = self._result(event.mapping)
                found.function, found.trouble = result_of(event.ended), ""
            case PortFailed() if event.port in PORTS:
                self._result(event.mapping).trouble = problem_of(event.reason)
            case Polled():
                if (known := self._results.get(event.mapping)) is not None:
                    known.trouble = ""
            case TaskEnded():
                self.ended.append((self._clock.monotonic(), event))

    def of(self, mapping: MappingId) -> str:
        """The result of a stream mapping as AWS words it."""
        found = self._results.get(mapping, _Result())
        return found.trouble or found.function

    def forget(self, mapping: MappingId) -> None:
        """The mapping is gone."""
        self._results.pop(mapping, None)

    def _result(self, mapping: MappingId) -> _Result:
        return self._results.setdefault(mapping, _Result())
