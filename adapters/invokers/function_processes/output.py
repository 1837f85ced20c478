"""Owns what a function's process writes to its standard output and error: one pipe, read line by line into the function log.

A process works on one call at a time, so that its lines are the call's. Whoever hands out calls says which one it is
(`call`), and reads what is there before the next one begins (`drain`). Runtimes that write the request id into their
lines are believed.

A process that writes without end must not keep the loop busy: so many lines in a second are looked at, the others only
counted; and so many bytes, then it has to wait.
"""

import asyncio
import fcntl
import json
import os
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from adapters.invokers.printed_levels import Levels, level_named, level_of
from poller.output.function_log import BEGINNING_CHARS_MAX, NO_FIELDS, FunctionLog
from poller.output.log_fields import fields_of

READ_BYTES = 64 * 1024
DRAIN_READS_MAX = 4
FIELDS_MARK = "\x1e"
"""Stands in front of a line's fields, and behind them."""
FIELDS_BYTES_MAX = 64 * 1024
"""More than the fields of a line have, which are bounded in characters and in number."""
LINE_BYTES_MAX = 4 * BEGINNING_CHARS_MAX + FIELDS_BYTES_MAX
"""What is kept of a line until its end comes; it is cut to LINE_CHARS_MAX characters when it is told."""
LINES_PER_SECOND_MAX = 2000
BYTES_PER_SECOND_MAX = 4 * 1024 * 1024
SECOND_S = 1.0

_WITHIN_CHARACTERS = bytes(range(0x80, 0xC0))
"""Bytes with which no character begins in UTF-8."""
_PYTHON = re.compile(r"\[([A-Z]{4,8})\]\t[0-9T:.-]{19,23}Z\t([0-9a-f-]{36})\t")
"""[INFO]	2026-01-01T00:00:00.000Z	request-id	text: how Lambda's Python runtime begins a line."""
_NAMED = re.compile(r"\[([A-Z]{4,8}) ([^\]]{1,256})\]\t[0-9T:.-]{19,23}Z\t([0-9a-f-]{36})\t")
"""[INFO logger]	2026-01-01T00:00:00.000Z	request-id	text: how the processes of `isolation: process` do. Fields, a JSON object
between two marks, may stand before the text."""
_NODE = re.compile(r"[0-9T:.-]{19,23}Z\t([0-9a-f-]{36})\t([A-Z]{4,8})\t")
"""2026-01-01T00:00:00.000Z	request-id	INFO	text: how that of Node.js does."""


@dataclass(frozen=True, slots=True)
class Printed:
    """One line of a runtime: what it says beside its text. `request_id` None: it names none; so with an empty `logger`."""

    text: str
    level: int
    request_id: str | None = None
    logger: str = ""
    fields: Mapping[str, Any] = NO_FIELDS


def printed(line: str) -> Printed:
    """A line without what a runtime of Lambda's has put before it."""
    if found := _PYTHON.match(line):
        return Printed(line[found.end() :], level_named(found[1]), found[2])
    if found := _NAMED.match(line):
        text, fields = _with_fields(line[found.end() :])
        return Printed(text, level_named(found[1]), found[3], found[2], fields)
    if found := _NODE.match(line):
        return Printed(line[found.end() :], level_named(found[2]), found[1])
    return Printed(line, level_of(line))


def _with_fields(text: str) -> tuple[str, Mapping[str, Any]]:
    """A text without the fields before it; they are bounded again, since a function may write what it likes."""
    before, mark, after = text.removeprefix(FIELDS_MARK).partition(FIELDS_MARK)
    if not (mark and text.startswith(FIELDS_MARK)):
        return text, NO_FIELDS
    try:
        found = json.loads(before)
    except (ValueError, RecursionError):
        return text, NO_FIELDS
    return (after, fields_of(found)) if isinstance(found, dict) else (text, NO_FIELDS)


@dataclass(slots=True)
class _Line:
    """A line as bytes: its beginning, and how many characters it has so far."""

    data: bytearray = field(default_factory=bytearray)
    chars: int = 0

    def add(self, data: bytes) -> None:
        self.chars += len(data.translate(None, _WITHIN_CHARACTERS))
        if len(self.data) < LINE_BYTES_MAX:
            self.data += data[: LINE_BYTES_MAX - len(self.data)]


class ProcessOutput:
    """The pipe of one process after another; every method is called on the loop."""

    def __init__(self, function: str, log: FunctionLog) -> None:
        self._function = function
        self._log = log
        self._loop = asyncio.get_running_loop()
        self._request_id: str | None = None
        self._reading: int | None = None
        self._begun = _Line()
        self._levels = Levels()
        self._second = _Second(0.0)
        self._resting: asyncio.TimerHandle | None = None

    def open(self) -> int:
        """A pipe for a process that starts now: what it is to write to. The caller closes that once it has started."""
        self.close()
        self._request_id = None
        self._reading, writing = os.pipe()
        flags = fcntl.fcntl(self._reading, fcntl.F_GETFL)
        fcntl.fcntl(self._reading, fcntl.F_SETFL, flags | os.O_NONBLOCK)
        self._loop.add_reader(self._reading, self._readable)
        return writing

    def call(self, request_id: str) -> None:
        """A call begins: what comes from now on is its own, as long as no other begins."""
        self.drain()
        self._say_begun()
        self._request_id = request_id

    def drain(self) -> None:
        """Reads what is there."""
        for _ in range(DRAIN_READS_MAX):
            if self._reading is None or not self._read():
                return

    def close(self) -> None:
        """Reads what is there, and no more; a line without an end is a line."""
        self.drain()
        self._end()

    def _readable(self) -> None:
        self._read()
        second = self._second
        if self._reading is not None and second.bytes >= BYTES_PER_SECOND_MAX:
            self._loop.remove_reader(self._reading)
            self._resting = self._loop.call_at(second.began + SECOND_S, self._go_on)

    def _go_on(self) -> None:
        self._resting = None
        if self._reading is not None:
            self._loop.add_reader(self._reading, self._readable)

    def _read(self) -> bool:
        """Takes one piece; whether there may be more."""
        assert self._reading is not None, "read from no pipe"
        try:
            data = os.read(self._reading, READ_BYTES)
        except BlockingIOError:
            return False
        if not data:
            self._end()
            return False
        self._take(data)
        return len(data) == READ_BYTES

    def _take(self, data: bytes) -> None:
        now = self._loop.time()
        if now >= self._second.began + SECOND_S:
            self._tell_dropped()
            self._second = _Second(now)
        second = self._second
        second.bytes += len(data)
        room = LINES_PER_SECOND_MAX - second.lines
        if room <= 0:
            second.dropped += data.count(b"\n")
            self._begun = _Line()
            return
        *lines, rest = data.split(b"\n")
        second.lines += len(lines)
        second.dropped += max(0, len(lines) - room)
        for line in lines[:room]:
            self._begun.add(line)
            self._say_begun()
        if lines:
            self._begun = _Line()
        self._begun.add(rest)

    def _say(self, line: _Line) -> None:
        text = line.data.decode("utf-8", "replace")
        said = printed(text)
        request_id = said.request_id or self._request_id
        level = self._levels.of(said.text, said.level)
        self._log.write(
            self._function,
            said.text,
            level=level,
            request_id=request_id,
            logger=said.logger,
            fields=said.fields,
            chars=line.chars - (len(text) - len(said.text)),
        )

    def _say_begun(self) -> None:
        """A line whose end did not come is a line."""
        begun, self._begun = self._begun, _Line()
        if begun.data:
            self._say(begun)

    def _tell_dropped(self) -> None:
        if self._second.dropped:
            self._log.dropped(self._function, self._second.dropped)
            self._second.dropped = 0

    def _end(self) -> None:
        if self._resting is not None:
            self._resting.cancel()
            self._resting = None
        if self._reading is None:
            return
        self._loop.remove_reader(self._reading)
        with suppress(OSError):
            os.close(self._reading)
        self._reading = None
        self._say_begun()
        self._tell_dropped()


@dataclass(slots=True)
class _Second:
    began: float
    lines: int = 0
    bytes: int = 0
    dropped: int = 0
