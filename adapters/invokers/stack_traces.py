"""Owns stack traces: those of exceptions that Python functions raise, and those in the error documents of other runtimes."""

import importlib
import linecache
import os
from collections.abc import Iterator
from itertools import islice
from types import TracebackType
from typing import Any

_OWN = os.path.dirname(__file__) + os.sep
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
    first_of_user = next((place for place, (path, _, _) in enumerate(frames) if not _own(path)), len(frames))
    return [_entry(*frame) for frame in frames[first_of_user:]]


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


def _frames(traceback: TracebackType | None) -> Iterator[tuple[str, int | None, str]]:
    while traceback is not None:
        code = traceback.tb_frame.f_code
        yield code.co_filename, traceback.tb_lineno, code.co_name
        traceback = traceback.tb_next


def _own(path: str) -> bool:
    return path.startswith((_OWN, _IMPORTING)) or os.path.dirname(path) == _LIBRARY


def _entry(path: str, line: int | None, name: str) -> str:
    where = f'  File "{path}", line {line}, in {name}'
    source = linecache.getline(path, line).strip() if line else ""
    return f"{where}\n    {source}" if source else where


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
