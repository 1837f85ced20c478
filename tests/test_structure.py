"""Folders, modules and classes of the product stay small enough to find one's way in."""

import ast
from collections import Counter
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FILES_MAX = 15
LINES_MAX = 400
FIELDS_MAX = 15
METHODS_MAX = 25


@cache
def sources() -> Mapping[str, str]:
    """The text of each module of the product, by path."""
    return {
        str(path.relative_to(ROOT)): path.read_text(encoding="utf-8")
        for folder in ("poller", "adapters")
        for path in sorted((ROOT / folder).rglob("*.py"))
    }


def _is_class_variable(node: ast.AnnAssign) -> bool:
    return any(isinstance(each, ast.Name) and each.id == "ClassVar" for each in ast.walk(node.annotation))


def _self_assigned(node: ast.ClassDef) -> Iterator[str]:
    for each in ast.walk(node):
        match each:
            case ast.Attribute(value=ast.Name(id="self"), attr=name, ctx=ast.Store()):
                yield name


def fields(node: ast.ClassDef) -> set[str]:
    """The fields of a class without those of its bases: the annotated names of its body, and the attributes that its methods set."""
    declared = {
        each.target.id
        for each in node.body
        if isinstance(each, ast.AnnAssign)
        and isinstance(each.target, ast.Name)
        and not _is_class_variable(each)
    }
    return declared | set(_self_assigned(node))


def methods(node: ast.ClassDef) -> set[str]:
    """The methods and properties of a class, without those of its bases."""
    return {each.name for each in node.body if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef)}


def classes(modules: Mapping[str, str]) -> dict[str, ast.ClassDef]:
    """The classes of all modules, by path and name."""
    return {
        f"{path}: {node.name}": node
        for path, text in modules.items()
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.ClassDef)
    }


def over(counts: Mapping[str, int], limit: int) -> dict[str, int]:
    """The counts that are above a limit."""
    return {name: count for name, count in counts.items() if count > limit}


def test_a_folder_has_fifteen_modules_at_most() -> None:
    assert over(Counter(str(Path(path).parent) for path in sources()), FILES_MAX) == {}


def test_a_module_has_four_hundred_lines_at_most() -> None:
    assert over({path: len(text.splitlines()) for path, text in sources().items()}, LINES_MAX) == {}


def test_a_class_has_fifteen_fields_at_most() -> None:
    assert over({name: len(fields(node)) for name, node in classes(sources()).items()}, FIELDS_MAX) == {}


def test_a_class_has_twenty_five_methods_at_most() -> None:
    assert over({name: len(methods(node)) for name, node in classes(sources()).items()}, METHODS_MAX) == {}


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("first: int\n    second: str = ''", {"first", "second"}),
        ("first: int\n    shared: ClassVar[int] = 1", {"first"}),
        ("CONSTANT = 1", set()),
        ("def __init__(self): self.first = self._second = 1\n    def on(self): self.third, x = 1, self.fourth", {"first", "_second", "third"}),
        ("first: int\n    def on(self): self.first += 1", {"first"}),
    ],
)  # fmt: skip
def test_fields_are_annotated_or_set_by_a_method(body: str, expected: set[str]) -> None:
    (node,) = classes({"a.py": f"class A:\n    {body}\n"}).values()
    assert fields(node) == expected


def test_methods_are_those_of_the_class_itself() -> None:
    code = "class A(B):\n    @property\n    def first(self): ...\n    async def second(self):\n        def inner(): ...\n"
    (node,) = classes({"a.py": code}).values()
    assert methods(node) == {"first", "second"}


def test_only_a_count_above_the_limit_is_seen() -> None:
    assert over({"at": 15, "above": 16}, 15) == {"above": 16}
