"""Owns the form of a line of the log: JSON for machines, or coloured text for people.

A stream that takes no more loses lines. The daemon goes on.
"""

import codecs
import json
import logging
import threading
from collections.abc import Callable, Mapping, MutableMapping
from contextlib import suppress
from typing import Any, TextIO

import structlog

from adapters.observers.log_events import Fields
from poller.domain.untrusted.numbers import date_of
from poller.domain.untrusted.rendering import as_json
from poller.ports import Clock


def _event_first(_logger: Any, _method: str, line: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    return {name: line[name] for name in ("timestamp", "level", "event")} | dict(line)


def _in_json(stream: TextIO) -> Callable[[Any, str, Mapping[str, Any]], str]:
    """Returns what renders a line as JSON. A stream whose encoding is not UTF-8 gets ASCII only."""
    ascii_only = codecs.lookup(getattr(stream, "encoding", None) or "utf-8").name != "utf-8"

    def render(_logger: Any, _method: str, line: Mapping[str, Any]) -> str:
        encoded = as_json(dict(line))
        return json.dumps(json.loads(encoded)) if ascii_only else encoded.decode()

    return render


class LineWriter:
    """Writes lines to a stream. A line that the stream does not take is lost. Each line has the index `process`, if it is given."""

    def __init__(self, stream: TextIO, clock: Clock, *, console: bool, process: int | None = None) -> None:
        self._own = {} if process is None else {"process": process}
        renderer: Any = (
            structlog.dev.ConsoleRenderer(colors=stream.isatty(), sort_keys=False)
            if console
            else _in_json(stream)
        )
        self._logger = (
            structlog.wrap_logger(
                structlog.WriteLogger(stream),
                processors=[_event_first, renderer] if not console else [renderer],
                wrapper_class=structlog.BoundLogger,
            ).bind()
        )  # Bound now: a function may configure structlog too, and a bound logger keeps its configuration.
        self._clock = clock
        self._lock = threading.Lock()

    def write(self, level: int, event: str, more: Fields) -> None:
        """Writes one line with the time in UTC, the level, the event and its fields. May be called from any thread."""
        name = _NAMES.get(level, "info")
        time = date_of(self._clock.now()).isoformat(timespec="milliseconds")
        line = {"timestamp": time.replace("+00:00", "Z"), "level": name} | more | self._own
        with self._lock, suppress(OSError, ValueError):
            getattr(self._logger, _METHODS.get(name, "info"))(event, **line)


_NAMES = {
    number: name.lower()
    for name, number in logging.getLevelNamesMapping().items()
    if name not in ("WARN", "FATAL", "NOTSET")
}
"""The names of levels, read once: a function may rename levels later."""
_METHODS = {"debug": "debug", "info": "info", "warning": "warning", "error": "error", "critical": "error"}
