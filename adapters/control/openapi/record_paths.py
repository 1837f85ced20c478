"""Owns the part of the OpenAPI document that is about records of a shard."""

from copy import deepcopy

from pydantic import TypeAdapter

from adapters.control.openapi.parts import REF, Json, json_answer, problem
from poller.domain.peeking.answers import LIMIT_DEFAULT, LIMIT_MAX, PeekAnswer

PARAMETER_CHARS_MAX = 1024
_DESCRIPTION = (
    "Shows records of a shard, with what the mapping's filters say of each. Nothing moves: no position, no lease. Payloads are "
    "shown if api.show_payloads is true and the token has the role operate; else `missing` says what is missing. A read of a shard "
    "that is read by mappings waits for its turn with theirs."
)
_MAPPING = {
    "name": "id",
    "in": "path",
    "required": True,
    "description": "UUID of the mapping, or a name that only one mapping has: of its function or its source, with a word before it "
    "if need be (`orders`, `stream/orders`, `function/ship`)",
    "schema": {"type": "string", "minLength": 1},
}


def paths(*, unauthorized: Json, security: list[Json], common: Json, open_reads: bool) -> Json:
    """Returns the path of records. `security`: how a token is sent; `common`: errors that any request may get."""
    responses = {
        "200": json_answer("Records, oldest first; at most 1 MiB of payloads", "PeekAnswer"),
        "404": problem(
            "No mapping has this id or name, or it has no such shard; the text names those that there are"
        ),
        "409": problem("The source is a queue, or `from` is fault and nothing is blocked"),
        "501": problem("This server reads no records"),
    }
    if not open_reads:
        responses["401"] = deepcopy(unauthorized)
    errors = dict(common)
    errors["400"] = problem(
        "A parameter is wrong, or the source refuses the position; or no HTTP, or headers too large"
    )
    errors["429"] = problem("The source or this server is asked too often; try again in some seconds")
    errors["500"] = problem("The source or the store cannot be read; the text says why")
    return {
        "/v1/mappings/{id}/records": {
            "parameters": [_MAPPING],
            "get": {
                "operationId": "peekRecords",
                "summary": "Records of a shard",
                "description": _DESCRIPTION,
                # A token is of use for payloads even where reads need none.
                "security": [{}, *security] if open_reads else list(security),
                "parameters": [
                    _query(
                        "shard",
                        "The shard's id, its number, or an ending that only it has. Left out: the only shard, or the only "
                        "one that is blocked",
                        {"type": "string", "maxLength": PARAMETER_CHARS_MAX},
                    ),
                    _query(
                        "from",
                        "TRIM_HORIZON, LATEST, fault (the batch that blocks the shard), position (where the mapping goes on), "
                        "a time (ISO 8601 or seconds since 1970), a sequence number, AFTER: and a sequence number, or `next` "
                        "of an answer. Left out: fault if the shard is blocked, else position",
                        {"type": "string", "maxLength": PARAMETER_CHARS_MAX},
                    ),
                    _query(
                        "limit",
                        "How many records are shown",
                        {"type": "integer", "minimum": 1, "maximum": LIMIT_MAX, "default": LIMIT_DEFAULT},
                    ),
                ],
                "responses": errors | responses,
            },
        }
    }


def schemas() -> Json:
    """Returns the schemas of the answer, derived from the dataclasses that are answered."""
    root = TypeAdapter(PeekAnswer).json_schema(ref_template=REF + "{model}", mode="serialization")
    found: Json = root.pop("$defs")
    found["PeekAnswer"] = root
    return found


def _query(name: str, description: str, schema: Json) -> Json:
    return {"name": name, "in": "query", "description": description, "schema": schema}
