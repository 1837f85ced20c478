"""Owns `sys.stdout` and `sys.stderr` as functions find them: what is written to them becomes lines of the function log.

There is one of each in a process. A function that replaces one, as `contextlib.redirect_stdout` does, replaces it for the call that it runs
in: `sys` gets a class that keeps such a stream with the call, and `print`, which does not ask that class, writes to a stream that asks
for it. With the call the replacement ends.
"""

import io
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any, Protocol, TextIO

NAMES = ("stdout", "stderr")


class Writer(Protocol):
    """Whoever writes to the streams."""

    redirects: dict[str, Any] | None
    """Name of a stream to what a function put in its place."""


type Who = Callable[[], Writer | None]
type Printed = Callable[[Any, str, str], None]


class FunctionStream(io.TextIOBase):
    """What functions find as `sys.stdout` or `sys.stderr`; all else goes to `original`."""

    def __init__(self, who: Who, printed: Printed, name: str, original: TextIO) -> None:
        self.original = original
        self._who = who
        self._printed = printed
        self._name = name
        self.buffer = _Bytes(self)

    @property
    def encoding(self) -> str:  # type: ignore[override]  # a property of what is read only in typeshed's class
        return "utf-8"

    @property
    def errors(self) -> str:  # type: ignore[override]
        return "replace"

    def writable(self) -> bool:
        return True

    def isatty(self) -> bool:
        return False

    def fileno(self) -> int:
        return self.original.fileno()

    def flush(self) -> None:
        if self._who() is None:
            self.original.flush()

    def write(self, text: str) -> int:
        writer = self._who()
        if writer is None:
            return self.original.write(text)
        if not isinstance(text, str):
            raise TypeError(f"write() argument must be str, not {type(text).__name__}")
        self._printed(writer, self._name, text)
        return len(text)

    def reconfigure(self, **_: Any) -> None:
        """Nothing: lines are what they are."""

    def close(self) -> None:
        """Nothing: the stream is everybody's."""


class _Bytes(io.RawIOBase):
    """The `buffer` of such a stream."""

    def __init__(self, stream: FunctionStream) -> None:
        self._stream = stream

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._stream.fileno()

    def write(self, given: Any) -> int:
        found = bytes(given)
        self._stream.write(found.decode("utf-8", "replace"))
        return len(found)


class _Printing(FunctionStream):
    """What `print` writes to: the stream that the call has put in place, or its lines."""

    def write(self, text: str) -> int:
        writer = self._who()
        if writer is None or not writer.redirects or self._name not in writer.redirects:
            return super().write(text)
        found = writer.redirects[self._name]
        # None, as where a program has no console, takes all and shows nothing.
        return len(text) if found is None else found.write(text)

    def flush(self) -> None:
        writer = self._who()
        found = writer.redirects.get(self._name) if writer is not None and writer.redirects else None
        if found is None:
            super().flush()
        else:
            found.flush()


def _of_the_call(who: Who, name: str, streams: dict[str, tuple[_Printing, FunctionStream]]) -> Any:
    printing, plain = streams[name]

    def get(module: ModuleType) -> Any:
        writer = who()
        if writer is not None and writer.redirects and name in writer.redirects:
            return writer.redirects[name]
        if name not in module.__dict__:
            raise AttributeError(name)
        found = module.__dict__[name]
        return plain if found is printing and writer is not None else found

    def put(module: ModuleType, value: Any) -> None:
        writer = who()
        if writer is None:
            module.__dict__[name] = value
        elif value is plain or value is printing:
            if writer.redirects:
                writer.redirects.pop(name, None)
        else:
            writer.redirects = {**(writer.redirects or {}), name: value}

    return property(get, put, lambda module: module.__dict__.pop(name, None))


@contextmanager
def function_streams(who: Who, printed: Printed) -> Iterator[None]:
    """Takes the streams of this process over; gives them back at the end, unless somebody else has taken them since."""
    names: dict[str, Any] = sys.__dict__
    streams = {
        name: (_Printing(who, printed, name, names[name]), FunctionStream(who, printed, name, names[name]))
        for name in NAMES
    }
    kind = sys.__class__
    for name, (printing, _) in streams.items():
        names[name] = printing
    sys.__class__ = type("sys", (ModuleType,), {name: _of_the_call(who, name, streams) for name in NAMES})
    try:
        yield
    finally:
        sys.__class__ = kind
        for name, (printing, plain) in streams.items():
            if names.get(name) in (printing, plain):
                names[name] = printing.original
