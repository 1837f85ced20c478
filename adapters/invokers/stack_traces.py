"""Owns stack traces: those of exceptions that Python functions raise, and those in the error documents of other runtimes."""

import importlib
import linecache
import os
from collections.abc import Iterator
from itertools import islice
from types import FrameType, TracebackType
from typing import Any

from adapters.invokers.function_code.kept_sources import SourceLoader

_OWN = os.path.dirname(__file__) + os.sep
_OWN_IMPORTS = os.path.join(_OWN, "function_code", "")
_LIBRARY = os.path.dirname(importlib.__file__)
_IMPORTING = "<frozen importlib"
_traceback = BaseException.__dict__["__traceback__"].__get__
"""Reads an exception's real traceback, since its class may define a member of that name."""
FRAMES_MAX = 100_000
"""Frames that are read. A stack has fewer, unless the function raised the interpreter's recursion limit by far."""
ENTRIES_MAX = 10_000
"""Entries of an error document's stack trace that are read."""
ENTRY_CHARS_MAX = 4096
_STACK_MEMBERS = ("stackTrace", "trace")
"""Node.js calls it `trace`, the others `stackTrace`."""


def stack_of(error: BaseException) -> list[str]:
    """Returns where `error` was raised, the outermost call first, two lines per entry, without the daemon's own frames.

    It has no values of variables, since they may be confidential.
    """
    frames = list(islice(_frames(_traceback(error)), FRAMES_MAX))
    paths = [frame.f_code.co_filename for frame, _ in frames]
    first_of_user = next((place for place, path in enumerate(paths) if not _own(path)), len(frames))
    return [_entry(*each) for each in frames[first_of_user:] if not _imports(each[0].f_code.co_filename)]


def stack_in(document: dict[str, Any]) -> list[str]:
    """Returns the stack trace of an error document, in the form of any of Lambda's runtimes; empty if it has none."""
    found = next((document[name] for name in _STACK_MEMBERS if document.get(name)), ())
    if isinstance(found, str):
        return [found]
    return (
        [_reported_entry(entry)[:ENTRY_CHARS_MAX] for entry in found[:ENTRIES_MAX]]
        if isinstance(found, list)
        else []
    )


def _frames(traceback: TracebackType | None) -> Iterator[tuple[FrameType, int | None]]:
    while traceback is not None:
        yield traceback.tb_frame, traceback.tb_lineno
        traceback = traceback.tb_next


def _imports(path: str) -> bool:
    """Whether a frame is one of an import on its way, between the statement and the module."""
    return path.startswith((_IMPORTING, _OWN_IMPORTS))


def _own(path: str) -> bool:
    return path.startswith((_OWN, _IMPORTING)) or os.path.dirname(path) == _LIBRARY


def _entry(frame: FrameType, line: int | None) -> str:
    path, name = frame.f_code.co_filename, frame.f_code.co_name
    where = f'  File "{path}", line {line}, in {name}'
    source = _source_line(frame, path, line).strip() if line else ""
    return f"{where}\n    {source}" if source else where


def _source_line(frame: FrameType, path: str, line: int) -> str:
    """Returns a line as it was when the module was imported, if that is known, since the file may hold other code by now."""
    loader = frame.f_globals.get("__loader__")
    kept = loader.kept_line(line) if type(loader) is SourceLoader and loader.path == path else ""
    return kept or linecache.getline(path, line)


def _reported_entry(entry: Any) -> str:
    """Returns an entry as text. Go's runtime writes objects, old Python runtimes write lists of file, line, name and code."""
    match entry:
        case {"path": path, "line": line, "label": label}:
            return f"  {as_text(path)}:{as_text(line)} {as_text(label)}"
        case [path, line, name, *code]:
            source = "".join(f"\n    {as_text(each)}" for each in code[:1])
            return f'  File "{as_text(path)}", line {as_text(line)}, in {as_text(name)}{source}'
        case _:
            return as_text(entry)


def as_text(value: Any) -> str:
    """Returns a member of an error document as text, whatever its type; null is empty."""
    if isinstance(value, str):
        return value
    try:
        return "" if value is None else str(value)
    except RecursionError:
        return "(nested too deeply to be shown)"
