"""Owns how requests are read: by the JSON types in the table of members, and what AWS says of a wrong one.

Members that the model does not have are passed over, as AWS does. Nulls count as absent.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from adapters.control.aws_errors import RejectionType, RequestRejected
from poller.config.members import JsonType, Member, RequestKind, inside, refused, requested
from poller.domain.mapping_api import ApiError, ApiErrorType

NESTED = "Start of structure or map found where not expected"
LISTED = "Start of list found where not expected"
NOT_JSON = "The request body is not valid JSON"


@dataclass(frozen=True, slots=True)
class ListOf:
    """A JSON array."""

    items: "Shape"


@dataclass(frozen=True, slots=True)
class MapOf:
    """A JSON object with any keys."""

    values: "Shape"


type Structure = Mapping[str, Shape]
type Shape = JsonType | ListOf | MapOf | Structure

_CANNOT_BE: Mapping[JsonType, str] = {
    JsonType.TEXT: "a String",
    JsonType.WHOLE: "an Integer",
    JsonType.FLAG: "a Boolean",
    JsonType.MOMENT: "milliseconds since epoch",
}
"""AWS's wording of what something else cannot be converted to."""


def structure(members: Iterable[Member]) -> Structure:
    """Names and types of these members of the table, with what is inside them."""
    given = tuple(members)
    return _inside("", given)


def _inside(path: str, given: Sequence[Member]) -> Structure:
    return {name: _shape(member, given) for name, member in inside(path, given).items()}


def _shape(member: Member, given: Sequence[Member]) -> Shape:
    match member.type:
        case JsonType.OBJECT:
            return _inside(member.path, given)
        case JsonType.LIST:
            items = [each.type for each in given if each.path == f"{member.path}[]"]
            return ListOf(items[0] if items else _inside(f"{member.path}[]", given))
        case JsonType.MAP:
            return MapOf(JsonType.TEXT)
        case _:
            return member.type


UPDATE = structure(requested(RequestKind.UPDATE))
CREATE = structure(requested(RequestKind.CREATE))
TAG: Structure = {"Tags": CREATE["Tags"]}
ELSEWHERE = refused()
"""Members for sources that there are none of here: refused when they say something."""
NOTHING: tuple[Any, ...] = (None, [], {})


def read(body: bytes, structure: Structure) -> dict[str, Any]:
    """The request's members; an empty body has none.

    Raises RequestRejected for what is not JSON or of a wrong type, ApiError for members of other kinds of sources.
    """
    given = _parsed(body)
    found = _structure(given, structure)
    if found.get("EventSourceArn") or "EventSourceArn" not in structure:
        _refuse_elsewhere(given)
    return found


def _parsed(body: bytes) -> dict[str, Any]:
    if not body.strip():
        return {}
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError:
        # The library's text repeats parts of the body.
        raise RequestRejected(RejectionType.SERIALIZATION, NOT_JSON) from None
    if not isinstance(value, dict):
        raise _wrong(LISTED if isinstance(value, list) else "Unexpected value type in payload")
    return value


def _refuse_elsewhere(given: Mapping[str, Any]) -> None:
    for name in ELSEWHERE:
        if given.get(name) not in NOTHING:
            text = f"Unsupported {name} parameter for given event source mapping type."
            raise ApiError(ApiErrorType.PARAMETER, text)


def _wrong(text: str) -> RequestRejected:
    return RequestRejected(RejectionType.SERIALIZATION, text)


def _shaped(value: object, shape: Shape) -> Any:
    match shape:
        case JsonType():
            return _scalar(value, shape)
        case ListOf(items):
            if not isinstance(value, list):
                raise _wrong(NESTED if isinstance(value, dict) else "Expected list or null")
            return [_shaped(each, items) for each in value if each is not None]
        case MapOf(values):
            if not isinstance(value, dict):
                raise _wrong(LISTED if isinstance(value, list) else "Expected map or null")
            return {key: _shaped(each, values) for key, each in value.items() if each is not None}
        case _:
            if not isinstance(value, dict):
                raise _wrong(LISTED if isinstance(value, list) else "Unexpected value type in payload")
            return _structure(value, shape)


def _structure(value: Mapping[str, Any], structure: Structure) -> dict[str, Any]:
    return {
        name: _shaped(value[name], shape) for name, shape in structure.items() if value.get(name) is not None
    }


def _scalar(value: object, wanted: JsonType) -> object:
    if isinstance(value, dict):
        raise _wrong(NESTED)
    if isinstance(value, list):
        raise _wrong(LISTED)
    match wanted, value:
        case (JsonType.FLAG, bool()) | (JsonType.TEXT, str()):
            return value
        case (JsonType.WHOLE | JsonType.MOMENT, bool()):
            pass
        case (JsonType.WHOLE | JsonType.MOMENT, int()):
            return value
        case (JsonType.MOMENT, float()) if math.isfinite(value):
            return value
        case (JsonType.WHOLE, float()) if value.is_integer():
            return int(value)
    raise _wrong(f"{_token(value)} can not be converted to {_CANNOT_BE[wanted]}")


def _token(value: object) -> str:
    if isinstance(value, bool):
        return "TRUE_VALUE" if value else "FALSE_VALUE"
    return "STRING_VALUE" if isinstance(value, str) else "NUMBER_VALUE"
