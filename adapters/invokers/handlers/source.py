"""Owns what can be said of a handler while nothing of it is imported: how it is written, whether its module is there and asynchronous.

A handler is `module:function`, or as AWS writes it `module.function` and `path/to/module.function`.
"""

import ast
import os
import sys
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path

SOURCE_BYTES_MAX = 1024 * 1024
"""Longer modules are not looked into."""


HOW = "write module:function, or as on AWS module.function"


def handler_name(text: str) -> str:
    """A handler as `module:attribute`, however it is written; raises ValueError."""
    module, colon, name = text.partition(":")
    if not colon:
        module, _, name = text.rpartition(".")
        # A path from where the daemon runs, as AWS has it from where a function's code is.
        module = module.replace("/", ".")
    if not module or not name:
        raise ValueError(f"names no module and function; {HOW}")
    if not all(_is_word(part) for part in module.split(".")) or not all(
        part.isidentifier() for part in name.split(".")
    ):
        raise ValueError(f"is no name of a module and its function; {HOW}")
    return f"{module}:{name}"


def missing_module(module: str) -> str:
    """The first part of a module's name that an import from here would not find; empty if all are there.

    Finders are asked in the order of an import. A package is not run, so that one which makes its modules as it runs counts as
    an ordinary one.
    """
    name, places = "", [os.getcwd(), *sys.path]
    for part in module.split("."):
        name = f"{name}.{part}" if name else part
        if name in sys.modules:
            places = list(getattr(sys.modules[name], "__path__", ()))
            continue
        spec = _spec(name, places, top=name == part)
        if spec is None:
            return name
        places = list(spec.submodule_search_locations or ())
    return ""


def _spec(name: str, places: list[str], *, top: bool) -> ModuleSpec | None:
    found = PathFinder.find_spec(name, places)
    for finder in sys.meta_path:
        if found is None:
            found = finder.find_spec(name, None if top else places)
    return found


def _is_word(part: str) -> bool:
    """Whether it can be a module's name; the import takes more than the language does, such as dashes."""
    return bool(part) and part.replace("-", "_").isidentifier()


def is_declared_async(handler: str) -> bool:
    """Whether `module:attribute` is plainly an `async def`; False also for what cannot be told without importing it."""
    module, _, name = handler.partition(":")
    source = _source(module)
    if source is None:
        return False
    try:
        statements = ast.parse(source).body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    functions = [
        each
        for each in statements
        if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef) and each.name == name
    ]
    return bool(functions) and isinstance(functions[-1], ast.AsyncFunctionDef)


def _source(module: str) -> bytes | None:
    """The module's file, looked for where an import would look."""
    parts = module.split(".")
    if not all(part.isidentifier() for part in parts):
        return None
    for place in dict.fromkeys([str(Path.cwd()), *sys.path]):
        base = Path(place or ".").joinpath(*parts)
        for path in (base / "__init__.py", base.with_name(f"{base.name}.py")):
            try:
                if path.is_file():
                    return path.read_bytes() if path.stat().st_size <= SOURCE_BYTES_MAX else None
            except OSError:
                continue
    return None
