"""Owns what can be found out about a handler without importing it: its name, whether its module exists, whether it is async.

The last one the source does not always tell: a decorator, a name that is given elsewhere, an instance, can be either.

A handler is `module:function`, or as AWS writes it `module.function` and `path/to/module.function`.
"""

import ast
import sys
from collections.abc import Iterator
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


def missing_module(module: str, folder: Path | None = None) -> str:
    """Returns the first part of a module's name that an import would not find; empty if an import would find all.

    `folder` is that of the function's modules; None: it is the folder of the start.

    Finders are asked in the order of an import. Packages are not run, so modules that a package creates when it runs are not
    found. A package that only child processes can import, since the daemon's own hides it, counts as found.
    """
    name, places = "", [str(folder or start_folder()), *import_path()]
    elsewhere = folder not in (None, start_folder())
    hidden = module.partition(".")[0] in hidden_packages() or elsewhere
    for part in module.split("."):
        name = f"{name}.{part}" if name else part
        if name in sys.modules and not hidden:
            places = list(getattr(sys.modules[name], "__path__", ()))
            continue
        only_there = hidden and not elsewhere and name == part
        spec = _spec(name, places[:1] if only_there else places, top=name == part)
        if spec is None:
            return name
        places = list(spec.submodule_search_locations or ())
    return ""


def _spec(name: str, places: list[str], *, top: bool) -> ModuleSpec | None:
    # By its last part, which is all that a folder is searched for. With the whole name, a folder without __init__.py would want
    # its parent among the imported modules.
    found = PathFinder.find_spec(name.rpartition(".")[2], places)
    for finder in sys.meta_path:
        if found is None:
            found = finder.find_spec(name, None if top else places)
    return found


def _is_word(part: str) -> bool:
    """Whether it can be a module's name. An import accepts more than the language does, such as dashes."""
    return bool(part) and part.replace("-", "_").isidentifier()


def declared_async(handler: str, folder: Path | None = None) -> bool | None:
    """Whether calling `module:attribute` gives a coroutine, by its source, without an import; None if the source does not tell.

    `folder` is as for `missing_module`. It tells for a function at the top of its module that has no decorator and whose name is bound only there.
    """
    module, _, name = handler.partition(":")
    source = _source(module, folder or start_folder())
    if source is None:
        return None
    return _is_async([node for node in parsed_source(source) if {name, "*"} & _bound(node)])


def _is_async(bindings: list[ast.stmt]) -> bool | None:
    """Whether the last of a name's bindings is an asynchronous function; None if that is not certain."""
    match bindings:
        case [*_, ast.FunctionDef(decorator_list=[])]:
            return False
        case [*_, ast.AsyncFunctionDef(decorator_list=[]) as function]:
            # With `yield` it is an asynchronous generator, which is no coroutine.
            return not any(isinstance(node, ast.Yield) for node in _own_nodes(function))
        case _:
            return None


def _bound(statement: ast.stmt) -> set[str]:
    """The names that a statement of a module may bind or delete, `*` for any. A nested `global` is not looked for."""
    found = set[str]()
    left: list[ast.AST] = [statement]
    while left:
        node = left.pop()
        match node:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                # What stands inside is bound elsewhere.
                found.add(name)
                continue
            case ast.Name(id=name, ctx=ast.Store() | ast.Del()):
                found.add(name)
            case ast.alias(name=name, asname=other):
                found.add(other or name.partition(".")[0])
            case (
                ast.ExceptHandler(name=str(name))
                | ast.MatchAs(name=str(name))
                | ast.MatchStar(name=str(name))
            ):
                found.add(name)
            case ast.MatchMapping(rest=str(name)):
                found.add(name)
        left.extend(ast.iter_child_nodes(node))
    return found


def _own_nodes(function: ast.AsyncFunctionDef) -> Iterator[ast.AST]:
    """All nodes of a function's body without those of functions and classes inside it."""
    left: list[ast.AST] = list(function.body)
    while left:
        node = left.pop()
        yield node
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Lambda):
            left.extend(ast.iter_child_nodes(node))


def _source(module: str, folder: Path) -> bytes | None:
    """Reads the module's source file from where an import would find it; None if there is none."""
    parts = module.split(".")
    if not all(part.isidentifier() for part in parts):
        return None
    # The function's folder comes first unless it has a place already, as when the handler is loaded.
    places = [str(each) for each in import_path()]
    here = [] if str(folder) in places else [str(folder)]
    for place in dict.fromkeys([*here, *places]):
        base = Path(place, *parts)
        for path in (base / "__init__.py", base.with_name(f"{base.name}.py")):
            try:
                if path.is_file():
                    return path.read_bytes() if path.stat().st_size <= SOURCE_BYTES_MAX else None
            except OSError:
                continue
    return None
