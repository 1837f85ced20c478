"""Owns LastProcessingResult of stream mappings: the result of the last invocation, or the problem that prevents one (aws-behaviour#last-processing-result)."""

from collections import deque
from dataclasses import dataclass

from poller.domain.records import Epoch, MappingId, Monotonic
from poller.domain.telemetry.daemon_events import TaskEnded
from poller.domain.telemetry.mapping_events import InvocationFinished, Polled, PortFailed
from poller.domain.telemetry.observers import AnyTelemetryEvent
from poller.ports import Clock
from poller.rules.reconciling import NOTHING_YET, problem_of, result_of
from poller.runtime.watched_tasks import ended_note

PORTS = frozenset({"source", "discovery", "invoker"})
"""Ports whose failures keep records from the function. Failures of the store or a destination are reported elsewhere."""
ENDED_SHOWN_MAX = 10
ENDED_SHOWN_S = 300.0
"""How long the status shows a task that ended by itself."""
_NOTED = frozenset({InvocationFinished, PortFailed, Polled, TaskEnded})


@dataclass(slots=True)
class _Result:
    function: str = NOTHING_YET
    trouble: str = ""
    at: Epoch | None = None


class LastResults:
    """An observer that keeps the last result of each mapping, and the last tasks that ended by themselves. Discards change nothing."""

    def __init__(self, clock: Clock) -> None:
        self._ended: deque[tuple[Monotonic, TaskEnded]] = deque(maxlen=ENDED_SHOWN_MAX)
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
                found.at = self._clock.now()
            case PortFailed() if event.port in PORTS:
                found = self._result(event.mapping)
                found.trouble, found.at = problem_of(event.reason), self._clock.now()
            case Polled():
                if (known := self._results.get(event.mapping)) is not None:
                    known.trouble = ""
            case TaskEnded():
                self._ended.append((self._clock.monotonic(), event))

    def of(self, mapping: MappingId) -> str:
        """The result of a stream mapping, with AWS's text."""
        found = self._results.get(mapping, _Result())
        return found.trouble or found.function

    def at(self, mapping: MappingId) -> Epoch | None:
        """When the result came; None if there is none yet."""
        found = self._results.get(mapping)
        return None if found is None else found.at

    def ended_notes(self) -> list[str]:
        """The tasks that ended by themselves in the last minutes, one line each."""
        now = self._clock.monotonic()
        return [ended_note(event, now - at) for at, event in self._ended if now - at < ENDED_SHOWN_S]

    def forget(self, mapping: MappingId) -> None:
        """Removes the result of a mapping that no longer exists."""
        self._results.pop(mapping, None)

    def _result(self, mapping: MappingId) -> _Result:
        return self._results.setdefault(mapping, _Result())
