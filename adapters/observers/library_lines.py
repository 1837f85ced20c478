"""Owns how libraries get into the log: what they log at WARNING and above, and the warnings of Python itself."""

import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from poller.domain.untrusted.texts import fewer, line_of, lines_of
from poller.output.lockless_handler import LocklessHandler
from poller.output.log_fields import EVENT, fields_of_record

LIBRARIES = ("botocore", "aiobotocore", "aiohttp", "asyncio", "urllib3")
"""Libraries that log requests and credentials below WARNING. They stay at WARNING whatever level the log has."""
LINE = "library"
OURS = "poller."
"""The prefix of our own loggers' names."""
WARNINGS = "py.warnings"
"""The name of the logger that `logging` uses for warnings of Python."""
TEXT_CHARS_MAX = 500
TRACE_CHARS_MAX = 4000
TRACE_READ_CHARS_MAX = 16 * 1024
"""How much of the end of a traceback is cleaned, on the loop."""
TRACE_LINES_MAX = 40

type Fields = dict[str, Any]
type Write = Callable[[int, str, Fields], None]


class LibraryLines(LocklessHandler):
    """Writes what libraries log at WARNING and above as lines of the log's format, without credentials."""

    def __init__(self, write: Write) -> None:
        super().__init__(logging.WARNING)
        self._write_line = write

    def emit(self, record: logging.LogRecord) -> None:
        """Writes one record. Of a long traceback it keeps the end, which has the cause."""
        more: Fields = {
            "logger": line_of(record.name, chars_max=TEXT_CHARS_MAX),
            "message": line_of(_message(record), chars_max=TEXT_CHARS_MAX),
        }
        if record.exc_info and record.exc_info[1] is not None:
            error = record.exc_info[1]
            more["error"] = line_of(f"{type(error).__name__}: {_text(error)}", chars_max=TEXT_CHARS_MAX)
            more["trace"] = _trace(record)
        self._write_line(record.levelno, _event(record), fields_of_record(record) | more)


def _event(record: logging.LogRecord) -> str:
    """Returns the name of a line's event. Our own loggers may give one; others may not."""
    event = getattr(record, EVENT, LINE)
    return event if record.name.startswith(OURS) and isinstance(event, str) else LINE


def _trace(record: logging.LogRecord) -> str:
    try:
        assert record.exc_info is not None
        trace = logging.Formatter().formatException(record.exc_info)
    except Exception:  # noqa: BLE001 - the exception may be a function's
        return "(its traceback could not be made)"
    # Credentials are removed before the text is cut, since half of a credential does not look like one.
    lines = lines_of(trace[-TRACE_READ_CHARS_MAX:], chars_max=TRACE_READ_CHARS_MAX).split("\n")
    if len(trace) > TRACE_READ_CHARS_MAX:
        lines = lines[1:] or ["(its last line is too long)"]
    text = " ".join(fewer(lines, lines_max=TRACE_LINES_MAX))
    return text if len(text) <= TRACE_CHARS_MAX else "…" + text[1 - TRACE_CHARS_MAX :]


def _message(record: logging.LogRecord) -> str:
    try:
        return record.getMessage()
    except Exception:  # noqa: BLE001 - what a library logs may be a function's object
        return record.msg if isinstance(record.msg, str) else "(its text could not be made)"


def _text(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:  # noqa: BLE001 - the exception may be a function's
        return "(its text could not be made)"


@contextmanager
def libraries_logged(handler: logging.Handler) -> Iterator[None]:
    """Sends what libraries log to `handler`, and nothing below WARNING; restores all loggers at the end."""
    root = logging.getLogger()
    loggers = [logging.getLogger(name) for name in LIBRARIES]
    before = [(logger, logger.level) for logger in loggers]
    root.addHandler(handler)
    for logger in loggers:
        logger.setLevel(max(logger.level, logging.WARNING))
    try:
        yield
    finally:
        root.removeHandler(handler)
        for logger, level in before:
            logger.setLevel(level)


@contextmanager
def warnings_logged(write: Write) -> Iterator[None]:
    """Logs each warning of Python. At the end it restores `warnings.showwarning`, unless somebody has replaced it meanwhile."""

    def show(message: Warning | str, category: type[Warning], filename: str, lineno: int, *_: Any) -> None:
        try:
            text = f"{category.__name__}: {message}"
        except Exception:  # noqa: BLE001 - the warning may be a function's object
            text = "a warning whose text could not be made"
        line = line_of(text, chars_max=TEXT_CHARS_MAX)
        place = line_of(f"{filename}:{lineno}", chars_max=TEXT_CHARS_MAX)
        write(logging.WARNING, LINE, {"logger": WARNINGS, "message": line, "place": place})

    before, warnings.showwarning = warnings.showwarning, show  # type: ignore[assignment]  # typeshed checks the names of parameters
    try:
        yield
    finally:
        if warnings.showwarning is show:
            warnings.showwarning = before
