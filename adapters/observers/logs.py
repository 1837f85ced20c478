"""Owns the plug-in `logs`: its settings, and the log that it opens on stderr.

The log has lines of four kinds: the daemon's events, what functions print and log, what libraries log, and Python's warnings.
"""

import asyncio
import io
import logging
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Literal, TextIO

from pydantic import BaseModel, ConfigDict

from adapters.observers.function_lines import function_lines, later_on
from adapters.observers.library_lines import LibraryLines, libraries_logged, warnings_logged
from adapters.observers.log_lines import LineWriter
from adapters.observers.log_observer import LogObserver
from poller.domain.telemetry.daemon_events import DaemonEnded
from poller.plugins import Environment, Plugin
from poller.ports import Clock

LINES_DROPPED = "log_lines_dropped"
DAEMON_FAULT = "daemon_fault"


class LogSettings(BaseModel):
    """`format`: json for machines, console for people. `level`: the lowest level of the daemon's own lines.

    `process`: what each line has as its member `process`, if a daemon has several processes.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: Literal["json", "console"] = "json"
    level: Literal["debug", "info", "warning", "error"] = "info"
    process: int | None = None


type MakeWriter = Callable[[TextIO], LineWriter]


def _dropped_line(make: MakeWriter) -> Callable[[int], str]:
    """Returns what makes the line that says how many lines are missing."""

    def line(lines: int) -> str:
        text_file = io.StringIO()
        make(text_file).write(logging.WARNING, LINES_DROPPED, {"lines": lines})
        return text_file.getvalue()

    return line


def _last_line(make: MakeWriter) -> Callable[[str], str]:
    """Returns what makes a line of a text, for faults after the log was closed."""

    def line(text: str) -> str:
        text_file = io.StringIO()
        make(text_file).write(logging.ERROR, DAEMON_FAULT, {"message": text})
        return text_file.getvalue()

    return line


def _end_line(make: MakeWriter, clock: Clock, *, level: int) -> Callable[[DaemonEnded], str]:
    """Returns what makes the line of the daemon's end, which comes after the log was closed."""

    def line(event: DaemonEnded) -> str:
        text_file = io.StringIO()
        LogObserver(make(text_file).write, clock, level=level).on(event)
        return text_file.getvalue()

    return line


@asynccontextmanager
async def open_logs(settings: LogSettings, env: Environment) -> AsyncIterator[LogObserver]:
    """Yields an observer that logs to stderr. While it is open, lines of functions and of libraries go to the log too."""
    console = settings.format == "console"
    make = partial(LineWriter, clock=env.clock, console=console, process=settings.process)
    lines = make(sys.stderr)
    level = getattr(logging, settings.level.upper())
    env.dropped_lines.notice = _dropped_line(make)
    if not console:
        env.last_words.form = _last_line(make)
    env.last_words.end = _end_line(make, env.clock, level=level)
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
