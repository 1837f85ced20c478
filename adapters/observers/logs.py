"""Owns the log: which event is a line at which level, and how lines of the engine and of libraries look."""

import logging
import sys
from collections.abc import AsyncIterator, Callable, Hashable, Iterator, Mapping, MutableMapping
from contextlib import asynccontextmanager, contextmanager, suppress
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Literal, TextIO

import structlog
from pydantic import BaseModel, ConfigDict

from adapters.observers.redaction import clean
from adapters.observers.repeats import Repeats
from poller.plugins import Environment, Plugin
from poller.ports import Clock
from poller.records import MappingId, Monotonic, Position, ShardId
from poller.telemetry import (
    Bisected,
    Blocked,
    Capacity,
    CheckpointSaved,
    ConfigurationReloaded,
    Deleted,
    DestinationFailed,
    Discarded,
    Ended,
    Event,
    Filtered,
    InvocationFinished,
    InvocationStarted,
    LeaseMoved,
    MappingChanged,
    MappingState,
    Polled,
    Pollers,
    PortFailed,
    RecordsLost,
    Released,
    Retrying,
    ShardStarted,
    ShardStopped,
    StoreFailed,
)

BLOCKED_TOLD_S = 10.0
"""Getting through again is told when the failing was told, or lasted this long."""
SHARDS_MAX = 10_000
"""Blocked shards that are remembered."""
UNBLOCKED = "unblocked"
LIBRARIES = ("botocore", "aiobotocore", "aiohttp", "asyncio", "urllib3")
"""Libraries that log requests and credentials below WARNING; they are kept at WARNING whatever the level here."""
TRACE_CHARS_MAX = 4000

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
    Pollers: logging.INFO,
    ConfigurationReloaded: _reload_level,
    StoreFailed: logging.WARNING,
}
"""At which level each event is logged."""
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
    Pollers: "pollers",
    ConfigurationReloaded: "configuration_reloaded",
    StoreFailed: "store_failed",
}
"""What each event is called in the field `event`."""


def _trouble(event: Event) -> Hashable:
    """Events with the same key are the same trouble again; None for events that are always told."""
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
        case Deleted() | Released() | Pollers():
            return (type(event), event.mapping)
        case _:
            return None


def _plain(value: Any) -> Any:
    match value:
        case StrEnum():
            return value.value
        case str():
            return clean(value)
        case float():
            return round(value, 3)
        case Position():
            return value.encode()
        case _:
            return value


def fields_of(event: Event) -> Fields:
    """An event's fields as plain values; those without a value are left out."""
    found = ((name, getattr(event, name)) for name in event.__struct_fields__)
    return {name: _plain(value) for name, value in found if value is not None and value != ""}


class LogObserver:
    """Writes one line for each change of state; the same trouble again is told at growing intervals only."""

    def __init__(self, write: Callable[[int, str, Fields], None], clock: Clock, *, level: int) -> None:
        self._write = write
        self._clock = clock
        self._level = level
        self._repeats = Repeats()
        # Most events are never told; they need no further look.
        self._quiet = {
            kind for kind, least in LEVELS.items() if isinstance(least, int) and least < level
        } - CHANGES
        self._blocked: dict[tuple[MappingId, ShardId], dict[int, tuple[Monotonic, bool]]] = {}

    def on(self, event: Event) -> None:
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

    def _tell(self, event: Event) -> bool:
        level = LEVELS[type(event)]
        level = level if isinstance(level, int) else level(event)
        if level < self._level:
            return False
        untold = 0
        if level > logging.DEBUG and (key := _trouble(event)) is not None:
            found = self._repeats.telling(key, self._clock.monotonic())
            if found is None:
                return False
            untold = found
        more = {"untold": untold} if untold else {}
        self._write(level, WORDS[type(event)], fields_of(event) | more)
        return True

    def _block(self, event: Blocked) -> None:
        told = self._tell(event)
        if len(self._blocked) < SHARDS_MAX:
            lanes = self._blocked.setdefault((event.mapping, event.shard), {})
            lanes.setdefault(event.lane, (self._clock.monotonic(), told))

    def _unblock(self, event: Blocked) -> None:
        now = self._clock.monotonic()
        shard = (event.mapping, event.shard)
        lanes = self._blocked.get(shard, {})
        since, told = lanes.pop(event.lane, (now, False))
        if not lanes:
            self._blocked.pop(shard, None)
        if not told and now - since < BLOCKED_TOLD_S:
            return
        self._repeats.over(("invocation", *shard))
        self._repeats.over(("retry", *shard))
        if self._level <= logging.INFO:
            more = {"blocked_s": round(now - since, 3)}
            self._write(logging.INFO, UNBLOCKED, fields_of(event) | more)


def _event_first(_logger: Any, _method: str, line: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    return {name: line[name] for name in ("timestamp", "level", "event")} | dict(line)


class Lines:
    """Writes lines to a stream; a stream that takes no more loses them, the engine goes on."""

    def __init__(self, stream: TextIO, clock: Clock, *, console: bool) -> None:
        renderer: Any = (
            structlog.dev.ConsoleRenderer(colors=stream.isatty(), sort_keys=False)
            if console
            else structlog.processors.JSONRenderer(ensure_ascii=False, default=str)
        )
        self._logger = structlog.wrap_logger(
            structlog.WriteLogger(stream),
            processors=[_event_first, renderer] if not console else [renderer],
            wrapper_class=structlog.BoundLogger,
        )
        self._clock = clock

    def write(self, level: int, word: str, more: Fields) -> None:
        """One line: time in UTC, level, what happened, and the fields."""
        name = logging.getLevelName(level).lower()
        time = datetime.fromtimestamp(self._clock.now(), UTC).isoformat(timespec="milliseconds")
        line = {"timestamp": time.replace("+00:00", "Z"), "level": name} | more
        with suppress(OSError, ValueError):
            getattr(self._logger, _METHODS.get(name, "info"))(word, **line)


_METHODS = {"debug": "debug", "info": "info", "warning": "warning", "error": "error", "critical": "error"}


class LibraryLines(logging.Handler):
    """Writes what libraries log from WARNING on as lines like ours, without credentials."""

    def __init__(self, write: Callable[[int, str, Fields], None]) -> None:
        super().__init__(logging.WARNING)
        self._write_line = write

    def emit(self, record: logging.LogRecord) -> None:
        """Writes one record; its traceback is cut to the end, where the cause stands."""
        more: Fields = {"logger": record.name, "message": clean(_message(record))}
        if record.exc_info and record.exc_info[1] is not None:
            more["error"] = clean(f"{type(record.exc_info[1]).__name__}: {record.exc_info[1]}")
            trace = logging.Formatter().formatException(record.exc_info)
            more["trace"] = clean(trace[-TRACE_CHARS_MAX:], chars_max=TRACE_CHARS_MAX)
        self._write_line(record.levelno, "library", more)


def _message(record: logging.LogRecord) -> str:
    try:
        return record.getMessage()
    except (TypeError, ValueError):
        return str(record.msg)


@contextmanager
def libraries_logged(handler: logging.Handler) -> Iterator[None]:
    """Sends what libraries log to `handler`, none of it below WARNING; puts everything back at the end."""
    root = logging.getLogger()
    loggers = [logging.getLogger(name) for name in LIBRARIES]
    before = [(logger, logger.level) for logger in loggers]
    root.addHandler(handler)
    for logger in loggers:
        logger.setLevel(max(logger.level, logging.WARNING))
    try:
        yield
    finally:
        root.removeHandler(handler)
        for logger, level in before:
            logger.setLevel(level)


class LogSettings(BaseModel):
    """`format`: json for machines, console for people. `level`: the lowest level of the daemon's own lines."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: Literal["json", "console"] = "json"
    level: Literal["debug", "info", "warning", "error"] = "info"


@asynccontextmanager
async def open_logs(settings: LogSettings, env: Environment) -> AsyncIterator[LogObserver]:
    """An observer that writes to stderr, and the libraries' lines beside its own."""
    lines = Lines(sys.stderr, env.clock, console=settings.format == "console")
    with libraries_logged(LibraryLines(lines.write)):
        yield LogObserver(lines.write, env.clock, level=getattr(logging, settings.level.upper()))


plugin = Plugin("logs", LogSettings, open_logs)
