"""Owns the output of a function's process: one pipe for standard output and error, read line by line into the function log.

A process works on one call at a time, so its lines belong to that call. The invoker says which call it is (`call`), and reads
the pipe to its end before the next one begins (`drain`). If a runtime writes the request id into its lines, that one is used.

A process that writes without end must not keep the loop busy. So only a limited number of lines is parsed in a second, and
further lines are counted. Only a limited number of bytes is read in a second, and then the process has to wait. Some lines take long
to be cleaned. So the time of the processor that lines take is limited too, in a turn of the loop and in a second, and what comes then
is counted.
"""

import asyncio
import fcntl
import json
import os
import re
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from adapters.invokers.printed_levels import Levels, level_by_name, level_of
from poller.output.function_log import BEGINNING_CHARS_MAX, LINE_CHARS_MAX, NO_FIELDS, FunctionLog
from poller.output.log_fields import fields_of

READ_BYTES = 16 * 1024
DRAIN_READS_MAX = 16
FIELDS_MARK = "\x1e"
"""The character before and after the fields of a line."""
FIELDS_BYTES_MAX = 64 * 1024
"""More bytes than the fields of a line can have, whose number and length are limited."""
LINE_BYTES_MAX = 4 * BEGINNING_CHARS_MAX + FIELDS_BYTES_MAX
"""How much of a line is kept until its end comes. It is cut to LINE_CHARS_MAX characters when it is logged."""
LINES_PER_SECOND_MAX = 2000
BYTES_PER_SECOND_MAX = 4 * 1024 * 1024
SECOND_S = 1.0
TURN_CPU_S = 0.04
"""How long the lines of one process keep the loop in one turn."""
CHAR_CPU_S = 2e-6
"""About how long a character takes at most, in a line of nothing but names of credentials. Most take a hundredth of that."""
SECOND_CPU_S = 0.25
"""How long the lines of one process keep the loop in one second."""

_WITHIN_CHARACTERS = bytes(range(0x80, 0xC0))
"""Bytes of UTF-8 that do not begin a character."""
_PYTHON = re.compile(r"\[([A-Z]{4,8})\]\t[0-9T:.-]{19,23}Z\t([0-9a-f-]{36}|)\t")
"""[INFO]	2026-01-01T00:00:00.000Z	request-id	text: how Lambda's Python runtime begins a line. Outside of a call the id is
empty."""
_NAMED = re.compile(r"\[([A-Z]{4,8}) ([^\]]{1,256})\]\t[0-9T:.-]{19,23}Z\t([0-9a-f-]{36}|)\t")
"""[INFO logger]	2026-01-01T00:00:00.000Z	request-id	text: how a process of `isolation: process` begins a line. Before the
text there may be fields, a JSON object between two marks."""
_NODE = re.compile(r"[0-9T:.-]{19,23}Z\t(?:undefined|([0-9a-f-]{36}))\t([A-Z]{4,8})\t")
"""2026-01-01T00:00:00.000Z	request-id	INFO	text: how Lambda's Node.js runtime begins a line. Outside of a call the id is
`undefined`."""


@dataclass(frozen=True, slots=True)
class ParsedLine:
    """One parsed line. `request_id` is None and `logger` empty if the line does not name them."""

    text: str
    level: int
    request_id: str | None = None
    logger: str = ""
    fields: Mapping[str, Any] = NO_FIELDS


def parse_line(line: str) -> ParsedLine:
    """Parses a line and removes the prefix of Lambda's runtimes."""
    if found := _PYTHON.match(line):
        return ParsedLine(line[found.end() :], level_by_name(found[1]), found[2] or None)
    if found := _NAMED.match(line):
        text, fields = _with_fields(line[found.end() :])
        return ParsedLine(text, level_by_name(found[1]), found[3] or None, found[2], fields)
    if found := _NODE.match(line):
        return ParsedLine(line[found.end() :], level_by_name(found[2]), found[1])
    return ParsedLine(line, level_of(line))


def _with_fields(text: str) -> tuple[str, Mapping[str, Any]]:
    """Splits a text from its fields. Fields are limited again, since a function may write anything."""
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
    """A line that is being read: the bytes of its beginning, and its number of characters so far."""

    data: bytearray = field(default_factory=bytearray)
    chars: int = 0

    def add(self, data: bytes) -> None:
        self.chars += len(data.translate(None, _WITHIN_CHARACTERS))
        if len(self.data) < LINE_BYTES_MAX:
            self.data += data[: LINE_BYTES_MAX - len(self.data)]


class ProcessOutput:
    """The output of one process after another. Every method must be called on the loop."""

    def __init__(self, function: str, log: FunctionLog) -> None:
        self._function = function
        self._log = log
        self._loop = asyncio.get_running_loop()
        self._request_id: str | None = None
        self._reading: int | None = None
        self._begun = _Line()
        self._levels = Levels()
        self._second = _Second(0.0)
        self._turn_cpu_s = 0.0
        self._paused: asyncio.TimerHandle | None = None

    def open(self) -> int:
        """Makes a pipe for a process that starts now; returns the end to write to, which the caller closes after the start."""
        self.close()
        self._request_id = None
        self._reading, writing = os.pipe()
        flags = fcntl.fcntl(self._reading, fcntl.F_GETFL)
        fcntl.fcntl(self._reading, fcntl.F_SETFL, flags | os.O_NONBLOCK)
        self._loop.add_reader(self._reading, self._readable)
        return writing

    def call(self, request_id: str) -> None:
        """Begins a call: output from now on belongs to it, until another call begins."""
        self.drain()
        self._log_begun()
        self._request_id = request_id

    def drain(self) -> None:
        """Reads what is in the pipe now."""
        self._turn_cpu_s = 0.0
        for _ in range(DRAIN_READS_MAX):
            if self._reading is None or not self._read():
                return

    def close(self) -> None:
        """Reads what is in the pipe, and closes it. A last line without an end is logged too."""
        self.drain()
        self._end()

    def _readable(self) -> None:
        self._turn_cpu_s = 0.0
        self._read()
        second = self._second
        if self._reading is not None and second.bytes >= BYTES_PER_SECOND_MAX:
            self._loop.remove_reader(self._reading)
            self._paused = self._loop.call_at(second.began + SECOND_S, self._resume)

    def _resume(self) -> None:
        self._paused = None
        if self._reading is not None:
            self._loop.add_reader(self._reading, self._readable)

    def _read(self) -> bool:
        """Reads one piece; returns whether there may be more."""
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
            self._report_dropped()
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
            self._log_begun()
        if lines:
            self._begun = _Line()
        self._begun.add(rest)

    def _log_line(self, line: _Line) -> None:
        text = line.data.decode("utf-8", "replace")
        parsed = parse_line(text)
        request_id = parsed.request_id or self._request_id
        level = self._levels.of(parsed.text, parsed.level)
        self._log.write(
            self._function,
            parsed.text,
            level=level,
            request_id=request_id,
            logger=parsed.logger,
            fields=parsed.fields,
            chars=line.chars - (len(text) - len(parsed.text)),
        )

    def _log_begun(self) -> None:
        """Logs the line that was begun, even if its end did not come. Counts it instead if lines have taken too long."""
        begun, self._begun = self._begun, _Line()
        if not begun.data:
            return
        second = self._second
        most = CHAR_CPU_S * min(len(begun.data), 2 * LINE_CHARS_MAX)
        if self._turn_cpu_s + most > TURN_CPU_S or second.cpu_s >= SECOND_CPU_S:
            second.dropped += 1
            return
        began = time.thread_time()
        self._log_line(begun)
        taken = time.thread_time() - began
        self._turn_cpu_s += taken
        second.cpu_s += taken

    def _report_dropped(self) -> None:
        if self._second.dropped:
            self._log.dropped(self._function, self._second.dropped)
            self._second.dropped = 0

    def _end(self) -> None:
        if self._paused is not None:
            self._paused.cancel()
            self._paused = None
        if self._reading is None:
            return
        self._loop.remove_reader(self._reading)
        with suppress(OSError):
            os.close(self._reading)
        self._reading = None
        self._log_begun()
        self._report_dropped()


@dataclass(slots=True)
class _Second:
    began: float
    lines: int = 0
    bytes: int = 0
    cpu_s: float = 0.0
    dropped: int = 0
