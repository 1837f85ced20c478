"""Owns what the modules of a function import, as far as their source shows it. Nothing is run.

Only modules in the folder of the start are read: other places hold libraries. An import whose name is made when the code runs is
not seen.
"""

import ast
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from poller.start_folder import start_folder

MODULES_MAX = 500
"""Modules of one function that are read."""
SOURCE_BYTES_MAX = 1024 * 1024
"""Longer modules are not parsed."""
_TYPING_ONLY = "TYPE_CHECKING"


@dataclass(frozen=True, slots=True)
class ImportedName:
    """A name that is imported. `by` is the module that imports it, or an empty text for the function's own module."""

    name: str
    by: str


def imported_names(module: str) -> Iterator[ImportedName]:
    """Yields `module`, and all names that it and the modules which it imports import, as absolute dotted names.

    `from a import b` gives `a` and `a.b`, since b may be a module.
    """
    waiting, seen = deque([ImportedName(module, "")]), {module}
    read = 0
    while waiting and read < MODULES_MAX:
        found = waiting.popleft()
        yield found
        file = file_of(found.name)
        if file is None:
            continue
        read += 1
        package = found.name if file.name == "__init__.py" else found.name.rpartition(".")[0]
        for name in [*_parents(found.name), *_names(_parsed(file), package)]:
            if name not in seen:
                seen.add(name)
                waiting.append(ImportedName(name, found.name))


def file_of(name: str) -> Path | None:
    """Returns the source file of a module in the folder of the start; None if there is none."""
    base = start_folder().joinpath(*name.split("."))
    places = (base / "__init__.py", base.with_name(f"{base.name}.py"))
    return next((place for place in places if place.is_file()), None)


def parsed_source(source: bytes) -> list[ast.stmt]:
    """Returns the statements of a module; none if it cannot be parsed."""
    try:
        return ast.parse(source).body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return []


def _parsed(file: Path) -> list[ast.stmt]:
    try:
        return parsed_source(file.read_bytes()) if file.stat().st_size <= SOURCE_BYTES_MAX else []
    except OSError:
        return []


def _parents(name: str) -> Iterator[str]:
    """Yields the packages that an import of `name` imports, too."""
    while name := name.rpartition(".")[0]:
        yield name


def _names(statements: Iterable[ast.AST], package: str) -> Iterator[str]:
    """Yields the absolute names that these statements import, also inside functions, but not those for type checkers."""
    waiting = deque(statements)
    while waiting:
        each = waiting.popleft()
        match each:
            case ast.Import():
                yield from (alias.name for alias in each.names)
            case ast.ImportFrom():
                base = _base(each, package)
                if base:
                    yield base
                    yield from (f"{base}.{alias.name}" for alias in each.names if alias.name != "*")
            case ast.If(test=ast.Name(id=name) | ast.Attribute(attr=name)) if name == _TYPING_ONLY:
                waiting += each.orelse
            case _:
                waiting += ast.iter_child_nodes(each)


def _base(statement: ast.ImportFrom, package: str) -> str:
    """Returns the absolute name of what is imported from; empty if there is no such package."""
    if not statement.level:
        return statement.module or ""
    parts = package.split(".")
    above = ".".join(parts[: max(0, len(parts) - statement.level + 1)])
    return ".".join(filter(None, (above, statement.module)))
