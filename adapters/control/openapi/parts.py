"""Owns the small pieces that the paths of the OpenAPI document are made of."""

from typing import Any

type Json = dict[str, Any]

REF = "#/components/schemas/"
ERROR = "Error"


def ref(schema: str) -> Json:
    """Returns a reference to a schema."""
    return {"$ref": REF + schema}


def json_answer(description: str, schema: str) -> Json:
    """Describes an answer in JSON."""
    return {"description": description, "content": {"application/json": {"schema": ref(schema)}}}


def problem(description: str) -> Json:
    """Describes an error outside Lambda's paths."""
    return json_answer(description, ERROR)
