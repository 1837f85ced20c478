"""Owns what functions say: the lines that they print and log, on their way from an invoker to the daemon's log.

An invoker hands each line to `FunctionLog.write`, from any thread. Lines are cleaned and cut there, once. Whoever
shows them is the receiver; it says how many lines in a second are too many. While there is none, lines go to stderr.
"""

import logging
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Protocol

from poller.domain.untrusted.credentials import awaits_value
from poller.domain.untrusted.texts import CUT, line_of, lines_of

LINE_CHARS_MAX = 8192
"""A longer line is cut, and says how long it was."""
BEGINNING_CHARS_MAX = 64 * 1024
"""What invokers keep of a line until its end comes, to read a level or fields in it; more than is shown."""
LOGGER_CHARS_MAX = 256
_NAME = "password="
NO_FIELDS: Mapping[str, Any] = MappingProxyType({})


def told_length(text: str, chars: int) -> str:
    """A line that was cut, with its whole length at its end."""
    told = f"{CUT} ({chars:,} characters)"
    return text[: LINE_CHARS_MAX - len(told)].removesuffix(CUT) + told


@dataclass(slots=True)
class BegunLine:
    """A line whose end did not come yet: its beginning, and how long it is so far."""

    text: str = ""
    chars: int = 0

    def add(self, text: str) -> None:
        """More of it."""
        self.chars += len(text)
        if len(self.text) < BEGINNING_CHARS_MAX:
            self.text += text[: BEGINNING_CHARS_MAX - len(self.text)]


@dataclass(frozen=True, slots=True)
class FunctionLine:
    """One line of a function, which may have line feeds in it; `request_id` None: it was said outside of a call."""

    function: str
    text: str
    level: int
    """As in `logging`."""
    request_id: str | None = None
    logger: str = ""
    """The logger's name; empty for what was printed."""
    fields: Mapping[str, Any] = NO_FIELDS
    """What was given to the line with `extra=`, cleaned and bounded."""


class FunctionLineReceiver(Protocol):
    """Shows lines, or counts them where there are too many. Called from any thread; returns at once, raises nothing."""

    def line(self, line: FunctionLine) -> None:
        """Takes one line."""
        ...

    def dropped(self, function: str, lines: int) -> None:
        """So many lines of a function were too many to be looked at."""
        ...


class StandardError:
    """Writes lines as they are; for commands that have no log."""

    def line(self, line: FunctionLine) -> None:
        """Writes one line."""
        print(f"{line.function}: {line.text}", file=sys.__stderr__)

    def dropped(self, function: str, lines: int) -> None:
        """Says so."""
        print(f"{function}: {lines} more lines", file=sys.__stderr__)


class FunctionLog:
    """Takes the lines of all functions of a daemon."""

    def __init__(self, receiver: FunctionLineReceiver | None = None) -> None:
        self._receiver = receiver or StandardError()
        self._awaiting: set[str] = set()
        """Functions whose last line ended where a credential begins."""

    def write(
        self,
        function: str,
        text: str,
        *,
        level: int = logging.INFO,
        request_id: str | None = None,
        logger: str = "",
        fields: Mapping[str, Any] = NO_FIELDS,
        chars: int = 0,
    ) -> None:
        """Takes one line of a function, from any thread; a line of nothing but blanks is no line.

        `chars` is how long the line is where `text` is only its beginning.
        """
        chars = max(chars, len(text))
        text = self._clean(function, text.rstrip())
        if chars > LINE_CHARS_MAX and text.endswith(CUT):
            text = told_length(text, chars)
        if text.strip():
            logger = line_of(logger, chars_max=LOGGER_CHARS_MAX)
            self._receiver.line(FunctionLine(function, text, level, request_id, logger, fields))

    def _clean(self, function: str, text: str) -> str:
        """A line that is fit to be shown: what begins it may be the value of the name that ended the line before."""
        awaited = function in self._awaiting
        if awaits_value(text):
            self._awaiting.add(function)
        elif awaited:
            self._awaiting.discard(function)
        if awaited:
            return lines_of(f"{_NAME}{text}", chars_max=LINE_CHARS_MAX).removeprefix(_NAME)
        return lines_of(text, chars_max=LINE_CHARS_MAX)

    def dropped(self, function: str, lines: int) -> None:
        """An invoker had too many lines of a function to hand them over."""
        self._receiver.dropped(function, lines)

    @contextmanager
    def received_by(self, receiver: FunctionLineReceiver) -> Iterator[None]:
        """Lines go to `receiver` meanwhile."""
        before, self._receiver = self._receiver, receiver
        try:
            yield
        finally:
            self._receiver = before
