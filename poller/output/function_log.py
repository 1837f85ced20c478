"""Owns the lines that functions print and log, between an invoker and the daemon's log.

An invoker passes each line to `FunctionLog.write`, from any thread. Lines are cleaned and cut there, once. A receiver shows
them, and decides how many lines a second are too many. Without a receiver, lines go to stderr.
"""

import logging
import sys
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Protocol

from poller.domain.functions.calls import LOG_TAIL_BYTES_MAX
from poller.domain.untrusted.credentials import awaits_value
from poller.domain.untrusted.texts import CUT, line_of, lines_of
from poller.domain.wording.numbers_of import number_of

LINE_CHARS_MAX = 8192
"""A longer line is cut, and its full length is added."""
BEGINNING_CHARS_MAX = 64 * 1024
"""How much of a line invokers keep until its end comes, to read a level or fields in it. It is more than is shown."""
LOGGER_CHARS_MAX = 256
_NAME = "password="
NO_FIELDS: Mapping[str, Any] = MappingProxyType({})


def with_length(text: str, chars: int) -> str:
    """A line that was cut, with its full length added at the end."""
    length = f"{CUT} ({chars:,} characters)"
    return text[: LINE_CHARS_MAX - len(length)].removesuffix(CUT) + length


@dataclass(slots=True)
class BegunLine:
    """A line whose end has not come yet: its beginning, and its length up to now."""

    text: str = ""
    chars: int = 0

    def add(self, text: str) -> None:
        """Adds text to the line."""
        self.chars += len(text)
        if len(self.text) < BEGINNING_CHARS_MAX:
            self.text += text[: BEGINNING_CHARS_MAX - len(self.text)]


@dataclass(frozen=True, slots=True)
class FunctionLine:
    """One line of a function, which may contain line feeds. `request_id` is None if it was written outside of a call."""

    function: str
    text: str
    level: int
    """A level of `logging`."""
    request_id: str | None = None
    logger: str = ""
    """The logger's name; empty for printed lines."""
    fields: Mapping[str, Any] = NO_FIELDS
    """The fields that were given with `extra=`, cleaned and bounded."""


class FunctionLineReceiver(Protocol):
    """Shows lines, or counts them if there are too many. Its methods are called from any thread, return at once and raise nothing."""

    def line(self, line: FunctionLine) -> None:
        """Takes one line."""
        ...

    def dropped(self, function: str, lines: int) -> None:
        """This many lines of a function were dropped."""
        ...


class StandardError:
    """Writes lines unchanged, for commands that have no log."""

    def line(self, line: FunctionLine) -> None:
        """Writes one line."""
        print(f"{line.function}: {line.text}", file=sys.__stderr__)

    def dropped(self, function: str, lines: int) -> None:
        """Says so."""
        print(f"{function}: {number_of(lines, 'more line')}", file=sys.__stderr__)


class LogTail:
    """The last lines of one call's log. Lines come from any thread."""

    def __init__(self) -> None:
        self._lines: deque[str] = deque()
        self._chars = 0

    def add(self, text: str) -> None:
        """Takes one line, as it is logged."""
        self._lines.append(text)
        self._chars += len(text)
        # A character has a byte at least, so that what is removed here would not be in the answer anyway.
        while self._chars - len(self._lines[0]) > LOG_TAIL_BYTES_MAX:
            self._chars -= len(self._lines.popleft())

    def text(self) -> str:
        """The lines, each with a line feed at its end. If they have more than LOG_TAIL_BYTES_MAX bytes, the last whole ones that fit."""
        found: deque[str] = deque()
        left = LOG_TAIL_BYTES_MAX
        for line in reversed(tuple(self._lines)):
            left -= len(line.encode("utf-8", "replace")) + 1
            if left < 0:
                break
            found.appendleft(f"{line}\n")
        return "".join(found)


class FunctionLog:
    """Takes the lines of all functions of a daemon."""

    def __init__(self, receiver: FunctionLineReceiver | None = None) -> None:
        self._receiver = receiver or StandardError()
        self._tails: dict[str, LogTail] = {}
        """The ends of the logs of some calls, by their request ids."""
        self._awaiting: set[str] = set()
        """Functions whose last line ended with a name whose value, a credential, may begin the next line."""

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
        """Takes one line of a function, from any thread. A blank line is ignored.

        `chars` is the length of the whole line if `text` is only its beginning.
        """
        chars = max(chars, len(text))
        text = self._clean(function, text.rstrip())
        if chars > LINE_CHARS_MAX and text.endswith(CUT):
            text = with_length(text, chars)
        if text.strip():
            if request_id is not None and (tail := self._tails.get(request_id)) is not None:
                tail.add(text)
            logger = line_of(logger, chars_max=LOGGER_CHARS_MAX)
            self._receiver.line(FunctionLine(function, text, level, request_id, logger, fields))

    def _clean(self, function: str, text: str) -> str:
        """The line without credentials. Its beginning may be the value of a name that ended the line before."""
        awaited = function in self._awaiting
        if awaits_value(text):
            self._awaiting.add(function)
        elif awaited:
            self._awaiting.discard(function)
        if awaited:
            return lines_of(f"{_NAME}{text}", chars_max=LINE_CHARS_MAX).removeprefix(_NAME)
        return lines_of(text, chars_max=LINE_CHARS_MAX)

    @contextmanager
    def tail(self, request_id: str | None) -> Iterator["LogTail"]:
        """Keeps the end of the log of one call inside the block; nothing if it is None."""
        tail = LogTail()
        if request_id is None:
            yield tail
            return
        self._tails[request_id] = tail
        try:
            yield tail
        finally:
            del self._tails[request_id]

    def dropped(self, function: str, lines: int) -> None:
        """An invoker dropped lines of a function because there were too many."""
        self._receiver.dropped(function, lines)

    @contextmanager
    def received_by(self, receiver: FunctionLineReceiver) -> Iterator[None]:
        """Sends lines to `receiver` inside the block."""
        before, self._receiver = self._receiver, receiver
        try:
            yield
        finally:
            self._receiver = before
