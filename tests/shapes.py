"""Owns shapes of AWS's answers as the service model has them: members absent, null, of unknown values, and new ones.

The model is the one that the installed AWS library comes with. A member that a newer model adds is drawn at once.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from random import Random
from typing import Any

import botocore.session
from botocore.model import ListShape, MapShape, Shape, StructureShape

ODD_TEXTS = ("", "é", "\u2028", "🗼", '"\\', "\ud800", "\x00", "null", "0")
"""Texts that something between a service and a function may trip over."""
NEW_MEMBERS: Mapping[str, Any] = {"SomethingNew": {"deep": [1, None, "é"]}, "Trouble": "text", "receipt": 5}
"""Members that no model has."""
NOTHING: Mapping[str, Any] = {}


@cache
def answer_shape(service: str, operation: str) -> StructureShape:
    """The shape of an operation's answer, of the newest model that is installed."""
    model = botocore.session.Session().get_service_model(service)
    shape = model.operation_model(operation).output_shape
    assert isinstance(shape, StructureShape)
    return shape


def inner_shape(shape: Shape, *names: str) -> StructureShape:
    """The structure under these members, through lists and maps."""
    for name in names:
        assert isinstance(shape, StructureShape), f"no structure above {name}"
        shape = shape.members[name]
        while isinstance(shape, ListShape | MapShape):
            shape = shape.member if isinstance(shape, ListShape) else shape.value
    assert isinstance(shape, StructureShape)
    return shape


RECORD = inner_shape(answer_shape("kinesis", "GetRecords"), "Records")
CHANGE_RECORD = inner_shape(answer_shape("dynamodbstreams", "GetRecords"), "Records")
MESSAGE = inner_shape(answer_shape("sqs", "ReceiveMessage"), "Messages")
_SYSTEM_ATTRIBUTES = MESSAGE.members["Attributes"]
assert isinstance(_SYSTEM_ATTRIBUTES, MapShape)
SYSTEM_ATTRIBUTE_NAMES = tuple(name for name in _SYSTEM_ATTRIBUTES.key.metadata["enum"] if name != "All")
"""Every attribute of SQS's own that a message may have."""


@dataclass
class Shaper:
    """Draws objects of a shape. `odd` is the chance of each optional member to be absent, and of being null.

    `kept` are members that have the value that they are given, by their path; `seen` counts what was drawn.
    """

    rng: Random
    odd: float = 0.25
    kept: frozenset[str] = frozenset()
    seen: set[str] = field(default_factory=set)

    def structure(self, shape: StructureShape, values: Mapping[str, Any], path: str = "") -> dict[str, Any]:
        """An object of this shape with these values; what has none gets one that its type allows."""
        drawn: dict[str, Any] = {}
        required = set(shape.required_members)
        for name, member in shape.members.items():
            inside = f"{path}.{name}".lstrip(".")
            given = values.get(name)
            if inside in self.kept or name in required:
                drawn[name] = self._value(member, given, inside)
                continue
            roll = self.rng.random()
            if roll < self.odd:
                self.seen.add(f"{inside} absent")
            elif roll < 2 * self.odd:
                self.seen.add(f"{inside} null")
                drawn[name] = None
            else:
                drawn[name] = self._value(member, given, inside)
        if self.rng.random() < self.odd:
            self.seen.add(f"{path or 'top'} new")
            drawn |= NEW_MEMBERS
        return drawn

    def _value(self, shape: Shape, given: Any, path: str) -> Any:
        if isinstance(shape, StructureShape):
            return self.structure(shape, given or NOTHING, path)
        if given is not None:
            return given
        match shape.type_name:
            case "list":
                return []
            case "map":
                return {}
            case "boolean":
                return True
            case "timestamp":
                return 1767225600.5
            case "integer" | "long" | "float" | "double":
                return 1
            case "blob":
                return "AAEC/w=="
            case _:
                return self._text(shape, path)

    def _text(self, shape: Shape, path: str) -> str:
        enum = shape.metadata.get("enum")
        if not enum:
            return self.rng.choice(ODD_TEXTS)
        if self.rng.random() < self.odd:
            self.seen.add(f"{path} unknown value")
            return "A_VALUE_OF_TOMORROW"
        return str(self.rng.choice(enum))
