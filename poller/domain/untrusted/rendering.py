"""Owns how values are rendered as JSON for people. It always succeeds, whatever the values are.

Values that orjson accepts are encoded unchanged. Other values are replaced first: half of a surrogate pair by U+FFFD, an object by
its text, deep nesting by an ellipsis. So one odd value cannot make a whole page fail.
"""

from collections.abc import Mapping, Set
from dataclasses import fields, is_dataclass
from itertools import islice
from typing import Any

import msgspec
import orjson

from poller.domain.untrusted.texts import CUT, cut

DEPTH_MAX = 32
ITEMS_MAX = 100_000
"""Items of one list or object that are kept when a value is made plain."""
OTHER_CHARS_MAX = 1024
"""Characters that are kept of the text of an object without a JSON form."""
_WHOLE_MAX = 2**63
_NO_TEXT = "(its text could not be made)"


def as_json(value: Any) -> bytes:
    """`value` as compact JSON in UTF-8. Dataclasses become objects with their fields as members. Raises nothing."""
    try:
        return orjson.dumps(value)
    except orjson.JSONEncodeError:
        return orjson.dumps(plain(value))


def plain(value: Any, depth: int = 0) -> Any:
    """A value that orjson accepts, with the same meaning as far as possible. Raises nothing, whatever the value is."""
    if depth > DEPTH_MAX:
        return CUT
    try:
        return _plain(value, depth + 1)
    except Exception:  # noqa: BLE001 - the value may be an object of foreign code, which may raise anything
        return _NO_TEXT


def _plain(value: Any, depth: int) -> Any:
    if value is None or isinstance(value, bool | float):
        return value
    if isinstance(value, str):
        return _encodable(value)
    if isinstance(value, int):
        return int(value) if abs(value) < _WHOLE_MAX else _encodable(cut(f"{value:x}", OTHER_CHARS_MAX))
    if isinstance(value, Mapping):
        items = islice(value.items(), ITEMS_MAX)
        return {_encodable(str(name)): plain(each, depth) for name, each in items}
    if isinstance(value, list | tuple | Set):
        return [plain(each, depth) for each in islice(value, ITEMS_MAX)]
    if isinstance(value, msgspec.Struct):
        return {name: plain(getattr(value, name), depth) for name in value.__struct_fields__}
    if is_dataclass(value) and not isinstance(value, type):
        return {each.name: plain(getattr(value, each.name), depth) for each in fields(value)}
    return _encodable(cut(str(value), OTHER_CHARS_MAX))


def _encodable(text: str) -> str:
    return str(text).encode("utf-8", "surrogatepass").decode("utf-8", "replace")
