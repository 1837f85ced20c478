"""Owns Lambda's paths in the OpenAPI document; the schemas of requests are made from the table that requests are read by."""

from typing import Any

from adapters.control import members
from adapters.control.lambda_api import MAPPINGS, TAGS
from adapters.control.members import ListOf, MapOf, Scalar
from adapters.control.openapi_parts import ERROR, Json, json_answer, ref
from adapters.control.paging import ARN_PATTERN, FUNCTION_PATTERN, ITEMS_MAX, MARKER_PATTERN
from adapters.control.tags import KEY_CHARS_MAX, RESOURCE_PATTERN, VALUE_CHARS_MAX
from adapters.control.wire import MEMBERS
from poller.refusals import METRICS, POSITIONS, RESPONSE_TYPES
from poller.telemetry import MappingState

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
_SECURITY: list[Json] = [{"signature": []}]
_ERROR = "LambdaError"
_EARLY = ("400", "503")
_EARLY_ERROR = "EarlyError"
"""What is refused before its path is read (a line that is too long, a connection too many) is no error of Lambda's."""
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
_FAULTS = {
    "400": "The request is wrong; `x-amzn-errortype` says how",
    "500": "A fault of the server or its store",
    "501": "This server changes nothing and shows no mappings here",
    "503": "The answer took too long, or there are too many connections",
}
_CHANGE_FAULTS = {
    "403": "No valid signature",
    "409": "There is such a mapping already, or it is in the configuration file",
    "413": "The body is too large",
    "429": "Too many changes at once; try again",
}
_BODY_FAULTS = {"415": "The body is not application/json"}
_MISSING = {"404": "There is no such mapping"}


_REGION = "[a-z]{2}(-[a-z]{1,16}){1,2}-[0-9]"
NAME_PATTERN = (
    rf"^(arn:aws(-[a-z]+)*:lambda:{_REGION}:[0-9]{{12}}:function:|[0-9]{{12}}:function:|function:)?"
    r"[A-Za-z0-9_-]{1,64}(:(\$LATEST|[A-Za-z0-9_-]{1,128}))?$"
)
SOURCE_PATTERN = (
    rf"^arn:aws(-[a-z]+)*:(sqs:{_REGION}:[0-9]{{12}}:[A-Za-z0-9_-]{{1,80}}(\.fifo)?|"
    rf"kinesis:{_REGION}:[0-9]{{12}}:stream/[A-Za-z0-9_.-]{{1,128}}(/consumer/[A-Za-z0-9_.:-]+)?|"
    rf"dynamodb:{_REGION}:[0-9]{{12}}:table/[A-Za-z0-9_.-]{{3,255}}/stream/[0-9T:.-]+)$"
)


def _span(least: int, most: int) -> Json:
    return {"minimum": least, "maximum": most}


_BOUNDS: dict[str, Json] = {
    "FunctionName": {"minLength": 1, "maxLength": 256, "pattern": NAME_PATTERN},
    "BatchSize": _span(1, 10_000),
    "MaximumBatchingWindowInSeconds": _span(0, 300),
    "ParallelizationFactor": _span(1, 10),
    "MaximumRecordAgeInSeconds": _span(-1, 604_800),
    "MaximumRetryAttempts": _span(-1, 10_000),
    "TumblingWindowInSeconds": _span(0, 900),
    "StartingPosition": {"enum": [*POSITIONS, None]},
    "FunctionResponseTypes": {"maxItems": 1},
    "FunctionResponseTypes[]": {"enum": list(RESPONSE_TYPES)},
    "MetricsConfig.Metrics": {"maxItems": 3},
    "MetricsConfig.Metrics[]": {"enum": list(METRICS)},
    "ScalingConfig.MaximumConcurrency": _span(2, 1_000),
    "ProvisionedPollerConfig.MinimumPollers": _span(2, 200),
    "ProvisionedPollerConfig.MaximumPollers": _span(2, 10_000),
    "DestinationConfig.OnFailure.Destination": {"maxLength": 350},
    "FilterCriteria.Filters[].Pattern": {"maxLength": 4096},
    "KMSKeyArn": {"maxLength": 10_000},
    "EventSourceArn": {"maxLength": 10_000, "pattern": SOURCE_PATTERN},
    "Tags": {"propertyNames": {"minLength": 1, "maxLength": KEY_CHARS_MAX}},
    "Tags{}": {"maxLength": VALUE_CHARS_MAX},
    "StartingPositionTimestamp": {"minimum": 0, "maximum": 253_402_300_799},
}
"""What AWS's API model says beyond the type; `[]` and `{}` stand for what is in lists and maps."""


def paths(*, everybody: bool) -> Json:
    """Lambda's paths. `everybody`: changes need no credential."""
    security = [{}, *_SECURITY] if everybody else _SECURITY
    found: Json = {
        MAPPINGS: {
            "get": _operation("ListEventSourceMappings", "200", "A page of mappings", "MappingPage"),
            "post": _operation("CreateEventSourceMapping", "202", "The mapping", "Mapping", "CreateRequest"),
        },
        MAPPINGS + "/{UUID}": {
            "parameters": [_ID],
            "get": _operation("GetEventSourceMapping", "200", "The mapping", "Mapping"),
            "put": _operation("UpdateEventSourceMapping", "202", "The mapping", "Mapping", "UpdateRequest"),
            "delete": _operation("DeleteEventSourceMapping", "202", "The mapping, deleting", "Mapping"),
        },
        TAGS + "/{Arn}": {
            "parameters": [_ARN],
            "get": _operation("ListTags", "200", "The tags", "TagList"),
            "post": _operation("TagResource", "204", "The tags are set", None, "TagRequest"),
            "delete": _operation("UntagResource", "204", "The tags are gone", None),
        },
    }
    found[MAPPINGS]["get"]["parameters"] = _list_parameters()
    found[TAGS + "/{Arn}"]["delete"]["parameters"] = [_tag_keys()]
    found[MAPPINGS]["post"]["responses"]["202"]["links"] = _links()
    for path, method, operation in _operations(found):
        faults = _FAULTS | ({} if path == MAPPINGS else _MISSING)
        if method != "get":
            operation["security"] = security
            faults |= _CHANGE_FAULTS | (_BODY_FAULTS if "requestBody" in operation else {})
        operation["responses"] |= {status: _fault(status, text) for status, text in sorted(faults.items())}
    return found


def schemas() -> Json:
    """The schemas of Lambda's paths."""
    text: Json = {"type": "string"}
    return {
        "Mapping": _mapping(),
        "MappingPage": _closed(
            EventSourceMappings={"type": "array", "items": ref("Mapping"), "maxItems": 100},
            NextMarker={"type": ["string", "null"]},
        ),
        "TagList": _closed(Tags={"type": "object", "additionalProperties": text}),
        "CreateRequest": _request(members.CREATE, "FunctionName", "EventSourceArn"),
        "UpdateRequest": _request(members.UPDATE),
        "TagRequest": _request(members.TAG, "Tags"),
        _ERROR: {
            "type": "object",
            "properties": {"Type": {"enum": ["User", "Service"]}, "message": text, "Message": text},
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


def _operation(name: str, status: str, description: str, schema: str | None, body: str | None = None) -> Json:
    success: Json = json_answer(description, schema) if schema else {"description": description}
    success["headers"] = {"x-amzn-requestid": _header()}
    operation: Json = {"operationId": name, "summary": name, "responses": {status: success}}
    if body:
        content = {"application/json": {"schema": ref(body)}}
        operation["requestBody"] = {"required": body == "CreateRequest", "content": content}
    return operation


def _links() -> Json:
    """Where a new mapping is found."""
    by_id = ("GetEventSourceMapping", "UpdateEventSourceMapping", "DeleteEventSourceMapping")
    by_arn = ("ListTags", "TagResource", "UntagResource")
    linked = {name: {"UUID": "$response.body#/UUID"} for name in by_id}
    linked |= {name: {"Arn": "$response.body#/EventSourceMappingArn"} for name in by_arn}
    linked |= {name: {"id": "$response.body#/UUID"} for name in ("enableMapping", "disableMapping")}
    return {name: {"operationId": name, "parameters": parameters} for name, parameters in linked.items()}


def _fault(status: str, description: str) -> Json:
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
    items = {"type": "string", "minLength": 1, "maxLength": KEY_CHARS_MAX}
    return {
        "name": "tagKeys",
        "in": "query",
        "required": True,
        "schema": {"type": "array", "minItems": 1, "items": items},
    }


def _closed(**properties: Json) -> Json:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def _mapping() -> Json:
    """All members, always there; those that are never null say of which type they are."""
    found: dict[str, Json] = {name: {"type": "null"} for name in MEMBERS}
    found |= {name: _schema(name, shape) for name, shape in members.CREATE.items() if name in MEMBERS}
    found["LastProcessingResult"] = {"type": ["string", "null"]}
    for name in ("UUID", "FunctionArn", "EventSourceArn", "EventSourceMappingArn", "StateTransitionReason"):
        found[name] = {"type": "string"}
    for name in ("BatchSize", "MaximumBatchingWindowInSeconds"):
        found[name] = {"type": "integer"}
    found["FunctionResponseTypes"] = {"type": "array", "items": {"type": "string"}}
    found["LastModified"] = {"type": "number"}
    found["State"] = {"enum": [state.value for state in MappingState]}
    return _closed(**{name: found[name] for name in MEMBERS})


def _request(structure: members.Structure, *required: str) -> Json:
    """A request: members that AWS does not know are passed over, null counts as absent where a member may be absent."""
    properties = {name: _schema(name, shape) for name, shape in structure.items()}
    for name in required:
        properties[name]["type"] = properties[name]["type"][0]
    if "EventSourceArn" in structure or "FunctionName" in structure:
        # Members for other kinds of sources are refused when they say something.
        properties |= {name: {"enum": list(members.NOTHING)} for name in members.ELSEWHERE}
    return {"type": "object", "properties": properties, "required": list(required)}


def _schema(name: str, shape: members.Shape) -> Json:
    bounds = _BOUNDS.get(name, {})
    match shape:
        case Scalar():
            return {"type": [_TYPES[shape], "null"]} | bounds
        case ListOf(items):
            return {"type": ["array", "null"], "items": _schema(name + "[]", items)} | bounds
        case MapOf(values):
            return {"type": ["object", "null"], "additionalProperties": _schema(name + "{}", values)} | bounds
        case _:
            inner: dict[str, Any] = {key: _schema(f"{name}.{key}", each) for key, each in shape.items()}
            return {"type": ["object", "null"], "properties": inner}


_TYPES = {
    Scalar.TEXT: "string",
    Scalar.WHOLE: "integer",
    Scalar.FLAG: "boolean",
    Scalar.MOMENT: "number",
}
