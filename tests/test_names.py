"""Names of the engine are its own, and docstrings name exceptions that exist."""

import ast
import builtins
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parent.parent
_RAISES = re.compile(r"\b[Rr]aises? ((?:[A-Z]\w+(?:, | and | or )?)+)")


@cache
def trees(folder: str) -> Mapping[str, ast.Module]:
    """The modules of a folder, by path."""
    return {
        str(path.relative_to(ROOT)): ast.parse(path.read_text(encoding="utf-8"))
        for path in sorted((ROOT / folder).rglob("*.py"))
    }


def public_types(tree: ast.AST) -> list[str]:
    """The classes and types that a module defines, at any depth, without the private ones."""
    found = [
        node.name.id if isinstance(node, ast.TypeAlias) else node.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef | ast.TypeAlias)
    ]
    return [name for name in found if not name.startswith("_")]


def used_twice(modules: Mapping[str, Iterable[str]]) -> dict[str, list[str]]:
    """Names that more than one place defines, with their modules."""
    places: dict[str, list[str]] = defaultdict(list)
    for module, names in modules.items():
        for name in names:
            places[name].append(module)
    return {name: found for name, found in places.items() if len(found) > 1}


def docstrings(tree: ast.AST) -> Iterator[str]:
    """All texts that stand alone: docstrings, and those below fields and constants."""
    for node in ast.walk(tree):
        match node:
            case ast.Expr(value=ast.Constant(value=str(text))):
                yield text


def raised(tree: ast.AST) -> set[str]:
    """The exceptions that the docstrings of a module name: capitalised words behind `raises`."""
    lists = [found for text in docstrings(tree) for found in _RAISES.findall(text)]
    return {name for found in lists for name in re.findall(r"[A-Z]\w+", found)}


def own(tree: ast.AST) -> set[str]:
    """What a module defines or imports."""
    classes = {node.name for node in ast.walk(tree) if isinstance(node, ast.ClassDef)}
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]
    return classes | {(each.asname or each.name).split(".")[-1] for node in imports for each in node.names}


def test_no_public_type_of_the_engine_has_the_name_of_another() -> None:
    assert used_twice({path: public_types(tree) for path, tree in trees("poller").items()}) == {}


def test_every_exception_that_a_docstring_names_exists() -> None:
    known = set(dir(builtins)) | {name for tree in trees("poller").values() for name in public_types(tree)}
    wrong = {
        path: raised(tree) - known - own(tree)
        for folder in ("poller", "adapters")
        for path, tree in trees(folder).items()
    }
    assert {path: names for path, names in wrong.items() if names} == {}


def test_a_name_that_is_used_twice_is_seen() -> None:
    code = "class Entry: ...\nclass _Own: ...\ntype Page = int\ndef f():\n    class Inner: ...\n"
    assert public_types(ast.parse(code)) == ["Entry", "Page", "Inner"]
    assert used_twice({"a": ["Entry", "Page"], "b": ["Entry"]}) == {"Entry": ["a", "b"]}


def test_an_exception_that_is_named_is_seen() -> None:
    code = '"""Raises Lost and ValueError when it is gone."""\nfrom a import Lost\nX = 1\n"""Else it raises Gone."""\n'
    tree = ast.parse(code)
    assert raised(tree) == {"Lost", "ValueError", "Gone"}
    assert own(tree) == {"Lost"}
