"""Owns the protocol of observers, which receive telemetry events. Observers must not block and must not raise."""

from contextlib import suppress
from typing import Protocol, runtime_checkable

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
    ConfigurationUnread,
    DaemonEnded,
    DaemonStarting,
    FleetSized,
    FunctionCalled,
    FunctionChanged,
    FunctionOpened,
    LoopBlocked,
    MemoryUsed,
    ObserverFailed,
    PayloadsShown,
    QueuedCallEnded,
    ShiftChanged,
    StopCutShort,
    StoreFailed,
    StrangerRefused,
    TaskEnded,
    VersionCalled,
)
from poller.domain.telemetry.mapping_events import (
    Bisected,
    Blocked,
    CheckpointSaved,
    Deleted,
    DestinationFailed,
    Discarded,
    Filtered,
    GroupsBlocked,
    InvocationFinished,
    InvocationStarted,
    LeaseMoved,
    MappingChanged,
    PlaceFound,
    Polled,
    Pollers,
    PortFailed,
    RecordsLost,
    Released,
    RetriesDelayed,
    RetryAfterIgnored,
    Retrying,
    ShardStarted,
    ShardStopped,
    SourceCalled,
    VisibilityTooShort,
)
from poller.domain.telemetry.operation_events import (
    OperationAccepted,
    OperationOver,
    PausesChanged,
    ReplayCounted,
    ReplayTroubled,
)

type AnyTelemetryEvent = (
    MappingChanged
    | Polled
    | SourceCalled
    | Filtered
    | InvocationStarted
    | InvocationFinished
    | Retrying
    | Bisected
    | Discarded
    | DestinationFailed
    | Blocked
    | Deleted
    | Released
    | RetriesDelayed
    | RetryAfterIgnored
    | CheckpointSaved
    | ShardStarted
    | ShardStopped
    | LeaseMoved
    | RecordsLost
    | PortFailed
    | Capacity
    | FunctionCalled
    | VersionCalled
    | AliasWeight
    | ShiftChanged
    | QueuedCallEnded
    | CallDeliveryFailed
    | CallsWaiting
    | FunctionChanged
    | VisibilityTooShort
    | FunctionOpened
    | CodeReloaded
    | Pollers
    | GroupsBlocked
    | PlaceFound
    | ConfigurationReloaded
    | ConfigurationUnread
    | StoreFailed
    | TaskEnded
    | CallLeftBehind
    | BreakerChanged
    | ObserverFailed
    | StrangerRefused
    | LoopBlocked
    | MemoryUsed
    | FleetSized
    | ApiChange
    | PayloadsShown
    | DaemonStarting
    | DaemonEnded
    | StopCutShort
    | OperationAccepted
    | OperationOver
    | PausesChanged
    | ReplayCounted
    | ReplayTroubled
)


class Observer(Protocol):
    """Receives every event, in order, on the loop."""

    def on(self, event: AnyTelemetryEvent) -> None:
        """Takes one event; returns at once."""
        ...


@runtime_checkable
class SelectiveObserver(Observer, Protocol):
    """An observer that ignores most types of events. It gets only those that it wants, since each batch emits several events."""

    def wants(self, kind: type[AnyTelemetryEvent]) -> bool:
        """Whether it wants events of this type. The answer must always be the same."""
        ...


class Observers:
    """Hands each event to several observers. An observer that is a group itself is replaced by its members, which saves a call an event."""

    def __init__(self, observers: tuple[Observer, ...]) -> None:
        self._observers: tuple[Observer, ...] = tuple(
            each
            for observer in observers
            for each in (observer._observers if isinstance(observer, Observers) else (observer,))
        )
        self._by_kind: dict[type[AnyTelemetryEvent], tuple[Observer, ...]] = {}

    def on(self, event: AnyTelemetryEvent) -> None:
        """Takes one event; returns at once. If an observer raises, the other observers get ObserverFailed and the error goes no further."""
        observers = self._by_kind.get(type(event))
        for observer in self._find(type(event)) if observers is None else observers:
            try:
                observer.on(event)
            except BaseException as error:  # noqa: BLE001 - foreign code: whatever it raises, the engine goes on
                self._emit_failed(observer, error)

    def _find(self, kind: type[AnyTelemetryEvent]) -> tuple[Observer, ...]:
        """The observers that get events of this type."""
        found = self._by_kind[kind] = tuple(each for each in self._observers if _wants(each, kind))
        return found

    def _emit_failed(self, failed: Observer, error: BaseException) -> None:
        event = ObserverFailed(observer=type(failed).__name__, reason=type(error).__name__)
        for observer in self._observers:
            if observer is not failed:
                with suppress(BaseException):
                    observer.on(event)


def _wants(observer: Observer, kind: type[AnyTelemetryEvent]) -> bool:
    try:
        return not isinstance(observer, SelectiveObserver) or bool(observer.wants(kind))
    except Exception:  # noqa: BLE001 - foreign code: an observer that cannot say gets everything
        return True
