"""Owns stack traces: of an exception that a Python function raised, and those that other runtimes write into error documents."""

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
"""An exception's true traceback: its class may have a member of that name."""
FRAMES_MAX = 100_000
"""Frames that are looked at; a stack has fewer unless somebody has raised the interpreter's limit by far."""
ENTRIES_MAX = 10_000
"""Entries of an error document's stack trace that are looked at."""
ENTRY_CHARS_MAX = 4096
_STACK_MEMBERS = ("stackTrace", "trace")
"""Node.js calls it `trace`, the others `stackTrace`."""


def stack_of(error: BaseException) -> list[str]:
    """Where `error` was raised, the outermost call first, two lines an entry; none of it is the daemon's own code.

    No values of variables: they may be anybody's data.
    """
    frames = list(islice(_frames(_traceback(error)), FRAMES_MAX))
    theirs = next((place for place, (path, _, _) in enumerate(frames) if not _own(path)), len(frames))
    return [_entry(*frame) for frame in frames[theirs:]]


def stack_in(document: dict[str, Any]) -> list[str]:
    """The stack trace of an error document, as any of Lambda's runtimes writes it; empty when there is none."""
    found = next((document[name] for name in _STACK_MEMBERS if document.get(name)), ())
    if isinstance(found, str):
        return [found]
    return (
        [_entry_told(entry)[:ENTRY_CHARS_MAX] for entry in found[:ENTRIES_MAX]]
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


def _entry_told(entry: Any) -> str:
    """One entry: text in most runtimes, an object in Go's, a list of file, line, name and code in old Python's."""
    match entry:
        case {"path": path, "line": line, "label": label}:
            return f"  {told(path)}:{told(line)} {told(label)}"
        case [path, line, name, *code]:
            source = "".join(f"\n    {told(each)}" for each in code[:1])
            return f'  File "{told(path)}", line {told(line)}, in {told(name)}{source}'
        case _:
            return told(entry)


def told(value: Any) -> str:
    """A member of an error document as text; whatever it is, none is empty."""
    if isinstance(value, str):
        return value
    try:
        return "" if value is None else str(value)
    except RecursionError:
        return "(nested too deeply to be shown)"
