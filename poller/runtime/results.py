"""Owns LastProcessingResult of stream mappings: what the last invocation, or trouble before it, came to (spec 10.5)."""

from dataclasses import dataclass

from poller.records import MappingId
from poller.rules.reconciling import NOTHING_YET, problem_of, result_of
from poller.telemetry import Event, InvocationFinished, Observer, Polled, PortFailed

PORTS = frozenset({"source", "discovery", "invoker"})
"""Ports whose trouble keeps records from the function; trouble of the store or a destination is told elsewhere."""
_NOTED = frozenset({InvocationFinished, PortFailed, Polled})
"""What `_note` knows. Most events are others, and each batch tells several."""


@dataclass(slots=True)
class _Result:
    function: str = NOTHING_YET
    trouble: str = ""


class Results:
    """An observer that passes events on and remembers the result of each mapping. Discards do not change it."""

    def __init__(self, observer: Observer) -> None:
        self._observer = observer
        self._results: dict[MappingId, _Result] = {}

    def on(self, event: Event) -> None:
        """Takes one event; returns at once."""
        if type(event) in _NOTED:
            self._note(event)
        self._observer.on(event)

    def _note(self, event: Event) -> None:
        match event:
            case InvocationFinished():
                found = self._result(event.mapping)
                found.function, found.trouble = result_of(event.ended), ""
            case PortFailed() if event.port in PORTS:
                self._result(event.mapping).trouble = problem_of(event.reason)
            case Polled():
                if (known := self._results.get(event.mapping)) is not None:
                    known.trouble = ""

    def of(self, mapping: MappingId) -> str:
        """The result of a stream mapping as AWS words it."""
        found = self._results.get(mapping, _Result())
        return found.trouble or found.function

    def forget(self, mapping: MappingId) -> None:
        """The mapping is gone."""
        self._results.pop(mapping, None)

    def _result(self, mapping: MappingId) -> _Result:
        return self._results.setdefault(mapping, _Result())
