"""Owns how a line looks that has to be told when the log is closed, or beside it."""

from collections.abc import Callable
from dataclasses import dataclass

from poller.domain.telemetry import DaemonEnded


def for_people(text: str) -> str:
    """The line where there is no log, or one for people."""
    return f"poller: {text}\n"


def untold(_: DaemonEnded) -> str:
    """Nothing: there never was a log that says how it ended."""
    return ""


@dataclass(slots=True)
class LastWords:
    """The forms of such lines. A log puts its own here, and leaves them when it is closed."""

    form: Callable[[str], str] = for_people
    """From a text of one line to a whole line."""
    end: Callable[[DaemonEnded], str] = untold
    """How the daemon ended, as a whole line; empty where the log does not tell it."""
