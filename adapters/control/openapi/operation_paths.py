"""Owns the paths and schemas of operations in the OpenAPI document."""

from pydantic import TypeAdapter

from adapters.control.openapi.parts import REF, Json, json_answer, problem
from poller.domain.operations import Action, OperationPage, OperationState

LIMIT_MAX = 1000
AFTER_PATTERN = r"([0-9]{1,12}(?:\.[0-9]{1,9})?),([!-~]{1,256})"
"""The place of an operation in the list: when it was asked for, and its id."""
_ID: Json = {
    "name": "id",
    "in": "path",
    "required": True,
    "description": "Id of the operation",
    "schema": {"type": "string", "minLength": 1},
}
_MAPPING_ID: Json = _ID | {"description": "UUID of the mapping"}
_TEXT: Json = {"type": ["string", "null"]}
_TRUTH: Json = {"type": ["boolean", "null"]}
_RATE: Json = {"type": ["number", "null"], "minimum": 0.001, "maximum": 1_000_000}
_PLACE: Json = {"type": ["string", "number", "null"]}
_MEMBERS: Json = {
    "records": {
        "anyOf": [{"enum": ["first", "batch", None]}, {"type": "array", "items": {"type": "string"}}],
        "description": "skip: first, batch, or sequence numbers or message ids",
    },
    "batch_first": _TEXT | {"description": "skip of a batch: the id of its first record"},
    "batch_count": {
        "type": ["integer", "null"],
        "minimum": 1,
        "maximum": 1_000_000_000,
        "description": "skip of a batch: how many records it has; another batch is not skipped",
    },
    "send": _TRUTH | {"description": "skip: the destination gets a notice before; the default"},
    "discard": _TRUTH | {"description": "skip: without a notice"},
    "from": _PLACE | {"description": "replay: TRIM_HORIZON or a time; redrive: where the notices are"},
    "to": _PLACE
    | {"description": "replay: LATEST or a time; seek: TRIM_HORIZON, LATEST, a time or a number"},
    "shards": {
        "type": ["array", "null"],
        "items": {"type": "string"},
        "description": "seek: the shards that move; without it all",
    },
    "skip": _TRUTH | {"description": "seek: records that were not processed may be left out"},
    "dry_run": _TRUTH | {"description": "seek, redrive: only the plan, in the notes of the operation"},
    "function": _TEXT | {"description": "replay: the name or ARN of another function"},
    "filter": _TEXT | {"description": "replay: a filter pattern as JSON text"},
    "records_per_s": _RATE | {"description": "replay: records a second, of all workers together"},
    "on_failure": _TEXT | {"description": "replay: stop, skip, or the ARN or URL of a destination"},
    "limit": {
        "type": ["integer", "null"],
        "minimum": 1,
        "maximum": 1_000_000_000,
        "description": "redrive: notices at most",
    },
    "messages_per_s": _RATE | {"description": "redrive: notices a second"},
}
"""Members that only some actions have."""


_ASKED = {
    "202": json_answer("The operation as it is stored", "OperationView"),
    "400": problem("A member is wrong; the text names it and the remedy"),
    "404": problem("No mapping has this id"),
    "409": problem("There is another operation with this id, or the mapping is not in a state for it"),
    "415": problem("The body is not sent as JSON"),
}
"""Answers to a request for an operation."""


def paths(*, unauthorized: Json, security: list[Json], common: Json, open_reads: bool) -> Json:
    """Returns the paths. `security` is that of changes, and `common` are the errors that any request may get."""
    reads = {} if open_reads else {"security": [each for each in security if each]}
    not_served = {"501": problem("This server changes nothing")}
    read = common | not_served | ({} if open_reads else {"401": unauthorized})
    changes = {"401": unauthorized, "403": common["403"]} | not_served | common
    found = {"404": problem("No operation has this id; finished ones are kept for 30 days at most")}
    return {
        "/v1/mappings/{id}/operations": {
            "parameters": [_MAPPING_ID],
            "post": {
                "operationId": "submitOperation",
                "summary": "Ask for an operation on what runs",
                "description": "Needs the role operate. An operation with the same id and content is returned as it is.",
                "security": security,
                "requestBody": {
                    "required": True,
                    "content": {"application/json": {"schema": {"$ref": REF + "OperationRequest"}}},
                },
                "responses": changes | _ASKED,
            },
        },
        "/v1/operations": {
            "get": {
                "operationId": "listOperations",
                "summary": "Operations, newest first",
                "parameters": _filters(),
                "responses": read
                | {
                    "200": json_answer("A page of operations", "OperationPage"),
                    "400": problem("A parameter is wrong; the text names it and the remedy"),
                },
                **reads,
            }
        },
        "/v1/operations/{id}": {
            "parameters": [_ID],
            "get": {
                "operationId": "getOperation",
                "summary": "One operation",
                "responses": read | found | {"200": json_answer("The operation", "OperationView")},
                **reads,
            },
            "delete": {
                "operationId": "cancelOperation",
                "summary": "Cancel an operation that is not over",
                "description": "Needs the role operate. Nothing more of it begins; what was done stays done.",
                "security": security,
                "responses": changes
                | found
                | {
                    "200": json_answer("The operation as it is now", "OperationView"),
                    "409": problem("The operation is over"),
                },
            },
        },
    }


def schemas() -> Json:
    """Returns the schemas of what is sent and answered. Those of answers are not closed yet."""
    adapter = TypeAdapter(OperationPage)
    root = adapter.json_schema(ref_template=REF + "{model}", mode="serialization")
    found: Json = root.pop("$defs")
    found["OperationPage"] = root
    return found


def request_schema() -> Json:
    """Returns the schema of a request. Each action has members of its own, which docs/operate/operations.md lists."""
    return {
        "type": "object",
        "required": ["action"],
        "properties": {
            "action": {"enum": [each.value for each in Action]},
            "shard": _TEXT | {"description": "The shard of a stream"},
            "lane": {"type": ["integer", "null"], "minimum": 0, "description": "The lane of the shard"},
            "group": _TEXT | {"description": "The message group of a FIFO queue"},
            "reason": _TEXT | {"description": "Why; it is shown with the operation"},
            "id": _TEXT
            | {"description": "An id of your own, so that the same request again is the same operation"},
            **_MEMBERS,
        },
    }


def _filters() -> list[Json]:
    return [
        _query("mapping", "Only those on this mapping", {"type": "string"}),
        _query("state", "Only those in this state", {"enum": [each.value for each in OperationState]}),
        _query("limit", "How many at most", {"type": "integer", "minimum": 1, "maximum": LIMIT_MAX}),
        _query("after", "`next` of the page before", {"type": "string", "pattern": f"^{AFTER_PATTERN}$"}),
    ]


def _query(name: str, description: str, schema: Json) -> Json:
    return {"name": name, "in": "query", "description": description, "schema": schema}
