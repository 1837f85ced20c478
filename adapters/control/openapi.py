"""Owns the OpenAPI document: the paths by hand, the schemas from the values that are answered."""

from collections.abc import Iterator
from importlib.metadata import version
from typing import Any

from pydantic import TypeAdapter

from poller.status import DaemonStatus

type Json = dict[str, Any]

_REF = "#/components/schemas/"


def document() -> Json:
    """The document, OpenAPI 3.1; times are epoch seconds."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "poller",
            "version": version("esm-poller"),
            "description": "What a poller daemon runs. Times are seconds since 1970-01-01 UTC.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "security": [],
        "paths": _paths(),
        "components": {"schemas": _schemas()},
    }


def _paths() -> Json:
    missing = {"404": _json("No mapping has this id", "Error")}
    return {
        "/healthz": _get("getHealth", "Whether the daemon is alive", _probes()),
        "/readyz": _get("getReadiness", "Whether every enabled mapping has its parts open", _probes()),
        "/metrics": _get("getMetrics", "Prometheus metrics", {"200": _text("The page")}),
        "/v1/mappings": _get(
            "listMappings", "Everything that runs", {"200": _json("The daemon", "DaemonStatus")}
        ),
        "/v1/mappings/{id}": {
            "parameters": [
                {
                    "name": "id",
                    "in": "path",
                    "required": True,
                    "description": "UUID of the mapping",
                    "schema": {"type": "string", "minLength": 1},
                }
            ],
            **_get("getMapping", "One mapping", {"200": _json("The mapping", "MappingStatus")} | missing),
        },
        "/v1/openapi.json": _get("getDocument", "This document", {"200": _json("The document", "Document")}),
    }


def _get(name: str, summary: str, responses: Json) -> Json:
    return {"get": {"operationId": name, "summary": summary, "responses": responses}}


def _probes() -> Json:
    return {"200": _json("It is", "Probe"), "503": _json("It is not, and why", "Probe")}


def _json(description: str, schema: str) -> Json:
    return {
        "description": description,
        "content": {"application/json": {"schema": {"$ref": _REF + schema}}},
    }


def _text(description: str) -> Json:
    return {"description": description, "content": {"text/plain": {"schema": {"type": "string"}}}}


def _schemas() -> Json:
    adapter = TypeAdapter(DaemonStatus)
    root = adapter.json_schema(ref_template=_REF + "{model}", mode="serialization")
    found: Json = root.pop("$defs")
    found["DaemonStatus"] = root
    found["Probe"] = _object(
        alive={"type": "boolean"},
        ready={"type": "boolean"},
        problems={"type": "array", "items": {"type": "string"}},
    )
    found["Error"] = _object(error={"type": "string"}, message={"type": "string"})
    found["Document"] = {"type": "object", "required": ["openapi", "info", "paths"]}
    for schema in _objects(found):
        _close(schema)
    return dict(sorted(found.items()))


def _object(**properties: Json) -> Json:
    return {"type": "object", "properties": properties}


def _objects(schemas: Json) -> Iterator[Json]:
    return (schema for schema in schemas.values() if "properties" in schema)


def _close(schema: Json) -> None:
    """An answer has all of its fields and no others; a default says nothing about it."""
    schema["required"] = list(schema["properties"])
    schema["additionalProperties"] = False
    for found in schema["properties"].values():
        found.pop("default", None)
        found.pop("title", None)
