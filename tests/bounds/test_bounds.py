"""The list of what runs over texts from outside is complete: each regular expression and each function that calls itself."""

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
LIST = Path(__file__).parent / "bounds.txt"
HOW = "write what bounds it into tests/bounds/bounds.txt, and into docs/internals/bounds.md where it is a new kind"
_USES = frozenset({"compile", "match", "search", "fullmatch", "sub", "subn", "split", "findall", "finditer"})


def listed() -> dict[str, str]:
    """What the list says of each place."""
    lines = [line for line in LIST.read_text().splitlines() if line and not line.startswith("#")]
    assert all(line.partition(" = ")[2] for line in lines), "a line is `file name = bound`"
    found = {place: bound for place, _, bound in (line.partition(" = ") for line in lines)}
    assert len(found) == len(lines), "a place is listed twice"
    return found


def places() -> set[str]:
    """Every place in the code, as file and name."""
    return {
        f"{path.relative_to(ROOT)} {name}"
        for folder in ("poller", "adapters")
        for path in sorted((ROOT / folder).rglob("*.py"))
        for name in named(ast.parse(path.read_text()))
    }


def named(tree: ast.AST, within: str = "") -> Iterator[str]:
    """Regular expressions by the constant or function that has them, and functions that call themselves."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            inner = f"{within}.{node.name}" if within else node.name
            if not isinstance(node, ast.ClassDef) and calls_itself(node):
                yield f"{inner}()"
            yield from named(node, inner)
        else:
            if any(is_pattern(each) for each in ast.walk(node)) and not holds_functions(node):
                yield target(node) or within or "module"
            elif holds_functions(node):
                yield from named(node, within)


def holds_functions(node: ast.AST) -> bool:
    return any(
        isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) for each in ast.walk(node)
    )


def target(node: ast.AST) -> str | None:
    """The name that a statement gives to what it makes."""
    match node:
        case ast.Assign(targets=[ast.Name(name)]) | ast.AnnAssign(target=ast.Name(name)) if name.lstrip(
            "_"
        ).isupper():
            return name
        case _:
            return None


def is_pattern(node: ast.AST) -> bool:
    match node:
        case ast.Call(func=ast.Attribute(value=ast.Name("re"), attr=used)):
            return used in _USES
        case _:
            return False


def calls_itself(function: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    for node in ast.walk(function):
        match node:
            case ast.Call(func=ast.Name(name)) if name == function.name:
                return True
            case ast.Call(func=ast.Attribute(value=ast.Name("self" | "cls"), attr=name)) if (
                name == function.name
            ):
                return True
    return False


def test_the_list_has_every_expression_and_every_recursion() -> None:
    known = listed()
    assert places() - set(known) == set(), HOW
    assert set(known) - places() == set(), "these are in tests/bounds/bounds.txt and no longer in the code"


def test_the_walk_sees_constants_functions_and_methods() -> None:
    code = (
        "import re\n_A = re.compile('a')\nclass C:\n    def b(self):\n        return re.sub('b', '', self.b())\n"
        "def c(n):\n    for _ in n:\n        c(n)\nfor each in (1,):\n    re.match('d', each)\n"
    )
    assert set(named(ast.parse(code))) == {"_A", "C.b", "C.b()", "c()", "module"}
