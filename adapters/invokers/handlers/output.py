"""Owns the output of Python functions in this process: what they log and print becomes lines of the function log.

On Lambda a function has a process of its own. Here it shares logging, `sys.stdout` and `sys.stderr` with the daemon and with other
functions. So output must be attributed to the right function and call, and one function must not change the output of others.

A context variable (`attributed_to`) says which call is running. Tasks and `asyncio.to_thread` inherit it, and work that a function
submits to a `ThreadPoolExecutor` belongs to the call that submitted it. A thread that a function starts itself may serve many calls.
Its lines go to the running call, or, if several run, to their function without a request id.

What a function does to the root logger and the standard streams affects only itself (`root_logger`, `standard_streams`). One thing can
only be repaired afterwards: that it disabled all existing loggers, as `dictConfig` does.
"""

import logging
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, asynccontextmanager, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

from adapters.invokers.function_code.private_imports import plain_name
from adapters.invokers.handlers.root_logger import FunctionLogging, LoggingViews, own_logging
from adapters.invokers.handlers.standard_streams import function_streams
from adapters.invokers.printed_levels import Levels, level_of
from poller.forked_copies import end_copy, ends_copies, process_id
from poller.output.function_log import LINE_CHARS_MAX, BegunLine, FunctionLog
from poller.output.lockless_handler import LocklessHandler
from poller.output.log_fields import fields_of_record
from poller.plugins import Environment

LIBRARIES = ("botocore", "aiobotocore", "aiohttp", "asyncio", "urllib3")
"""Loggers whose records belong to a function only if they were made in its context."""
SENTINEL = "poller.function_output"
"""A logger that nobody disables by name. If it is disabled, all loggers were."""
BEGUN_MAX = 250
"""Unfinished lines that are kept of one call. There is one for each stream and thread."""


@dataclass(eq=False, slots=True)
class RunningCode:
    """Running code of a function: one of its calls, or the import of its module."""

    function: str
    request_id: str | None = None
    begun: dict[tuple[str, int], BegunLine] = field(default_factory=dict)
    """Unfinished lines, by the name of the stream and the number of the thread."""
    levels: Levels | None = None
    redirects: dict[str, Any] | None = None
    """Streams that the function put in the place of those of `sys`, by their names."""


_running_code: ContextVar[RunningCode | None] = ContextVar("running_code", default=None)
_output: list["FunctionOutput"] = []
"""The installed outputs of this process, the innermost last."""


class attributed_to:  # noqa: N801 - it is used like a function; a generator would take three times as long for each call
    """Attributes what is logged and printed in this context to a function and its call.

    It contains all code of a function. So a copy of this process that the function forks ends where it would leave this context.
    """

    __slots__ = ("_output", "_process", "_running_code", "_token")

    def __init__(self, function: str, request_id: str | None = None) -> None:
        self._process = process_id()
        self._running_code = RunningCode(function, request_id)
        self._output = _output[-1] if _output else None

    def __enter__(self) -> None:
        self._token = _running_code.set(self._running_code)
        if self._output is not None:
            self._output.begin(self._running_code)

    def __exit__(self, _kind: object, error: BaseException | None, _stack: object) -> None:
        if process_id() != self._process:
            end_copy(error, self._end_lines)
        if self._output is not None:
            self._output.end(self._running_code)
        try:  # noqa: SIM105 - `suppress` takes longer, and this runs for each call
            _running_code.reset(self._token)
        except ValueError:
            # A coroutine that was not finished is closed by the garbage collector in another context.
            pass

    def _end_lines(self) -> None:
        if self._output is not None:
            self._output.end(self._running_code)


class FunctionOutput:
    """Passes the output of this process's functions on to `log`. Made by `installed`."""

    def __init__(self, log: FunctionLog) -> None:
        self._log = log
        self._thread = threading.get_ident()
        self._settings: dict[str, FunctionLogging] = {}
        self._running: set[RunningCode] = set()
        self._without_call: dict[str, RunningCode] = {}
        self._root = logging.getLogger()
        self._handlers = self._root.handlers
        self._unattributed = self._new_settings("", level=logging.NOTSET)
        self._views = LoggingViews(self._current_settings)
        self._libraries = [logging.getLogger(name) for name in LIBRARIES]
        self._sentinel = logging.getLogger(SENTINEL)
        self._sentinel.disabled = False
        self._enabled: list[logging.Logger] = []
        self._installed = ExitStack()

    def logging_settings(self, function: str, level: int | None = None) -> FunctionLogging:
        """Returns the logging settings of a function; sets its level if `level` is given."""
        logging_settings = self._settings.get(function)
        if logging_settings is None:
            logging_settings = self._settings[function] = self._new_settings(function)
        if level is not None:
            logging_settings.level = level
            self._views.apply_level(iter(self._settings.values()))
        return logging_settings

    def begin(self, running_code: RunningCode) -> None:
        """Begins a call or an import."""
        self._running.add(running_code)
        if running_code.request_id is None:
            self._enabled = [each for each in self._loggers() if not each.disabled]

    def end(self, running_code: RunningCode) -> None:
        """Ends a call or an import: logs its unfinished lines, and enables loggers that it disabled all at once."""
        self._running.discard(running_code)
        if running_code.begun:
            self._end_lines(running_code)
        if self._sentinel.disabled:
            for logger in (self._sentinel, *self._enabled, *self._libraries):
                logger.disabled = False

    def current(self) -> RunningCode | None:
        """Returns the call or import to which output of this context belongs; None: the daemon itself."""
        running_code = _running_code.get()
        if running_code is not None or threading.get_ident() == self._thread:
            return running_code
        running = list(self._running)
        if len(running) == 1:
            return running[0]
        functions = {each.function for each in running} or self._settings.keys()
        function = next(iter(functions)) if len(functions) == 1 else ""
        return self._without_call.setdefault(function, RunningCode(function))

    def printed(self, running_code: RunningCode, stream: str, text: str) -> None:
        """Accepts text that was written to a stream: logs complete lines, and keeps the rest until its end comes."""
        place = (stream, threading.get_ident())
        begun = running_code.begun.pop(place, None) or BegunLine()
        *lines, rest = text.split("\n")
        for line in lines:
            begun.add(line)
            self._log_line(running_code, begun)
            begun = BegunLine()
        if rest:
            begun.add(rest)
        if begun.chars:
            if len(running_code.begun) >= BEGUN_MAX:
                self._end_lines(running_code)
            running_code.begun[place] = begun

    def logged(
        self, logging_settings: FunctionLogging, record: logging.LogRecord, text: Callable[[], str]
    ) -> None:
        """Accepts a record that reached a function's handler of the root logger."""
        running_code = self.current()
        if running_code is None or (
            _running_code.get() is None and record.name.partition(".")[0] in LIBRARIES
        ):
            for handler in self._handlers:
                if record.levelno >= handler.level:
                    handler.handle(record)
        elif logging_settings is self._unattributed or self._wanted(logging_settings, record):
            self._log.write(
                running_code.function,
                text(),
                level=record.levelno,
                request_id=running_code.request_id,
                logger=plain_name(record.name),
                fields=fields_of_record(record),
            )

    def request_id(self) -> str | None:
        """Returns the request id of the running call."""
        running_code = self.current()
        return running_code.request_id if running_code is not None else None

    def install(self) -> None:
        """Replaces the root logger's settings and the streams."""
        self._installed.enter_context(own_logging(self._views))
        self._installed.enter_context(function_streams(self.current, self.printed))
        self._submit = ThreadPoolExecutor.submit
        self._submitting = _submitting(self._submit)
        ThreadPoolExecutor.submit = self._submitting  # type: ignore[method-assign]  # until `remove`

    def remove(self) -> None:
        """Restores them, unless somebody else has replaced them meanwhile."""
        for running_code in self._without_call.values():
            self._end_lines(running_code)
        if ThreadPoolExecutor.submit is self._submitting:
            ThreadPoolExecutor.submit = self._submit  # type: ignore[method-assign]
        self._installed.close()

    def _new_settings(self, function: str, **more: Any) -> FunctionLogging:
        logging_settings = FunctionLogging(function, **more)
        logging_settings.handlers.append(_Records(self, logging_settings))
        return logging_settings

    def _current_settings(self) -> FunctionLogging | None:
        """Returns the logging settings that hold in this context; None: the daemon's own."""
        running_code = self.current()
        if running_code is None:
            return None
        return self.logging_settings(running_code.function) if running_code.function else self._unattributed

    def _end_lines(self, running_code: RunningCode) -> None:
        """Logs the unfinished lines of a call."""
        while running_code.begun:
            self._log_line(running_code, running_code.begun.popitem()[1])

    def _log_line(self, running_code: RunningCode, line: BegunLine) -> None:
        text = line.text
        if text.strip():
            running_code.levels = running_code.levels or Levels()
            level = running_code.levels.of(text, level_of(text))
            self._log.write(
                running_code.function, text, level=level, request_id=running_code.request_id, chars=line.chars
            )

    def _wanted(self, logging_settings: FunctionLogging, record: logging.LogRecord) -> bool:
        """Whether the function's own level admits a record. A level of a logger below the root has admitted it already."""
        if record.levelno <= logging_settings.disabled:
            return False
        if record.levelno >= logging_settings.level:
            return True
        # Not with `getLogger`, which waits for a lock.
        logger: Any = self._root.manager.loggerDict.get(record.name)
        while isinstance(logger, logging.Logger) and logger is not self._root:
            if logger.level:
                return True
            logger = logger.parent
        return False

    def _loggers(self) -> list[logging.Logger]:
        return [
            each for each in list(self._root.manager.loggerDict.values()) if isinstance(each, logging.Logger)
        ]


def _submitting(submit: Callable[..., Future[Any]]) -> Callable[..., Future[Any]]:
    """Makes a `submit` that attributes the output of submitted work to the call that submits it."""

    def wrapped(
        pool: ThreadPoolExecutor, function: Callable[..., Any], /, *args: Any, **more: Any
    ) -> Future[Any]:
        running_code = _running_code.get()
        if running_code is None:
            return submit(pool, function, *args, **more)

        def run() -> Any:
            token = _running_code.set(running_code)
            try:
                # The thread waits for other work, so a copy that got there would never end.
                with ends_copies():
                    return function(*args, **more)
            finally:
                _running_code.reset(token)

        return submit(pool, run)

    return wrapped


class _Records(LocklessHandler):
    """The root logger's handler for one function, which may set its level, filters and formatter."""

    def __init__(self, output: FunctionOutput, logging_settings: FunctionLogging) -> None:
        super().__init__()
        self._output = output
        self._current_settings = logging_settings

    def handle(self, record: logging.LogRecord) -> bool:
        # Formatters may use this attribute, as on Lambda.
        record.__dict__.setdefault("aws_request_id", self._output.request_id())
        return super().handle(record)

    def emit(self, record: logging.LogRecord) -> None:
        self._output.logged(self._current_settings, record, lambda: self._text(record))

    def _text(self, record: logging.LogRecord) -> str:
        if self.formatter is not None:
            try:
                return _plain(self.formatter.format(record))
            except Exception:  # noqa: BLE001 - user code: the record is logged as if there were no formatter
                self.handleError(record)
        return record_text(record)


def record_text(record: logging.LogRecord) -> str:
    """Returns a record's message followed by its traceback; never raises, whatever the record contains."""
    try:
        text = record.getMessage()
    except Exception:  # noqa: BLE001 - arguments that do not fit, or whose __str__ fails, are the function's
        text = record.msg if isinstance(record.msg, str) else "(its text could not be made)"
    text = _plain(text)
    if record.exc_info and record.exc_info[1] is not None:
        text = f"{text}\n{_exception(record)}"
    return f"{text}\n{record.stack_info}" if record.stack_info else text


def _plain(text: str) -> str:
    """Returns a plain `str`: a subclass could run a function's code where the line is written."""
    return str.__getitem__(text, slice(None))


def _exception(record: logging.LogRecord) -> str:
    try:
        assert record.exc_info is not None
        return logging.Formatter().formatException(record.exc_info)[-LINE_CHARS_MAX:]
    except Exception:  # noqa: BLE001 - an exception's text may fail like anything else of a function
        return "(its traceback could not be made)"


@contextmanager
def installed(log: FunctionLog) -> Iterator[FunctionOutput]:
    """Replaces logging and the streams of this process; restores them at the end."""
    output = FunctionOutput(log)
    output.install()
    _output.append(output)
    try:
        yield output
    finally:
        _output.remove(output)
        output.remove()


@asynccontextmanager
async def _installed(log: FunctionLog) -> AsyncIterator[FunctionOutput]:
    with installed(log) as output:
        yield output


async def function_output(env: Environment) -> FunctionOutput:
    """Returns the output of this daemon's functions. The first function that runs in this process installs it."""
    return await env.shared.get("invokers.output", lambda: _installed(env.function_log))
