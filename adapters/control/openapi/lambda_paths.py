"""Owns Lambda's paths in the OpenAPI document. Schemas are derived from the table of members by which requests are read."""

from collections.abc import Mapping, Sequence

from adapters.control.lambda_api import MAPPINGS, TAGS
from adapters.control.mappings import request_members
from adapters.control.mappings.paging import ARN_PATTERN, FUNCTION_PATTERN, ITEMS_MAX, MARKER_PATTERN
from adapters.control.mappings.request_members import ListOf, MapOf
from adapters.control.mappings.tags import RESOURCE_PATTERN
from adapters.control.openapi.parts import ERROR, Json, json_answer, ref
from poller.config.members import (
    TABLE,
    TAG_KEY_CHARS_MAX,
    JsonType,
    Member,
    RequestKind,
    document_order,
    refused,
    requested,
)
from poller.domain.rows import MappingState

SCHEME: Json = {
    "signature": {
        "type": "apiKey",
        "in": "header",
        "name": "X-Amz-Date",
        "description": "AWS Signature Version 4 for the service lambda, as AWS's clients sign: the date in this header "
        "and the signature in the header Authorization. As with AWS, without them the status is 403 and not 401.",
        "x-amazon-apigateway-authtype": "awsSigv4",
    }
}
SIGNED: list[Json] = [{"signature": []}]
_ERROR = "LambdaError"
_EARLY = ("400", "429", "503")
_EARLY_ERROR = "EarlyError"
"""A request that is refused before its path is read (too long a line, too many connections) does not get Lambda's form."""
_ID = {
    "name": "UUID",
    "in": "path",
    "required": True,
    "description": "UUID of the mapping",
    "schema": {"type": "string", "minLength": 1},
}
_ARN = {
    "name": "Arn",
    "in": "path",
    "required": True,
    "description": "ARN of the mapping",
    "schema": {"type": "string", "pattern": f"^{RESOURCE_PATTERN}$"},
}
FAULTS = {
    "400": "The request is wrong; `x-amzn-errortype` says how",
    "429": "Too many changes at once, or too many requests of this address; try again",
    "500": "A fault of the server or its store",
    "501": "This server changes nothing and shows no mappings here",
    "503": "The answer took too long, or there are too many connections",
}
UNSIGNED = {"403": "No valid signature"}
_CHANGE_FAULTS = {
    "409": "There is such a mapping already, or it is in the configuration file",
    "413": "The body is too large",
}
_BODY_FAULTS = {"415": "The body is not application/json"}
_MISSING = {"404": "There is no such mapping"}


# Test tools generate texts from these patterns, so regions in them have AWS's form and a bounded length.
_REGION = "(eusc-)?[a-z]{2}(-[a-z]{1,16}){1,2}-[0-9]"
_PARTITION = "aws(-[a-z]+)*"
_ACCOUNT = "[0-9]{12}"
NAME_PATTERN = (
    rf"^(arn:{_PARTITION}:lambda:{_REGION}:{_ACCOUNT}:function:|(({_REGION}:)?{_ACCOUNT}:)?(function:)?)"
    r"[A-Za-z0-9_-]{1,64}(:(\$LATEST(\.PUBLISHED)?|[A-Za-z0-9_-]{1,128}))?$"
)
SOURCE_PATTERN = (
    rf"^arn:{_PARTITION}:(sqs:{_REGION}:{_ACCOUNT}:[A-Za-z0-9_-]{{1,80}}(\.fifo)?|"
    rf"kinesis:{_REGION}:{_ACCOUNT}:stream/[A-Za-z0-9_.-]{{1,128}}(/consumer/[A-Za-z0-9_.:-]+)?|"
    rf"dynamodb:{_REGION}:{_ACCOUNT}:table/[A-Za-z0-9_.-]{{3,255}}/stream/[0-9T:.-]+)$"
)


_PATTERNS = {"FunctionName": NAME_PATTERN, "EventSourceArn": SOURCE_PATTERN}


def paths(*, everybody: bool, open_reads: bool) -> Json:
    """Returns Lambda's paths. `everybody`: changes need no credential. `open_reads`: reads need none."""
    security = [{}, *SIGNED] if everybody else SIGNED
    found: Json = {
        MAPPINGS: {
            "get": lambda_operation("ListEventSourceMappings", "200", "A page of mappings", "MappingPage"),
            "post": lambda_operation(
                "CreateEventSourceMapping", "202", "The mapping", "Mapping", "CreateRequest"
            ),
        },
        MAPPINGS + "/{UUID}": {
            "parameters": [_ID],
            "get": lambda_operation("GetEventSourceMapping", "200", "The mapping", "Mapping"),
            "put": lambda_operation(
                "UpdateEventSourceMapping", "202", "The mapping", "Mapping", "UpdateRequest"
            ),
            "delete": lambda_operation("DeleteEventSourceMapping", "202", "The mapping, deleting", "Mapping"),
        },
        TAGS + "/{Arn}": {
            "parameters": [_ARN],
            "get": lambda_operation("ListTags", "200", "The tags", "TagList"),
            "post": lambda_operation("TagResource", "204", "The tags are set", None, "TagRequest"),
            "delete": lambda_operation("UntagResource", "204", "The tags are gone", None),
        },
    }
    found[MAPPINGS]["get"]["parameters"] = _list_parameters()
    found[TAGS + "/{Arn}"]["delete"]["parameters"] = [_tag_keys()]
    found[MAPPINGS]["post"]["responses"]["202"]["links"] = _links()
    for path, method, operation in _operations(found):
        faults = FAULTS | ({} if path == MAPPINGS else _MISSING)
        if method != "get":
            operation["security"] = security
            faults |= UNSIGNED | _CHANGE_FAULTS | (_BODY_FAULTS if "requestBody" in operation else {})
        elif not open_reads:
            operation["security"] = list(SIGNED)
            faults |= UNSIGNED
        operation["responses"] |= {
            status: lambda_fault(status, text) for status, text in sorted(faults.items())
        }
    return found


def schemas(table: Sequence[Member] = TABLE) -> Json:
    """Returns the schemas of Lambda's paths, derived from the table of members."""
    text: Json = {"type": "string"}
    tag = [each for each in table if each.field == "Tags"]
    return {
        "Mapping": _mapping(table),
        "MappingPage": _exact_object(
            EventSourceMappings={"type": "array", "items": ref("Mapping"), "maxItems": 100},
            NextMarker={"type": ["string", "null"]},
        ),
        "TagList": _exact_object(Tags={"type": "object", "additionalProperties": text}),
        "CreateRequest": _request(RequestKind.CREATE, table, "FunctionName", "EventSourceArn"),
        "UpdateRequest": _request(RequestKind.UPDATE, table),
        "TagRequest": _open_object(_properties(tag), "Tags"),
        _ERROR: {
            "type": "object",
            "properties": {
                "Reason": text,
                "Type": {"enum": ["User", "Service"]},
                "message": text,
                "Message": text,
            },
            "additionalProperties": False,
            "oneOf": [{"required": ["message"]}, {"required": ["Message"]}],
        },
        _EARLY_ERROR: {"anyOf": [ref(_ERROR), ref(ERROR)]},
    }


def _operations(found: Json) -> list[tuple[str, str, Json]]:
    return [
        (path, method, operation)
        for path, item in found.items()
        for method, operation in item.items()
        if method != "parameters"
    ]


def lambda_operation(
    name: str, status: str, description: str, schema: str | None, body: str | None = None
) -> Json:
    """Describes an operation of Lambda's API and its answer, if it succeeds."""
    success: Json = json_answer(description, schema) if schema else {"description": description}
    success["headers"] = {"x-amzn-requestid": _header()}
    operation: Json = {"operationId": name, "summary": name, "responses": {status: success}}
    if body:
        content = {"application/json": {"schema": ref(body)}}
        operation["requestBody"] = {"required": body == "CreateRequest", "content": content}
    return operation


def _links() -> Json:
    """Returns the operations that take the id or the ARN of a new mapping."""
    by_id = ("GetEventSourceMapping", "UpdateEventSourceMapping", "DeleteEventSourceMapping")
    by_arn = ("ListTags", "TagResource", "UntagResource")
    linked = {name: {"UUID": "$response.body#/UUID"} for name in by_id}
    linked |= {name: {"Arn": "$response.body#/EventSourceMappingArn"} for name in by_arn}
    linked |= {name: {"id": "$response.body#/UUID"} for name in ("enableMapping", "disableMapping")}
    return {name: {"operationId": name, "parameters": parameters} for name, parameters in linked.items()}


def lambda_fault(status: str, description: str) -> Json:
    """Describes an error on Lambda's paths."""
    early = status in _EARLY
    response = json_answer(description, _EARLY_ERROR if early else _ERROR)
    response["headers"] = {
        name: _header(required=not early) for name in ("x-amzn-requestid", "x-amzn-errortype")
    }
    return response


def _header(*, required: bool = True) -> Json:
    return {"required": required, "schema": {"type": "string", "minLength": 1}}


def _list_parameters() -> list[Json]:
    bounds: dict[str, Json] = {
        "EventSourceArn": {"type": "string", "pattern": f"^({ARN_PATTERN})?$"},
        "FunctionName": {
            "type": "string",
            "minLength": 1,
            "maxLength": 256,
            "pattern": f"^{FUNCTION_PATTERN}$",
        },
        "Marker": {"type": "string", "pattern": f"^({MARKER_PATTERN})?$", "description": "NextMarker"},
        "MaxItems": {"type": "integer", "minimum": 1, "maximum": ITEMS_MAX},
    }
    return [{"name": name, "in": "query", "schema": schema} for name, schema in bounds.items()]


def _tag_keys() -> Json:
    items = {"type": "string", "minLength": 1, "maxLength": TAG_KEY_CHARS_MAX}
    return {
        "name": "tagKeys",
        "in": "query",
        "required": True,
        "schema": {"type": "array", "minItems": 1, "items": items},
    }


def _exact_object(**properties: Json) -> Json:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def _mapping(table: Sequence[Member]) -> Json:
    """Returns the schema of a mapping: all members are always present, and most may be null."""
    found: dict[str, Json] = {name: {"type": "null"} for name in document_order(table)}
    given = _properties(tuple(requested(RequestKind.CREATE, table)))
    found |= {name: schema for name, schema in given.items() if name in found}
    found["LastProcessingResult"] = {"type": ["string", "null"]}
    for each in table:
        if each.always:
            found[each.path] = {"type": _TYPES[each.type]}
    found["FunctionResponseTypes"]["items"] = {"type": "string"}
    found["State"] = {"enum": [state.value for state in MappingState]}
    return _exact_object(**found)


def _request(which: RequestKind, table: Sequence[Member], *required: str) -> Json:
    """Returns the schema of a request. Members for other kinds of sources may only have empty values."""
    other_sources: Json = {name: {"enum": list(request_members.EMPTY_VALUES)} for name in refused(table)}
    return _open_object(_properties(tuple(requested(which, table))) | other_sources, *required)


def _open_object(properties: Json, *required: str) -> Json:
    """Returns an object schema. Unknown members are allowed, and null counts as absent unless the member is required."""
    for name in required:
        properties[name]["type"] = properties[name]["type"][0]
    return {"type": "object", "properties": properties, "required": list(required)}


def _properties(given: Sequence[Member]) -> Json:
    bounds = {each.path: _bounds(each) for each in given}
    for each in given:
        if each.path.endswith("{key}"):
            bounds[each.path.removesuffix("{key}")]["propertyNames"] = bounds[each.path]
    structure = request_members.structure(given)
    return {name: _schema(name, shape, bounds) for name, shape in structure.items()}


def _bounds(member: Member) -> Json:
    """Returns the bounds that AWS's API model sets beyond the type."""
    found: Json = {}
    if member.span is not None:
        found |= {"minimum": member.span[0], "maximum": member.span[1]}
    if member.length is not None:
        least, most = member.length
        noun = "Items" if member.type is JsonType.LIST else "Length"
        found |= ({f"min{noun}": least} if least else {}) | {f"max{noun}": most}
    if member.choices:
        found["enum"] = [*member.choices, None] if member.top else list(member.choices)
    if member.path in _PATTERNS:
        found["pattern"] = _PATTERNS[member.path]
    return found


def _schema(name: str, shape: request_members.Shape, bounds: Mapping[str, Json]) -> Json:
    own = bounds.get(name, {})
    match shape:
        case JsonType():
            return {"type": [_TYPES[shape], "null"]} | own
        case ListOf(items):
            return {"type": ["array", "null"], "items": _schema(name + "[]", items, bounds)} | own
        case MapOf(values):
            inner = _schema(name + "{}", values, bounds)
            return {"type": ["object", "null"], "additionalProperties": inner} | own
        case _:
            members: Json = {key: _schema(f"{name}.{key}", each, bounds) for key, each in shape.items()}
            return {"type": ["object", "null"], "properties": members}


_TYPES = {
    JsonType.TEXT: "string",
    JsonType.WHOLE: "integer",
    JsonType.NUMBER: "number",
    JsonType.FLAG: "boolean",
    JsonType.MOMENT: "number",
    JsonType.LIST: "array",
    JsonType.MAP: "object",
    JsonType.OBJECT: "object",
}
