"""Owns at which level a printed line is told: as it says itself, in JSON or at its beginning; INFO if it does not."""

import json
import logging
import re

from poller.domain.untrusted.numbers import json_whole
from poller.output.function_log import BEGINNING_CHARS_MAX

JSON_CHARS_MAX = BEGINNING_CHARS_MAX
"""Longer lines are not looked into."""
LEVEL_MEMBERS = ("level", "log_level", "levelname", "severity")
_LEVELS = {
    "TRACE": logging.DEBUG,
    "DEBUG": logging.DEBUG,
    "INFO": logging.INFO,
    "NOTICE": logging.INFO,
    "WARN": logging.WARNING,
    "WARNING": logging.WARNING,
    "ERROR": logging.ERROR,
    "FATAL": logging.CRITICAL,
    "CRITICAL": logging.CRITICAL,
}
TRACEBACK = "Traceback (most recent call last):"
_LEADING = re.compile(rf"\[?({'|'.join(_LEVELS)})(?:\]|:|\s+-\s|\t)")
"""[ERROR] as Lambda's runtimes begin a line, ERROR: as logging.basicConfig does."""


def level_named(name: str) -> int:
    """The level of this name, in whatever case; INFO when there is none."""
    return _LEVELS.get(name.upper(), logging.INFO)


def standard_name(level: int) -> str:
    """The name of a level, or of the next one below that has one."""
    steps = (logging.CRITICAL, logging.ERROR, logging.WARNING, logging.INFO)
    return logging.getLevelName(next((step for step in steps if level >= step), logging.DEBUG))


def level_of(line: str) -> int:
    """The level that a line claims; INFO when it claims none."""
    if line.startswith("{") and len(line) <= JSON_CHARS_MAX:
        return _json_level(line)
    found = _LEADING.match(line)
    return level_named(found[1]) if found else logging.INFO


def _json_level(line: str) -> int:
    try:
        found = json.loads(line, parse_int=json_whole)
    except (ValueError, RecursionError):
        return logging.INFO
    named = (found[member] for member in LEVEL_MEMBERS if isinstance(found.get(member), str))
    return level_named(next(named, ""))


class Levels:
    """The levels of lines that come one after another: a traceback has the level of the line that it belongs to."""

    def __init__(self) -> None:
        self._before = logging.INFO
        self._trace: int | None = None

    def of(self, line: str, level: int) -> int:
        """The level of the next line, which by itself has `level`."""
        if line.startswith(TRACEBACK):
            # One that belongs to nothing was printed by somebody who let an error end there.
            self._trace = self._before if self._before > logging.INFO else logging.ERROR
            return self._trace
        if self._trace is None or (level > logging.INFO and not line.startswith(" ")):
            self._before, self._trace = level, None
            return level
        found = self._trace
        if not line.startswith((" ", "\t")) and line.strip():
            # The line of the exception itself is the last.
            self._before, self._trace = logging.INFO, None
        return found
