"""Owns the log level of a printed line: the one that the line names, in JSON or at its beginning, else INFO."""

import json
import logging
import re

from poller.domain.untrusted.numbers import json_whole
from poller.output.function_log import BEGINNING_CHARS_MAX

JSON_CHARS_MAX = BEGINNING_CHARS_MAX
"""Longer lines are not parsed."""
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
"""`[ERROR]` is how Lambda's runtimes begin a line, `ERROR:` how logging.basicConfig does."""


def level_by_name(name: str) -> int:
    """Returns the level of this name, in upper or lower case; INFO if no level has it."""
    return _LEVELS.get(name.upper(), logging.INFO)


def standard_name(level: int) -> str:
    """Returns the name of the highest standard level that is not above `level`."""
    steps = (logging.CRITICAL, logging.ERROR, logging.WARNING, logging.INFO)
    return logging.getLevelName(next((step for step in steps if level >= step), logging.DEBUG))


def level_of(line: str) -> int:
    """Returns the level that a line names; INFO if it names none."""
    if line.startswith("{") and len(line) <= JSON_CHARS_MAX:
        return _json_level(line)
    found = _LEADING.match(line)
    return level_by_name(found[1]) if found else logging.INFO


def _json_level(line: str) -> int:
    try:
        found = json.loads(line, parse_int=json_whole)
    except (ValueError, RecursionError):
        return logging.INFO
    named = (found[member] for member in LEVEL_MEMBERS if isinstance(found.get(member), str))
    return level_by_name(next(named, ""))


class Levels:
    """The levels of consecutive lines. All lines of a traceback get the level of the line before it."""

    def __init__(self) -> None:
        self._before = logging.INFO
        self._trace: int | None = None

    def of(self, line: str, level: int) -> int:
        """Returns the level of the next line, which has `level` by itself."""
        if line.startswith(TRACEBACK):
            # A traceback without a line before it was printed by itself, as an error.
            self._trace = self._before if self._before > logging.INFO else logging.ERROR
            return self._trace
        if self._trace is None or (level > logging.INFO and not line.startswith(" ")):
            self._before, self._trace = level, None
            return level
        found = self._trace
        if not line.startswith((" ", "\t")) and line.strip():
            # The last line of a traceback is that of the exception itself.
            self._before, self._trace = logging.INFO, None
        return found
