"""Owns the log: which event is a line at which level, and how lines of the engine and of libraries look."""

import asyncio
import codecs
import io
import json
import logging
import sys
import threading
from collections.abc import AsyncIterator, Callable, Hashable, Iterable, Mapping, MutableMapping
from contextlib import asynccontextmanager, suppress
from enum import StrEnum
from typing import Any, Literal, TextIO

import structlog
from pydantic import BaseModel, ConfigDict

from adapters.observers.function_lines import Later, function_lines, later_on
from adapters.observers.library_lines import LibraryLines, libraries_logged, warnings_logged
from adapters.observers.log_throttle import Repeats, Telling
from poller.domain.records import MappingId, Monotonic, Position, ShardId
from poller.domain.telemetry import (
    AnyTelemetryEvent,
    ApiChange,
    Bisected,
    Blocked,
    CallLeftBehind,
    Capacity,
    CheckpointSaved,
    ConfigurationReloaded,
    DaemonEnded,
    DaemonStarting,
    Deleted,
    DestinationFailed,
    Discarded,
    Ended,
    Filtered,
    FunctionChanged,
    FunctionOpened,
    GroupsBlocked,
    InvocationFinished,
    InvocationStarted,
    LeaseMoved,
    LoopBlocked,
    MappingChanged,
    MappingState,
    ObserverFailed,
    PlaceFound,
    Polled,
    Pollers,
    PortFailed,
    RecordsLost,
    Released,
    Retrying,
    ShardStarted,
    ShardStopped,
    StopCutShort,
    StoreFailed,
    StrangerRefused,
    TaskEnded,
    VisibilityTooShort,
)
from poller.domain.untrusted.numbers import date_of
from poller.domain.untrusted.rendering import as_json
from poller.domain.untrusted.texts import ends_of, line_of
from poller.plugins import Environment, Plugin
from poller.ports import Clock

BLOCKED_TOLD_S = 10.0
"""Getting through again is told when the failing was told, or lasted this long."""
SHARDS_MAX = 10_000
"""Blocked shards that are remembered."""
UNBLOCKED = "unblocked"
LINES_DROPPED = "log_lines_dropped"
LAST_WORDS = "daemon_fault"
TEXT_CHARS_MAX = 500
"""Of one text in a line."""
LINES_MAX = 100
"""Of a stack trace in a line."""

NO_SECRETS = frozenset({"who"})
"""Texts of the operator's own: an access key id is none, although it looks like a credential."""

type Fields = dict[str, Any]


def _changed_level(event: MappingChanged) -> int:
    return logging.ERROR if event.state is MappingState.BROKEN else logging.INFO


def _finished_level(event: InvocationFinished) -> int:
    return logging.DEBUG if event.ended is Ended.SUCCESS else logging.WARNING


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


def _place_level(event: PlaceFound) -> int:
    return logging.WARNING if event.place == "unclear" else logging.INFO


def _api_level(event: ApiChange) -> int:
    return logging.WARNING if event.refused else logging.INFO


def _ended_level(event: DaemonEnded) -> int:
    return logging.ERROR if event.exit_status else logging.INFO


def _reload_level(event: ConfigurationReloaded) -> int:
    return logging.INFO if event.ok else logging.ERROR


LEVELS: Mapping[type, int | Callable[[Any], int]] = {
    MappingChanged: _changed_level,
    Polled: logging.DEBUG,
    Filtered: logging.DEBUG,
    InvocationStarted: logging.DEBUG,
    InvocationFinished: _finished_level,
    Retrying: logging.WARNING,
    Bisected: logging.INFO,
    Discarded: _discarded_level,
    DestinationFailed: _destination_level,
    Blocked: logging.WARNING,
    Deleted: _deleted_level,
    Released: logging.INFO,
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
    Pollers: logging.INFO,
    GroupsBlocked: logging.DEBUG,
    PlaceFound: _place_level,
    ConfigurationReloaded: _reload_level,
    StoreFailed: logging.WARNING,
    TaskEnded: logging.ERROR,
    CallLeftBehind: logging.ERROR,
    ObserverFailed: logging.ERROR,
    LoopBlocked: logging.WARNING,
    StrangerRefused: logging.WARNING,
    ApiChange: _api_level,
    DaemonStarting: logging.INFO,
    DaemonEnded: _ended_level,
    StopCutShort: logging.WARNING,
}
"""At which level each event is logged."""
RING_MARGIN_S = 0.001
"""Timers may come a little early."""
CHANGES = frozenset({Blocked, ShardStopped, LeaseMoved})
"""Events that matter to others that follow."""

WORDS: Mapping[type, str] = {
    MappingChanged: "mapping_changed",
    Polled: "polled",
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
    Pollers: "pollers",
    GroupsBlocked: "groups_blocked",
    PlaceFound: "place_found",
    ConfigurationReloaded: "configuration_reloaded",
    StoreFailed: "store_failed",
    TaskEnded: "task_ended",
    CallLeftBehind: "call_left_behind",
    ObserverFailed: "observer_failed",
    LoopBlocked: "loop_blocked",
    StrangerRefused: "stranger_refused",
    ApiChange: "api_change",
    DaemonStarting: "daemon_starting",
    DaemonEnded: "daemon_ended",
    StopCutShort: "stop_cut_short",
}
"""What each event is called in the field `event`."""


def level_of(event: AnyTelemetryEvent) -> int:
    """At which level an event is logged."""
    level = LEVELS[type(event)]
    return level if isinstance(level, int) else level(event)


def _trouble(event: AnyTelemetryEvent) -> Hashable:
    """Where an event's trouble is; None for events that are always told. `_text` tells kinds of one place apart."""
    match event:
        case InvocationFinished() if event.ended is not Ended.SUCCESS:
            return ("invocation", event.mapping, event.shard)
        case Retrying():
            return ("retry", event.mapping, event.shard)
        case Blocked(blocked=True):
            return ("blocked", event.mapping, event.shard, event.lane)
        case DestinationFailed() if event.wait_s is not None:
            return ("destination", event.mapping, event.shard)
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
        case TaskEnded():
            return ("task", event.mapping, event.task, event.end)
        case Deleted() | Released() | Pollers() | GroupsBlocked():
            return (type(event), event.mapping)
        case _:
            return None


def _text(event: AnyTelemetryEvent) -> str:
    """By what kinds of trouble at one place are told apart: all free texts of the event."""
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
    """An event's fields as plain values; those without a value are left out."""
    found = ((name, getattr(event, name)) for name in event.__struct_fields__)
    return {
        name: value if name in NO_SECRETS else _plain(value)
        for name, value in found
        if value is not None and value not in ("", ())
    }


class LogObserver:
    """Writes one line for each change of state; the same trouble again is told at growing intervals only."""

    def __init__(
        self,
        write: Callable[[int, str, Fields], None],
        clock: Clock,
        *,
        level: int,
        later: Later | None = None,
    ) -> None:
        self._write = write
        self._clock = clock
        self._level = level
        self._later = later
        self._repeats: Repeats[AnyTelemetryEvent] = Repeats()
        self._rings_at: Monotonic | None = None
        # Most events are never told; they need no further look.
        self._quiet = {
            kind for kind, least in LEVELS.items() if isinstance(least, int) and least < level
        } - CHANGES
        self._blocked: dict[tuple[MappingId, ShardId], dict[int, tuple[Monotonic, bool]]] = {}

    def on(self, event: AnyTelemetryEvent) -> None:
        """Takes one event; returns at once."""
        if type(event) in self._quiet:
            return
        match event:
            case Blocked(blocked=True):
                self._block(event)
            case Blocked():
                self._unblock(event)
            case ShardStopped() | LeaseMoved(held=False):
                self._blocked.pop((event.mapping, event.shard), None)
                self._tell(event)
            case _:
                self._tell(event)

    def close(self) -> None:
        """Tells what is still untold."""
        self._write_all(self._repeats.rest())

    def _tell(self, event: AnyTelemetryEvent) -> bool:
        level = level_of(event)
        if level < self._level:
            return False
        if level == logging.DEBUG or (place := _trouble(event)) is None:
            self._write_event(Telling(event, new=True))
            return True
        told = self._repeats.happened(place, event, self._clock.monotonic(), text=_text(event))
        for each in told:
            self._write_event(each)
        self._ring_when_due()
        return any(each.event is event for each in told)

    def _ring_when_due(self) -> None:
        """Has the untold told when their interval is over, also when nothing more happens."""
        due = self._repeats.next_due()
        if due is None or self._later is None or (self._rings_at is not None and self._rings_at <= due):
            return
        self._rings_at = due
        self._later(max(0.0, due - self._clock.monotonic()) + RING_MARGIN_S, self._ring)

    def _ring(self) -> None:
        self._rings_at = None
        self._write_all(self._repeats.due(self._clock.monotonic()))
        self._ring_when_due()

    def _write_all(self, tellings: Iterable[Telling[AnyTelemetryEvent]]) -> None:
        """Writes what was untold so far; a lane that is no longer blocked has been told to be free."""
        for each in tellings:
            if not isinstance(each.event, Blocked) or self._is_blocked(each.event):
                self._write_event(each)

    def _write_event(self, telling: Telling[AnyTelemetryEvent]) -> None:
        event = telling.event
        more = {"untold": telling.untold} if telling.untold else {}
        fields = fields_of(event)
        if not telling.new:
            # Whoever looks for the stack trace finds it where the error was new.
            fields.pop("stack_trace", None)
        self._write(level_of(event), WORDS[type(event)], fields | more)

    def _is_blocked(self, event: Blocked) -> bool:
        return event.lane in self._blocked.get((event.mapping, event.shard), {})

    def _block(self, event: Blocked) -> None:
        told = self._tell(event)
        if len(self._blocked) < SHARDS_MAX:
            lanes = self._blocked.setdefault((event.mapping, event.shard), {})
            for_s = max(0.0, self._clock.now() - event.since) if event.since is not None else 0.0
            lanes.setdefault(event.lane, (Monotonic(self._clock.monotonic() - for_s), told))

    def _unblock(self, event: Blocked) -> None:
        now = self._clock.monotonic()
        shard = (event.mapping, event.shard)
        lanes = self._blocked.get(shard, {})
        since, told = lanes.pop(event.lane, (now, False))
        if not lanes:
            self._blocked.pop(shard, None)
        if not told and now - since < BLOCKED_TOLD_S:
            return
        self._write_all(self._repeats.over(("invocation", *shard)))
        self._write_all(self._repeats.over(("retry", *shard)))
        if self._level <= logging.INFO:
            more = {"blocked_s": round(now - since, 3)}
            self._write(logging.INFO, UNBLOCKED, fields_of(event) | more)


def _event_first(_logger: Any, _method: str, line: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    return {name: line[name] for name in ("timestamp", "level", "event")} | dict(line)


def _in_json(stream: TextIO) -> Callable[[Any, str, Mapping[str, Any]], str]:
    """Renders a line; for a stream that does not take every character, with nothing but ASCII."""
    ascii_only = codecs.lookup(getattr(stream, "encoding", None) or "utf-8").name != "utf-8"

    def render(_logger: Any, _method: str, line: Mapping[str, Any]) -> str:
        encoded = as_json(dict(line))
        return json.dumps(json.loads(encoded)) if ascii_only else encoded.decode()

    return render


class Lines:
    """Writes lines to a stream; a stream that takes no more loses them, the engine goes on."""

    def __init__(self, stream: TextIO, clock: Clock, *, console: bool) -> None:
        renderer: Any = (
            structlog.dev.ConsoleRenderer(colors=stream.isatty(), sort_keys=False)
            if console
            else _in_json(stream)
        )
        self._logger = structlog.wrap_logger(
            structlog.WriteLogger(stream),
            processors=[_event_first, renderer] if not console else [renderer],
            wrapper_class=structlog.BoundLogger,
        ).bind()  # A function may configure structlog too; what is bound keeps its own configuration.
        self._clock = clock
        self._lock = threading.Lock()

    def write(self, level: int, word: str, more: Fields) -> None:
        """One line: time in UTC, level, what happened, and the fields. May be called from any thread."""
        name = _NAMES.get(level, "info")
        time = date_of(self._clock.now()).isoformat(timespec="milliseconds")
        line = {"timestamp": time.replace("+00:00", "Z"), "level": name} | more
        with self._lock, suppress(OSError, ValueError):
            getattr(self._logger, _METHODS.get(name, "info"))(word, **line)


_NAMES = {
    number: name.lower()
    for name, number in logging.getLevelNamesMapping().items()
    if name not in ("WARN", "FATAL", "NOTSET")
}
"""As they are at the start: a function may give levels other names."""
_METHODS = {"debug": "debug", "info": "info", "warning": "warning", "error": "error", "critical": "error"}


class LogSettings(BaseModel):
    """`format`: json for machines, console for people. `level`: the lowest level of the daemon's own lines."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: Literal["json", "console"] = "json"
    level: Literal["debug", "info", "warning", "error"] = "info"


def _dropped_line(clock: Clock, *, console: bool) -> Callable[[int], str]:
    """How the log says that lines are missing."""

    def line(lines: int) -> str:
        page = io.StringIO()
        Lines(page, clock, console=console).write(logging.WARNING, LINES_DROPPED, {"lines": lines})
        return page.getvalue()

    return line


def _last_line(clock: Clock) -> Callable[[str], str]:
    """How a line looks that is told when the log is closed."""

    def line(text: str) -> str:
        page = io.StringIO()
        Lines(page, clock, console=False).write(logging.ERROR, LAST_WORDS, {"message": text})
        return page.getvalue()

    return line


def _end_line(clock: Clock, *, console: bool, level: int) -> Callable[[DaemonEnded], str]:
    """How the end of the daemon looks, which is told when the log is closed."""

    def line(event: DaemonEnded) -> str:
        page = io.StringIO()
        LogObserver(Lines(page, clock, console=console).write, clock, level=level).on(event)
        return page.getvalue()

    return line


@asynccontextmanager
async def open_logs(settings: LogSettings, env: Environment) -> AsyncIterator[LogObserver]:
    """An observer that writes to stderr, and the lines of functions and of libraries beside its own."""
    console = settings.format == "console"
    lines = Lines(sys.stderr, env.clock, console=console)
    level = getattr(logging, settings.level.upper())
    env.dropped_lines.notice = _dropped_line(env.clock, console=console)
    if not console:
        env.last_words.form = _last_line(env.clock)
    env.last_words.end = _end_line(env.clock, console=console, level=level)
    async with function_lines(lines.write, env.clock) as receiver:
        with (
            env.function_log.received_by(receiver),
            libraries_logged(LibraryLines(lines.write)),
            warnings_logged(lines.write),
        ):
            observer = LogObserver(
                lines.write,
                env.clock,
                level=level,
                later=later_on(asyncio.get_running_loop()),
            )
            try:
                yield observer
            finally:
                observer.close()


plugin = Plugin("logs", LogSettings, open_logs)
