"""Owns the OpenAPI document: what is common to all paths, and the paths of /v1 and of the probes.

The schemas of the daemon's state are derived from the dataclasses that are answered.
"""

from collections.abc import Iterator
from importlib.metadata import version
from typing import Any

from pydantic import TypeAdapter

from adapters.control.openapi import (
    alias_paths,
    call_paths,
    function_paths,
    history_paths,
    invoke_paths,
    lambda_paths,
    operation_paths,
    record_paths,
)
from adapters.control.openapi.parts import ERROR, REF, Json, json_answer, problem, ref
from poller.domain.sizing.fleet_size import FleetScaling
from poller.domain.status import DaemonStatus

_TOKEN: Json = {
    "type": "http",
    "scheme": "bearer",
    "description": "A token of api.tokens_file. Its role is view, operate or admin; each includes those before it.",
}
_SECURITY: list[Json] = [{"token": []}]
_WORKER = {
    "name": "worker",
    "in": "query",
    "description": "Show only what this worker has. Without it all workers are shown, whichever is asked.",
    "schema": {"type": "string"},
}
_MAPPING_ID = {
    "name": "id",
    "in": "path",
    "required": True,
    "description": "UUID of the mapping",
    "schema": {"type": "string", "minLength": 1},
}


def document(*, everybody: bool = False, open_reads: bool = True) -> Json:
    """Returns the OpenAPI 3.1 document. `everybody`: changes need no credential. `open_reads`: reads need none."""
    reads = "are open" if open_reads else "need a token of any role, on Lambda's paths a signature"
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "poller",
            "version": version("esm-poller"),
            "description": "What a poller daemon runs, and Lambda's API to change it. Times are seconds since "
            f"1970-01-01 UTC. Reads {reads}. The paths of Lambda's API work with a slash at their end too.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "security": [],
        "paths": _paths(everybody=everybody, open_reads=open_reads)
        | record_paths.paths(
            unauthorized=_unauthorized(), security=_SECURITY, common=_common_errors(), open_reads=open_reads
        )
        | history_paths.paths(
            unauthorized=_unauthorized(), security=_SECURITY, common=_common_errors(), open_reads=open_reads
        )
        | alias_paths.paths(
            everybody=everybody,
            open_reads=open_reads,
            unauthorized=_unauthorized(),
            security=_change_security(everybody),
            common=_common_errors(),
        )
        | lambda_paths.paths(everybody=everybody, open_reads=open_reads)
        | invoke_paths.paths(everybody=everybody, open_reads=open_reads),
        "components": {
            "schemas": dict(sorted((_schemas() | _lambda_schemas()).items())),
            "securitySchemes": {"token": _TOKEN} | lambda_paths.SCHEME,
        },
    }


def _paths(*, everybody: bool, open_reads: bool) -> Json:
    mapping = {
        "200": json_answer("The mapping", "MappingStatus"),
        "404": problem("No mapping has this id, or no worker this name"),
    }
    everything = {
        "200": json_answer("What runs on all workers", "DaemonStatus"),
        "404": problem("No worker has this name"),
    }
    scaling = {
        "200": json_answer("The recommendation", "FleetScaling"),
        "501": problem("This server recommends nothing"),
        "503": problem("Nothing is known yet; keep the workers that there are"),
    }
    described = {"200": json_answer("The document", "Document")}
    reads = {
        "/v1/mappings": {"parameters": [_WORKER], **_get("listMappings", "Everything that runs", everything)},
        "/v1/mappings/{id}": {
            "parameters": [_MAPPING_ID, _WORKER],
            **_get("getMapping", "One mapping", mapping),
        },
        "/v1/scaling": _get("getScaling", "How many workers there should be", scaling),
        "/v1/openapi.json": _get("getDocument", "This document", described),
    }
    if not open_reads:
        for item in reads.values():
            item["get"]["security"] = list(_SECURITY)
            item["get"]["responses"]["401"] = _unauthorized()
    return (
        reads
        | {
            "/healthz": _get("getHealth", "Whether the daemon is alive", _probes()),
            "/readyz": _get("getReadiness", "Whether every enabled mapping has its parts open", _probes()),
            "/metrics": _get("getMetrics", "Prometheus metrics", {"200": _text("The page")}),
            "/v1/mappings/{id}/enable": _switch("enableMapping", "Enable a mapping", everybody),
            "/v1/mappings/{id}/disable": _switch("disableMapping", "Disable a mapping", everybody),
        }
        | operation_paths.paths(
            unauthorized=_unauthorized(),
            security=_change_security(everybody),
            common=_common_errors(),
            open_reads=open_reads,
        )
        | call_paths.paths(
            security=_change_security(everybody),
            unauthorized=_unauthorized(),
            common=_common_errors(),
            open_reads=open_reads,
        )
        | function_paths.paths(
            security=_change_security(everybody), unauthorized=_unauthorized(), errors=_common_errors()
        )
    )


def _get(name: str, summary: str, responses: Json) -> Json:
    return {"get": {"operationId": name, "summary": summary, "responses": _common_errors() | responses}}


def _unauthorized() -> Json:
    found = problem("No known token")
    found["headers"] = {"WWW-Authenticate": {"required": True, "schema": {"const": "Bearer"}}}
    return found


def _switch(name: str, summary: str, everybody: bool) -> Json:
    responses = {
        "202": json_answer("The mapping's state now", "Switched"),
        "400": problem("The mapping cannot be switched as it is"),
        "401": _unauthorized(),
        "404": problem("No mapping has this id"),
        "409": problem("The mapping is in the configuration file; change it there"),
        "415": problem("The body is a form of a web page"),
        "429": problem("Too many changes at once, or too many requests of this address; try again"),
        "501": problem("This server changes nothing"),
    }
    return {
        "parameters": [_MAPPING_ID],
        "post": {
            "operationId": name,
            "summary": summary,
            "description": "Needs the role admin.",
            "security": _change_security(everybody),
            "responses": responses | _common_errors(),
        },
    }


def _change_security(everybody: bool) -> list[Json]:
    return [{}, *_SECURITY] if everybody else list(_SECURITY)


def _common_errors() -> Json:
    """Returns the errors that any request may get."""
    return {
        "400": problem("Not HTTP, or headers too large"),
        "403": problem(
            "The Host header has no name of this server, a web page of another site asks for a change, or the token's role "
            "does not suffice"
        ),
        "429": problem("Too many requests of this address; Retry-After says when to try again"),
        "500": problem("A fault of the server; its log has the cause"),
        "503": problem("The answer took too long, or there are too many connections"),
    }


def _probes() -> Json:
    return {"200": json_answer("It is", "Probe"), "503": json_answer("It is not, and why", "ProbeOrError")}


def _text(description: str) -> Json:
    return {"description": description, "content": {"text/plain": {"schema": {"type": "string"}}}}


def _lambda_schemas() -> Json:
    return lambda_paths.schemas() | invoke_paths.schemas() | alias_paths.schemas()


def _schemas() -> Json:
    adapter = TypeAdapter(DaemonStatus)
    root = adapter.json_schema(ref_template=REF + "{model}", mode="serialization")
    found: Json = root.pop("$defs")
    found["DaemonStatus"] = root
    sizing = TypeAdapter(FleetScaling).json_schema(ref_template=REF + "{model}", mode="serialization")
    found |= sizing.pop("$defs") | {"FleetScaling": sizing}
    lines = {"type": "array", "items": {"type": "string"}}
    found["Probe"] = _object(
        alive={"type": "boolean"}, ready={"type": "boolean"}, problems=lines, notes=lines
    )
    found[ERROR] = _object(error={"type": "string"}, message={"type": "string"})
    found["Switched"] = _object(mapping={"type": "string"}, state={"type": "string"})
    found |= operation_paths.schemas()
    found |= record_paths.schemas()
    found |= call_paths.schemas()
    found |= history_paths.schemas()
    found |= alias_paths.view_schemas()
    for schema in _objects(found):
        _close(schema)
    found["ProbeOrError"] = {"anyOf": [ref("Probe"), ref(ERROR)]}
    found["OperationRequest"] = operation_paths.request_schema()
    found["CallOperationRequest"] = call_paths.request_schema()
    found["Document"] = {"type": "object", "required": ["openapi", "info", "paths"]}
    return found


def _object(**properties: Json) -> Json:
    return {"type": "object", "properties": properties}


def _objects(schemas: Json) -> Iterator[Json]:
    return (schema for schema in schemas.values() if "properties" in schema)


def _close(schema: Any) -> None:
    """Makes a schema exact: an answer has all of its fields and no others, so defaults and titles are removed."""
    schema["required"] = list(schema["properties"])
    schema["additionalProperties"] = False
    for found in schema["properties"].values():
        found.pop("default", None)
        found.pop("title", None)
