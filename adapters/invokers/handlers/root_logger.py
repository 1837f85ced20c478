"""Owns the root logger and the global settings of `logging`, of which each function of this process has its own.

Each function has its own lists of root handlers and root filters; the daemon keeps the original ones. So whatever a function does to
them affects only its own records. The real level of the root logger is the lowest that any function wants, because loggers cache
which levels are enabled. A function's handler then applies the function's own level.

`logging` has one lock for all settings. Code of a function can hold it for a long time, as `dictConfig` does while it makes handlers. So
others wait for the lock only for a limited time, and the event loop hardly at all. To go on without it is safe, because it guards
only single operations on dictionaries.
"""

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, cast

LEVEL_DEFAULT = logging.INFO
"""The level of the root logger for a function, as for functions on Lambda that log JSON."""
LOOP_WAITS_S = 0.01
OTHERS_WAIT_S = 1.0


@dataclass(eq=False, slots=True)
class FunctionLogging:
    """The settings of `logging` that one function has for itself."""

    function: str
    level: int = LEVEL_DEFAULT
    disabled: int = 0
    """The level that the function gave to `logging.disable`."""
    muted: bool = False
    """The root logger's `disabled`."""
    handlers: list[logging.Handler] = field(default_factory=list)
    filters: list[Any] = field(default_factory=list)
    record_factory: Callable[..., Any] | None = None
    logger_class: type[logging.Logger] | None = None


class LoggingViews:
    """Gives the settings that hold for the running code; None: the daemon's own."""

    def __init__(self, settings: Callable[[], FunctionLogging | None]) -> None:
        self.settings = settings
        self.root = logging.getLogger()
        self.level = self.root.level
        """The daemon's own level."""

    def apply_level(self, all_settings: Iterator[FunctionLogging]) -> None:
        """Sets the real level of the root logger to the lowest that the daemon or any function wants."""
        self.root.__dict__["level"] = min((settings.level for settings in all_settings), default=self.level)
        if self.level < self.root.__dict__["level"]:
            self.root.__dict__["level"] = self.level
        self.root.manager._clear_cache()  # type: ignore[attr-defined]  # nothing public does


_views: list[LoggingViews] = []
"""The installed views, the innermost last."""


def _current() -> FunctionLogging | None:
    return _views[-1].settings() if _views else None


def _own(name: str, in_settings: str) -> Any:
    """Makes a property for an attribute of the root logger that each function has for itself."""

    def get(root: logging.Logger) -> Any:
        settings = _current()
        return root.__dict__[name] if settings is None else getattr(settings, in_settings)

    def put(root: logging.Logger, value: Any) -> None:
        settings = _current()
        if settings is None:
            root.__dict__[name] = value
        else:
            setattr(settings, in_settings, value)

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
        settings = _current()
        if settings is None:
            _views[-1].level = self.__dict__["level"] = value
        else:
            settings.level = value
            self.__dict__["level"] = min(self.__dict__["level"], value)


class _Manager(logging.Manager):
    @property
    def disable(self) -> int:
        return self._disable  # type: ignore[no-any-return]

    @disable.setter
    def disable(self, value: Any) -> None:
        settings, level = _current(), logging._checkLevel(value)  # type: ignore[attr-defined]
        if settings is None:
            self._disable = level
        else:
            settings.disabled = level


class _SettingsLock:
    """Replaces the lock of `logging`. `acquire` waits for a limited time, and then goes on without the lock."""

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
    """Makes replacements for the functions of `logging` that set how records and loggers are made, per function."""

    original = before["getLogRecordFactory"]()

    def record(*given: Any, **more: Any) -> Any:
        settings = _current()
        factory = settings.record_factory if settings is not None else None
        return (factory or original)(*given, **more)

    def set_factory(factory: Callable[..., Any]) -> None:
        nonlocal original
        settings = _current()
        if settings is None:
            original = factory
        else:
            settings.record_factory = None if factory is record else factory
            before["setLogRecordFactory"](record)

    def get_factory() -> Callable[..., Any]:
        settings = _current()
        return settings.record_factory or original if settings is not None else original

    def set_class(kind: Any) -> None:
        settings = _current()
        if settings is None or not (isinstance(kind, type) and issubclass(kind, logging.Logger)):
            # For a wrong class this raises the usual error.
            before["setLoggerClass"](kind)
        else:
            settings.logger_class = kind

    def get_class() -> Any:
        settings = _current()
        own = settings.logger_class if settings is not None else None
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
def own_logging(views: LoggingViews) -> Iterator[None]:
    """Gives each function its own settings of `logging`, and restores everything at the end. Must be called on the event loop."""
    module: Any = logging
    root, manager = views.root, views.root.manager
    names = ("setLogRecordFactory", "getLogRecordFactory", "setLoggerClass", "getLoggerClass")
    before: dict[str, Any] = {name: getattr(module, name) for name in (*names, "_lock")}
    factory, classes = before["getLogRecordFactory"](), (root.__class__, manager.__class__)
    logger_class = manager.loggerClass
    _views.append(views)
    root.__class__, manager.__class__ = _Root, _Manager
    kinds = _kinds(before)
    # A new logger gets the class of the function that makes it first.
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
        # If a function still holds the real lock, the replacement stays: the interpreter acquires it at exit, and must not wait for ever.
