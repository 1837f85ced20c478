"""Owns what can be found out about a handler without importing it: its name, whether its module exists, whether it is async.

A handler is `module:function`, or as AWS writes it `module.function` and `path/to/module.function`.
"""

import ast
import sys
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path

from adapters.invokers.handlers.imported_names import SOURCE_BYTES_MAX, parsed_source
from adapters.invokers.handlers.own_packages import hidden_packages
from poller.start_folder import import_path, start_folder

HOW = "write module:function, or as on AWS module.function"


def handler_name(text: str) -> str:
    """Returns a handler as `module:attribute`, in whatever form it is written; raises ValueError."""
    module, colon, name = text.partition(":")
    if not colon:
        module, _, name = text.rpartition(".")
        # A path is relative to the folder of the start. On AWS it is relative to the function's code.
        module = module.replace("/", ".")
    if not module or not name:
        raise ValueError(f"names no module and function; {HOW}")
    if not all(_is_word(part) for part in module.split(".")) or not all(
        part.isidentifier() for part in name.split(".")
    ):
        raise ValueError(f"is no name of a module and its function; {HOW}")
    return f"{module}:{name}"


def missing_module(module: str) -> str:
    """Returns the first part of a module's name that an import would not find; empty if an import would find all.

    Finders are asked in the order of an import. Packages are not run, so modules that a package creates when it runs are not
    found. A package that only child processes can import, since the daemon's own hides it, counts as found.
    """
    name, places = "", [str(start_folder()), *import_path()]
    hidden = module.partition(".")[0] in hidden_packages()
    for part in module.split("."):
        name = f"{name}.{part}" if name else part
        if name in sys.modules and not hidden:
            places = list(getattr(sys.modules[name], "__path__", ()))
            continue
        spec = _spec(name, places[:1] if hidden and name == part else places, top=name == part)
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
    """Whether it can be a module's name. An import accepts more than the language does, such as dashes."""
    return bool(part) and part.replace("-", "_").isidentifier()


def is_declared_async(handler: str) -> bool:
    """Whether `module:attribute` is an `async def` in the source; False also if that cannot be seen without an import."""
    module, _, name = handler.partition(":")
    source = _source(module)
    if source is None:
        return False
    statements = parsed_source(source)
    functions = [
        each
        for each in statements
        if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef) and each.name == name
    ]
    return bool(functions) and isinstance(functions[-1], ast.AsyncFunctionDef)


def _source(module: str) -> bytes | None:
    """Reads the module's source file from where an import would find it; None if there is none."""
    parts = module.split(".")
    if not all(part.isidentifier() for part in parts):
        return None
    for place in dict.fromkeys([str(start_folder()), *import_path()]):
        base = Path(place, *parts)
        for path in (base / "__init__.py", base.with_name(f"{base.name}.py")):
            try:
                if path.is_file():
                    return path.read_bytes() if path.stat().st_size <= SOURCE_BYTES_MAX else None
            except OSError:
                continue
    return None
