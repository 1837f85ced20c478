"""Owns the schema of the whole configuration file, and where its texts are put."""

from collections.abc import Iterator, Sequence
from dataclasses import fields
from importlib.metadata import entry_points
from typing import Any

from poller.config.field_types import COUNT_MAX, SECONDS_MAX, SERVICES, STORES, WAITS_MAX
from poller.config.members import TABLE
from poller.config.schema.function_schema import by_default, definitions, functions_schema
from poller.config.schema.mapping_schema import at, default_text, mapping_schema
from poller.config.schema.plain import Schema, plain_schema
from poller.config.schema.texts import EXAMPLES, FUNCTIONS, IDENTITIES, MAPPINGS, SETTINGS
from poller.config.sections.numbers import LEAST
from poller.config.settings import LogLevel, Settings
from poller.domain.arns import ACCOUNT, BARE_NAME_CHARS_MAX, PARTITION, REGION
from poller.domain.policies import Backoff
from poller.plugins import GROUPS, Registry

DIALECT = "https://json-schema.org/draft/2020-12/schema"
_FORMS = {
    "endpoint_url": "^https?://",
    "listen": "^(\\[[0-9A-Fa-f:.%]+\\]|[^\\s:/\\[\\]]+):[0-9]{1,5}$",
    "identities.NAME.role_arn": "^arn:[^:]+:iam:[^:]*:[^:]*:role/[A-Za-z0-9_+=,.@/-]{1,576}$",
    "identities.NAME.external_id": "^[A-Za-z0-9_+=,.@:/-]{2,1224}$",
    "identities.NAME.session_name": "^[A-Za-z0-9_+=,.@-]{2,64}$",
    "identities.NAME.endpoint_url": "^https?://",
    "functions.NAME.arn": f"^arn:{PARTITION}:lambda:{REGION}:{ACCOUNT}:function:[A-Za-z0-9_-]+$",
    "functions.NAME.role": "^arn:[^:]+:iam:",
    "mappings.UUID": "[0-9a-fA-F]",
    "mappings.payload_prefix": "^s3://",
}
"""What a text must at least look like. The loader knows more of each."""


def installed(kind: str) -> list[str]:
    """The names of the installed plug-ins of a kind, in order."""
    return sorted({point.name for point in entry_points(group=GROUPS[kind])})


def schema_document(registry: Registry, invokers: Sequence[str], stores: Sequence[str]) -> Schema:
    """The JSON Schema (draft 2020-12) of the file. `invokers` and `stores` are the names of plug-ins that it may have."""
    schema = plain_schema(Settings)
    top = schema["properties"]
    known = definitions(registry, invokers)
    top["functions"] = functions_schema(top["functions"], invokers, known)
    top["functions"]["propertyNames"] = {"pattern": f"^[A-Za-z0-9_-]{{1,{BARE_NAME_CHARS_MAX}}}$"}
    top["default_invoker"]["enum"] = list(invokers)
    top["mappings"]["items"] = mapping_schema(registry)
    top["endpoint_urls"] |= {"propertyNames": {"enum": list(SERVICES)}}
    top["endpoint_urls"]["additionalProperties"]["pattern"] = "^https?://"
    top["store"]["pattern"] = f"^({'|'.join(sorted({*STORES, *stores}))}):"
    top["log"]["properties"]["level"] = _any_case(top["log"]["properties"]["level"], LogLevel)
    _tuning(top["tuning"])
    entries = [*known.values(), top["functions"]["additionalProperties"]]
    for entry in entries:
        _describe(entry, FUNCTIONS, "functions.NAME")
    top["identities"]["propertyNames"] = {"pattern": "^[A-Za-z0-9_-]{1,64}$"}
    _describe(top["identities"]["additionalProperties"], IDENTITIES, "identities.NAME")
    _describe(schema, SETTINGS, "")
    _describe(top["mappings"]["items"], MAPPINGS, "mappings")
    for member in TABLE:
        node = at(top["mappings"]["items"], member.path)
        if node is not None and (text := default_text(member)):
            node["description"] += f" {text}"
    return {
        "$schema": DIALECT,
        "title": "poller's configuration",
        **schema,
        "allOf": list(by_default(known, invokers)),
        "$defs": known,
    }


def _any_case(schema: Schema, words: type[LogLevel]) -> Schema:
    """The words in any case, as the file may have them; editors offer them in lower case."""
    spelled = "|".join("".join(f"[{letter}{letter.upper()}]" for letter in word) for word in words)
    beside = {name: value for name, value in schema.items() if name != "enum"}
    return {**beside, "anyOf": [{"enum": [str(each) for each in words]}, {"pattern": f"^({spelled})$"}]}


def _tuning(schema: Schema) -> None:
    """Every number of the tuning is above zero and has one of two bounds."""
    for name, each in schema["properties"].items():
        if name == "port_backoff":
            # One given member keeps the default of the other.
            each["default"] = schema["default"]["port_backoff"]
            for field in fields(Backoff):
                each["properties"][field.name]["default"] = each["default"][field.name]
            _tuning(each)
        elif "items" in each:
            each |= {"minItems": 1, "maxItems": WAITS_MAX}
            each["items"] |= {"exclusiveMinimum": 0, "maximum": SECONDS_MAX}
        else:
            most = COUNT_MAX if "integer" in each["type"] else SECONDS_MAX
            least = {"minimum": LEAST[name]} if name in LEAST else {"exclusiveMinimum": 0}
            each |= {**least, "maximum": most}


def _describe(schema: Schema, texts: dict[str, str], place: str) -> None:
    """Puts descriptions, examples and forms where they belong. A text for a setting that the schema does not have is left out."""
    for path, text in texts.items():
        node = at(schema, path)
        if node is not None:
            full = f"{place}.{path}" if place else path
            node |= {"description": text, **_beside(full)}


def _beside(path: str) -> Schema:
    found: dict[str, Any] = {}
    if path in EXAMPLES:
        found["examples"] = list(EXAMPLES[path])
    if path in _FORMS:
        found["pattern"] = _FORMS[path]
    return found


def described(schema: Schema) -> Iterator[tuple[str, Schema]]:
    """Every setting of a schema by its path, in the order in which an editor offers them."""
    left = [("", schema)]
    while left:
        path, node = left.pop()
        for name, each in node.get("properties", {}).items():
            inner = f"{path}.{name}" if path else name
            yield inner, each
            left.append((inner, each))
