"""Owns the paths of Lambda's operations on functions in the OpenAPI document."""

from adapters.control.invoke.function_documents import ITEMS_MAX, MARKER_PATTERN, PAGE_MAX
from adapters.control.invoke.invoke_api import FUNCTIONS, INVOKE, INVOKE_ASYNC, INVOKE_STREAMED
from adapters.control.invoke.invoke_config_api import CONFIG, CONFIGS
from adapters.control.invoke.invoke_headers import (
    CONTEXT,
    CONTEXT_BYTES_MAX,
    LOG,
    LOG_TYPES,
    TYPE,
    InvocationType,
)
from adapters.control.mappings.paging import ARN_PATTERN
from adapters.control.openapi.lambda_paths import FAULTS, SIGNED, UNSIGNED, lambda_fault, lambda_operation
from adapters.control.openapi.parts import Json, ref
from poller.domain.functions.queued_calls import AGE_S_MAX, AGE_S_MIN, RETRIES_MAX

_NAME: Json = {
    "name": "name",
    "in": "path",
    "required": True,
    "description": "Name, partial ARN or ARN of the function, each with :QUALIFIER or without",
    "schema": {"type": "string", "minLength": 1},
}
_QUALIFIER: Json = {
    "name": "Qualifier",
    "in": "query",
    "description": "Version or alias, if the name has none",
    "schema": {"type": "string"},
}
_MISSING = {"404": "No function of this name is configured"}
_CONFIG_FAULTS = {
    "500": "A fault of the server, or the daemon is starting or stopping",
    "501": "This server calls no functions",
}
_CHANGE_FAULTS = {
    "409": "The configuration file has it, where it has to be changed",
    "413": "The body is too large",
    "429": "Too many requests",
}
_INVOKE_FAULTS = {
    "413": "The payload is too large",
    "429": "There is no room for the call; `Reason` says why, the header Retry-After when to try again",
    "500": "A fault of the server, or the daemon is starting or stopping",
    "501": "This server calls no functions, or not in this way",
    "502": "The function cannot be opened or reached",
}


def paths(*, everybody: bool, open_reads: bool) -> Json:
    """Returns the paths. `everybody`: calls need no credential. `open_reads`: reads need none."""
    calling = [{}, *SIGNED] if everybody else SIGNED
    found: Json = {
        INVOKE: {"parameters": [_NAME, _QUALIFIER, *_headers()], "post": _invoke()},
        INVOKE_ASYNC: {
            "parameters": [_NAME],
            "post": lambda_operation(
                "InvokeAsync", "202", "The call is stored. Deprecated: call Invoke", "AcceptedCall"
            ),
        },
        INVOKE_STREAMED: {
            "parameters": [_NAME, _QUALIFIER],
            "post": lambda_operation("InvokeWithResponseStream", "200", "Never: call Invoke", None),
        },
        CONFIG: {
            "parameters": [_NAME, _QUALIFIER],
            "get": _config("GetFunctionEventInvokeConfig"),
            "put": _config("PutFunctionEventInvokeConfig", body=True),
            "post": _config("UpdateFunctionEventInvokeConfig", body=True),
            "delete": lambda_operation("DeleteFunctionEventInvokeConfig", "204", "It is removed", None),
        },
        CONFIGS: {
            "parameters": [_NAME, *_list_parameters()[1:]],
            "get": lambda_operation(
                "ListFunctionEventInvokeConfigs", "200", "A page of them", "InvokeConfigPage"
            ),
        },
        FUNCTIONS: {
            "parameters": _list_parameters(),
            "get": lambda_operation("ListFunctions", "200", "A page of functions", "FunctionPage"),
        },
        FUNCTIONS + "/{name}": {
            "parameters": [_NAME, _QUALIFIER],
            "get": lambda_operation("GetFunction", "200", "The function", "Function"),
        },
        FUNCTIONS + "/{name}/configuration": {
            "parameters": [_NAME, _QUALIFIER],
            "get": lambda_operation(
                "GetFunctionConfiguration", "200", "The function's configuration", "FunctionConfiguration"
            ),
        },
    }
    for path, item in found.items():
        faults = FAULTS | ({} if path == FUNCTIONS else _MISSING)
        for method in ("get", "post", "put", "delete"):
            if method not in item:
                continue
            told = faults | (_CONFIG_FAULTS if path in {CONFIG, CONFIGS} else {})
            if method != "get":
                item[method]["security"] = calling
                told |= UNSIGNED | (_CHANGE_FAULTS if path == CONFIG else _INVOKE_FAULTS)
            elif not open_reads:
                item[method]["security"] = list(SIGNED)
                told |= UNSIGNED
            item[method]["responses"] |= {
                status: lambda_fault(status, text) for status, text in sorted(told.items())
            }
    return found


def _config(name: str, *, body: bool = False) -> Json:
    operation = lambda_operation(name, "200", "How asynchronous calls are tried", "InvokeConfig")
    if body:
        content = {"application/json": {"schema": ref("InvokeConfigRequest")}}
        operation["requestBody"] = {"required": False, "content": content}
    return operation


def schemas() -> Json:
    """Returns the schemas of functions."""
    text: Json = {"type": "string"}
    configuration: Json = dict.fromkeys(
        (
            "FunctionName",
            "FunctionArn",
            "Role",
            "Handler",
            "Description",
            "Version",
            "StateReason",
            "LastUpdateStatus",
        ),
        text,
    )
    configuration |= {
        "Timeout": {"type": "integer", "minimum": 1},
        "MemorySize": {"type": "integer", "minimum": 1},
        "State": {"enum": ["Active", "Failed"]},
    }
    return {
        "FunctionConfiguration": _object(
            configuration, required=["FunctionName", "FunctionArn", "Timeout", "Version", "State"]
        ),
        "Function": _object(
            {
                "Configuration": ref("FunctionConfiguration"),
                "Code": {"type": "object"},
                "Tags": {"type": "object"},
                "Concurrency": {"type": "object"},
            },
            required=["Configuration"],
        ),
        "AcceptedCall": _object({"Status": {"type": "integer"}}, required=["Status"]),
        "InvokeConfigRequest": {"type": "object", "properties": _invoke_config()},
        "InvokeConfig": _object(
            {
                **_invoke_config(),
                "FunctionArn": text,
                "LastModified": {"type": "number"},
            },
            required=["FunctionArn", "LastModified", "DestinationConfig"],
        ),
        "InvokeConfigPage": _object(
            {
                "FunctionEventInvokeConfigs": {
                    "type": "array",
                    "items": ref("InvokeConfig"),
                    "maxItems": PAGE_MAX,
                },
                "NextMarker": text,
            },
            required=["FunctionEventInvokeConfigs"],
        ),
        "FunctionPage": _object(
            {
                "Functions": {"type": "array", "items": ref("FunctionConfiguration"), "maxItems": PAGE_MAX},
                "NextMarker": text,
            },
            required=["Functions"],
        ),
    }


def _invoke_config() -> Json:
    target: Json = {
        "type": "object",
        "properties": {"Destination": {"type": "string", "pattern": f"^({ARN_PATTERN})?$"}},
    }
    least, most = AGE_S_MIN, AGE_S_MAX
    return {
        "MaximumRetryAttempts": {"type": "integer", "minimum": 0, "maximum": RETRIES_MAX},
        "MaximumEventAgeInSeconds": {"type": "integer", "minimum": least, "maximum": most},
        "DestinationConfig": {"type": "object", "properties": {"OnSuccess": target, "OnFailure": target}},
    }


def _object(properties: Json, *, required: list[str]) -> Json:
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}


def _invoke() -> Json:
    operation = lambda_operation("Invoke", "200", "What the function answered, or its error", None)
    operation["description"] = (
        "Calls a function and waits for its answer. `X-Amz-Function-Error` in the answer says that the function failed. "
        "With `X-Amz-Invocation-Type: Event` the call is stored and made later."
    )
    operation["responses"]["200"]["content"] = {"application/json": {"schema": {}}}
    operation["responses"]["202"] = {
        "description": "An asynchronous call is stored, and tried until it is over"
    }
    operation["responses"]["204"] = {"description": "A dry run: the function could be called"}
    operation["requestBody"] = {"required": False, "content": {"application/json": {"schema": {}}}}
    return operation


def _headers() -> list[Json]:
    given: dict[str, Json] = {
        TYPE: {"enum": [each.value for each in InvocationType]},
        LOG: {"enum": list(LOG_TYPES)},
        CONTEXT: {"type": "string", "maxLength": CONTEXT_BYTES_MAX, "description": "Base64 of a JSON object"},
    }
    return [{"name": name, "in": "header", "schema": schema} for name, schema in given.items()]


def _list_parameters() -> list[Json]:
    given: dict[str, Json] = {
        "FunctionVersion": {"enum": ["ALL"]},
        "Marker": {"type": "string", "pattern": f"^{MARKER_PATTERN}$", "description": "NextMarker"},
        "MaxItems": {"type": "integer", "minimum": 1, "maximum": ITEMS_MAX},
    }
    return [{"name": name, "in": "query", "schema": schema} for name, schema in given.items()]
