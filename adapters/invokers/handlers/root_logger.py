"""Owns the root logger and the settings of `logging` as each function of this process sees them.

A function gets lists of root handlers and root filters of its own, the daemon keeps the ones that were there. What a function does to
them, or to a handler that it finds there, therefore holds for its own records only, from the first moment on. The level of the
root logger is the lowest that anybody wants, since loggers remember what is enabled; a function's handler applies its own.

`logging` has one lock for all its settings. Code of a function can hold it for long, as `dictConfig` does while it makes handlers.
Nobody waits for it without end, and the event loop hardly at all: what it guards are single steps on dictionaries.
"""

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, cast

LEVEL_DEFAULT = logging.INFO
"""Of the root logger for a function, as for functions on Lambda that log JSON."""
LOOP_WAITS_S = 0.01
OTHERS_WAIT_S = 1.0


@dataclass(eq=False, slots=True)
class Voice:
    """What one function has made of `logging`, for itself."""

    function: str
    level: int = LEVEL_DEFAULT
    disabled: int = 0
    """What it gave to `logging.disable`."""
    muted: bool = False
    """The root logger's `disabled`."""
    handlers: list[logging.Handler] = field(default_factory=list)
    filters: list[Any] = field(default_factory=list)
    record_factory: Callable[..., Any] | None = None
    logger_class: type[logging.Logger] | None = None


class Views:
    """Which voice speaks now; None: the daemon's own."""

    def __init__(self, voice: Callable[[], Voice | None]) -> None:
        self.voice = voice
        self.root = logging.getLogger()
        self.level = self.root.level
        """The daemon's own."""

    def apply_level(self, voices: Iterator[Voice]) -> None:
        """The root logger lets through whatever anybody wants."""
        self.root.__dict__["level"] = min((voice.level for voice in voices), default=self.level)
        if self.level < self.root.__dict__["level"]:
            self.root.__dict__["level"] = self.level
        self.root.manager._clear_cache()  # type: ignore[attr-defined]  # nothing public does


_views: list[Views] = []
"""What is installed, the innermost last."""


def _voice() -> Voice | None:
    return _views[-1].voice() if _views else None


def _own(name: str, in_voice: str) -> Any:
    """An attribute of the root logger that each function has for itself."""

    def get(root: logging.Logger) -> Any:
        voice = _voice()
        return root.__dict__[name] if voice is None else getattr(voice, in_voice)

    def put(root: logging.Logger, value: Any) -> None:
        voice = _voice()
        if voice is None:
            root.__dict__[name] = value
        else:
            setattr(voice, in_voice, value)

    return property(get, put)


class _Root(logging.RootLogger):
    handlers = _own("handlers", "handlers")
    filters = _own("filters", "filters")
    disabled = _own("disabled", "muted")

    @property
    def level(self) -> int:
        return self.__dict__["level"]  # type: ignore[no-any-return]

    @level.setter
    def level(self, value: int) -> None:
        voice = _voice()
        if voice is None:
            _views[-1].level = self.__dict__["level"] = value
        else:
            voice.level = value
            self.__dict__["level"] = min(self.__dict__["level"], value)


class _Manager(logging.Manager):
    @property
    def disable(self) -> int:
        return self._disable  # type: ignore[no-any-return]

    @disable.setter
    def disable(self, value: Any) -> None:
        voice, level = _voice(), logging._checkLevel(value)  # type: ignore[attr-defined]
        if voice is None:
            self._disable = level
        else:
            voice.disabled = level


class _SettingsLock:
    """The lock of `logging`; after some waiting one goes on without it."""

    def __init__(self, lock: Any) -> None:
        self._lock = lock
        self._loop_thread = threading.get_ident()
        self._taken = threading.local()

    def acquire(self) -> bool:
        waits_s = LOOP_WAITS_S if threading.get_ident() == self._loop_thread else OTHERS_WAIT_S
        self._taken.__dict__.setdefault("order", []).append(self._lock.acquire(timeout=waits_s))
        return True

    def release(self) -> None:
        order = self._taken.__dict__.get("order")
        if not order:
            raise RuntimeError("cannot release un-acquired lock")
        if order.pop():
            self._lock.release()

    def __enter__(self) -> bool:
        return self.acquire()

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.release()

    def _at_fork_reinit(self) -> None:
        self._lock._at_fork_reinit()


def _kinds(before: dict[str, Callable[..., Any]]) -> dict[str, Callable[..., Any]]:
    """Functions of `logging` by which a function sets for itself how records and loggers are made."""

    original = before["getLogRecordFactory"]()

    def record(*given: Any, **more: Any) -> Any:
        voice = _voice()
        factory = voice.record_factory if voice is not None else None
        return (factory or original)(*given, **more)

    def set_factory(factory: Callable[..., Any]) -> None:
        nonlocal original
        voice = _voice()
        if voice is None:
            original = factory
        else:
            voice.record_factory = None if factory is record else factory
            before["setLogRecordFactory"](record)

    def get_factory() -> Callable[..., Any]:
        voice = _voice()
        return voice.record_factory or original if voice is not None else original

    def set_class(kind: Any) -> None:
        voice = _voice()
        if voice is None or not (isinstance(kind, type) and issubclass(kind, logging.Logger)):
            # It raises what it raises of a wrong class.
            before["setLoggerClass"](kind)
        else:
            voice.logger_class = kind

    def get_class() -> Any:
        voice = _voice()
        own = voice.logger_class if voice is not None else None
        return own or before["getLoggerClass"]()

    return {
        "setLogRecordFactory": set_factory,
        "getLogRecordFactory": get_factory,
        "setLoggerClass": set_class,
        "getLoggerClass": get_class,
    }


def _logger(kind: Any, name: str) -> Any:
    return kind(name)


@contextmanager
def own_logging(views: Views) -> Iterator[None]:
    """Each function has its own view of `logging` meanwhile; at the end all is as it was. Called on the event loop."""
    module: Any = logging
    root, manager = views.root, views.root.manager
    names = ("setLogRecordFactory", "getLogRecordFactory", "setLoggerClass", "getLoggerClass")
    before: dict[str, Any] = {name: getattr(module, name) for name in (*names, "_lock")}
    factory, classes = before["getLogRecordFactory"](), (root.__class__, manager.__class__)
    logger_class = manager.loggerClass
    _views.append(views)
    root.__class__, manager.__class__ = _Root, _Manager
    kinds = _kinds(before)
    # A logger that is made first for one function is of that function's class.
    manager.loggerClass = cast("type[logging.Logger]", lambda name: _logger(kinds["getLoggerClass"](), name))
    for name, value in {**kinds, "_lock": _SettingsLock(before["_lock"])}.items():
        setattr(module, name, value)
    try:
        yield
    finally:
        for name in names:
            setattr(module, name, before[name])
        before["setLogRecordFactory"](factory)
        manager.loggerClass = logger_class
        root.__class__, manager.__class__ = classes
        _views.remove(views)
        root.setLevel(views.level)
        if before["_lock"].acquire(timeout=OTHERS_WAIT_S):
            before["_lock"].release()
            module._lock = before["_lock"]
        # Else a function keeps it, maybe for ever: the program takes this lock at its end, and must not wait for it.
