"""Owns what the OpenAPI document says of versions and aliases, on Lambda's paths and on those of `/v1`."""

from copy import deepcopy

from pydantic import TypeAdapter

from adapters.control.aliases.alias_api import ALIAS, ALIASES, VERSIONS
from adapters.control.aliases.alias_requests import (
    ALIAS_CHARS_MAX,
    ALIAS_PATTERN,
    DESCRIPTION_CHARS_MAX,
    NUMBER_PATTERN,
    VERSION_CHARS_MAX,
    VERSION_PATTERN,
    WEIGHTS_MAX,
)
from adapters.control.aliases.shift_requests import EXAMPLE, ID_CHARS_MAX, REASON_CHARS_MAX
from adapters.control.invoke.function_documents import ITEMS_MAX, MARKER_PATTERN, PAGE_MAX
from adapters.control.openapi.lambda_paths import FAULTS, SIGNED, UNSIGNED, lambda_fault, lambda_operation
from adapters.control.openapi.parts import REF, Json, json_answer, problem, ref
from poller.domain.arns import FUNCTION_NAME_CHARS_MAX
from poller.domain.functions.alias_pages import AliasPage
from poller.domain.functions.shift_strategies import PERCENT_MIN
from poller.domain.functions.shifts import SHIFT_S_MAX

V1_ALL = "/v1/aliases"
V1_ALIASES = "/v1/functions/{name}/aliases"
V1_ALIAS = V1_ALIASES + "/{alias}"
_STRATEGY = (
    r"^(CodeDeployDefault\.)?(Lambda)?(AllAtOnce|Canary[0-9]{1,3}Percent[0-9]{1,4}Minutes?"
    r"|Linear[0-9]{1,3}PercentEvery[0-9]{1,4}Minutes?)$"
)
_TEXT: Json = {"type": "string"}
_NAME: Json = {
    "name": "name",
    "in": "path",
    "required": True,
    "description": "Name or ARN of the function",
    "schema": {"type": "string", "minLength": 1},
}
_ALIAS_NAME: Json = {
    "type": "string",
    "minLength": 1,
    "maxLength": ALIAS_CHARS_MAX,
    "pattern": f"^{ALIAS_PATTERN}$",
}
_ALIAS: Json = {
    "name": "alias",
    "in": "path",
    "required": True,
    "description": "Name of the alias",
    "schema": _ALIAS_NAME,
}
_VERSION: Json = {
    "type": "string",
    "minLength": 1,
    "maxLength": VERSION_CHARS_MAX,
    "pattern": f"^{VERSION_PATTERN}$",
}
_PAGES: list[Json] = [
    {
        "name": "Marker",
        "in": "query",
        "description": "NextMarker",
        "schema": {"type": "string", "pattern": f"^{MARKER_PATTERN}$"},
    },
    {"name": "MaxItems", "in": "query", "schema": {"type": "integer", "minimum": 1, "maximum": ITEMS_MAX}},
]
_FAULTS = {
    "404": "No function of this name is configured, or it has no such version or alias",
    "500": "A fault of the server, or the daemon is starting or stopping",
    "501": "This server calls no functions",
}
_CHANGE_FAULTS = {
    "409": "There is such an alias, it is being shifted, or the configuration file has it",
    "412": "The alias has another RevisionId by now",
    "413": "The body is too large",
}


def paths(
    *, everybody: bool, open_reads: bool, unauthorized: Json, security: list[Json], common: Json
) -> Json:
    """Returns the paths. `security` is that of changes on `/v1`, and `common` are the errors that any request may get there."""
    own = _own_paths(unauthorized=unauthorized, security=security, common=common, open_reads=open_reads)
    return own | _lambda_paths(everybody=everybody, open_reads=open_reads)


def _lambda_paths(*, everybody: bool, open_reads: bool) -> Json:
    found: Json = {
        ALIASES: {
            "parameters": [_NAME],
            "get": lambda_operation("ListAliases", "200", "A page of aliases", "AliasConfigurationPage")
            | {"parameters": [{"name": "FunctionVersion", "in": "query", "schema": _VERSION}, *_PAGES]},
            "post": _with_body(
                lambda_operation("CreateAlias", "201", "The alias", "AliasConfiguration"),
                "CreateAliasRequest",
            ),
        },
        ALIAS: {
            "parameters": [_NAME, _ALIAS],
            "get": lambda_operation("GetAlias", "200", "The alias", "AliasConfiguration"),
            "put": _with_body(
                lambda_operation("UpdateAlias", "200", "The alias", "AliasConfiguration"),
                "UpdateAliasRequest",
            ),
            "delete": lambda_operation("DeleteAlias", "204", "There is no such alias any more", None),
        },
        VERSIONS: {
            "parameters": [_NAME, *_PAGES],
            "get": lambda_operation("ListVersionsByFunction", "200", "A page of versions", "VersionPage"),
        },
    }
    for item in found.values():
        for method in item.keys() - {"parameters"}:
            told = FAULTS | _FAULTS
            if method != "get":
                item[method]["security"] = [{}, *SIGNED] if everybody else SIGNED
                told |= UNSIGNED | _CHANGE_FAULTS
            elif not open_reads:
                item[method]["security"] = list(SIGNED)
                told |= UNSIGNED
            item[method]["responses"] |= {
                status: lambda_fault(status, text) for status, text in sorted(told.items())
            }
    return found


def _with_body(operation: Json, schema: str) -> Json:
    content = {"application/json": {"schema": ref(schema)}}
    return operation | {"requestBody": {"required": schema == "CreateAliasRequest", "content": content}}


def _own_paths(*, unauthorized: Json, security: list[Json], common: Json, open_reads: bool) -> Json:
    not_served = {
        "500": problem("A fault of the server, or the daemon is starting or stopping"),
        "501": problem("This server calls no functions"),
    }
    missing = {"404": problem("No function of this name is configured, or it has no such alias")}
    read = common | not_served | ({} if open_reads else {"401": deepcopy(unauthorized)})
    reads: Json = {} if open_reads else {"security": [each for each in security if each]}
    changes = (
        common
        | not_served
        | missing
        | {
            "400": problem("A member is wrong; the text names it and the remedy"),
            "401": unauthorized,
            "409": problem("The alias is not in a state for it: a shift of it runs, or none"),
            "413": problem("The body is too large"),
        }
    )
    return {
        V1_ALL: {
            "get": {
                "operationId": "listAllAliases",
                "summary": "Versions and aliases of all functions that have any",
                "responses": read | {"200": json_answer("By function", "AliasPage")},
                **reads,
            }
        },
        V1_ALIASES: {
            "parameters": [_NAME],
            "get": {
                "operationId": "listAliasesOfFunction",
                "summary": "Versions and aliases of one function",
                "responses": read | missing | {"200": json_answer("The function's", "FunctionAliases")},
                **reads,
            },
        },
        V1_ALIAS: {
            "parameters": [_NAME, _ALIAS],
            "get": {
                "operationId": "getAliasOfFunction",
                "summary": "One alias, with the shift that runs or ran last",
                "responses": read | missing | {"200": json_answer("The alias", "AliasView")},
                **reads,
            },
        },
        V1_ALIAS + "/shifts": {
            "parameters": [_NAME, _ALIAS],
            "post": {
                "operationId": "shiftAlias",
                "summary": "Shift an alias to another version, by and by",
                "description": "Needs the role operate. A request with the id of a shift that is there is answered with that "
                f"shift. A body is such as `{EXAMPLE}`.",
                "security": security,
                "requestBody": {
                    "required": True,
                    "content": {"application/json": {"schema": ref("ShiftRequest")}},
                },
                "responses": changes
                | {
                    "202": json_answer("The alias with its shift", "AliasView"),
                    "415": problem("The body is not sent as JSON"),
                },
            },
        },
        V1_ALIAS + "/rollback": {
            "parameters": [_NAME, _ALIAS],
            "post": {
                "operationId": "rollBackAlias",
                "summary": "Send all calls of an alias that is being shifted to the old version",
                "description": "Needs the role operate. It takes effect at once.",
                "security": security,
                "requestBody": {
                    "required": False,
                    "content": {"application/json": {"schema": ref("RollbackRequest")}},
                },
                "responses": changes
                | {
                    "200": json_answer("The alias with its shift", "AliasView"),
                    "415": problem("The body is a form of a web page"),
                },
            },
        },
    }


def view_schemas() -> Json:
    """Returns the schemas of what `/v1` answers, which are not closed yet."""
    root = TypeAdapter(AliasPage).json_schema(ref_template=REF + "{model}", mode="serialization")
    found: Json = root.pop("$defs")
    found["AliasPage"] = root
    return found


def schemas() -> Json:
    """Returns the schemas of requests, and of what Lambda's paths answer."""
    weights: Json = {"type": "object", "additionalProperties": {"type": "number"}}
    alias: Json = {
        "AliasArn": _TEXT,
        "Name": _TEXT,
        "FunctionVersion": _TEXT,
        "Description": _TEXT,
        "RoutingConfig": {"type": "object", "properties": {"AdditionalVersionWeights": weights}},
        "RevisionId": _TEXT,
    }
    return {
        "AliasConfiguration": _exact(alias, required=[name for name in alias if name != "RoutingConfig"]),
        "AliasConfigurationPage": _page("Aliases", "AliasConfiguration"),
        "VersionPage": _page("Versions", "FunctionConfiguration"),
        "CreateAliasRequest": {
            "type": "object",
            "required": ["Name", "FunctionVersion"],
            "properties": {"Name": _ALIAS_NAME, **_request_members(), "FunctionVersion": _VERSION},
        },
        "UpdateAliasRequest": {
            "type": "object",
            "properties": {
                **_request_members(),
                "FunctionVersion": _VERSION | {"type": ["string", "null"]},
                "RevisionId": {"type": ["string", "null"]},
            },
        },
        "ShiftRequest": _shift_request(),
        "RollbackRequest": _exact({"reason": _optional("string", maxLength=REASON_CHARS_MAX)}, required=[]),
    }


def _request_members() -> Json:
    weights: Json = {
        "type": ["object", "null"],
        "maxProperties": WEIGHTS_MAX,
        "propertyNames": {"pattern": f"^{NUMBER_PATTERN}$", "maxLength": VERSION_CHARS_MAX},
        "additionalProperties": {"type": ["number", "null"], "minimum": 0, "maximum": 1},
    }
    return {
        "Description": _optional("string", maxLength=DESCRIPTION_CHARS_MAX),
        "RoutingConfig": {"type": ["object", "null"], "properties": {"AdditionalVersionWeights": weights}},
    }


def _shift_request() -> Json:
    nothing: Json = {"type": "null"}
    own = {"percent": {"type": "number"}, "interval_s": {"type": "number"}}
    found = _exact(
        {
            "to": {
                "type": "string",
                "minLength": 1,
                "maxLength": 64,
                "description": "The version that gets the calls",
            },
            "strategy": _optional(
                "string",
                pattern=_STRATEGY,
                description="AllAtOnce, Canary10Percent5Minutes, Linear10PercentEvery1Minute, …",
            ),
            "percent": _optional(
                "number", minimum=PERCENT_MIN, maximum=100, description="In place of strategy"
            ),
            "interval_s": _optional("number", minimum=0, maximum=SHIFT_S_MAX),
            "linear": _optional("boolean", description="So much more after each interval, not everything"),
            "before": _function("before the first call of the new version"),
            "after": _function("after the last call of the old version"),
            "failure_rate": _optional(
                "number",
                minimum=0,
                maximum=1,
                description="More failed calls of the new version roll it back",
            ),
            "reason": _optional("string", maxLength=REASON_CHARS_MAX),
            "id": _optional("string", minLength=1, maxLength=ID_CHARS_MAX, pattern="^[!-~]+$"),
        },
        required=["to"],
    )
    by_name = {
        "required": ["strategy"],
        "properties": {"strategy": _TEXT} | dict.fromkeys((*own, "linear"), nothing),
    }
    by_numbers = {"required": list(own), "properties": {**own, "strategy": nothing}}
    return found | {"oneOf": [by_name, by_numbers]}


def _function(when: str) -> Json:
    return _optional(
        "string",
        minLength=1,
        maxLength=FUNCTION_NAME_CHARS_MAX,
        description=f"A function that has to answer Succeeded {when}",
    )


def _optional(kind: str, **bounds: object) -> Json:
    return {"type": [kind, "null"], **bounds}


def _page(name: str, item: str) -> Json:
    items = {"type": "array", "items": ref(item), "maxItems": PAGE_MAX}
    return _exact({name: items, "NextMarker": _TEXT}, required=[name])


def _exact(properties: Json, *, required: list[str]) -> Json:
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}
