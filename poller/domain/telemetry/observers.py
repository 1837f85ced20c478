"""Owns the protocol of observers, which receive telemetry events. Observers must not block and must not raise."""

from contextlib import suppress
from typing import Protocol

from poller.domain.telemetry.daemon_events import (
    ApiChange,
    CallLeftBehind,
    Capacity,
    ConfigurationReloaded,
    DaemonEnded,
    DaemonStarting,
    FunctionChanged,
    FunctionOpened,
    LoopBlocked,
    ObserverFailed,
    StopCutShort,
    StoreFailed,
    StrangerRefused,
    TaskEnded,
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
    Retrying,
    ShardStarted,
    ShardStopped,
    VisibilityTooShort,
)

type AnyTelemetryEvent = (
    MappingChanged
    | Polled
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
    | CheckpointSaved
    | ShardStarted
    | ShardStopped
    | LeaseMoved
    | RecordsLost
    | PortFailed
    | Capacity
    | FunctionChanged
    | VisibilityTooShort
    | FunctionOpened
    | Pollers
    | GroupsBlocked
    | PlaceFound
    | ConfigurationReloaded
    | StoreFailed
    | TaskEnded
    | CallLeftBehind
    | ObserverFailed
    | StrangerRefused
    | LoopBlocked
    | ApiChange
    | DaemonStarting
    | DaemonEnded
    | StopCutShort
)


class Observer(Protocol):
    """Receives every event, in order, on the loop."""

    def on(self, event: AnyTelemetryEvent) -> None:
        """Takes one event; returns at once."""
        ...


class Observers:
    """Hands each event to several observers. An observer that is a group itself is replaced by its members, which saves a call an event."""

    def __init__(self, observers: tuple[Observer, ...]) -> None:
        self._observers: tuple[Observer, ...] = tuple(
            each
            for observer in observers
            for each in (observer._observers if isinstance(observer, Observers) else (observer,))
        )

    def on(self, event: AnyTelemetryEvent) -> None:
        """Takes one event; returns at once. If an observer raises, the other observers get ObserverFailed and the error goes no further."""
        for observer in self._observers:
            try:
                observer.on(event)
            except BaseException as error:  # noqa: BLE001 - foreign code: whatever it raises, the engine goes on
                self._emit_failed(observer, error)

    def _emit_failed(self, failed: Observer, error: BaseException) -> None:
        event = ObserverFailed(observer=type(failed).__name__, reason=type(error).__name__)
        for observer in self._observers:
            if observer is not failed:
                with suppress(BaseException):
                    observer.on(event)
