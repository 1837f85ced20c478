"""Owns the members of requests: their JSON types by AWS's model, and what AWS says of a wrong one.

Members that the model does not have are passed over, as AWS does. Nulls count as absent.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import orjson

from adapters.control.faults import Denied, Kind
from poller.control import Fault, Refused

NESTED = "Start of structure or map found where not expected"
LISTED = "Start of list found where not expected"
NOT_JSON = "The request body is not valid JSON"


class Scalar(StrEnum):
    """Types of single values; the value is AWS's wording of what something else cannot be converted to."""

    TEXT = "a String"
    WHOLE = "an Integer"
    FLAG = "a Boolean"
    MOMENT = "milliseconds since epoch"


@dataclass(frozen=True, slots=True)
class ListOf:
    """A JSON array."""

    items: "Shape"


@dataclass(frozen=True, slots=True)
class MapOf:
    """A JSON object with any keys."""

    values: "Shape"


type Structure = Mapping[str, Shape]
type Shape = Scalar | ListOf | MapOf | Structure

_TEXTS = ListOf(Scalar.TEXT)
_DESTINATION: Structure = {"Destination": Scalar.TEXT}

UPDATE: Structure = {
    "FunctionName": Scalar.TEXT,
    "Enabled": Scalar.FLAG,
    "BatchSize": Scalar.WHOLE,
    "FilterCriteria": {"Filters": ListOf({"Pattern": Scalar.TEXT})},
    "MaximumBatchingWindowInSeconds": Scalar.WHOLE,
    "ParallelizationFactor": Scalar.WHOLE,
    "DestinationConfig": {"OnSuccess": _DESTINATION, "OnFailure": _DESTINATION},
    "MaximumRecordAgeInSeconds": Scalar.WHOLE,
    "BisectBatchOnFunctionError": Scalar.FLAG,
    "MaximumRetryAttempts": Scalar.WHOLE,
    "TumblingWindowInSeconds": Scalar.WHOLE,
    "FunctionResponseTypes": _TEXTS,
    "ScalingConfig": {"MaximumConcurrency": Scalar.WHOLE},
    "ProvisionedPollerConfig": {"MinimumPollers": Scalar.WHOLE, "MaximumPollers": Scalar.WHOLE},
    "MetricsConfig": {"Metrics": _TEXTS},
    "KMSKeyArn": Scalar.TEXT,
}
CREATE: Structure = {
    **UPDATE,
    "EventSourceArn": Scalar.TEXT,
    "StartingPosition": Scalar.TEXT,
    "StartingPositionTimestamp": Scalar.MOMENT,
    "Tags": MapOf(Scalar.TEXT),
}
TAG: Structure = {"Tags": MapOf(Scalar.TEXT)}
ELSEWHERE = (
    "SelfManagedEventSource",
    "Topics",
    "Queues",
    "SourceAccessConfigurations",
    "AmazonManagedKafkaEventSourceConfig",
    "SelfManagedKafkaEventSourceConfig",
    "DocumentDBEventSourceConfig",
    "LoggingConfig",
)
"""Members for sources that there are none of here: refused when they say something."""
NOTHING: tuple[Any, ...] = (None, [], {})


def read(body: bytes, structure: Structure) -> dict[str, Any]:
    """The request's members; an empty body has none.

    Raises Denied for what is not JSON or of a wrong type, Refused for members of other kinds of sources.
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
        raise Denied(Kind.SERIALIZATION, NOT_JSON) from None
    if not isinstance(value, dict):
        raise _wrong(LISTED if isinstance(value, list) else "Unexpected value type in payload")
    return value


def _refuse_elsewhere(given: Mapping[str, Any]) -> None:
    for name in ELSEWHERE:
        if given.get(name) not in NOTHING:
            text = f"Unsupported {name} parameter for given event source mapping type."
            raise Refused(Fault.PARAMETER, text)


def _wrong(text: str) -> Denied:
    return Denied(Kind.SERIALIZATION, text)


def _shaped(value: object, shape: Shape) -> Any:
    match shape:
        case Scalar():
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


def _scalar(value: object, wanted: Scalar) -> object:
    if isinstance(value, dict):
        raise _wrong(NESTED)
    if isinstance(value, list):
        raise _wrong(LISTED)
    match wanted, value:
        case (Scalar.FLAG, bool()) | (Scalar.TEXT, str()):
            return value
        case (Scalar.WHOLE | Scalar.MOMENT, bool()):
            pass
        case (Scalar.WHOLE | Scalar.MOMENT, int()):
            return value
        case (Scalar.MOMENT, float()) if math.isfinite(value):
            return value
        case (Scalar.WHOLE, float()) if value.is_integer():
            return int(value)
    raise _wrong(f"{_token(value)} can not be converted to {wanted.value}")


def _token(value: object) -> str:
    if isinstance(value, bool):
        return "TRUE_VALUE" if value else "FALSE_VALUE"
    return "STRING_VALUE" if isinstance(value, str) else "NUMBER_VALUE"
