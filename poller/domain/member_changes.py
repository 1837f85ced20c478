"""Owns how changed settings are described: one line for each changed member with its old and new value, cut to a maximum length."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from enum import Enum
from typing import Any

from poller.domain.untrusted.credentials import hide_path
from poller.domain.untrusted.texts import cut, line_of

VALUE_CHARS_MAX = 120
CHANGES_MAX = 20
"""At most this many lines describe one change. A last line gives the number of the others."""
DEPTH_MAX = 4
"""Changes inside nested members are listed one by one down to this depth."""
NONE = "none"


def changes_between(before: Mapping[str, Any], after: Mapping[str, Any]) -> tuple[str, ...]:
    """`NAME: OLD -> NEW` for each member that differs, sorted by name. A missing value is shown as `none`."""
    return several(list(_changes(before, after, "", DEPTH_MAX)))


def several(lines: list[str]) -> tuple[str, ...]:
    """The first lines, and a last line with the number of the others."""
    if len(lines) <= CHANGES_MAX:
        return tuple(lines)
    return (*lines[:CHANGES_MAX], f"and {len(lines) - CHANGES_MAX} more")


def field_changes(before: object, after: object, *, apart: frozenset[str] = frozenset()) -> dict[str, str]:
    """The fields in which two values of one dataclass differ, by name, as `OLD -> NEW`. Fields in `apart` are left out."""
    assert is_dataclass(before)
    names = [field.name for field in fields(before) if field.name not in apart]
    values = ((name, getattr(before, name), getattr(after, name)) for name in names)
    return {name: f"{_shown(old)} -> {_shown(new)}" for name, old, new in values if old != new}


def _changes(before: Mapping[str, Any], after: Mapping[str, Any], place: str, depth: int) -> Iterator[str]:
    for name in sorted({*before, *after}):
        old, new = before.get(name), after.get(name)
        if old is new or old == new or (_nothing(old) and _nothing(new)):
            continue
        where = f"{place}{line_of(str(name), chars_max=VALUE_CHARS_MAX)}"
        inside = [each if isinstance(each, Mapping) else {} for each in (old, new)]
        if depth and all(isinstance(each, Mapping) or _nothing(each) for each in (old, new)):
            yield from _changes(inside[0], inside[1], f"{where}.", depth - 1)
        else:
            yield f"{where}: {_shown(old)} -> {_shown(new)}"


def _nothing(value: object) -> bool:
    return value is None or value == {} or value == [] or value == ()


def _shown(value: Any) -> str:
    """A value on one line. The query of a URL is hidden, and for http and https the path too, because they may contain tokens."""
    if _nothing(value):
        return NONE
    if isinstance(value, Enum):
        value = value.value
    if isinstance(value, str):
        address, mark, _ = hide_path(value).partition("?")
        text = f"{address}?…" if mark and "://" in address else hide_path(value)
    else:
        text = json.dumps(value, default=str, ensure_ascii=False)
    return cut(line_of(text, chars_max=VALUE_CHARS_MAX), VALUE_CHARS_MAX)
