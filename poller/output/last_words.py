"""Owns the format of lines that are written after the log was closed, or outside of it."""

from collections.abc import Callable
from dataclasses import dataclass

from poller.domain.telemetry.daemon_events import DaemonEnded


def for_people(text: str) -> str:
    """The format without a log, or with a log for people."""
    return f"poller: {text}\n"


def no_end_line(_: DaemonEnded) -> str:
    """The end line without a log: none."""
    return ""


@dataclass(slots=True)
class LastWords:
    """The formats of such lines. A log sets its own formats here; they stay when it is closed."""

    form: Callable[[str], str] = for_people
    """Formats a text of one line as a whole line."""
    end: Callable[[DaemonEnded], str] = no_end_line
    """Formats the daemon's end as a whole line; empty if the log does not show it."""
