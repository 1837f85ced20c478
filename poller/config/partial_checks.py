"""Owns the second look at a document with mistakes: what is wrong between the settings that can be read.

A model looks at how its fields agree only when each field is right by itself. Whoever mends those would be told of the rest
afterwards, so it is looked for at once, as far as it follows from what can be read.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from poller.config.field_types import Address, bare_function_arn
from poller.config.mapping import FunctionIdentity
from poller.config.plugin_settings import LenientCheck
from poller.config.settings import CLOSE_THE_DOOR, FileMembers, Rhythm, disagreements, open_door, twins
from poller.config_errors.error_messages import LINES_MAX, FieldError, SettingError, moved
from poller.config_errors.known_names import Path
from poller.domain.plan import Tuning

_PLACEHOLDER = "x"
_NEED_MEMBERS = frozenset({"DestinationConfig", "ProvisionedPollerConfig"})
"""Members that are wrong without certain members of their own."""
_FILTER = {"Pattern": '{"a": [1]}'}
"""Stands for a filter that cannot be read: the only items of a mapping's lists that are tables."""


def second_look(document: Mapping[str, Any], found: Sequence[SettingError]) -> list[SettingError]:
    """What `found`, the complaints about the fields of a document, has hidden; nothing if those are enough to be told at once."""
    if len(found) > LINES_MAX:
        return []
    return [*_mappings(document, found), *_rhythm(document), *_door(document)]


def _mappings(document: Mapping[str, Any], found: Sequence[SettingError]) -> Iterator[SettingError]:
    wrong: dict[int, set[Path]] = {}
    for each in found:
        match each.path:
            case "mappings", int(index), str(_), *_ if each.reads is None:
                beside = {(*each.path[2:-1], name) for name in each.meant_instead(document)}
                wrong.setdefault(index, set()).update({each.path[2:], *beside})
    given = document.get("mappings")
    readable: list[FileMembers] = []
    for index, each in enumerate(given if isinstance(given, list | tuple) else ()):
        mapping = _readable(each, wrong.get(index, set()))
        readable.append(mapping)
        if index in wrong:
            place: Path = ("mappings", index)
            told = [SettingError.of(objection, place) for objection in disagreements(mapping)]
            yield from (each for each in told if not _follows(each.path[2:], wrong[index]))
    yield from map(SettingError.of, twins(readable, _identities(document.get("functions"))))


def _follows(path: Path, wrong: Collection[Path]) -> bool:
    """Whether what stands at `path` is wrong itself, or lacks a member only because that is wrong."""
    for each in wrong:
        if path[: len(each)] == each:
            return True
        if each[: len(path)] == path and path[0] in _NEED_MEMBERS:
            return True
    return False


def _readable(given: object, wrong: Collection[Path]) -> FileMembers:
    """A mapping of the members that can be read, of which some lack what is wrong in them; it lacks the others."""
    members = given if isinstance(given, dict) else {}
    read = {name: value for name, value in members.items() if (name,) not in wrong}
    lacking = {str(path[0]) for path in wrong if len(path) == 1} | ({"FunctionName"} - members.keys())
    for path in wrong:
        name, rest = str(path[0]), path[1:]
        if name in read and rest:
            read[name] = _without(read[name], rest)
    try:
        mapping = FileMembers.model_validate({"FunctionName": _PLACEHOLDER, **read})
    except ValidationError:
        # None of the members can be told from the others, as in a list.
        mapping = FileMembers(FunctionName=_PLACEHOLDER)
        lacking = set(FileMembers.model_fields)
    for name in lacking:
        mapping.__dict__.pop(name, None)
    return mapping


def _without(value: object, path: Path) -> object:
    """`value` without what stands at `path` in it; an item of a list becomes a sound one, so that the others keep their places."""
    head, rest = path[0], path[1:]
    if isinstance(value, dict):
        inner = {head: _without(value[head], rest)} if rest and head in value else {}
        return {name: each for name, each in value.items() if name != head} | inner
    if isinstance(value, list) and isinstance(head, int) and head < len(value):
        item = _FILTER if isinstance(value[head], dict) else None
        return [*value[:head], *([] if item is None else [item]), *value[head + 1 :]]
    return value


def _identities(functions: object) -> dict[str, FunctionIdentity]:
    entries = functions if isinstance(functions, dict) else {}
    arns = {name: entry.get("arn") for name, entry in entries.items() if isinstance(entry, dict)}
    return {name: FunctionIdentity(arn=arn) for name, arn in arns.items() if _is_arn(arn)}


def _is_arn(text: object) -> bool:
    try:
        return isinstance(text, str) and bool(bare_function_arn(text))
    except ValueError:
        return False


def _rhythm(document: Mapping[str, Any]) -> Iterator[SettingError]:
    tuning = document.get("tuning")
    if isinstance(tuning, dict):
        look = LenientCheck(Tuning, tuning, validated_by=Rhythm)
        look.rounds()
        yield from moved(look.found, lambda path: ("tuning", *path))


def _door(document: Mapping[str, Any]) -> Iterator[SettingError]:
    api, listen = document.get("api"), document.get("listen")
    everybody = isinstance(api, dict) and str(api.get("allow_unauthenticated")).lower() == "true"
    if isinstance(listen, str) and _is_address(listen) and open_door(listen, everybody=everybody):
        wrong = f"anybody who reaches {listen} could change mappings"
        yield SettingError.of(FieldError("api.allow_unauthenticated", wrong, CLOSE_THE_DOOR))


def _is_address(text: str) -> bool:
    try:
        return bool(Address.parse(text))
    except ValueError:
        return False
