"""Owns what Python functions say inside this process: their logging, and what they print, becomes lines of the function log.

On Lambda a function has its process to itself. Here it shares logging, `sys.stdout` and `sys.stderr` with the daemon
and with other functions, so that three things have to be kept apart.

Who speaks is a context variable (`speaking`), which tasks and `asyncio.to_thread` hand on. What a function gives to a `ThreadPoolExecutor` speaks
for the call that gave it. A thread that a function starts by itself may serve many calls; its lines go to the call that runs, or, where
several run, to their function without a request id.

What it does to the root logger and to `sys.stdout` and `sys.stderr` holds for it alone (`root_logger`, `streams`). What is left to be found out
when it ends is that it disabled all loggers that there were, as `dictConfig` does.
"""

import logging
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

from adapters.invokers.handlers.root_logger import Views, Voice, own_logging
from adapters.invokers.handlers.standard_streams import function_streams
from adapters.invokers.printed_levels import Levels, level_of
from poller.output.function_log import LINE_CHARS_MAX, BegunLine, FunctionLog
from poller.output.lockless_handler import LocklessHandler
from poller.output.log_fields import fields_of_record
from poller.plugins import Environment

LIBRARIES = ("botocore", "aiobotocore", "aiohttp", "asyncio", "urllib3")
"""Loggers whose records are a function's only if they were made while it ran."""
SENTINEL = "poller.function_output"
"""A logger that is disabled only where all are."""
BEGUN_MAX = 250
"""Lines without an end that are kept of one speaker, one for each stream and thread."""


@dataclass(eq=False, slots=True)
class Speaker:
    """A function that speaks: in one of its calls, or while its module is imported."""

    function: str
    request_id: str | None = None
    begun: dict[tuple[str, int], BegunLine] = field(default_factory=dict)
    """Name of a stream and number of a thread to the line that was begun there."""
    levels: Levels | None = None
    redirects: dict[str, Any] | None = None
    """Name of a stream of `sys` to what the function put in its place."""


_speaker: ContextVar[Speaker | None] = ContextVar("speaker", default=None)
_output: list["FunctionOutput"] = []
"""What is installed in this process, the innermost last."""


class speaking:  # noqa: N801 - it is used like a function; a generator would take three times as long for each call
    """Whatever is logged and printed meanwhile in this context is the function's."""

    __slots__ = ("_output", "_speaker", "_token")

    def __init__(self, function: str, request_id: str | None = None) -> None:
        self._speaker = Speaker(function, request_id)
        self._output = _output[-1] if _output else None

    def __enter__(self) -> None:
        self._token = _speaker.set(self._speaker)
        if self._output is not None:
            self._output.begin(self._speaker)

    def __exit__(self, *_: object) -> None:
        if self._output is not None:
            self._output.end(self._speaker)
        with suppress(ValueError):
            # A coroutine that nobody finished is closed by whoever clears it away, in a context of his own.
            _speaker.reset(self._token)


class FunctionOutput:
    """What functions of this process say, on its way to `log`. Made by `installed`."""

    def __init__(self, log: FunctionLog) -> None:
        self._log = log
        self._thread = threading.get_ident()
        self._voices: dict[str, Voice] = {}
        self._running: set[Speaker] = set()
        self._unplaced: dict[str, Speaker] = {}
        self._root = logging.getLogger()
        self._handlers = self._root.handlers
        self._nobody = self._made("", level=logging.NOTSET)
        self._views = Views(self._voice)
        self._libraries = [logging.getLogger(name) for name in LIBRARIES]
        self._sentinel = logging.getLogger(SENTINEL)
        self._sentinel.disabled = False
        self._enabled: list[logging.Logger] = []
        self._installed = ExitStack()

    def voice(self, function: str, level: int | None = None) -> Voice:
        """The voice of a function; `level` is set if it is given."""
        voice = self._voices.get(function)
        if voice is None:
            voice = self._voices[function] = self._made(function)
        if level is not None:
            voice.level = level
            self._views.apply_level(iter(self._voices.values()))
        return voice

    def begin(self, speaker: Speaker) -> None:
        """A function begins to speak."""
        self._running.add(speaker)
        if speaker.request_id is None:
            self._enabled = [each for each in self._loggers() if not each.disabled]

    def end(self, speaker: Speaker) -> None:
        """A function has spoken: lines that it began are lines, what it did to the root logger is its own."""
        self._running.discard(speaker)
        self._end_lines(speaker)
        if self._sentinel.disabled:
            for logger in (self._sentinel, *self._enabled, *self._libraries):
                logger.disabled = False

    def who(self) -> Speaker | None:
        """Who speaks in this context; None: the daemon itself."""
        speaker = _speaker.get()
        if speaker is not None or threading.get_ident() == self._thread:
            return speaker
        running = list(self._running)
        if len(running) == 1:
            return running[0]
        functions = {each.function for each in running} or self._voices.keys()
        function = next(iter(functions)) if len(functions) == 1 else ""
        return self._unplaced.setdefault(function, Speaker(function))

    def printed(self, speaker: Speaker, stream: str, text: str) -> None:
        """Takes what was written to a stream: whole lines are told, the last piece waits for its end."""
        place = (stream, threading.get_ident())
        begun = speaker.begun.pop(place, None) or BegunLine()
        *lines, rest = text.split("\n")
        for line in lines:
            begun.add(line)
            self._said(speaker, begun)
            begun = BegunLine()
        if rest:
            begun.add(rest)
        if begun.chars:
            if len(speaker.begun) >= BEGUN_MAX:
                self._end_lines(speaker)
            speaker.begun[place] = begun

    def logged(self, voice: Voice, record: logging.LogRecord, text: Callable[[], str]) -> None:
        """Takes a record that came to the root logger's handler for the function."""
        speaker = self.who()
        if speaker is None or (_speaker.get() is None and record.name.partition(".")[0] in LIBRARIES):
            for handler in self._handlers:
                if record.levelno >= handler.level:
                    handler.handle(record)
        elif voice is self._nobody or self._wanted(voice, record):
            self._log.write(
                speaker.function,
                text(),
                level=record.levelno,
                request_id=speaker.request_id,
                logger=record.name,
                fields=fields_of_record(record),
            )

    def request_id(self) -> str | None:
        """Of the call that speaks."""
        speaker = self.who()
        return speaker.request_id if speaker is not None else None

    def install(self) -> None:
        """Takes the root logger and the streams over."""
        self._installed.enter_context(own_logging(self._views))
        self._installed.enter_context(function_streams(self.who, self.printed))
        self._submit = ThreadPoolExecutor.submit
        self._submitting = _submitting(self._submit)
        ThreadPoolExecutor.submit = self._submitting  # type: ignore[method-assign]  # until `remove`

    def remove(self) -> None:
        """Gives them back, unless somebody else has taken them since."""
        for speaker in self._unplaced.values():
            self._end_lines(speaker)
        if ThreadPoolExecutor.submit is self._submitting:
            ThreadPoolExecutor.submit = self._submit  # type: ignore[method-assign]
        self._installed.close()

    def _made(self, function: str, **more: Any) -> Voice:
        voice = Voice(function, **more)
        voice.handlers.append(_Records(self, voice))
        return voice

    def _voice(self) -> Voice | None:
        """Whose view of `logging` holds here."""
        speaker = self.who()
        if speaker is None:
            return None
        return self.voice(speaker.function) if speaker.function else self._nobody

    def _end_lines(self, speaker: Speaker) -> None:
        """What was begun is said, although its end did not come."""
        while speaker.begun:
            self._said(speaker, speaker.begun.popitem()[1])

    def _said(self, speaker: Speaker, line: BegunLine) -> None:
        text = line.text
        if text.strip():
            speaker.levels = speaker.levels or Levels()
            level = speaker.levels.of(text, level_of(text))
            self._log.write(
                speaker.function, text, level=level, request_id=speaker.request_id, chars=line.chars
            )

    def _wanted(self, voice: Voice, record: logging.LogRecord) -> bool:
        """Whether the function's own level lets a record through, where no logger below the root has one."""
        if record.levelno <= voice.disabled:
            return False
        if record.levelno >= voice.level:
            return True
        # Not by `getLogger`, which waits for a lock.
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
    """`submit`, by which what is submitted speaks for whoever submitted it."""

    def wrapped(
        pool: ThreadPoolExecutor, function: Callable[..., Any], /, *args: Any, **more: Any
    ) -> Future[Any]:
        speaker = _speaker.get()
        if speaker is None:
            return submit(pool, function, *args, **more)

        def run() -> Any:
            token = _speaker.set(speaker)
            try:
                return function(*args, **more)
            finally:
                _speaker.reset(token)

        return submit(pool, run)

    return wrapped


class _Records(LocklessHandler):
    """The root logger's handler as one function finds it; its level, filters and formatter are the function's."""

    def __init__(self, output: FunctionOutput, voice: Voice) -> None:
        super().__init__()
        self._output = output
        self._voice = voice

    def handle(self, record: logging.LogRecord) -> bool:
        # As on Lambda, for formatters.
        record.__dict__.setdefault("aws_request_id", self._output.request_id())
        return super().handle(record)

    def emit(self, record: logging.LogRecord) -> None:
        self._output.logged(self._voice, record, lambda: self._text(record))

    def _text(self, record: logging.LogRecord) -> str:
        if self.formatter is not None:
            try:
                return _plain(self.formatter.format(record))
            except Exception:  # noqa: BLE001 - user code: the record is told as if there were no formatter
                self.handleError(record)
        return record_text(record)


def record_text(record: logging.LogRecord) -> str:
    """A record's message, and its traceback behind it; raises nothing of what a record may hold."""
    try:
        text = record.getMessage()
    except Exception:  # noqa: BLE001 - arguments that do not fit, or whose __str__ fails, are the function's
        text = record.msg if isinstance(record.msg, str) else "(its text could not be made)"
    text = _plain(text)
    if record.exc_info and record.exc_info[1] is not None:
        text = f"{text}\n{_exception(record)}"
    return f"{text}\n{record.stack_info}" if record.stack_info else text


def _plain(text: str) -> str:
    """A string of no class but str: a class of a function's own would run its code where the line is written."""
    return str.__getitem__(text, slice(None))


def _exception(record: logging.LogRecord) -> str:
    try:
        assert record.exc_info is not None
        return logging.Formatter().formatException(record.exc_info)[-LINE_CHARS_MAX:]
    except Exception:  # noqa: BLE001 - an exception's text may fail like anything else of a function
        return "(its traceback could not be made)"


@contextmanager
def installed(log: FunctionLog) -> Iterator[FunctionOutput]:
    """Takes logging and the streams of this process over; gives them back at the end."""
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
    """The one of this daemon, installed by the first of its functions that runs in this process."""
    return await env.shared.get("invokers.output", lambda: _installed(env.function_log))
