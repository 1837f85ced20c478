"""Owns how a model's schema becomes one that editors show well: without references and titles, and as wide as the file is read.

The models take a number in quotes as well, so a number's schema takes such a text. Its range holds for the number only.
"""

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

type Schema = dict[str, Any]

WHOLE_TEXT = "^[-+]?[0-9]{1,18}(\\.0*)?$"
NUMBER_TEXT = "^ *[-+]?([0-9][0-9_]*\\.?[0-9]*|\\.[0-9]+)([eE][-+]?[0-9]+)? *$"
_BOUNDS = {"gt": "exclusiveMinimum", "ge": "minimum", "lt": "exclusiveMaximum", "le": "maximum"}
"""Pydantic leaves its own words where a type with a validator has a bound."""
_LEFT_OUT = frozenset({"title", "format", "writeOnly", "uniqueItems", "$defs"})
"""A set may be written with an item twice."""


def plain_schema(model: type[BaseModel]) -> Schema:
    """The schema of what a model reads, with every reference replaced by what it stands for."""
    schema = model.model_json_schema(mode="validation")
    return _plain(_undescribed(schema), schema.get("$defs", {}))


def with_null(schema: Schema) -> Schema:
    """The schema that takes null as well."""
    if "type" not in schema:
        return {"anyOf": [schema, {"type": "null"}]}
    kinds = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
    found = {**schema, "type": [*kinds, *({"null"} - set(kinds))]}
    if "enum" in schema:
        found["enum"] = [*schema["enum"], None]
    return found


def _undescribed(schema: Mapping[str, Any]) -> Schema:
    """The schema without the docstring of its class, which is for readers of the code."""
    return {name: value for name, value in schema.items() if name != "description"}


def _plain(schema: Mapping[str, Any], known: Mapping[str, Any]) -> Schema:
    if "$ref" in schema:
        named = _undescribed(known[str(schema["$ref"]).rpartition("/")[2]])
        beside = {name: value for name, value in schema.items() if name != "$ref"}
        return _plain({**named, **beside}, known)
    found = {_BOUNDS.get(name, name): value for name, value in schema.items()}
    found = {name: value for name, value in found.items() if name not in _LEFT_OUT}
    if found.get("default", found) is None:
        del found["default"]
    if "const" in found:
        found["enum"] = [found.pop("const")]
    if "properties" in found:
        found["properties"] = {name: _plain(each, known) for name, each in found["properties"].items()}
    for name in ("items", "additionalProperties", "propertyNames"):
        if isinstance(found.get(name), dict):
            found[name] = _plain(found[name], known)
    if "anyOf" in found:
        return _choice(found, known)
    return _as_read(found)


def _choice(schema: Schema, known: Mapping[str, Any]) -> Schema:
    beside = {name: value for name, value in schema.items() if name != "anyOf"}
    kinds = [_plain(each, known) for each in schema["anyOf"]]
    real = [each for each in kinds if each.get("type") != "null"]
    found = real[0] if len(real) == 1 else {"anyOf": real}
    return {**(with_null(found) if len(real) < len(kinds) else found), **beside}


def _as_read(schema: Schema) -> Schema:
    match schema.get("type"):
        case "integer":
            return {**schema, "type": ["integer", "string"], "pattern": WHOLE_TEXT}
        case "number":
            return {**schema, "type": ["number", "string"], "pattern": NUMBER_TEXT}
        case _:
            return schema
