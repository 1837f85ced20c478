"""Owns how wrong settings are told: one line each with place, field, value, what is wrong and the remedy."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from difflib import get_close_matches
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import PydanticCustomError

VALUE_CHARS_MAX = 80
NAME_CHARS_MAX = 128
LINE_CHARS_MAX = 1000
LINES_MAX = 100
"""Problems told at once; the rest is counted."""
KNOWN_NAMES_MAX = 30

_STEP = re.compile(r"[^.\[\]]+")
_SECRET = re.compile(
    r"secret|passw|token|credential|authorization|cookie|api_?key|access_?key|private", re.IGNORECASE
)
_USERINFO = re.compile(r"//[^/@]*@")
_REFUSED = "refused"
_UNKNOWN = {"extra_forbidden", "unexpected_keyword_argument"}

type Path = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Objection:
    """What is wrong with one field below the value that a validator looks at, and what to do about it."""

    field: str
    wrong: str
    remedy: str


@dataclass(frozen=True, slots=True)
class Layer:
    """One place that settings come from; `label` names it, `{name}` in it the environment variable's tail."""

    label: str
    values: Mapping[str, Any]

    def place(self, path: Path) -> str:
        """The label for one setting."""
        return self.label.format(name="__".join(str(part) for part in path).upper())


def refused(objections: Iterable[Objection]) -> PydanticCustomError:
    """An error for validators that object to several fields at once."""
    return PydanticCustomError(_REFUSED, _REFUSED, {"objections": tuple(objections)})


def complaints(error: ValidationError, *, model: type[BaseModel], layers: Sequence[Layer]) -> list[str]:
    """A line for each thing that is wrong; `layers` by precedence, the last is where a missing setting belongs."""
    lines: list[str] = []
    errors = error.errors(include_url=False)
    for each in errors[:LINES_MAX]:
        path = each["loc"]
        if path[-1:] == ("[key]",) and each["type"] not in _UNKNOWN:
            # Pydantic's mark for the key itself; a setting that is called so is unknown.
            path = path[:-1]
        if each["type"] == _REFUSED:
            found = each["ctx"]["objections"]
            lines += [_line(path + _path(one.field), one.wrong, one.remedy, layers) for one in found]
        elif each["type"] in _UNKNOWN:
            wrong, remedy = unknown(str(path[-1]), known_names(model, path[:-1]))
            lines.append(_line(path, wrong, remedy, layers, show=False))
        else:
            wrong, remedy = _told(each["type"], each["msg"], each.get("ctx", {}))
            lines.append(_line(path, wrong, remedy, layers))
    more = len(errors) - LINES_MAX
    return [*lines, f"{layers[-1].place(())}: and {more} more; mend these first"] if more > 0 else lines


def unknown(name: str, known: Sequence[str]) -> tuple[str, str]:
    """What is wrong with a name that nobody knows, and the nearest known one."""
    if name in _HINTS:
        return "unknown setting", _HINTS[name]
    folded = {each.lower(): each for each in known}
    near = get_close_matches(name.lower(), folded, n=1, cutoff=0.6)
    if near:
        return "unknown setting", f"did you mean {folded[near[0]]}?"
    listed = ", ".join(sorted(known)[:KNOWN_NAMES_MAX]) or "none"
    return "unknown setting", f"remove it; known here: {listed}"


def known_names(model: object, path: Path) -> list[str]:
    """Names of the settings that a model has at `path`."""
    here = [model]
    for part in path:
        if _members(here) and part in _members(here):
            here = [_members(here)[str(part)]]
        here = [inner for each in here for inner in _models(each)]
    return list(_members(here))


def spelled(path: Path) -> str:
    """A path as people write it: mappings[0].BatchSize."""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part[:NAME_CHARS_MAX]}" for part in path)
    return text.lstrip(".")


def _members(models: Iterable[object]) -> dict[str, object]:
    found: dict[str, object] = {}
    for each in models:
        if isinstance(each, type) and issubclass(each, BaseModel):
            found |= {name: field.annotation for name, field in each.model_fields.items()}
        elif isinstance(each, type) and is_dataclass(each):
            found |= {field.name: field.type for field in fields(each)}
    return found


def _models(annotation: object) -> list[object]:
    """The models that an annotation holds, however deep in unions and containers."""
    if isinstance(annotation, type) and (issubclass(annotation, BaseModel) or is_dataclass(annotation)):
        return [annotation]
    return [model for inner in get_args(annotation) for model in _models(inner)]


def _path(field: str) -> Path:
    steps = _STEP.findall(field)
    return tuple(int(step) if step.isdigit() else step for step in steps)


def _line(path: Path, wrong: str, remedy: str, layers: Sequence[Layer], *, show: bool = True) -> str:
    layer, value = _origin(path, layers)
    shown = f" value {_shown(path, value)}:" if show and isinstance(value, str | int | float | bool) else ""
    line = f"{layer.place(path)}: {spelled(path) or '(whole)'}:{shown} {wrong}; {remedy}"
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in line[:LINE_CHARS_MAX])


def _origin(path: Path, layers: Sequence[Layer]) -> tuple[Layer, object]:
    """The first layer that has the setting, with its value; the last layer if none has it."""
    for layer in layers:
        value: Any = layer.values
        for part in path:
            inside = (isinstance(value, Mapping) and part in value) or (
                isinstance(value, list | tuple) and isinstance(part, int) and part < len(value)
            )
            if not inside:
                break
            value = value[part]
        else:
            return layer, value
    return layers[-1], None


def _shown(path: Path, value: object) -> str:
    name = next((part for part in reversed(path) if isinstance(part, str)), "")
    if not name.endswith("_file") and any(_SECRET.search(str(part)) for part in path):
        return "(hidden)"
    text = _USERINFO.sub("//(hidden)@", value) if isinstance(value, str) else value
    shown = (
        repr(text) if isinstance(text, str) else str(text).lower() if isinstance(text, bool) else str(text)
    )
    return shown if len(shown) <= VALUE_CHARS_MAX else shown[:VALUE_CHARS_MAX] + "…"


def _told(kind: str, message: str, context: Mapping[str, Any]) -> tuple[str, str]:
    """What is wrong and the remedy for one of pydantic's own errors, or a validator's ValueError `wrong; remedy`."""
    if kind == "value_error":
        wrong, _, remedy = str(context["error"]).partition("; ")
        return wrong, remedy
    wrong, remedy = _TOLD.get(kind, (message[:1].lower() + message[1:], "see docs/configuration.md"))
    return wrong.format(**context), remedy.format(**context)


_HINTS = {
    "Type": "this is the whole CloudFormation resource; write only what stands below its Properties",
    "Properties": "this is the whole CloudFormation resource; write only what stands below its Properties",
    "SelfManagedEventSource": "remove the mapping; Kafka is not supported",
    "Topics": "remove the mapping; Kafka is not supported",
    "AmazonManagedKafkaEventSourceConfig": "remove the mapping; Kafka is not supported",
    "SelfManagedKafkaEventSourceConfig": "remove the mapping; Kafka is not supported",
    "SourceAccessConfigurations": "remove the mapping; Kafka and message brokers are not supported",
    "Queues": "remove the mapping; message brokers are not supported",
    "DocumentDBEventSourceConfig": "remove the mapping; DocumentDB is not supported",
}
_NOT_A_MAPPING = ("not a mapping", "write lines like `name: value` below it")
_NOT_A_LIST = ("not a list", "begin each item with `- `")
_NOT_A_NUMBER = ("not a number", "write digits, without unit")
_TOLD = {
    "missing": ("is missing", "add it"),
    "string_type": ("not a text", "put it in quotes"),
    "string_pattern_mismatch": ("has characters that are not allowed", "write text like {pattern}"),
    "float_type": _NOT_A_NUMBER,
    "float_parsing": _NOT_A_NUMBER,
    "finite_number": _NOT_A_NUMBER,
    "int_type": _NOT_A_NUMBER,
    "int_parsing": _NOT_A_NUMBER,
    "greater_than": ("too small", "write more than {gt}"),
    "greater_than_equal": ("too small", "write {ge} or more"),
    "less_than_equal": ("too large", "write {le} or less"),
    "string_too_short": ("too short", "write at least {min_length} characters"),
    "string_too_long": ("too long", "write at most {max_length} characters"),
    "literal_error": ("not one of the choices", "write {expected}"),
    "enum": ("not one of the choices", "write {expected}"),
    "dict_type": _NOT_A_MAPPING,
    "model_type": _NOT_A_MAPPING,
    "model_attributes_type": _NOT_A_MAPPING,
    "dataclass_type": _NOT_A_MAPPING,
    "dataclass_exact_type": _NOT_A_MAPPING,
    "list_type": _NOT_A_LIST,
    "tuple_type": _NOT_A_LIST,
}
