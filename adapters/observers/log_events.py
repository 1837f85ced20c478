"""Owns how a telemetry event becomes a line of the log: its name, its level, its fields, and which problem it is about.

A log that repeats a lasting problem with every retry hides everything else. So an event about a problem has a problem key,
which says where the problem is, and a text, which says what is wrong. The log throttle decides by these two how often to log.
"""

import logging
from collections.abc import Callable, Hashable, Mapping
from enum import StrEnum
from typing import Any

from poller.domain.functions.queued_calls import CallEnd
from poller.domain.functions.shifts import ShiftState
from poller.domain.invocations import Ended
from poller.domain.operations import OperationState
from poller.domain.records import Position
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
from poller.domain.telemetry.labels import BreakerState
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
from poller.domain.telemetry.observers import AnyTelemetryEvent
from poller.domain.telemetry.operation_events import (
    OperationAccepted,
    OperationOver,
    PausesChanged,
    ReplayCounted,
    ReplayTroubled,
)
from poller.domain.untrusted.texts import ends_of, line_of

TEXT_CHARS_MAX = 500
"""The longest text in a line. A longer one is cut."""
LINES_MAX = 100
"""The lines of a stack trace that a line shows."""

NOT_MASKED = frozenset({"who"})
"""Fields that are logged as they are: an access key id looks like a credential, but the operator chose it and it is no secret."""

type Fields = dict[str, Any]


def _changed_level(event: MappingChanged) -> int:
    return logging.ERROR if event.state is MappingState.BROKEN else logging.INFO


def _finished_level(event: InvocationFinished | FunctionCalled) -> int:
    return logging.DEBUG if event.ended is Ended.SUCCESS else logging.WARNING


def _call_ended_level(event: QueuedCallEnded) -> int:
    return logging.DEBUG if event.end is CallEnd.SUCCESS else logging.WARNING


def _shift_level(event: ShiftChanged) -> int:
    return logging.WARNING if event.state is ShiftState.ROLLED_BACK else logging.INFO


def _discarded_level(event: Discarded) -> int:
    return logging.WARNING if event.delivered else logging.ERROR


def _destination_level(event: DestinationFailed) -> int:
    return logging.WARNING if event.wait_s is not None else logging.ERROR


def _deleted_level(event: Deleted) -> int:
    return logging.WARNING if event.lapsed or event.failed else logging.DEBUG


def _lease_level(event: LeaseMoved) -> int:
    return logging.INFO if event.held else logging.WARNING


def _function_level(event: FunctionChanged) -> int:
    return logging.WARNING if event.reason else logging.INFO


def _breaker_level(event: BreakerChanged) -> int:
    if event.state is BreakerState.OPEN:
        return logging.WARNING
    return logging.INFO if event.state is BreakerState.CLOSED and event.reason else logging.DEBUG


def _place_level(event: PlaceFound) -> int:
    return logging.WARNING if event.place == "unclear" else logging.INFO


def _api_level(event: ApiChange) -> int:
    return logging.WARNING if event.refused else logging.INFO


def _operation_level(event: OperationOver) -> int:
    return logging.WARNING if event.state is OperationState.FAILED else logging.INFO


def _ended_level(event: DaemonEnded) -> int:
    return logging.ERROR if event.exit_status else logging.INFO


def _reload_level(event: ConfigurationReloaded | CodeReloaded) -> int:
    return logging.INFO if event.ok else logging.ERROR


LEVELS: Mapping[type, int | Callable[[Any], int]] = {
    MappingChanged: _changed_level,
    Polled: logging.DEBUG,
    SourceCalled: logging.DEBUG,
    Filtered: logging.DEBUG,
    InvocationStarted: logging.DEBUG,
    InvocationFinished: _finished_level,
    FunctionCalled: _finished_level,
    VersionCalled: logging.DEBUG,
    AliasWeight: logging.DEBUG,
    ShiftChanged: _shift_level,
    QueuedCallEnded: _call_ended_level,
    CallDeliveryFailed: logging.WARNING,
    CallsWaiting: logging.DEBUG,
    Retrying: logging.WARNING,
    Bisected: logging.INFO,
    Discarded: _discarded_level,
    DestinationFailed: _destination_level,
    Blocked: logging.WARNING,
    Deleted: _deleted_level,
    Released: logging.INFO,
    RetriesDelayed: logging.DEBUG,
    RetryAfterIgnored: logging.WARNING,
    CheckpointSaved: logging.DEBUG,
    ShardStarted: logging.INFO,
    ShardStopped: logging.INFO,
    LeaseMoved: _lease_level,
    RecordsLost: logging.ERROR,
    PortFailed: logging.WARNING,
    Capacity: logging.DEBUG,
    FunctionChanged: _function_level,
    VisibilityTooShort: logging.WARNING,
    FunctionOpened: logging.INFO,
    CodeReloaded: _reload_level,
    Pollers: logging.INFO,
    GroupsBlocked: logging.DEBUG,
    PlaceFound: _place_level,
    ConfigurationReloaded: _reload_level,
    ConfigurationUnread: logging.WARNING,
    StoreFailed: logging.WARNING,
    TaskEnded: logging.ERROR,
    CallLeftBehind: logging.ERROR,
    BreakerChanged: _breaker_level,
    ObserverFailed: logging.ERROR,
    LoopBlocked: logging.WARNING,
    MemoryUsed: logging.DEBUG,
    FleetSized: logging.INFO,
    StrangerRefused: logging.WARNING,
    ApiChange: _api_level,
    PayloadsShown: logging.INFO,
    DaemonStarting: logging.INFO,
    DaemonEnded: _ended_level,
    StopCutShort: logging.WARNING,
    OperationAccepted: logging.INFO,
    OperationOver: _operation_level,
    PausesChanged: logging.INFO,
    ReplayCounted: logging.DEBUG,
    ReplayTroubled: logging.WARNING,
}
"""The level at which each event is logged."""
RELEVANT_BELOW_LEVEL = frozenset({Blocked, ShardStopped, LeaseMoved})
"""Events that the log needs for its own state even when their level is too low to be logged."""

EVENT_NAMES: Mapping[type, str] = {
    MappingChanged: "mapping_changed",
    Polled: "polled",
    SourceCalled: "source_called",
    Filtered: "filtered",
    InvocationStarted: "invocation_started",
    InvocationFinished: "invocation_finished",
    Retrying: "retrying",
    Bisected: "bisected",
    Discarded: "discarded",
    DestinationFailed: "destination_failed",
    Blocked: "blocked",
    Deleted: "deleted",
    Released: "released",
    RetriesDelayed: "retries_delayed",
    RetryAfterIgnored: "retry_after_ignored",
    CheckpointSaved: "checkpoint_saved",
    ShardStarted: "shard_started",
    ShardStopped: "shard_stopped",
    LeaseMoved: "lease_moved",
    RecordsLost: "records_lost",
    PortFailed: "port_failed",
    Capacity: "capacity",
    FunctionChanged: "function_changed",
    VisibilityTooShort: "visibility_too_short",
    FunctionOpened: "function_opened",
    CodeReloaded: "code_reloaded",
    Pollers: "pollers",
    GroupsBlocked: "groups_blocked",
    PlaceFound: "place_found",
    ConfigurationReloaded: "configuration_reloaded",
    ConfigurationUnread: "configuration_unread",
    StoreFailed: "store_failed",
    TaskEnded: "task_ended",
    CallLeftBehind: "call_left_behind",
    FunctionCalled: "function_called",
    VersionCalled: "version_called",
    AliasWeight: "alias_weight",
    ShiftChanged: "alias_shift",
    QueuedCallEnded: "async_call_ended",
    CallDeliveryFailed: "async_delivery_failed",
    CallsWaiting: "async_calls_waiting",
    BreakerChanged: "breaker_changed",
    ObserverFailed: "observer_failed",
    LoopBlocked: "loop_blocked",
    MemoryUsed: "memory_used",
    FleetSized: "fleet_sized",
    StrangerRefused: "stranger_refused",
    ApiChange: "api_change",
    PayloadsShown: "payloads_shown",
    DaemonStarting: "daemon_starting",
    DaemonEnded: "daemon_ended",
    StopCutShort: "stop_cut_short",
    OperationAccepted: "operation_accepted",
    OperationOver: "operation_over",
    PausesChanged: "pauses_changed",
    ReplayCounted: "replay_counted",
    ReplayTroubled: "replay_troubled",
}
"""The name of each event, which is the value of the field `event`."""


def level_of(event: AnyTelemetryEvent) -> int:
    """Returns the level at which an event is logged."""
    level = LEVELS[type(event)]
    return level if isinstance(level, int) else level(event)


def problem_of(event: AnyTelemetryEvent) -> Hashable:
    """Returns the key of the problem that an event is about; None for events that are always logged."""
    match event:
        case InvocationFinished() if event.ended is not Ended.SUCCESS:
            return ("invocation", event.mapping, event.shard)
        case Retrying():
            return ("retry", event.mapping, event.shard)
        case Blocked(blocked=True):
            return ("blocked", event.mapping, event.shard, event.lane)
        case DestinationFailed() if event.wait_s is not None:
            return ("destination", event.mapping, event.shard)
        case RetryAfterIgnored():
            return ("retry after", event.function)
        case PortFailed():
            return ("port", event.mapping, event.shard, event.port, event.error)
        case Bisected():
            return ("bisected", event.mapping, event.shard)
        case StoreFailed():
            return ("store", event.error)
        case CallLeftBehind():
            return ("left behind", event.function)
        case LoopBlocked():
            return ("loop", event.place)
        case StrangerRefused():
            return ("stranger", event.listener, event.reason, event.function, event.uid)
        case ObserverFailed():
            return ("observer", event.observer)
        case ApiChange() if event.refused or event.broken_off:
            return ("api", event.operation, event.broken_off)
        case ReplayTroubled():
            return ("replay", event.operation, event.shard, event.what)
        case TaskEnded():
            return ("task", event.mapping, event.task, event.end)
        case Deleted() | Released() | Pollers() | GroupsBlocked():
            return (type(event), event.mapping)
        case _:
            return None


def problem_text(event: AnyTelemetryEvent) -> str:
    """Returns the free texts of an event, which tell different problems with the same key apart."""
    match event:
        case ApiChange():
            return f"{event.who} {event.refused}"
        case _:
            found = (getattr(event, name, "") for name in ("ended", "error", "reason"))
            return " ".join(text for text in found if text)


def _plain(value: Any) -> Any:
    match value:
        case StrEnum():
            return value.value
        case str():
            return line_of(value, chars_max=TEXT_CHARS_MAX)
        case tuple():
            return list(ends_of(value, lines_max=LINES_MAX, chars_max=TEXT_CHARS_MAX))
        case float():
            return round(value, 3)
        case Position():
            return value.encode()
        case _:
            return value


def fields_of(event: AnyTelemetryEvent) -> Fields:
    """Returns an event's fields as plain values, without the empty ones."""
    found = ((name, getattr(event, name)) for name in event.__struct_fields__)
    return {
        name: value if name in NOT_MASKED else _plain(value)
        for name, value in found
        if value is not None and value not in ("", ())
    }
