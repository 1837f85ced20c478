"""Owns `sys.stdout` and `sys.stderr` for functions: what they write becomes lines of the function log.

A process has only one of each. But if a function replaces one, as `contextlib.redirect_stdout` does, only its current call must be
affected, and only until the call ends. So `sys` gets a class with properties, which keep the replacement with the call. `print`
does not use these properties but the dictionary of `sys`. So the stream in that dictionary looks for a replacement itself.
"""

import io
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any, Protocol, TextIO

NAMES = ("stdout", "stderr")


class Writer(Protocol):
    """A call of a function that writes to the streams."""

    redirects: dict[str, Any] | None
    """The replacements that the function made, by the name of the stream."""


type CurrentWriter = Callable[[], Writer | None]
type OnText = Callable[[Any, str, str], None]


class FunctionStream(io.TextIOBase):
    """`sys.stdout` or `sys.stderr` for functions. What others write goes to `original`."""

    def __init__(self, current_writer: CurrentWriter, on_text: OnText, name: str, original: TextIO) -> None:
        self.original = original
        self._current_writer = current_writer
        self._on_text = on_text
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
        if self._current_writer() is None:
            self.original.flush()

    def write(self, text: str) -> int:
        writer = self._current_writer()
        if writer is None:
            return self.original.write(text)
        if not isinstance(text, str):
            raise TypeError(f"write() argument must be str, not {type(text).__name__}")
        self._on_text(writer, self._name, text)
        return len(text)

    def reconfigure(self, **_: Any) -> None:
        """Does nothing, since the form of lines is fixed."""

    def close(self) -> None:
        """Does nothing, since all functions share the stream."""


class _Bytes(io.RawIOBase):
    """The attribute `buffer` of such a stream."""

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
    """The stream to which `print` writes. It passes text on to the call's replacement, if there is one."""

    def write(self, text: str) -> int:
        writer = self._current_writer()
        if writer is None or not writer.redirects or self._name not in writer.redirects:
            return super().write(text)
        found = writer.redirects[self._name]
        # None as a stream, as in a program without a console, means that the text is discarded.
        return len(text) if found is None else found.write(text)

    def flush(self) -> None:
        writer = self._current_writer()
        found = writer.redirects.get(self._name) if writer is not None and writer.redirects else None
        if found is None:
            super().flush()
        else:
            found.flush()


def _per_call(
    current_writer: CurrentWriter, name: str, streams: dict[str, tuple[_Printing, FunctionStream]]
) -> Any:
    printing, plain = streams[name]

    def get(module: ModuleType) -> Any:
        writer = current_writer()
        if writer is not None and writer.redirects and name in writer.redirects:
            return writer.redirects[name]
        if name not in module.__dict__:
            raise AttributeError(name)
        found = module.__dict__[name]
        return plain if found is printing and writer is not None else found

    def put(module: ModuleType, value: Any) -> None:
        writer = current_writer()
        if writer is None:
            module.__dict__[name] = value
        elif value is plain or value is printing:
            if writer.redirects:
                writer.redirects.pop(name, None)
        else:
            writer.redirects = {**(writer.redirects or {}), name: value}

    return property(get, put, lambda module: module.__dict__.pop(name, None))


@contextmanager
def function_streams(current_writer: CurrentWriter, on_text: OnText) -> Iterator[None]:
    """Replaces the streams of this process; restores them at the end, unless somebody else has replaced them meanwhile."""
    names: dict[str, Any] = sys.__dict__
    streams = {
        name: (
            _Printing(current_writer, on_text, name, names[name]),
            FunctionStream(current_writer, on_text, name, names[name]),
        )
        for name in NAMES
    }
    kind = sys.__class__
    for name, (printing, _) in streams.items():
        names[name] = printing
    sys.__class__ = type(
        "sys", (ModuleType,), {name: _per_call(current_writer, name, streams) for name in NAMES}
    )
    try:
        yield
    finally:
        sys.__class__ = kind
        for name, (printing, plain) in streams.items():
            if names.get(name) in (printing, plain):
                names[name] = printing.original
