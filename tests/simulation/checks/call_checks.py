"""Owns the promise that calls beside mappings and batches together never take more slots of a function than it has."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from poller.domain.plan import FunctionPlan
from tests.simulation.checks.ledger import Violation
from tests.simulation.services.faults import Line


@dataclass(slots=True)
class CallsBeside:
    """The calls beside mappings that run. `batches` counts those of mappings, by worker and function."""

    functions: Mapping[str, FunctionPlan]
    batches: Callable[[str, str], int]
    _running: Counter[tuple[str, str]] = field(default_factory=Counter)
    _in_use: dict[tuple[str, str], int] = field(default_factory=dict)

    def uses(self, worker: str, function: str, in_flight: int) -> None:
        """A worker says how many slots of the function it has in use."""
        self._in_use[worker, function] = in_flight

    def all_slots_in_polls(self, line: Line, function: str) -> bool:
        """Whether all slots of a function are taken at a worker, and none by a call."""
        cap = self.functions[function].max_concurrency
        none = not self.batches(line.name, function) + self._running[line.name, function]
        return cap is not None and none and self._in_use.get((line.name, function), 0) >= cap

    def within_cap(self, line: Line, function: str) -> None:
        """One more call of a function begins at a worker; raises Violation."""
        cap = self.functions[function].max_concurrency
        here = self.batches(line.name, function) + self._running[line.name, function]
        if cap is not None and here >= cap:
            raise Violation("cap", f"{here + 1} calls of {function} at once, at most {cap}")

    @contextmanager
    def running(self, line: Line, function: str) -> Iterator[None]:
        """A call beside mappings runs inside the block."""
        self._running[line.name, function] += 1
        try:
            yield
        finally:
            self._running[line.name, function] -= 1
