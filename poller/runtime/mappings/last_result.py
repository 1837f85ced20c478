"""Owns LastProcessingResult of stream mappings: the result of the last invocation, or the problem that prevents one (aws-behaviour#last-processing-result)."""

from collections import deque
from dataclasses import dataclass

from poller.domain.records import MappingId, Monotonic
from poller.domain.telemetry.daemon_events import TaskEnded
from poller.domain.telemetry.mapping_events import InvocationFinished, Polled, PortFailed
from poller.domain.telemetry.observers import AnyTelemetryEvent
from poller.ports import Clock
from poller.rules.reconciling import NOTHING_YET, problem_of, result_of

PORTS = frozenset({"source", "discovery", "invoker"})
"""Ports whose failures keep records from the function. Failures of the store or a destination are reported elsewhere."""
ENDED_SHOWN_MAX = 10
_NOTED = frozenset({InvocationFinished, PortFailed, Polled, TaskEnded})


@dataclass(slots=True)
class _Result:
    function: str = NOTHING_YET
    trouble: str = ""


class LastResults:
    """An observer that keeps the last result of each mapping. Discards do not change it.

    `ended` has the last tasks that ended by themselves, each with its time.
    """

    def __init__(self, clock: Clock) -> None:
        self.ended: deque[tuple[Monotonic, TaskEnded]] = deque(maxlen=ENDED_SHOWN_MAX)
        self._clock = clock
        self._results: dict[MappingId, _Result] = {}

    def wants(self, kind: type[AnyTelemetryEvent]) -> bool:
        """Whether events of this type change a result."""
        return kind in _NOTED

    def on(self, event: AnyTelemetryEvent) -> None:
        """Takes one event; returns at once."""
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
        """The result of a stream mapping, with AWS's text."""
        found = self._results.get(mapping, _Result())
        return found.trouble or found.function

    def forget(self, mapping: MappingId) -> None:
        """Removes the result of a mapping that no longer exists."""
        self._results.pop(mapping, None)

    def _result(self, mapping: MappingId) -> _Result:
        return self._results.setdefault(mapping, _Result())
