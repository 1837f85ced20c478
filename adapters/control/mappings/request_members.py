"""Owns how the JSON body of a request is read and checked, by the types in the table of members.

As with AWS, unknown members are ignored, null counts as absent, and a wrong type gets AWS's error text.
"""

import math
from collections.abc import Iterable, Mapping, Sequence, Sized
from dataclasses import dataclass
from typing import Any

import orjson

from adapters.control.aws_errors import RejectionType, RequestRejected
from adapters.control.mappings.paging import headed
from poller.config.members import (
    ENTRIES_MAX,
    JsonType,
    Member,
    RequestKind,
    inside,
    refused,
    requested,
)
from poller.domain.mapping_api import ApiError, ApiErrorType

NESTED = "Start of structure or map found where not expected"
LISTED = "Start of list found where not expected"
NOT_JSON = "The request body is not valid JSON"
VALUES_MAX = 65_536
"""Values of a body, counted by its commas and opening brackets, those in texts too. All members at their longest have less, even if they
are made of commas. A body of a megabyte may have half a million, and to parse these takes longer than a step of the loop should."""


@dataclass(frozen=True, slots=True)
class ListOf:
    """A JSON array; `field` is its path in AWS's error texts, `most` how many items it may have."""

    items: "Shape"
    field: str
    most: int


@dataclass(frozen=True, slots=True)
class MapOf:
    """A JSON object with any keys; `field` is its path in AWS's error texts, `most` how many it may have.

    A value that is null is left out; with `nulls` it is kept, for a map in which AWS refuses it.
    """

    values: "Shape"
    field: str
    most: int
    nulls: bool = False


type Structure = Mapping[str, Shape]
type Shape = JsonType | ListOf | MapOf | Structure

_CANNOT_BE: Mapping[JsonType, str] = {
    JsonType.TEXT: "a String",
    JsonType.WHOLE: "an Integer",
    JsonType.NUMBER: "a Double",
    JsonType.FLAG: "a Boolean",
    JsonType.MOMENT: "milliseconds since epoch",
}
"""How AWS's error texts name the type that a value cannot be converted to."""


def structure(members: Iterable[Member]) -> Structure:
    """Returns the names and types of these members of the table, with the members inside them."""
    given = tuple(members)
    return _inside("", given)


def _inside(path: str, given: Sequence[Member]) -> Structure:
    return {name: _shape(member, given) for name, member in inside(path, given).items()}


def _shape(member: Member, given: Sequence[Member]) -> Shape:
    most = member.length[1] if member.length else ENTRIES_MAX
    match member.type:
        case JsonType.OBJECT:
            return _inside(member.path, given)
        case JsonType.LIST:
            items = [each.type for each in given if each.path == f"{member.path}[]"]
            return ListOf(items[0] if items else _inside(f"{member.path}[]", given), member.field, most)
        case JsonType.MAP:
            return MapOf(JsonType.TEXT, member.field, most)
        case _:
            return member.type


UPDATE = structure(requested(RequestKind.UPDATE))
CREATE = structure(requested(RequestKind.CREATE))
TAG: Structure = {"Tags": CREATE["Tags"]}
OTHER_SOURCES_MEMBERS = refused()
"""Members for kinds of sources that poller does not have. A request that gives one a value is refused."""
EMPTY_VALUES: tuple[Any, ...] = (None, [], {})


def read(body: bytes, structure: Structure) -> dict[str, Any]:
    """Returns the members of a request; an empty body has none.

    Raises RequestRejected for a body that is not JSON or has a wrong type, and ApiError for members of other kinds of sources.
    """
    given = _parsed(body)
    found = _structure(given, structure)
    if found.get("EventSourceArn") or "EventSourceArn" not in structure:
        _refuse_other_sources(given)
    return found


def _parsed(body: bytes) -> dict[str, Any]:
    if not body.strip():
        return {}
    if body.count(b",") + body.count(b"[") + body.count(b"{") > VALUES_MAX:
        raise RequestRejected(
            RejectionType.TOO_LARGE, f"Request must have at most {VALUES_MAX} commas and opening brackets"
        )
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError:
        # Without the cause: the library's text repeats parts of the body.
        raise RequestRejected(RejectionType.SERIALIZATION, NOT_JSON) from None
    if not isinstance(value, dict):
        raise _wrong(LISTED if isinstance(value, list) else "Unexpected value type in payload")
    return value


def _refuse_other_sources(given: Mapping[str, Any]) -> None:
    for name in OTHER_SOURCES_MEMBERS:
        if given.get(name) not in EMPTY_VALUES:
            text = f"Unsupported {name} parameter for given event source mapping type."
            raise ApiError(ApiErrorType.PARAMETER, text)


def _wrong(text: str) -> RequestRejected:
    return RequestRejected(RejectionType.SERIALIZATION, text)


def _shaped(value: object, shape: Shape) -> Any:
    match shape:
        case JsonType():
            return _scalar(value, shape)
        case ListOf(items, field, most):
            if not isinstance(value, list):
                raise _wrong(NESTED if isinstance(value, dict) else "Expected list or null")
            _refuse_long(value, field, most)
            return [_shaped(each, items) for each in value if each is not None]
        case MapOf(values, field, most, nulls):
            if not isinstance(value, dict):
                raise _wrong(LISTED if isinstance(value, list) else "Expected map or null")
            _refuse_long(value, field, most)
            return {
                key: None if each is None else _shaped(each, values)
                for key, each in value.items()
                if nulls or each is not None
            }
        case _:
            if not isinstance(value, dict):
                raise _wrong(LISTED if isinstance(value, list) else "Unexpected value type in payload")
            return _structure(value, shape)


def _refuse_long(value: Sized, field: str, most: int) -> None:
    """Refuses a list or a map whose entries are too many to look at. AWS's text, but without the value."""
    if len(value) > ENTRIES_MAX:
        path = ".".join(part[:1].lower() + part[1:] for part in field.split("."))
        must = f"Member must have length less than or equal to {most}"
        raise ApiError(
            ApiErrorType.VALIDATION, headed([f"Value at '{path}' failed to satisfy constraint: {must}"])
        )


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
        case (JsonType.WHOLE | JsonType.NUMBER | JsonType.MOMENT, bool()):
            pass
        case (JsonType.WHOLE | JsonType.NUMBER | JsonType.MOMENT, int()):
            return value
        case (JsonType.NUMBER | JsonType.MOMENT, float()) if math.isfinite(value):
            return value
        case (JsonType.WHOLE, float()) if value.is_integer():
            return int(value)
    raise _wrong(f"{_token(value)} can not be converted to {_CANNOT_BE[wanted]}")


def _token(value: object) -> str:
    if isinstance(value, bool):
        return "TRUE_VALUE" if value else "FALSE_VALUE"
    return "STRING_VALUE" if isinstance(value, str) else "NUMBER_VALUE"
