"""Owns the look at AWS's service models as botocore has them: operations, their members, and what the models say of each."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from botocore.loaders import Loader

type Model = Mapping[str, Any]

IN, OUT = "input", "output"


@cache
def model(service: str) -> Model:
    """The newest model of one service."""
    found: Model = Loader().load_service_model(service, "service-2")
    return found


def pattern(service: str, shape: str) -> str:
    """The pattern of a text's shape."""
    found: str = model(service)["shapes"][shape]["pattern"]
    return found


def shape(service: str, name: str) -> Model:
    """One shape."""
    found: Model = model(service)["shapes"][name]
    return found


def shape_of(service: str, operation: str, way: str) -> str | None:
    """The name of an operation's input or output shape."""
    found: Mapping[str, str] = model(service)["operations"][operation].get(way, {})
    return found.get("shape")


@dataclass(frozen=True, slots=True)
class Member:
    """One member of an operation: its path (`Shards[].ShardId`), and what the model says of it."""

    path: str
    says: str


def members(service: str, operation: str, way: str) -> Iterator[Member]:
    """All members, parents before children; what contains itself is not entered again."""
    name = shape_of(service, operation, way)
    if name is not None:
        yield from _inside(service, name, "", ())


def shapes_of(service: str, operation: str, way: str) -> Iterator[tuple[str, Model]]:
    """All members by path, each with its shape; of lists and maps also the items, keys and values that are no structures."""
    name = shape_of(service, operation, way)
    assert name is not None
    yield from _shapes(service, name, "")


def _shapes(service: str, name: str, path: str) -> Iterator[tuple[str, Model]]:
    found = shape(service, name)
    for member, reference in found.get("members", {}).items():
        at = f"{path}.{member}".lstrip(".")
        yield at, shape(service, reference["shape"])
        yield from _shapes(service, reference["shape"], at)
    for part, mark in (("member", "[]"), ("key", "{key}"), ("value", "{}")):
        if part in found:
            inner = found[part]["shape"]
            if shape(service, inner)["type"] != "structure":
                yield path + mark, shape(service, inner)
            yield from _shapes(service, inner, path + mark)


def _inside(service: str, name: str, path: str, within: tuple[str, ...]) -> Iterator[Member]:
    found = shape(service, name)
    if name in within:
        return
    for member, reference in found.get("members", {}).items():
        at = f"{path}.{member}".lstrip(".")
        yield Member(at, says(service, reference["shape"]))
        yield from _inside(service, reference["shape"], at, (*within, name))
    for part, mark in (("member", "[]"), ("key", "{key}"), ("value", "{}")):
        if part in found:
            inner = found[part]["shape"]
            if shape(service, inner)["type"] != "structure":
                yield Member(path + mark, says(service, inner))
            yield from _inside(service, inner, path + mark, (*within, name))


def says(service: str, name: str) -> str:
    """Type, range, pattern and choices of a shape in one line."""
    found = shape(service, name)
    least, most = found.get("min", ""), found.get("max", "")
    parts = [found["type"]]
    if least != "" or most != "":
        parts.append(f"{least}..{most}")
    if "pattern" in found:
        parts.append(f"/{found['pattern']}/")
    if "enum" in found:
        parts.append("one of " + ",".join(found["enum"]))
    return " ".join(parts)
