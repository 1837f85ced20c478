"""Owns the schema of a mapping: that of its model, with ranges, lengths, choices and defaults of the table of AWS's members."""

from collections.abc import Iterator
from typing import Any

from pydantic import AliasChoices

from poller.config.member_rules import BATCH_FIFO_MAX, FILTERS_MAX, OWN_WORDS
from poller.config.members import ENTRIES_MAX, MOMENT_S_MAX, TABLE, JsonType, Member, SourceGroup
from poller.config.plugin_specs import SOURCE_GIVEN
from poller.config.schema.plain import Schema, plain_schema
from poller.config.settings import FILE_CONCURRENCY_MIN, FileMapping
from poller.domain.arns import ACCOUNT, BARE_NAME_CHARS_MAX, PARTITION, QUALIFIER, REGION
from poller.domain.errors import InvalidConfiguration
from poller.plugins import Registry

_PLACED = "^arn:[^:]+:%s:[^:]+:[^:]+:"
STREAM_FORMS = {
    "kinesis": _PLACED % "kinesis" + "stream/[^/]+(/consumer/[^/]+)?$",
    "dynamodb": _PLACED % "dynamodb" + "table/[^/]+/stream/[^/]+$",
}
QUEUE_FORM = _PLACED % "sqs" + "[^:/]+$"
FIFO_FORM = QUEUE_FORM.removesuffix("$") + "\\.fifo$"
SOURCE_FORM = "|".join([*STREAM_FORMS.values(), QUEUE_FORM])
FUNCTION_FORM = (
    f"^(arn:{PARTITION}:lambda:{REGION}:{ACCOUNT}:function:|(({REGION}:)?{ACCOUNT}:)?(function:)?)"
    f"[A-Za-z0-9_-]{{1,{BARE_NAME_CHARS_MAX}}}(:({QUALIFIER}))?$"
)
_GROUPS = {SourceGroup.STREAMS: "streams", SourceGroup.QUEUES: "queues"}
_QUEUE_ONLY = ("extend_visibility", "retry_backoff")
_STREAM_ONLY = ("shared_reads",)
_FIFO_ONLY = ("one_group_per_batch", "group_aware_failures")


def mapping_schema(registry: Registry) -> Schema:
    """The schema of an item of `mappings`. What `source` may have is known to the plug-ins of the sources."""
    schema = plain_schema(FileMapping)
    members = schema["properties"]
    for member in TABLE:
        node = at(schema, member.path)
        if node is not None:
            node.update(_of_table(member, node))
    members["FunctionName"]["pattern"] = FUNCTION_FORM
    members["EventSourceArn"] |= {"type": "string", "pattern": SOURCE_FORM}
    members["StartingPositionTimestamp"] |= {"pattern": "^[0-9]", "maximum": MOMENT_S_MAX}
    members["FilterCriteria"]["properties"]["Filters"]["maxItems"] = FILTERS_MAX
    members["FilterCriteria"]["properties"]["Filters"]["items"]["required"] = ["Pattern"]
    members["Tags"] = _tags(members["Tags"])
    for name, field in FileMapping.model_fields.items():
        if isinstance(field.validation_alias, AliasChoices):
            members |= {str(each): members[name] for each in field.validation_alias.choices}
    schema["required"] = ["FunctionName", "EventSourceArn"]
    schema["allOf"] = [*_by_source(), *_source_settings(registry)]
    return schema


def at(schema: Schema, path: str) -> Schema | None:
    """The schema of a member at a path of the table; None if the file has no such member."""
    node: Any = schema
    for part in path.replace("[]", ".[]").replace("{key}", ".{key}").replace("{}", ".{}").split("."):
        match part:
            case "[]":
                node = node.get("items")
            case "{}":
                node = node.get("additionalProperties")
            case "{key}":
                node = node.get("propertyNames")
            case _:
                node = node.get("properties", {}).get(part)
        if node is None:
            return None
    found: Schema = node
    return found


def _of_table(member: Member, node: Schema) -> Schema:
    """What the table says of a member, in the words of JSON Schema."""
    found: Schema = {}
    if member.span is not None and member.type is JsonType.WHOLE:
        least = FILE_CONCURRENCY_MIN if member.path == "ScalingConfig.MaximumConcurrency" else member.span[0]
        found |= {"minimum": least, "maximum": member.span[1]}
    if member.length is not None:
        found["maxItems" if member.type is JsonType.LIST else "maxLength"] = member.length[1]
    elif member.type is JsonType.LIST:
        found["maxItems"] = ENTRIES_MAX
    if member.choices:
        found["enum"] = [*member.choices, *([None] if "null" in node["type"] else [])]
    defaults = list(member.defaults.values())
    if len(member.defaults) == 1 and not isinstance(defaults[0], dict | list):
        found["default"] = defaults[0]
    return found


def default_text(member: Member) -> str:
    """The defaults of a member that has one for each kind of source; empty for others."""
    if len(member.defaults) < len(_GROUPS):
        return ""
    parts = [f"{value} for {_GROUPS[group]}" for group, value in member.defaults.items()]
    return f"Default: {', '.join(parts)}."


def _tags(table: Schema) -> Schema:
    """The API's object, or CloudFormation's list of keys and values."""
    text = {"type": "string"}
    item = {
        "type": "object",
        "required": ["Key", "Value"],
        "additionalProperties": False,
        "properties": {"Key": text, "Value": text},
    }
    both = {**table, "type": ["object", "array", "null"], "items": item}
    return {**both, "maxProperties": ENTRIES_MAX, "maxItems": ENTRIES_MAX}


def _by_source() -> Iterator[Schema]:
    """What a mapping must and must not have, by the form of its source's ARN."""
    streams, queues = _only(SourceGroup.STREAMS), _only(SourceGroup.QUEUES)
    absent: Schema = {"type": "null"}
    any_stream = "|".join(STREAM_FORMS.values())
    position: Schema = {
        "required": ["StartingPosition"],
        "properties": {"StartingPosition": {"type": "string"}},
    }
    yield _if(any_stream, position)
    yield _if(any_stream, {"properties": dict.fromkeys([*queues, *_QUEUE_ONLY], absent)})
    yield _if(
        STREAM_FORMS["dynamodb"],
        {"properties": {"StartingPosition": {"enum": ["TRIM_HORIZON", "LATEST"]}}},
    )
    yield _if(
        QUEUE_FORM, {"properties": dict.fromkeys([*streams, *_STREAM_ONLY, "StartingPosition"], absent)}
    )
    yield _if(
        FIFO_FORM,
        {
            "properties": {
                "BatchSize": {"maximum": BATCH_FIFO_MAX},
                "MaximumBatchingWindowInSeconds": {"maximum": 0},
            }
        },
    )
    yield {"if": _source("^(?!.*\\.fifo$)"), "then": {"properties": dict.fromkeys(_FIFO_ONLY, absent)}}


def _source_settings(registry: Registry) -> Iterator[Schema]:
    """The settings of each source's plug-in, without the ARN, which has a place of its own."""
    for name, form in {**STREAM_FORMS, "sqs": QUEUE_FORM}.items():
        try:
            own = plain_schema(registry.plugin("sources", name).settings)
        except InvalidConfiguration:
            continue
        for given in SOURCE_GIVEN:
            own["properties"].pop(given, None)
        own["required"] = [each for each in own.get("required", ()) if each not in SOURCE_GIVEN]
        yield _if(form, {"properties": {"source": own}})


def _only(group: SourceGroup) -> list[str]:
    """The members that only such sources take, and that no rule of their own speaks of."""
    return [each.path for each in TABLE if each.top and each.sources is group and each.path not in OWN_WORDS]


def _if(form: str, then: Schema) -> Schema:
    return {"if": _source(form), "then": then}


def _source(form: str) -> Schema:
    return {
        "required": ["EventSourceArn"],
        "properties": {"EventSourceArn": {"type": "string", "pattern": form}},
    }
