"""Owns the CustomResourceDefinition of EventSourceMapping, made of the table of AWS's members and of the file's model.

Its schema is structural: every value has one type. What a text must look like and how large a number may be is in the rules in CEL,
so that the API server answers with AWS's texts.
"""

from typing import Any

import yaml

from poller.config.members import ENTRIES_MAX, TABLE, JsonType, Member, RequestKind
from poller.config.resources.cel_rules import CelRule, spec_rules
from poller.config.resources.spec import OWN, ack_name
from poller.config.schema.plain import plain_schema
from poller.config.schema.texts import MAPPINGS
from poller.config.settings import FileMembers
from poller.domain.resources.resource import MESSAGE_CHARS_MAX

GROUP, VERSION, KIND, PLURAL = "poller.dev", "v1", "EventSourceMapping", "eventsourcemappings"
HEAD = "# Made of poller's own model of a mapping: `make resource-definition` writes it again.\n"
_DESCRIBED = {
    "Tags": "Accepted, without effect: labels of the resource are for that.",
    "UUID": "The mapping's id, under which its positions are kept. Default: the resource's own uid.",
}
"""Where the file's text is not that of a resource."""
FILTERS_LOOKED_AT = 50
"""Entries of a list that the API server checks. AWS takes ten filters at most; a rule says so."""

type StructuralSchema = dict[str, Any]
"""A schema as a definition has it."""


_TYPES: dict[JsonType, StructuralSchema] = {
    JsonType.TEXT: {"type": "string"},
    JsonType.WHOLE: {"type": "integer", "format": "int64"},
    JsonType.NUMBER: {"type": "number"},
    JsonType.FLAG: {"type": "boolean"},
    JsonType.MOMENT: {"x-kubernetes-int-or-string": True},
}


def definition() -> StructuralSchema:
    """The whole CustomResourceDefinition."""
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{PLURAL}.{GROUP}"},
        "spec": {
            "group": GROUP,
            "scope": "Namespaced",
            "names": {
                "kind": KIND,
                "listKind": f"{KIND}List",
                "plural": PLURAL,
                "singular": KIND.lower(),
                "shortNames": ["esm"],
                "categories": ["poller"],
            },
            "versions": [
                {
                    "name": VERSION,
                    "served": True,
                    "storage": True,
                    "subresources": {"status": {}},
                    "additionalPrinterColumns": _columns(),
                    "schema": {"openAPIV3Schema": _object_schema()},
                }
            ],
        },
    }


def definition_text() -> str:
    """The definition as YAML."""
    return HEAD + yaml.safe_dump(definition(), sort_keys=False, width=120, allow_unicode=True)


def _columns() -> list[StructuralSchema]:
    def of(type_: str) -> str:
        return f'.status.conditions[?(@.type=="{type_}")].status'

    return [
        {"name": "Function", "type": "string", "jsonPath": ".spec.functionName"},
        {"name": "Source", "type": "string", "jsonPath": ".spec.eventSourceARN"},
        {"name": "Ready", "type": "string", "jsonPath": of("Ready")},
        {"name": "Blocked", "type": "string", "jsonPath": of("Blocked")},
        {
            "name": "Lag",
            "type": "string",
            "jsonPath": ".status.lag",
            "description": "How far the last shard is behind.",
        },
        {
            "name": "Reason",
            "type": "string",
            "jsonPath": '.status.conditions[?(@.type=="Ready")].reason',
            "priority": 1,
        },
        {"name": "Shards", "type": "integer", "jsonPath": ".status.shards", "priority": 1},
        {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"},
    ]


def _object_schema() -> StructuralSchema:
    return {
        "type": "object",
        "description": "A mapping: which function gets the records of which source.",
        "required": ["spec"],
        "properties": {
            "apiVersion": {"type": "string"},
            "kind": {"type": "string"},
            "metadata": {"type": "object"},
            "spec": spec_schema(),
            "status": status_schema(),
        },
    }


def spec_schema() -> StructuralSchema:
    """The schema of a spec, with the rules in CEL."""
    own = plain_schema(FileMembers)["properties"]
    properties = {ack_name(each.path): _of_member(each) for each in TABLE if each.top and _known(each)}
    for name in OWN:
        shown = "uuid" if name == "UUID" else name
        properties[shown] = {**_structural(own[name]), **_described(name)}
    properties["source"]["x-kubernetes-preserve-unknown-fields"] = True
    return {
        "type": "object",
        "required": ["eventSourceARN", "functionName"],
        "properties": properties,
        "x-kubernetes-validations": [_rule(each) for each in spec_rules()],
    }


def status_schema() -> StructuralSchema:
    """The schema of a status."""
    text = {"type": "string"}
    whole = {"type": "integer", "format": "int64"}
    condition = {
        "type": "object",
        "required": ["type", "status", "reason", "message", "lastTransitionTime"],
        "properties": {
            "type": text,
            "status": {"type": "string", "enum": ["True", "False", "Unknown"]},
            "reason": text,
            "message": {"type": "string", "maxLength": MESSAGE_CHARS_MAX},
            "lastTransitionTime": {"type": "string", "format": "date-time"},
            "observedGeneration": whole,
        },
    }
    return {
        "type": "object",
        "properties": {
            "observedGeneration": whole,
            "conditions": {
                "type": "array",
                "x-kubernetes-list-type": "map",
                "x-kubernetes-list-map-keys": ["type"],
                "items": condition,
            },
            "uuid": {"type": "string", "description": "The mapping's UUID in the API and in the commands."},
            "state": {"type": "string", "description": "The mapping's state in AWS's words."},
            "lastProcessingResult": text,
            "shards": {**whole, "description": "Shards that are not finished."},
            "lag": {
                "type": "string",
                "description": "How far the last shard is behind, such as 12s or 3h5m.",
            },
            "lagSeconds": whole,
        },
    }


def _known(member: Member) -> bool:
    """Whether the member has a place in the spec. Those of unsupported sources are no fields, except where AWS's text refuses them."""
    return member.requests is not RequestKind.NEITHER and bool(member.sources)


def _of_member(member: Member) -> StructuralSchema:
    described: StructuralSchema = _described(member.path)
    match member.type:
        case JsonType.OBJECT:
            inner = {
                ack_name(each.path.rpartition(".")[2]): _of_member(each)
                for each in TABLE
                if each.path.rpartition(".")[0] == member.path and "[" not in each.path
            }
            return {"type": "object", **described, "properties": inner}
        case JsonType.LIST:
            items = _items(member)
            return {"type": "array", **described, "maxItems": FILTERS_LOOKED_AT, "items": items}
        case JsonType.MAP:
            texts = {"type": "string"}
            return {
                "type": "object",
                **described,
                "maxProperties": ENTRIES_MAX,
                "additionalProperties": texts,
            }
        case _:
            bound: StructuralSchema = {} if member.length is None else {"maxLength": member.length[1]}
            return {**_TYPES[member.type], **described, **bound}


def _items(member: Member) -> StructuralSchema:
    prefix = f"{member.path}[]"
    inner = {
        ack_name(each.path.rpartition(".")[2]): _of_member(each)
        for each in TABLE
        if each.path.startswith(f"{prefix}.")
    }
    if inner:
        return {"type": "object", "properties": inner}
    entry = next((each for each in TABLE if each.path == prefix), None)
    return {
        "type": "string",
        **({"enum": list(entry.choices)} if entry is not None and entry.choices else {}),
    }


def _described(path: str) -> StructuralSchema:
    text = _DESCRIBED.get(path) or MAPPINGS.get(path)
    return {"description": text} if text else {}


_COPIED = ("description", "maxLength", "enum", "maxItems")


def _structural(schema: StructuralSchema) -> StructuralSchema:
    """What a structural schema can say of a schema of the file: one type, without nulls and without numbers in quotes."""
    kinds = schema.get("type", "object")
    kind = next((each for each in kinds if each != "null"), "string") if isinstance(kinds, list) else kinds
    found: StructuralSchema = {"type": kind}
    for name in _COPIED:
        if name in schema:
            found[name] = (
                [each for each in schema[name] if each is not None] if name == "enum" else schema[name]
            )
    if kind == "object" and "properties" in schema:
        found["properties"] = {name: _structural(each) for name, each in schema["properties"].items()}
        if schema.get("required"):
            found["required"] = list(schema["required"])
    return found


def _rule(rule: CelRule) -> StructuralSchema:
    found = {"rule": rule.rule, "message": rule.message}
    if rule.expression:
        found["messageExpression"] = rule.expression
    return found
