"""Owns the paths of `/v1/functions` in the OpenAPI document."""

from adapters.control.openapi.parts import Json, json_answer, problem

_NAME: Json = {
    "name": "name",
    "in": "path",
    "required": True,
    "description": "Name of the function in the configuration",
    "schema": {"type": "string", "minLength": 1},
}
_REASON: Json = {
    "required": False,
    "content": {
        "application/json": {
            "schema": {
                "type": "object",
                "properties": {"reason": {"type": "string", "maxLength": 200}},
                "additionalProperties": False,
            }
        }
    },
}


def paths(*, security: list[Json], unauthorized: Json, errors: Json) -> Json:
    """Returns the paths. `errors` are the answers that any request may get."""
    responses = errors | {
        "200": json_answer("The function's rate and breaker at this worker now", "FunctionStatus"),
        "400": problem("The body is not what is said here, or the request is no HTTP"),
        "401": unauthorized,
        "404": problem("No function of this name has a breaker; the message lists those that have one"),
        "413": problem("The body is too large"),
        "415": problem("The body is a form of a web page"),
        "500": problem("A fault of the server, or the daemon is starting or stopping"),
        "501": problem("This server changes nothing"),
    }
    return {
        "/v1/functions/{name}/breaker/close": {
            "parameters": [_NAME],
            "post": {
                "operationId": "closeBreaker",
                "summary": "Close the circuit breaker of a function",
                "description": "Needs the role operate. The breaker of the asked worker closes at once, those of the other "
                "workers of the store within two heartbeats. A breaker that is closed begins to count from zero.",
                "security": security,
                "requestBody": _REASON,
                "responses": responses,
            },
        }
    }
