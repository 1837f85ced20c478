"""Owns the schemas of functions: an entry's own settings, and those of its invoker's plug-in.

An entry without an invoker is called by `default_invoker`, so that its settings are found only at the top of the file. A version without one
has its function's.
"""

from collections.abc import Iterator, Mapping, Sequence

from poller.config.schema.plain import Schema, plain_schema
from poller.config.sections.versions import VersionEntry
from poller.config.settings import FunctionEntry, Settings
from poller.domain.errors import InvalidConfiguration
from poller.plugins import Registry

_GIVEN = ("function", "max_concurrency", "function_version")
"""Settings of an invoker that the daemon gives, or that are an entry's own."""


def definitions(registry: Registry, invokers: Sequence[str]) -> dict[str, Schema]:
    """The schema of a whole entry for each invoker whose plug-in can be loaded, by name of the definition."""
    plugins = {}
    for name in invokers:
        try:
            plugins[name] = plain_schema(registry.plugin("invokers", name).settings)
        except InvalidConfiguration:
            continue
    return {definition(name): _entry(name, plugins, invokers) for name in plugins} | {
        _version_definition(name): _version(own, invokers) for name, own in plugins.items()
    }


def definition(invoker: str) -> str:
    """The name of an invoker's definition."""
    return f"function-{invoker}"


def functions_schema(schema: Schema, invokers: Sequence[str], known: Mapping[str, Schema]) -> Schema:
    """The schema of `functions`: entries that name their invoker have that one's settings."""
    entry = plain_schema(FunctionEntry)
    for each in (entry, entry["properties"]["versions"]["additionalProperties"]):
        each["properties"]["invoker"] |= {"enum": [*invokers, None]}
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


def _entry(name: str, plugins: Mapping[str, Schema], invokers: Sequence[str]) -> Schema:
    common = plain_schema(FunctionEntry)["properties"]
    common["invoker"] |= {"enum": [*invokers, None]}
    common["versions"]["additionalProperties"] |= {"allOf": list(_of_versions(name, plugins))}
    own = plugins[name]
    return {
        "type": "object",
        "properties": {**common, **_settings(own)},
        "required": _required(own),
        "additionalProperties": own.get("additionalProperties", False),
    }


def _version_definition(invoker: str) -> str:
    return f"version-{invoker}"


def _version(own: Schema, invokers: Sequence[str]) -> Schema:
    """What a version may have that is called by an invoker. What it needs it may take over."""
    common = plain_schema(VersionEntry)["properties"]
    common["invoker"] |= {"enum": [*invokers, None]}
    return {
        "type": "object",
        "properties": {**common, **_settings(own)},
        "additionalProperties": own.get("additionalProperties", False),
    }


def _of_versions(usual: str, plugins: Mapping[str, Schema]) -> Iterator[Schema]:
    """For each invoker what holds for the versions of a function of `usual`. With another invoker they take over nothing."""
    unnamed: Schema = {"properties": {"invoker": {"type": "null"}}}
    yield {"if": unnamed, "then": {"$ref": f"#/$defs/{_version_definition(usual)}"}}
    for name, own in plugins.items():
        then = {"$ref": f"#/$defs/{_version_definition(name)}"}
        yield {"if": _names(name), "then": then if name == usual else {**then, "required": _required(own)}}


def _settings(own: Schema) -> Schema:
    return {name: each for name, each in own["properties"].items() if name not in _GIVEN}


def _required(own: Schema) -> list[str]:
    return [name for name in own.get("required", ()) if name not in _GIVEN]
