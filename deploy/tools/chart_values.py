"""Owns the table of the chart's values: made of the comments in values.yaml and of values.schema.json, by `make chart-values`."""

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
CHART = ROOT / "deploy" / "helm" / "poller"
TARGET = ROOT / "docs" / "operate" / "chart-values.md"
HEAD = """# Values of the Helm chart

Made of [`values.yaml`](../../deploy/helm/poller/values.yaml) and its schema by `make chart-values`; change it there. [Kubernetes](kubernetes.md) shows
them at work. A value that is not here, or of another type, is refused with its name before anything is sent to the cluster.
"""

type Schema = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Value:
    """One value of the chart, or one group of them, which has no default of its own."""

    path: str
    default: str | None
    """As YAML; None for a group."""
    meaning: str


def values(text: str) -> list[Value]:
    """The values of a file, in its order; those of a group after it."""
    found = yaml.compose(text)
    assert isinstance(found, yaml.MappingNode), "values are a table"
    return list(_below(found, (), text.splitlines()))


def _below(node: yaml.MappingNode, path: tuple[str, ...], lines: list[str]) -> Iterator[Value]:
    for key, value in node.value:
        own = (*path, key.value)
        group = isinstance(value, yaml.MappingNode) and not value.flow_style
        inline = value.start_mark.line == key.start_mark.line
        column = value.end_mark.column if inline and not group else key.end_mark.column + 1
        meaning = _comment(lines[key.start_mark.line][column:]) or _above(lines, key.start_mark)
        if group:
            yield Value(".".join(own), None, meaning)
            yield from _below(value, own, lines)
        else:
            yield Value(".".join(own), _inline(value), meaning)


def _comment(rest: str) -> str:
    """The comment at the end of a line; empty if there is none."""
    _, mark, said = rest.partition("#")
    return said.strip() if mark else ""


def _above(lines: list[str], mark: yaml.Mark) -> str:
    """The lines of comments right above a key, at its indentation."""
    found: list[str] = []
    for line in reversed(lines[: mark.line]):
        if not line.startswith(" " * mark.column + "#"):
            break
        found.insert(0, line.strip().removeprefix("#").strip())
    return " ".join(found)


def _inline(node: yaml.Node) -> str:
    plain = yaml.safe_load(yaml.serialize(node))
    return json.dumps(plain, ensure_ascii=False)


def schema_of(path: str, schema: Schema) -> Schema:
    """What the schema says of one value; raises KeyError if it does not know it."""
    for name in path.split("."):
        schema = schema["properties"][name]
    return schema


def kind(schema: Schema) -> str:
    """What a value may be, in a few words."""
    if "enum" in schema:
        return ", ".join(f"`{each}`" for each in schema["enum"])
    if "anyOf" in schema:
        return " or ".join(kind(each) for each in schema["anyOf"])
    found = schema.get("type", "object")
    words = " or ".join(found) if isinstance(found, list) else found
    if "minimum" in schema and "maximum" in schema:
        return f"{words}, {schema['minimum']} to {schema['maximum']}"
    return f"{words}, {schema['minimum']} at least" if "minimum" in schema else words


def text() -> str:
    """The document as it is kept in the repository; raises ValueError for values without a meaning."""
    schema = json.loads((CHART / "values.schema.json").read_text(encoding="utf-8"))
    found = values((CHART / "values.yaml").read_text(encoding="utf-8"))
    if silent := [each.path for each in found if each.default is not None and not each.meaning]:
        raise ValueError(f"values.yaml says nothing about {', '.join(silent)}; write a comment behind each")
    return f"{HEAD}\n{'\n'.join(_rows(found, schema))}\n"


def _rows(found: list[Value], schema: Schema) -> Iterator[str]:
    yield "| value | type | default | meaning |"
    yield "|---|---|---|---|"
    for each in found:
        if each.default is None:
            if each.meaning:
                yield f"| `{each.path}` | | | {_cell(each.meaning)} |"
        else:
            what = kind(schema_of(each.path, schema))
            yield f"| `{each.path}` | {what} | `{_cell(each.default)}` | {_cell(each.meaning)} |"


def _cell(said: str) -> str:
    return said.replace("|", "\\|")


if __name__ == "__main__":
    TARGET.write_text(text(), encoding="utf-8")
    sys.stdout.write(f"{TARGET.relative_to(ROOT)}\n")
