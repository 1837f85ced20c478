"""Owns the check of a request's members before it is sent: unknown names, and missing required ones."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from poller.config_errors.hints import hint
from poller.config_errors.known_names import nearest, question

MAPPING_PATH = ("mappings", 0)
"""The place in a configuration at which hints know the names of a mapping."""


def wrong_members(client: Any, operation: str, given: Mapping[str, Any]) -> list[str]:
    """Returns what is wrong with the names of an operation's members, one line each."""
    shape = client.meta.service_model.operation_model(operation).input_shape
    lines = list(_unknown(shape, given, ()))
    misspelled = {
        name for each in given if each not in shape.members for name in nearest(each, shape.members)
    }
    missing = [name for name in shape.required_members if given.get(name) is None and name not in misspelled]
    return [*lines, *(f"{name}: is missing; write {name}=VALUE" for name in missing)]


def _unknown(shape: Any, given: Any, path: tuple[str | int, ...]) -> Iterator[str]:
    if shape.type_name == "structure" and isinstance(given, Mapping):
        for name, value in given.items():
            if name in shape.members:
                yield from _unknown(shape.members[name], value, (*path, name))
            else:
                yield _unknown_text((*path, name), value, list(shape.members))
    elif shape.type_name == "list" and isinstance(given, Sequence) and not isinstance(given, str):
        for place, each in enumerate(given):
            yield from _unknown(shape.member, each, (*path, place))


def _unknown_text(path: tuple[str | int, ...], value: Any, known: list[str]) -> str:
    name = str(path[-1])
    where = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).lstrip(".")
    remedy = hint((*MAPPING_PATH, *path), value)
    if remedy is None:
        meant = nearest(name, known)
        remedy = question(meant) if meant else f"known here: {', '.join(sorted(known))}"
    return f"{where}: unknown member; {remedy}"
