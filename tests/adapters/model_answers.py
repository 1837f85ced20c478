"""Owns answers as the service models allow them, as JSON: a whole one, and one for each thing that may be odd about it."""

import random
from collections.abc import Iterator
from typing import Any

from tests.adapters.service_models import Model, shape, shape_of

DEPTH_MAX = 6
UNKNOWN = "SOMETHING_NEW"
"""A choice that no model has."""
_EXAMPLES: dict[str, Any] = {
    "boolean": True,
    "integer": 3,
    "long": 3,
    "double": 3.5,
    "float": 3.5,
    "timestamp": 1767225600.125,
    "blob": "Zm9vYmFy",
    "string": "text",
}
_TEXTS: dict[str, str] = {
    "ShardId": "shardId-00000000000000000000-00000000",
    "SequenceNumber": "49650000000000000000000000000000000000000000000000000002",
    "ErrorCode": "InternalError",
}
ODD_TEXTS = ("", " ", "None", "null", "\u0000", "\ud83d\ude00" * 5, "x" * 5_000, "-1", "1e999", "NaN", "٣")


def whole(service: str, name: str, depth: int = 0) -> Any:
    """An answer with every member, each with a value that the model allows."""
    found = shape(service, name)
    if depth > DEPTH_MAX:
        return {} if found["type"] in {"structure", "map"} else [] if found["type"] == "list" else "text"
    match found["type"]:
        case "structure":
            return {
                member: whole(service, reference["shape"], depth + 1)
                for member, reference in found["members"].items()
                if reference.get("location") not in {"header", "statusCode", "headers"}
            }
        case "list":
            return [whole(service, found["member"]["shape"], depth + 1)]
        case "map":
            key = whole(service, found["key"]["shape"], depth + 1)
            return {key: whole(service, found["value"]["shape"], depth + 1)}
        case kind:
            return _text(name, found) if kind == "string" else _EXAMPLES[kind]


def _text(name: str, found: Model) -> str:
    choices: list[str] = found.get("enum", [])
    return choices[0] if choices else _TEXTS.get(name, "text")


def odd(service: str, operation: str) -> Iterator[tuple[str, Any]]:
    """Answers of an operation, each with one thing that is odd, and what it is."""
    name = shape_of(service, operation, "output")
    assert name is not None
    yield "nothing at all", {}
    yield "whole", whole(service, name)
    yield from _odd(service, name, 0)


def _odd(service: str, name: str, depth: int) -> Iterator[tuple[str, Any]]:
    found = shape(service, name)
    if depth > DEPTH_MAX:
        return
    full = whole(service, name, depth)
    match found["type"]:
        case "structure":
            for member in full:
                yield f"{member} absent", {key: value for key, value in full.items() if key != member}
                yield f"{member} null", {**full, member: None}
                for what, value in _odd(service, found["members"][member]["shape"], depth + 1):
                    yield f"{member}.{what}", {**full, member: value}
        case "list":
            yield "empty", []
            yield "of null", [None]
            yield "of many", full * 12
            for what, value in _odd(service, found["member"]["shape"], depth + 1):
                yield f"[].{what}", [value]
        case "map":
            yield "empty", {}
            for key in shape(service, found["key"]["shape"]).get("enum", [UNKNOWN]):
                yield f"{key} null", {key: None}
                for what, value in _odd(service, found["value"]["shape"], depth + 1):
                    yield f"{key}.{what}", {key: value}
        case "string":
            yield "unknown", UNKNOWN
            yield from ((f"text {text[:8]!r}", text) for text in ODD_TEXTS)
        case "integer" | "long" | "double" | "float" | "timestamp":
            yield from ((f"number {number}", number) for number in (0, -1, 2**63, 10**400, 0.5, 1e300))
        case _:
            return
    yield "of another type", 5 if found["type"] == "string" else "text"


def drawn(service: str, operation: str, rng: random.Random) -> Any:
    """An answer in which each member is there, absent, null or odd by chance."""
    name = shape_of(service, operation, "output")
    assert name is not None
    return _drawn(service, name, rng, 0)


def _drawn(service: str, name: str, rng: random.Random, depth: int) -> Any:
    found = shape(service, name)
    chance = rng.random()
    if chance < 0.05 and depth:
        return None
    if depth > DEPTH_MAX:
        return whole(service, name, depth)
    match found["type"]:
        case "structure":
            return {
                member: _drawn(service, reference["shape"], rng, depth + 1)
                for member, reference in found["members"].items()
                if reference.get("location") is None and rng.random() < 0.85
            }
        case "list":
            count = rng.choice((0, 1, 1, 2, 12))
            return [_drawn(service, found["member"]["shape"], rng, depth + 1) for _ in range(count)]
        case "map":
            keys = shape(service, found["key"]["shape"]).get("enum", ["text", UNKNOWN])
            some = rng.sample(keys, rng.randint(0, len(keys)))
            return {key: _drawn(service, found["value"]["shape"], rng, depth + 1) for key in some}
        case _:
            others = [value for _, value in _odd(service, name, depth)]
            return rng.choice(others) if others and chance > 0.85 else whole(service, name, depth)
