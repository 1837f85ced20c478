"""Owns the schemas of functions: an entry's own settings, and those of its invoker's plug-in.

An entry without an invoker is called by `default_invoker`, so that its settings are found only at the top of the file.
"""

from collections.abc import Iterator, Mapping, Sequence

from poller.config.schema.plain import Schema, plain_schema
from poller.config.settings import FunctionEntry, Settings
from poller.domain.errors import InvalidConfiguration
from poller.plugins import Registry

_GIVEN = ("function", "max_concurrency", "function_version")
"""Settings of an invoker that the daemon gives, or that are an entry's own."""


def definitions(registry: Registry, invokers: Sequence[str]) -> dict[str, Schema]:
    """The schema of a whole entry for each invoker whose plug-in can be loaded, by name of the definition."""
    found = {}
    for name in invokers:
        try:
            own = plain_schema(registry.plugin("invokers", name).settings)
        except InvalidConfiguration:
            continue
        found[definition(name)] = _entry(own, invokers)
    return found


def definition(invoker: str) -> str:
    """The name of an invoker's definition."""
    return f"function-{invoker}"


def functions_schema(schema: Schema, invokers: Sequence[str], known: Mapping[str, Schema]) -> Schema:
    """The schema of `functions`: entries that name their invoker have that one's settings."""
    entry = plain_schema(FunctionEntry)
    entry["properties"]["invoker"] |= {"enum": [*invokers, None]}
    entry["allOf"] = [
        {"if": _names(name), "then": {"$ref": f"#/$defs/{definition(name)}"}}
        for name in invokers
        if definition(name) in known
    ]
    return {**schema, "additionalProperties": entry}


def by_default(known: Mapping[str, Schema], invokers: Sequence[str]) -> Iterator[Schema]:
    """For each invoker what holds for entries without one, if it is the default."""
    usual = Settings.model_fields["default_invoker"].default
    unnamed: Schema = {"properties": {"invoker": {"type": "null"}}}
    for name in invokers:
        if definition(name) not in known:
            continue
        chosen: Schema = {"properties": {"default_invoker": {"const": name}}}
        if name != usual:
            chosen["required"] = ["default_invoker"]
        entry = {"if": unnamed, "then": {"$ref": f"#/$defs/{definition(name)}"}}
        yield {"if": chosen, "then": {"properties": {"functions": {"additionalProperties": entry}}}}


def _names(invoker: str) -> Schema:
    return {"required": ["invoker"], "properties": {"invoker": {"const": invoker}}}


def _entry(own: Schema, invokers: Sequence[str]) -> Schema:
    common = plain_schema(FunctionEntry)["properties"]
    common["invoker"] |= {"enum": [*invokers, None]}
    settings = {name: each for name, each in own["properties"].items() if name not in _GIVEN}
    required = [name for name in own.get("required", ()) if name not in _GIVEN]
    return {
        "type": "object",
        "properties": {**common, **settings},
        "required": required,
        "additionalProperties": own.get("additionalProperties", False),
    }
