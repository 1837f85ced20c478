"""Owns the promises about functions with a rate or a breaker.

While a breaker is open no call begins at its worker; after that one at a time tries. All workers together do not call faster than
the rate for long.
"""

from collections import defaultdict, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from poller.domain.plan import FunctionPlan
from poller.domain.telemetry.daemon_events import BreakerChanged
from poller.domain.telemetry.labels import BreakerState
from poller.domain.telemetry.mapping_events import InvocationFinished, InvocationStarted
from poller.domain.telemetry.observers import AnyTelemetryEvent
from poller.rules.flow_control.rate import AHEAD_S, QUANTUM_S
from tests.simulation.checks.ledger import Violation
from tests.simulation.services.faults import Marks

WINDOW_S = 20.0
"""The rate is counted over this time."""
BUSY = 0.8
"""A function is called at its rate when so much of it is used over the whole window."""


@dataclass(slots=True)
class _Breaker:
    """A breaker as its worker tells of it, and the calls that began while it was half open and did not end."""

    state: BreakerState = BreakerState.CLOSED
    tries: set[str] = field(default_factory=set)
    waits_since: float = 0.0


@dataclass(slots=True)
class FlowChecks:
    """The rates and breakers of all functions. `cut_off`: workers in which tasks were cancelled, so that calls may never end."""

    functions: Mapping[str, FunctionPlan]
    marks: Marks
    cut_off: set[str] = field(default_factory=set)
    _breakers: dict[tuple[str, str], _Breaker] = field(default_factory=dict)
    _starts: dict[str, deque[tuple[float, int, str]]] = field(default_factory=lambda: defaultdict(deque))

    def hears(self, worker: str, event: AnyTelemetryEvent, now: Callable[[], float]) -> None:
        """An event of one worker; raises Violation."""
        match event:
            case BreakerChanged():
                self._changes(worker, event)
            case InvocationStarted():
                self._begins(worker, event)
                self._counts(worker, event, now())
            case InvocationFinished():
                for (whose, _), breaker in self._breakers.items():
                    if whose == worker:
                        breaker.tries.discard(event.request_id)

    def _changes(self, worker: str, event: BreakerChanged) -> None:
        breaker = self._breakers.setdefault((worker, event.function), _Breaker())
        before, breaker.state = breaker.state, event.state
        if event.state is not BreakerState.HALF_OPEN:
            breaker.tries.clear()
        match event.state:
            case BreakerState.OPEN:
                self.marks.saw("breaker opened" if before is BreakerState.CLOSED else "breaker opened again")
            case BreakerState.HALF_OPEN:
                self.marks.saw("breaker let one batch try")
            case BreakerState.CLOSED if event.reason.startswith("closed by hand"):
                here = event.reason.startswith("closed by hand by")
                self.marks.saw("breaker closed by hand" if here else "breaker closed at another worker")
            case BreakerState.CLOSED if event.reason and not event.gone:
                self.marks.saw("breaker closed by a try")

    def _begins(self, worker: str, event: InvocationStarted) -> None:
        breaker = self._breakers.get((worker, event.function))
        if breaker is None or breaker.state is BreakerState.CLOSED:
            return
        if breaker.state is BreakerState.OPEN:
            raise Violation("breaker", f"{worker} calls {event.function} although its breaker is open")
        if breaker.tries and worker not in self.cut_off:
            raise Violation("breaker", f"{worker} lets two batches of {event.function} try at once")
        breaker.tries.add(event.request_id)

    def _counts(self, worker: str, event: InvocationStarted, now: float) -> None:
        plan = self.functions.get(event.function)
        if plan is None or plan.rate is None:
            return
        starts = self._starts[event.function]
        starts.append((now, event.records, worker))
        while starts[0][0] < now - WINDOW_S:
            starts.popleft()
        largest = max(records for _, records, _ in starts)
        workers = len({each for _, _, each in starts})
        for unit, per_s, used, one in (
            ("calls", plan.rate.invocations_per_s, len(starts), 1),
            ("records", plan.rate.records_per_s, sum(records for _, records, _ in starts), largest),
        ):
            if per_s is None:
                continue
            # Each worker may have bought a little, and have calls ahead; and it may be one batch beyond its balance.
            each = 2 * max(1.0, per_s * QUANTUM_S) + max(one, per_s * AHEAD_S) + one
            most = per_s * WINDOW_S + workers * each
            if used > most:
                raise Violation(
                    "rate", f"{used} {unit} of {event.function} in {WINDOW_S:g} s, at most {most:g}"
                )
            if used >= BUSY * per_s * WINDOW_S and now - starts[0][0] > BUSY * WINDOW_S:
                self.marks.saw("function called at its rate")
