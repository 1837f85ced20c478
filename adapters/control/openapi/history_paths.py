"""Owns the part of the OpenAPI document that is about the history of the last hour and the stream of updates."""

from copy import deepcopy

from pydantic import TypeAdapter

from adapters.control.openapi.parts import REF, Json, json_answer, problem
from poller.domain.telemetry.history import RecentHistory

_UPDATES = (
    "Server-sent events, for the page at `/`: `caller`, `status`, `operations`, `aliases` if there are any, and `history` first, then "
    "what differs, at most once a second (`changed`, `operations`, `aliases`, `point`, or `status` again), and a comment every ten seconds. docs/use/api.md describes them."
)
_MAPPING = {
    "name": "mapping",
    "in": "query",
    "description": "UUID of the only mapping to show",
    "schema": {"type": "string", "minLength": 1},
}


def paths(*, unauthorized: Json, security: list[Json], common: Json, open_reads: bool) -> Json:
    """Returns the paths. `security`: how a token is sent; `common`: errors that any request may get."""
    history: Json = {
        "operationId": "getHistory",
        "summary": "The last hour of this worker's mappings: lag, records, failures, pollers",
        "parameters": [_MAPPING],
        "responses": common
        | {
            "200": json_answer("Numbers of each step, oldest first", "RecentHistory"),
            "404": problem("No mapping of this id has a history on this worker"),
            "501": problem("This server keeps no history"),
        },
    }
    updates: Json = {
        "operationId": "readUpdates",
        "summary": "What runs, and what changes of it",
        "description": _UPDATES,
        "responses": common
        | {
            "200": {
                "description": "The events, until the client or the daemon ends",
                "content": {"text/event-stream": {"schema": {"type": "string"}}},
            },
            "404": problem("api.page is false"),
            "503": problem(
                "Too many clients read updates, or there are too many connections; try again later"
            ),
        },
    }
    for operation in (history, updates):
        if not open_reads:
            operation["security"] = list(security)
            operation["responses"]["401"] = deepcopy(unauthorized)
    return {"/v1/history": {"get": history}, "/v1/updates": {"get": updates}}


def schemas() -> Json:
    """Returns the schemas of the history, derived from the dataclasses that are answered."""
    root = TypeAdapter(RecentHistory).json_schema(ref_template=REF + "{model}", mode="serialization")
    found: Json = root.pop("$defs")
    found["RecentHistory"] = root
    return found
