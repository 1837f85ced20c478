"""Owns the figures behind the metrics: plain counts and states of each mapping, each function and the daemon.

Telemetry events change them. All figures of a mapping are removed together, some time after the mapping was deleted. A gauge
is computed from the present state, so it ends with the shard, mapping or function that it is about.
"""

from collections import Counter, OrderedDict
from dataclasses import dataclass, field
from typing import Any

from adapters.observers.mapping_events import APPLY, ERRORS, OTHER
from adapters.observers.mapping_metrics import DURATION_BOUNDS_S, Histogram, MappingFigures, RunningFigures
from poller.domain.functions.queued_calls import CallEnd
from poller.domain.invocations import Ended
from poller.domain.operations import Action, OperationState
from poller.domain.records import Epoch, MappingId
from poller.domain.rows import MappingState
from poller.domain.telemetry.daemon_events import (
    AliasWeight,
    ApiChange,
    BreakerChanged,
    CallDeliveryFailed,
    CallLeftBehind,
    CallsWaiting,
    Capacity,
    CodeReloaded,
    ConfigurationReloaded,
    FleetSized,
    FunctionCalled,
    FunctionOpened,
    LoopBlocked,
    MemoryUsed,
    ObserverFailed,
    QueuedCallEnded,
    StoreFailed,
    StrangerRefused,
    TaskEnded,
    VersionCalled,
)
from poller.domain.telemetry.labels import (
    ApiOperation,
    BreakerState,
    Listener,
    RefusedFor,
    Replayed,
    TaskEnd,
    TaskKind,
)
from poller.domain.telemetry.mapping_events import MappingChanged
from poller.domain.telemetry.observers import AnyTelemetryEvent
from poller.domain.telemetry.operation_events import OperationOver, PausesChanged, ReplayCounted
from poller.ports import Clock

LINGER_S = 300.0
"""How long the series of a deleted mapping stay, so that its last counts are scraped."""
CALLED_MAX = 1000
"""Functions whose calls are counted by their names. Those of further ones, which only reloads bring, are counted together."""
LINGERING_MAX = 200
LOOP_BOUNDS_S = (1, 2, 5, 10, 30, 60, 300)
REMOVED_IDS_MAX = 10_000
_NOT_RUNNING = frozenset({MappingState.DISABLED, MappingState.BROKEN, MappingState.DELETING})


@dataclass(frozen=True, slots=True)
class CapacityFigures:
    """How many invocations of one function run now, and how many may."""

    in_flight: int
    limit: int | None


@dataclass(slots=True)
class BreakerFigures:
    """The breaker of one function: its state, and how often it opened."""

    state: BreakerState = BreakerState.CLOSED
    opened: int = 0


@dataclass(slots=True)
class CodeFigures:
    """The reloads of one function's code: how often it was taken up and refused, and whether it is refused now."""

    taken_up: int = 0
    refusals: int = 0
    refused: bool = False


@dataclass(slots=True)
class CallFigures:
    """The calls of one function through the Invoke API: how they ended, and how long they took."""

    ended: Counter[Ended] = field(default_factory=Counter)
    duration: Histogram = field(default_factory=lambda: Histogram(DURATION_BOUNDS_S))


@dataclass(slots=True)
class AsyncFigures:
    """The asynchronous calls of one function: how they ended, how many wait, and how often a destination could not be given one."""

    ended: Counter[CallEnd] = field(default_factory=Counter)
    delivery_failures: int = 0
    waiting: int = 0
    oldest_s: float = 0.0


class RemovedIds:
    """Ids of what was removed, whose late events are ignored. The oldest ids make room for new ones."""

    def __init__(self, ids_max: int) -> None:
        self._ids: OrderedDict[str, None] = OrderedDict()
        self._ids_max = ids_max

    def __contains__(self, name: str) -> bool:
        return name in self._ids

    def add(self, name: str) -> None:
        """Ignores events of `name` from now on."""
        self._ids[name] = None
        while len(self._ids) > self._ids_max:
            self._ids.popitem(last=False)

    def discard(self, name: str) -> None:
        """Events of `name` count again."""
        self._ids.pop(name, None)


@dataclass(slots=True)
class DaemonFigures:
    """The figures of the daemon as a whole; `reloaded_at` is when the configuration was last applied."""

    reloaded_at: Epoch
    reload_ok: bool = True
    reloads: Counter[str] = field(default_factory=lambda: Counter(success=0, failure=0))
    store_failures: Counter[str] = field(default_factory=Counter)
    observer_failures: Counter[str] = field(default_factory=Counter)
    api_changes: Counter[tuple[ApiOperation, str]] = field(default_factory=Counter)
    loop_blocked: Histogram = field(default_factory=lambda: Histogram(LOOP_BOUNDS_S))
    loop_blocked_s_max: float = 0.0
    memory: MemoryUsed | None = None
    """What was reported last."""
    wanted_workers: int | None = None
    """None until it is known."""
    left_behind: Counter[str] = field(default_factory=Counter)
    """Calls of each function that did not end when they were cancelled."""
    tasks_ended: Counter[tuple[TaskKind, TaskEnd]] = field(default_factory=Counter)
    operations: Counter[tuple[Action, OperationState]] = field(default_factory=Counter)
    """Operations whose end this worker stored, by what they did and how they ended."""
    replayed: Counter[Replayed] = field(default_factory=Counter)
    """Records that replays have read on this worker, by what became of them."""
    strangers_refused: Counter[tuple[Listener, RefusedFor]] = field(default_factory=Counter)


class Figures:
    """The figures of all mappings and functions, and of the daemon itself."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.mappings: dict[MappingId, MappingFigures] = {}
        self.paused_since: dict[MappingId, Epoch] = {}
        self.functions: dict[str, CapacityFigures] = {}
        self.breakers: dict[str, BreakerFigures] = {}
        self.code: dict[str, CodeFigures] = {}
        self.calls: dict[str, CallFigures] = {}
        self.async_calls: dict[str, AsyncFigures] = {}
        self.version_calls: Counter[tuple[str, str, str]] = Counter()
        """Calls of versions, by function, version and result."""
        self.alias_weights: dict[tuple[str, str, str], float] = {}
        """The shares of versions, by function, alias and version."""
        self.daemon = DaemonFigures(clock.now())
        self._removed = RemovedIds(REMOVED_IDS_MAX)
        self._removed_functions = RemovedIds(REMOVED_IDS_MAX)

    def on(self, event: AnyTelemetryEvent) -> None:
        """Takes one event; returns at once."""
        if type(event) in APPLY:
            # Nearly all events are of these kinds.
            self._apply(event)
            return
        match event:
            case Capacity():
                self._capacity(event)
            case MappingChanged():
                self._changed(event)
            case ConfigurationReloaded():
                self._reloaded(event)
            case ApiChange():
                self.daemon.api_changes[event.operation, _outcome(event)] += 1
            case StoreFailed():
                self.daemon.store_failures[event.error if event.error in ERRORS else OTHER] += 1
            case BreakerChanged():
                self._breaker_changed(event)
            case FunctionCalled():
                self._called(event)
            case VersionCalled():
                result = "failure" if event.failed else "success"
                self.version_calls[event.function, event.version, result] += 1
            case AliasWeight():
                self._weight(event)
            case QueuedCallEnded():
                self._asynchronous(event.function).ended[event.end] += 1
            case CallDeliveryFailed():
                self._asynchronous(event.function).delivery_failures += 1
            case CallsWaiting():
                figures = self._asynchronous(event.function)
                figures.waiting, figures.oldest_s = event.calls, event.oldest_s
            case CodeReloaded():
                self._code_reloaded(event)
            case FunctionOpened() if event.function in self.code:
                # It was loaded from what its files hold now.
                self.code[event.function].refused = False
            case CallLeftBehind():
                self.daemon.left_behind[event.function] += 1
            case FleetSized():
                self.daemon.wanted_workers = event.wanted
            case LoopBlocked():
                self.daemon.loop_blocked.observe(event.blocked_s)
                self.daemon.loop_blocked_s_max = max(self.daemon.loop_blocked_s_max, event.blocked_s)
            case MemoryUsed():
                self.daemon.memory = event
            case ObserverFailed():
                self.daemon.observer_failures[event.observer] += 1
            case StrangerRefused():
                self.daemon.strangers_refused[event.listener, event.reason] += 1
            case OperationOver():
                self.daemon.operations[event.action, event.state] += 1
            case PausesChanged():
                self._paused(event)
            case ReplayCounted():
                self.daemon.replayed[event.result] += event.records
            case TaskEnded():
                self.daemon.tasks_ended[event.task, event.end] += 1

    def _apply(self, event: Any) -> None:
        figures = self.mappings.get(event.mapping) or self._new(event.mapping)
        if figures is not None:
            APPLY[type(event)](figures, event, self._clock.now())

    def _new(self, mapping: MappingId) -> MappingFigures | None:
        """Makes figures for a mapping that has none yet; returns None for one that was removed."""
        if mapping in self._removed:
            return None
        figures = self.mappings[mapping] = MappingFigures()
        return figures

    def sweep(self) -> None:
        """Removes the figures of mappings that were deleted long enough ago, and so all their series."""
        now = self._clock.monotonic()
        lingering = [
            (figures.deleted_at, mapping)
            for mapping, figures in self.mappings.items()
            if figures.deleted_at is not None
        ]
        lingering.sort()
        surplus = len(lingering) - LINGERING_MAX
        for index, (deleted_at, mapping) in enumerate(lingering):
            if index < surplus or now - deleted_at >= LINGER_S:
                self._remove(mapping)

    def _capacity(self, event: Capacity) -> None:
        if event.function not in self._removed_functions:
            self.functions[event.function] = CapacityFigures(event.in_flight, event.limit)

    def _breaker_changed(self, event: BreakerChanged) -> None:
        if event.gone:
            self.breakers.pop(event.function, None)
        elif event.function not in self._removed_functions:
            figures = self.breakers.setdefault(event.function, BreakerFigures())
            figures.state = event.state
            figures.opened += event.state is BreakerState.OPEN

    def _code_reloaded(self, event: CodeReloaded) -> None:
        if event.function not in self._removed_functions:
            figures = self.code.setdefault(event.function, CodeFigures())
            figures.taken_up += event.ok
            figures.refusals += not event.ok
            figures.refused = not event.ok

    def _called(self, event: FunctionCalled) -> None:
        full = event.function not in self.calls and len(self.calls) >= CALLED_MAX
        figures = self.calls.setdefault(OTHER if full else event.function, CallFigures())
        figures.ended[event.ended] += 1
        figures.duration.observe(event.duration_s)

    def _weight(self, event: AliasWeight) -> None:
        key = event.function, event.alias, event.version
        if event.weight:
            self.alias_weights[key] = event.weight
        else:
            self.alias_weights.pop(key, None)

    def _asynchronous(self, function: str) -> AsyncFigures:
        full = function not in self.async_calls and len(self.async_calls) >= CALLED_MAX
        return self.async_calls.setdefault(OTHER if full else function, AsyncFigures())

    def _changed(self, event: MappingChanged) -> None:
        self._removed.discard(event.mapping)
        self._removed_functions.discard(event.function)
        figures = self.mappings.setdefault(event.mapping, MappingFigures())
        before, figures.function = figures.function, event.function
        figures.source_arn, figures.state = event.source_arn, event.state
        figures.start_at_zero()
        if event.state in _NOT_RUNNING:
            figures.running = RunningFigures()
        if event.state is not MappingState.DELETING:
            figures.deleted_at = None
        elif figures.deleted_at is None:
            figures.deleted_at = self._clock.monotonic()
            self.sweep()
        self._drop_function(before)

    def _paused(self, event: PausesChanged) -> None:
        if event.since is None:
            self.paused_since.pop(event.mapping, None)
        else:
            self.paused_since[event.mapping] = event.since

    def _reloaded(self, event: ConfigurationReloaded) -> None:
        self.daemon.reloads["success" if event.ok else "failure"] += 1
        self.daemon.reload_ok = event.ok
        if event.ok:
            self.daemon.reloaded_at = self._clock.now()

    def _remove(self, mapping: MappingId) -> None:
        figures = self.mappings.pop(mapping)
        self.paused_since.pop(mapping, None)
        self._removed.add(mapping)
        self._drop_function(figures.function)

    def _drop_function(self, function: str) -> None:
        if function and all(each.function != function for each in self.mappings.values()):
            self.functions.pop(function, None)
            self.breakers.pop(function, None)
            self.code.pop(function, None)
            self._removed_functions.add(function)


def _outcome(event: ApiChange) -> str:
    if event.broken_off:
        return "broken_off"
    return "refused" if event.refused else "accepted"
