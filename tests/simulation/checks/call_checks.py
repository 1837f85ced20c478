"""Owns the promise that calls beside mappings and batches together never take more slots of a function than it has."""

from collections import defaultdict
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
    _running: dict[tuple[str, str], set[object]] = field(default_factory=lambda: defaultdict(set))
    _anew: set[str] = field(default_factory=set)
    _in_use: dict[tuple[str, str], int] = field(default_factory=dict)

    def uses(self, worker: str, function: str, in_flight: int) -> None:
        """A worker says how many slots of the function it has in use."""
        self._in_use[worker, function] = in_flight

    def all_slots_in_polls(self, line: Line, function: str) -> bool:
        """Whether all slots of a function are taken at a worker, and none by a call."""
        cap = self.functions[function].max_concurrency
        return (
            cap is not None
            and not self._here(line, function)
            and self._in_use.get((line.name, function), 0) >= cap
        )

    def within_cap(self, line: Line, function: str) -> None:
        """One more call of a function begins at a worker; raises Violation."""
        cap = self.functions[function].max_concurrency
        here = self._here(line, function)
        if cap is not None and here >= cap:
            raise Violation("cap", f"{here + 1} calls of {function} at once, at most {cap}")

    @contextmanager
    def running(self, line: Line, function: str) -> Iterator[None]:
        """A call beside mappings runs inside the block. Raises Violation if it may not begin."""
        if line.name not in self._anew:
            self.within_cap(line, function)
        call = object()
        self._running[line.name, function].add(call)
        try:
            yield
        finally:
            self._running[line.name, function].discard(call)

    def opened_anew(self, worker: str) -> None:
        """A function's task was cancelled inside a worker. It is opened anew, with new slots, beside the calls that run or wait in the old one."""
        self._anew.add(worker)

    def _here(self, line: Line, function: str) -> int:
        """How many calls count there. Nobody knows which of those beside mappings are in a function that was opened anew."""
        alone = 0 if line.name in self._anew else len(self._running[line.name, function])
        return self.batches(line.name, function) + alone
