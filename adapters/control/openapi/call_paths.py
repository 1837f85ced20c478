"""Owns the paths of asynchronous calls in the OpenAPI document."""

from copy import deepcopy

from pydantic import TypeAdapter

from adapters.control.openapi.parts import REF, Json, json_answer, problem
from poller.domain.functions.waiting_calls import LIMIT_DEFAULT, LIMIT_MAX, CallPage, CallState
from poller.domain.operations import Action

MARKER_PATTERN = r"([0-9]{1,12}(?:\.[0-9]{1,9})?),([!-~]{1,256})"
"""The place of a call among those of its function: when it is due, and its id."""
_NAME: Json = {
    "name": "name",
    "in": "path",
    "required": True,
    "description": "Name of the function in the configuration",
    "schema": {"type": "string", "minLength": 1},
}
_DESCRIPTION = (
    "Lists asynchronous calls that are not over, or whose destinations do not have them yet, the longest due first. Payloads are shown "
    "if api.show_payloads is true and the token has the role operate; else `missing` says what is missing. A page of one state may be "
    "short, and yet not the last one."
)
_ASKED = {
    "202": json_answer("The operation as it is stored", "OperationView"),
    "400": problem("A member is wrong; the text names it and the remedy"),
    "404": problem("No function has this name, and no call waits for one"),
    "409": problem("There is another operation with this id, or too many are open"),
    "415": problem("The body is not sent as JSON"),
}


def paths(*, security: list[Json], unauthorized: Json, common: Json, open_reads: bool) -> Json:
    """Returns the paths. `security` is that of changes, and `common` are the errors that any request may get."""
    not_served = {"501": problem("This server changes nothing, or shows no calls")}
    tokens = [each for each in security if each]
    read = common | not_served | ({} if open_reads else {"401": deepcopy(unauthorized)})
    return {
        "/v1/functions/{name}/calls": {
            "parameters": [_NAME],
            "get": {
                "operationId": "listCalls",
                "summary": "Asynchronous calls of a function",
                "description": _DESCRIPTION,
                # A token is of use for payloads even where reads need none.
                "security": [{}, *tokens] if open_reads else tokens,
                "parameters": _filters(),
                "responses": read
                | {
                    "200": json_answer("A page of calls", "CallPage"),
                    "400": problem("A parameter is wrong; the text names it and the remedy"),
                    "404": problem("No function has this name, and no call waits for one"),
                },
            },
        },
        "/v1/functions/{name}/operations": {
            "parameters": [_NAME],
            "post": {
                "operationId": "submitCallOperation",
                "summary": "Ask for an operation on the asynchronous calls of a function",
                "description": "Needs the role operate. An operation with the same id and content is returned as it is.",
                "security": security,
                "requestBody": {
                    "required": True,
                    "content": {"application/json": {"schema": {"$ref": REF + "CallOperationRequest"}}},
                },
                "responses": {"401": unauthorized} | not_served | common | _ASKED,
            },
        },
    }


def schemas() -> Json:
    """Returns the schemas of what is answered. They are not closed yet."""
    root = TypeAdapter(CallPage).json_schema(ref_template=REF + "{model}", mode="serialization")
    found: Json = root.pop("$defs")
    found["CallPage"] = root
    return found


def request_schema() -> Json:
    """Returns the schema of a request. Each action has members of its own, which docs/operate/calls.md lists."""
    text: Json = {"type": ["string", "null"]}
    truth: Json = {"type": ["boolean", "null"]}
    return {
        "type": "object",
        "required": ["action"],
        "properties": {
            "action": {"enum": [each.value for each in (Action.RETRY, Action.SKIP, Action.REDRIVE)]},
            "calls": {
                "anyOf": [{"enum": ["all", None]}, {"type": "array", "items": {"type": "string"}}],
                "description": "retry, skip: all, or the ids of calls",
            },
            "from": text | {"description": "redrive: the ARN of an on-failure or dead-letter queue"},
            "limit": {
                "type": ["integer", "null"],
                "minimum": 1,
                "maximum": 1_000_000_000,
                "description": "redrive: messages at most",
            },
            "messages_per_s": {
                "type": ["number", "null"],
                "minimum": 0.001,
                "maximum": 1_000_000,
                "description": "redrive: messages a second",
            },
            "dry_run": truth | {"description": "redrive: only the plan, in the notes of the operation"},
            "send": truth | {"description": "skip: the destinations get the call's document; the default"},
            "discard": truth | {"description": "skip: nobody gets a document"},
            "reason": text | {"description": "Why; it is shown with the operation"},
            "id": text
            | {"description": "An id of your own, so that the same request again is the same operation"},
        },
    }


def _filters() -> list[Json]:
    return [
        _query("state", "Only those in this state", {"enum": [each.value for each in CallState]}),
        _query(
            "limit",
            "How many at most",
            {"type": "integer", "minimum": 1, "maximum": LIMIT_MAX, "default": LIMIT_DEFAULT},
        ),
        _query("marker", "`next` of the page before", {"type": "string", "pattern": f"^{MARKER_PATTERN}$"}),
    ]


def _query(name: str, description: str, schema: Json) -> Json:
    return {"name": name, "in": "query", "description": description, "schema": schema}
