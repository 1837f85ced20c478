"""Owns CloudFormation's functions: Ref, Fn::Sub and the others, over parameters, mappings, conditions and resources of one template.

Values are resolved as far as the template, its defaults and what the user gives tell them. Each resource's attribute is resolved once, so
that many references cost no more than one. A value that refers to itself is unresolved.
"""

import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from poller.rules.templates.resource_names import attribute_of
from poller.rules.templates.values import (
    DEPTH_MAX,
    NOTHING,
    STEPS_MAX,
    Given,
    InvalidTemplate,
    Unresolved,
    items,
    joined,
    table,
    text_of,
    unresolved_in,
)

_REFERENCE = re.compile(r"\$\{([^{}]{0,512})\}")
_DYNAMIC = "{{resolve:"
_PAIR = 2
_TRIPLE = 3


class Resolver:
    """Resolves values of one template."""

    def __init__(self, template: dict[str, Any], given: Given) -> None:
        self.given = given
        self.resources = table(template.get("Resources"))
        self._parameters = table(template.get("Parameters"))
        self._mappings = table(template.get("Mappings"))
        self._conditions = table(template.get("Conditions"))
        self._known: dict[tuple[str, str], object] = {}
        self._open: list[tuple[str, str]] = []
        self._steps = 0
        self._depth = 0
        self._functions: dict[str, Callable[[Any], object]] = {
            "Ref": self._ref,
            "Fn::GetAtt": self._get_att,
            "Fn::Sub": self._sub,
            "Fn::Join": self._join,
            "Fn::Select": self._select,
            "Fn::Split": self._split,
            "Fn::FindInMap": self._find_in_map,
            "Fn::ImportValue": self._import_value,
            "Fn::If": self._if,
            "Fn::ToJsonString": self._to_json,
        }

    def value(self, node: object) -> Any:
        """The value with every function in it resolved, as far as that is possible."""
        self._steps += 1
        if self._steps > STEPS_MAX:
            raise InvalidTemplate(f"has more than {STEPS_MAX} values to resolve; cut what has no mappings")
        if self._depth >= DEPTH_MAX:
            return Unresolved("<value>", f"nested deeper than {DEPTH_MAX} levels")
        self._depth += 1
        try:
            return self._value(node)
        finally:
            self._depth -= 1

    def condition(self, name: object) -> bool | Unresolved:
        """Whether a condition of the template holds."""
        if not isinstance(name, str) or name not in self._conditions:
            return Unresolved(f"<{name}>", f"there is no condition {name}")
        found = self._once(("Conditions", name), lambda: self._holds(self._conditions[name]))
        return found if isinstance(found, bool | Unresolved) else Unresolved(f"<{name}>", "no condition")

    def attribute(self, logical: str, name: str) -> object:
        """What Ref (name empty) or GetAtt of a resource gives."""
        return self._once((logical, name), lambda: attribute_of(self, logical, name))

    def _value(self, node: object) -> object:
        match node:
            case dict() if len(node) == 1 and is_function(name := next(iter(node))):
                argument = next(iter(node.values()))
                function = self._functions.get(name)
                if function is None:
                    return Unresolved(f"<{name}>", f"{name} is not resolved here")
                return function(argument)
            case dict():
                found = {name: self.value(each) for name, each in node.items()}
                return {name: each for name, each in found.items() if each is not NOTHING}
            case list():
                return [each for each in map(self.value, node) if each is not NOTHING]
            case str() if _DYNAMIC in node:
                return Unresolved("<{{resolve}}>", "a dynamic reference, whose value is in AWS")
            case _:
                return node

    def _once(self, key: tuple[str, str], resolve: Callable[[], object]) -> object:
        if key not in self._known:
            name = ".".join(filter(None, key))
            if key in self._open:
                return Unresolved(f"<{name}>", f"{name} refers to itself")
            if self._depth >= DEPTH_MAX:
                return Unresolved(f"<{name}>", f"nested deeper than {DEPTH_MAX} levels")
            with self._within(key):
                self._known[key] = resolve()
        return self._known[key]

    @contextmanager
    def _within(self, key: tuple[str, str]) -> Iterator[None]:
        self._open.append(key)
        self._depth += 1
        try:
            yield
        finally:
            self._depth -= 1
            self._open.pop()

    def _ref(self, name: object) -> object:
        if not isinstance(name, str):
            return Unresolved("<Ref>", "Ref of something that is no name")
        if name.startswith("AWS::"):
            return self._pseudo(name)
        if name in self._parameters:
            return self._parameter(name)
        if name in self.resources:
            return self.attribute(name, "")
        if name in self.given.parameters:
            return self.given.parameters[name]
        return Unresolved(
            f"<{name}>", f"there is no parameter or resource {name}; give --parameter {name}=VALUE"
        )

    def _pseudo(self, name: str) -> object:
        given = {"AWS::Region": self.given.region, "AWS::AccountId": self.given.account}
        options = {"AWS::Region": "--region REGION", "AWS::AccountId": "--account ACCOUNT"}
        if found := self.given.parameters.get(name) or given.get(name):
            return found
        match name:
            case "AWS::NoValue":
                return NOTHING
            case "AWS::Partition":
                return _partition(self.given.region)
            case "AWS::URLSuffix":
                return "amazonaws.com.cn" if self.given.region.startswith("cn-") else "amazonaws.com"
            case _:
                option = options.get(name, f"--parameter {name}=VALUE")
                return Unresolved(f"<{name}>", f"{name} is not known; give {option}")

    def _parameter(self, name: str) -> object:
        declared = table(self._parameters[name])
        kind = str(declared.get("Type", "String"))
        if str(declared.get("NoEcho", "")).lower() == "true":
            return Unresolved(f"<{name}>", f"{name} is a NoEcho parameter, whose value is not copied")
        value = self.given.parameters.get(name, declared.get("Default"))
        stored = kind.startswith("AWS::SSM::Parameter::Value") and name not in self.given.parameters
        if value is None or stored:
            where = "is in the Systems Manager" if stored else "has no default"
            return Unresolved(f"<{name}>", f"parameter {name} {where}; give --parameter {name}=VALUE")
        if kind == "CommaDelimitedList" or kind.startswith("List<"):
            return [each.strip() for each in str(value).split(",")]
        return value

    def _get_att(self, argument: object) -> object:
        parts = argument.split(".", 1) if isinstance(argument, str) else items(argument)
        if len(parts) != _PAIR or not isinstance(parts[0], str):
            return Unresolved("<Fn::GetAtt>", "Fn::GetAtt without a resource and an attribute")
        name = self.value(parts[1])
        if not isinstance(name, str):
            return Unresolved(f"<{parts[0]}>", "Fn::GetAtt of an attribute that is not known")
        return self.attribute(parts[0], name)

    def _sub(self, argument: object) -> object:
        text, given = (argument, {}) if isinstance(argument, str) else _two(argument)
        if not isinstance(text, str):
            return Unresolved("<Fn::Sub>", "Fn::Sub without a text")
        parts: list[object] = []
        end = 0
        for match in _REFERENCE.finditer(text):
            parts += [text[end : match.start()], self._placed(match[1], table(given))]
            end = match.end()
        return self.value(joined([*parts, text[end:]]))

    def _placed(self, name: str, given: dict[str, Any]) -> object:
        self._steps += 1
        if name.startswith("!"):
            return f"${{{name[1:]}}}"
        name = name.strip()
        if name in given:
            return self.value(given[name])
        return self.value({"Fn::GetAtt": name} if "." in name else {"Ref": name})

    def _join(self, argument: object) -> object:
        between, found = _two(argument)
        parts = self.value(found)
        if isinstance(parts, Unresolved):
            return parts
        if not isinstance(between, str) or not isinstance(parts, list):
            return Unresolved("<Fn::Join>", "Fn::Join without a text and a list")
        spread = [each for part in parts for each in (between, part)]
        return joined(spread[1:])

    def _select(self, argument: object) -> object:
        index, found = (self.value(each) for each in _two(argument))
        for each in (index, found):
            if isinstance(each, Unresolved):
                return each
        if not isinstance(found, list) or not str(index).isdecimal() or int(index) >= len(found):
            return Unresolved("<Fn::Select>", "Fn::Select of an item that is not there")
        return found[int(index)]

    def _split(self, argument: object) -> object:
        between, found = (self.value(each) for each in _two(argument))
        if isinstance(found, Unresolved):
            return found
        if not isinstance(between, str) or not between or not isinstance(found, str):
            return Unresolved("<Fn::Split>", "Fn::Split without two texts")
        return found.split(between)

    def _find_in_map(self, argument: object) -> object:
        parts = [self.value(each) for each in items(argument)]
        for each in parts[:_TRIPLE]:
            if isinstance(each, Unresolved):
                return each
        if len(parts) < _TRIPLE:
            return Unresolved("<Fn::FindInMap>", "Fn::FindInMap without three names")
        first, second, third = (str(text_of(each)) for each in parts[:_TRIPLE])
        inner = table(table(self._mappings.get(first)).get(second))
        if third in inner:
            return self.value(inner[third])
        default = table(parts[_TRIPLE]) if len(parts) > _TRIPLE else {}
        place = f"{first}.{second}.{third}"
        return default.get("DefaultValue", Unresolved(f"<{place}>", f"Mappings has no {place}"))

    def _import_value(self, argument: object) -> object:
        name = text_of(self.value(argument))
        if isinstance(name, Unresolved):
            return Unresolved(f"<{name.written}>", name.why)
        if name in self.given.parameters:
            return self.given.parameters[name]
        return Unresolved(f"<{name}>", f"is exported by another stack; give --parameter {name}=VALUE")

    def _if(self, argument: object) -> object:
        parts = items(argument)
        if len(parts) != _TRIPLE:
            return Unresolved("<Fn::If>", "Fn::If without a condition and two values")
        holds = self.condition(parts[0])
        return holds if isinstance(holds, Unresolved) else self.value(parts[1 if holds else 2])

    def _to_json(self, argument: object) -> object:
        found = self.value(argument)
        missing = next(unresolved_in(found), None)
        return missing or json.dumps(found, separators=(",", ":"), ensure_ascii=False)

    def _holds(self, node: object) -> bool | Unresolved:
        self.value(None)
        if not isinstance(node, dict) or len(node) != 1:
            return Unresolved("<condition>", "a condition of an unknown form")
        name, argument = next(iter(node.items()))
        match name:
            case "Condition":
                return self.condition(argument)
            case "Fn::Equals":
                one, other = (text_of(self.value(each)) for each in _two(argument))
                for each in (one, other):
                    if isinstance(each, Unresolved):
                        return each
                return one == other
            case "Fn::Not" | "Fn::And" | "Fn::Or":
                return _combined(name, [self._nested(each) for each in items(argument)])
            case _:
                return Unresolved("<condition>", f"{name} in a condition is not resolved here")

    def _nested(self, node: object) -> bool | Unresolved:
        if self._depth >= DEPTH_MAX:
            return Unresolved("<condition>", f"nested deeper than {DEPTH_MAX} levels")
        self._depth += 1
        try:
            return self._holds(node)
        finally:
            self._depth -= 1


def _combined(name: str, found: list[bool | Unresolved]) -> bool | Unresolved:
    ends = name == "Fn::Or"
    if name != "Fn::Not" and ends in found:
        return ends
    missing = next((each for each in found if isinstance(each, Unresolved)), None)
    if missing is not None or not found:
        return missing or Unresolved("<condition>", f"{name} of nothing")
    return (not found[0]) if name == "Fn::Not" else not ends


def is_function(name: str) -> bool:
    """Whether a name is that of a function of CloudFormation, such as Ref or Fn::Sub."""
    return name == "Ref" or name.startswith("Fn::")


def _two(argument: object) -> tuple[Any, Any]:
    found = items(argument)
    return (found[0], found[1]) if len(found) == _PAIR else (None, None)


def _partition(region: str) -> str:
    for begin, partition in (("cn-", "aws-cn"), ("us-gov-", "aws-us-gov")):
        if region.startswith(begin):
            return partition
    return "aws"
