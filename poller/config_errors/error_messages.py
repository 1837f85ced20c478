"""Owns the messages about wrong settings: one line each with the place, the field, the value, the problem and the remedy."""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pydantic import ValidationError
from pydantic_core import PydanticCustomError

from poller.config_errors.hints import hint
from poller.config_errors.known_names import Path, known_names, nearest, question
from poller.domain.untrusted.credentials import hide_path
from poller.domain.untrusted.numbers import whole
from poller.domain.untrusted.texts import cut

VALUE_CHARS_MAX = 80
NAME_CHARS_MAX = 128
LINE_CHARS_MAX = 1000
LINES_MAX = 100
"""Problems that are listed at once. A last line has the number of the others."""
KNOWN_NAMES_MAX = 30
MANUAL = "see docs/use/configuration.md"

_INDEX_MAX = 10**9
_STEP = re.compile(r"[^.\[\]]+")
_SECRET = re.compile(
    r"secret|passw|token|credential|authorization|cookie|api_?key|access_?key|private|^headers$|^env$",
    re.IGNORECASE,
)
_USERINFO = re.compile(r"//[^/@]*@")
_REFUSED = "refused"
_UNKNOWN = {"extra_forbidden", "unexpected_keyword_argument"}
_MISSING = "is missing"
_KEY = "[key]"
"""Pydantic's mark for an error in a key itself."""

type Where = Callable[[Path], Path]
"""Maps the path of a setting in a model to its path in the file."""


@dataclass(frozen=True, slots=True)
class FieldError:
    """An error that a validator found in one field below its value: the problem and the remedy.

    `reads` are other fields that the check used. The error is left out if one of them is wrong itself. `here`: this machine
    lacks something that another machine may have. `mild`: it does not prevent a start, but may be a mistake.
    """

    field: str
    wrong: str
    remedy: str
    reads: tuple[str, ...] = ()
    here: bool = False
    mild: bool = False

    @property
    def path(self) -> Path:
        """The path of the field."""
        steps = _STEP.findall(self.field)
        return tuple(whole(step, most=_INDEX_MAX, default=step) if step.isdigit() else step for step in steps)


@dataclass(frozen=True, slots=True)
class SettingError:
    """An error in the setting at `path`. For an unknown name, `known` are the names that are allowed there."""

    path: Path
    wrong: str
    remedy: str
    known: tuple[str, ...] | None = None
    reads: tuple[str, ...] | None = None
    """For a FieldError: the fields that its check used."""
    here: bool = False
    mild: bool = False

    @classmethod
    def of(cls, objection: FieldError, at: Path = ()) -> "SettingError":
        """The error of a field below `at`."""
        path = at + objection.path
        return cls(
            path,
            objection.wrong,
            objection.remedy,
            reads=objection.reads,
            here=objection.here,
            mild=objection.mild,
        )

    @property
    def meant(self) -> list[str]:
        """Known names that the user may have meant."""
        return nearest(str(self.path[-1]), self.known) if self.known and self.path else []

    def meant_instead(self, document: object) -> list[str]:
        """Those of them that the document does not have at the same place."""
        table: Any = document
        for part in self.path[:-1]:
            inside = isinstance(table, Mapping) or (isinstance(table, list | tuple) and isinstance(part, int))
            table = table[part] if inside else {}
        return [name for name in self.meant if name not in table]


@dataclass(frozen=True, slots=True)
class Layer:
    """One source of settings. `label` is its name for people; `{name}` in it is replaced by the end of an environment variable's name."""

    label: str
    values: Mapping[str, Any]

    def place(self, path: Path) -> str:
        """The label for one setting."""
        return self.label.format(name="__".join(str(part) for part in path).upper())


def refused(objections: Iterable[FieldError]) -> PydanticCustomError:
    """The error that a validator raises to report several fields at once."""
    return PydanticCustomError(_REFUSED, _REFUSED, {"objections": tuple(objections)})


def complaints(error: ValidationError, model: type) -> list[SettingError]:
    """All errors that a model found. A setting that is missing because its name is misspelled is reported once."""
    found = [each for one in error.errors(include_url=False) for each in _of_one(one, model)]
    unknown = [each for each in found if each.known is not None][:LINES_MAX]
    misspelled = {(*each.path[:-1], name) for each in unknown for name in each.meant}
    return [each for each in found if each.wrong != _MISSING or each.path not in misspelled]


def _of_one(error: Any, model: type) -> Iterator[SettingError]:
    kind, path = error["type"], error["loc"]
    if kind == _REFUSED:
        yield from (SettingError.of(each, path) for each in error["ctx"]["objections"])
    elif kind in _UNKNOWN:
        yield SettingError(path, "unknown setting", "", known=tuple(known_names(model, path[:-1])))
    elif path[-1:] == (_KEY,):
        # The name itself is wrong. The mark is not part of its path.
        wrong, remedy = _of_key(error)
        yield SettingError(path[:-1], wrong, remedy)
    else:
        yield SettingError(path, *_wrong_and_remedy(kind, error["msg"], error.get("ctx", {}), error["input"]))


def moved(found: Iterable[SettingError], where: Where) -> list[SettingError]:
    """The errors with the paths of their settings in the file."""
    return [replace(each, path=where(each.path)) for each in found]


def lines(found: Sequence[SettingError], layers: Sequence[Layer]) -> list[str]:
    """One line for each error, sorted by place, LINES_MAX at most. `layers` are in order of precedence; missing settings belong to the last."""
    ordered = sorted(
        found, key=lambda each: [f"{part:09}" if isinstance(part, int) else part for part in each.path]
    )
    shown = [_line(each, layers) for each in ordered[:LINES_MAX]]
    more = len(found) - LINES_MAX
    return [*shown, f"{layers[-1].place(())}: and {more} more; mend these first"] if more > 0 else shown


def spelled(path: Path) -> str:
    """A path in the form `mappings[0].BatchSize`."""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part[:NAME_CHARS_MAX]}" for part in path)
    return text.lstrip(".")


def _line(complaint: SettingError, layers: Sequence[Layer]) -> str:
    path = complaint.path
    layer, value = _origin(path, layers)
    shown, remedy = "", complaint.remedy
    if complaint.known is not None:
        remedy = _remedy_of_unknown(complaint, value)
    elif isinstance(value, str | int | float | bool):
        shown = f" value {_shown(path, value)}:"
    wrong = complaint.wrong.removesuffix(".")  # texts of AWS end with a full stop
    line = f"{layer.place(path)}: {spelled(path) or '(whole)'}:{shown} {wrong}; {remedy or MANUAL}"
    return printable(line[:LINE_CHARS_MAX])


def printable(text: str) -> str:
    """The same text with escapes in place of characters that cannot be shown."""
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)


def _remedy_of_unknown(complaint: SettingError, value: object) -> str:
    """The remedy for an unknown name: a hint about its origin, or the nearest known names."""
    if remedy := complaint.remedy or hint(complaint.path, value):
        return remedy
    if meant := complaint.meant:
        return question(meant)
    return f"remove it; known here: {', '.join(sorted(complaint.known or ())[:KNOWN_NAMES_MAX]) or 'none'}"


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


def _without_query(text: str) -> str:
    """A URL with its query hidden, because it may have tokens. Any other text is unchanged."""
    scheme = text.find("://")
    query = text.find("?", scheme + 3) if scheme >= 0 else -1
    return text if query < 0 else f"{text[:query]}?(hidden)"


def origin_is_last(path: Path, layers: Sequence[Layer]) -> bool:
    """Whether a setting comes from the last layer, the file."""
    return _origin(path, layers)[0] is layers[-1]


def _shown(path: Path, value: object) -> str:
    name = next((part for part in reversed(path) if isinstance(part, str)), "")
    if not name.endswith("_file") and any(_SECRET.search(str(part)) for part in path):
        return "(hidden)"
    text = value
    if isinstance(value, str):
        text = _without_query(_USERINFO.sub("//(hidden)@", value))
        if "Destination" in path:
            text = hide_path(text)
    shown = (
        repr(text) if isinstance(text, str) else str(text).lower() if isinstance(text, bool) else str(text)
    )
    return cut(shown, VALUE_CHARS_MAX)


def _of_key(error: Any) -> tuple[str, str]:
    if error["type"] == "string_type":
        return "its name is not a text", "put the name in quotes"
    return _wrong_and_remedy(error["type"], error["msg"], error.get("ctx", {}), error["input"])


def _wrong_and_remedy(kind: str, message: str, context: Mapping[str, Any], value: object) -> tuple[str, str]:
    """The problem and the remedy for one of pydantic's own errors, or for a validator's ValueError `problem; remedy`."""
    if kind == "value_error":
        wrong, _, remedy = str(context["error"]).partition("; ")
        return wrong, remedy
    if value is None and kind.endswith("_type"):
        return "has no value", "write one, or remove the line"
    wrong, remedy = _TOLD.get(kind, (message[:1].lower() + message[1:], MANUAL))
    return wrong.format(**context), remedy.format(**context)


_NOT_A_MAPPING = ("not a mapping", "write lines like `name: value` below it")
_NOT_A_LIST = ("not a list", "begin each item with `- `")
_NOT_A_NUMBER = ("not a number", "write digits, without unit")
_NOT_WHOLE = ("not a whole number", "write digits, without unit")
_NOT_A_TEXT = ("not a text", "put it in quotes")
_NOT_A_FLAG = ("neither true nor false", "write one of them")
_CHOICES = ("not one of the choices", "write {expected}")
_TOLD = {
    "missing": (_MISSING, "add it"),
    "string_type": _NOT_A_TEXT,
    "path_type": _NOT_A_TEXT,
    "string_pattern_mismatch": ("has characters that are not allowed", "write text like {pattern}"),
    "float_type": _NOT_A_NUMBER,
    "float_parsing": _NOT_A_NUMBER,
    "finite_number": _NOT_A_NUMBER,
    "int_type": _NOT_A_NUMBER,
    "int_parsing": _NOT_A_NUMBER,
    "int_from_float": _NOT_WHOLE,
    "int_parsing_size": ("too large", "write a number of fewer digits"),
    "bool_type": _NOT_A_FLAG,
    "bool_parsing": _NOT_A_FLAG,
    "greater_than": ("too small", "write more than {gt}"),
    "greater_than_equal": ("too small", "write {ge} or more"),
    "less_than_equal": ("too large", "write {le} or less"),
    "string_too_short": ("too short", "write at least {min_length} characters"),
    "string_too_long": ("too long", "write at most {max_length} characters"),
    "too_short": ("too short", "write at least {min_length} of them"),
    "too_long": ("too long", "write at most {max_length} of them"),
    "literal_error": _CHOICES,
    "enum": _CHOICES,
    "dict_type": _NOT_A_MAPPING,
    "model_type": _NOT_A_MAPPING,
    "model_attributes_type": _NOT_A_MAPPING,
    "dataclass_type": _NOT_A_MAPPING,
    "dataclass_exact_type": _NOT_A_MAPPING,
    "invalid_key": ("one of its names is not a text", "put the name in quotes"),
    "list_type": _NOT_A_LIST,
    "tuple_type": _NOT_A_LIST,
    "set_type": _NOT_A_LIST,
    "frozen_set_type": _NOT_A_LIST,
}
