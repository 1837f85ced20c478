"""Functions that change what they share with others: logging, its locks, the streams."""

import asyncio
import contextlib
import io
import logging
import sys
import threading
from collections.abc import Callable
from typing import Any

made = threading.Event()
"""A text is being made, or a lock or redirection is held."""
go_on = threading.Event()


class Slow:
    """Its text takes until `go_on`."""

    def __str__(self) -> str:
        _wait()
        return "slow"


def ends_in_time() -> None:
    """Ends what is held after a while, also while the loop stands still."""
    if not go_on.wait(3):
        go_on.set()


def _wait() -> None:
    made.set()
    assert go_on.wait(20)


def _slow_text() -> None:
    logging.warning("%s", Slow())


def _handler_lock() -> None:
    for handler in logging.getLogger().handlers:
        handler.acquire()
    _wait()


def _logging_lock() -> None:
    with logging._lock:  # type: ignore[attr-defined]
        _wait()


def _slow_formatter() -> None:
    logging.getLogger().handlers[0].setFormatter(_Formatter())
    logging.warning("x")


class _Formatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        _wait()
        return "formatted"


def _own_slow_handler() -> None:
    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            _wait()

    logging.getLogger().addHandler(Handler())
    logging.warning("x")


HOLDS: dict[str, Callable[[], None]] = {
    "a slow text": _slow_text,
    "the handler's lock": _handler_lock,
    "the lock of logging": _logging_lock,
    "a slow formatter": _slow_formatter,
    "a slow handler": _own_slow_handler,
}


class _Filter(logging.Filter):
    def __init__(self, found: Callable[[logging.LogRecord], bool]) -> None:
        super().__init__()
        self._found = found

    def filter(self, record: logging.LogRecord) -> bool:
        return self._found(record)


def _root_handler() -> Any:
    return logging.getLogger().handlers[0]


class _BrokenLogger(logging.Logger):
    def makeRecord(self, *_: Any, **__: Any) -> Any:  # noqa: N802
        raise RuntimeError("no record")


def _cleared() -> None:
    logging.getLogger().handlers.clear()


def _assigned() -> None:
    logging.getLogger().handlers = []


CHANGES: dict[str, Callable[[], Any]] = {
    "a filter for its own attribute": lambda: _root_handler().addFilter(
        _Filter(lambda record: bool(record.tenant))  # type: ignore[attr-defined]
    ),
    "a filter that lets nothing through": lambda: _root_handler().addFilter(_Filter(lambda _: False)),
    "a filter that raises": lambda: _root_handler().addFilter(_Filter(lambda _: 1 // 0 > 0)),
    "a filter of the root logger": lambda: logging.getLogger().addFilter(_Filter(lambda _: False)),
    "the level of the handler": lambda: _root_handler().setLevel(logging.CRITICAL),
    "the level of the root": lambda: logging.getLogger().setLevel(logging.CRITICAL),
    "a formatter that raises": lambda: _root_handler().setFormatter(logging.Formatter("%(nobody)s")),
    "a handler with a filter that raises": lambda: _own_handler(_Filter(lambda _: 1 // 0 > 0)),
    "no handlers": _cleared,
    "other handlers": _assigned,
    "a disabled root": lambda: setattr(logging.getLogger(), "disabled", True),
    "disable": lambda: logging.disable(logging.CRITICAL),
    "a logger class": lambda: logging.setLoggerClass(_BrokenLogger),
    "a record factory": lambda: logging.setLogRecordFactory(lambda *_, **__: None),  # type: ignore[arg-type]
    "names of levels": lambda: logging.addLevelName(logging.WARNING, "debug"),
    "standard output": lambda: setattr(sys, "stdout", io.StringIO()),
    "no standard output": lambda: setattr(sys, "stdout", None),
    "a wrapped standard output": lambda: setattr(sys, "stdout", Tee(sys.stdout)),
}


class Tee:
    """Writes to another stream, as those do that copy what is printed."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        return int(self._stream.write(text))

    def flush(self) -> None:
        self._stream.flush()


def _own_handler(found: logging.Filter) -> None:
    handler = logging.StreamHandler()
    handler.addFilter(found)
    logging.getLogger().addHandler(handler)


def meddle(event: Any, context: Any) -> Any:
    """Does `event`, by its name."""
    (HOLDS | CHANGES)[event]()
    made.set()


def meddle_and_wait(event: Any, context: Any) -> Any:
    """Does `event`, and is still there."""
    CHANGES[event]()
    _wait()


def say(event: Any, context: Any) -> Any:
    """Logs and prints `event`."""
    logging.warning("%s logged", event)
    logging.getLogger(f"new {event}").warning("%s logged anew", event)
    print(event, "printed")


async def say_on_loop(event: Any, context: Any) -> Any:
    """Like `say`, on the loop."""
    await asyncio.sleep(0)
    say(event, context)


def redirect(event: Any, context: Any) -> Any:
    """Prints into a stream of its own, in turns with another that does the same."""
    caught = io.StringIO()
    with contextlib.redirect_stdout(caught):
        barriers[event["first"]].wait(20)
        print("caught of", event["name"])
        barriers[event["then"]].wait(20)
    print("after", event["name"], end="")
    sys.stdout.buffer.write(b"\n")
    return caught.getvalue()


barriers = [threading.Barrier(2), threading.Barrier(2)]


def format_as_on_lambda(event: Any, context: Any) -> Any:
    """Gives the handler that it finds a format with Lambda's field."""
    _root_handler().setFormatter(logging.Formatter("of %(aws_request_id)s: %(message)s"))
    logging.warning("hello")
