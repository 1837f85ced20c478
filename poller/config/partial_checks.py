"""Owns the search for errors between settings in a document that has other errors too.

A pydantic model checks rules between fields only when each field is valid by itself. A user who corrects the fields would get the
other errors afterwards, one round later. So those rules are checked here, as far as the valid settings allow it.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from poller.config.field_types import Address, bare_function_arn
from poller.config.mapping import FunctionIdentity
from poller.config.plugin_settings import LenientCheck
from poller.config.settings import (
    PROTECT_API,
    CheckedTuning,
    FileMembers,
    duplicate_mappings,
    mapping_errors,
    open_to_everybody,
)
from poller.config_errors.error_messages import LINES_MAX, FieldError, SettingError, moved
from poller.config_errors.known_names import Path
from poller.domain.plan import Tuning

_PLACEHOLDER = "x"
_NEED_MEMBERS = frozenset({"DestinationConfig", "ProvisionedPollerConfig"})
"""Members that are invalid unless certain nested members are present."""
_FILTER = {"Pattern": '{"a": [1]}'}
"""Replaces a filter that cannot be read. Filters are the only tables in a mapping's lists."""


def hidden_errors(document: Mapping[str, Any], found: Sequence[SettingError]) -> list[SettingError]:
    """The errors between settings that were not checked because of `found`. None if `found` already fills the output."""
    if len(found) > LINES_MAX:
        return []
    return [*_mappings(document, found), *_tuning_errors(document), *_api_errors(document)]


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
            errors = [SettingError.of(error, place) for error in mapping_errors(mapping)]
            yield from (each for each in errors if not _follows(each, wrong[index]))
    yield from map(SettingError.of, duplicate_mappings(readable, _identities(document.get("functions"))))


def _follows(error: SettingError, wrong: Collection[Path]) -> bool:
    """Whether an error of a mapping follows from others: its value is wrong itself, lacks a member that is wrong, or goes by one."""
    path, reads = error.path[2:], error.reads or ()
    for each in wrong:
        if each[0] in reads:
            return True
        if path[: len(each)] == each:
            return True
        if each[: len(path)] == path and path[0] in _NEED_MEMBERS:
            return True
    return False


def _readable(given: object, wrong: Collection[Path]) -> FileMembers:
    """A mapping without the members that are wrong. Wrong values inside a member are removed from it."""
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
        # The valid members cannot be separated from the invalid ones, as in a list.
        mapping = FileMembers(FunctionName=_PLACEHOLDER)
        lacking = set(FileMembers.model_fields)
    for name in lacking:
        mapping.__dict__.pop(name, None)
    return mapping


def _without(value: object, path: Path) -> object:
    """`value` without the part at `path`. An item of a list is replaced by a valid one, so that the others keep their indexes."""
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


def _tuning_errors(document: Mapping[str, Any]) -> Iterator[SettingError]:
    tuning = document.get("tuning")
    if isinstance(tuning, dict):
        look = LenientCheck(Tuning, tuning, validated_by=CheckedTuning)
        look.rounds()
        yield from moved(look.found, lambda path: ("tuning", *path))


def _api_errors(document: Mapping[str, Any]) -> Iterator[SettingError]:
    api, listen = document.get("api"), document.get("listen")
    everybody = isinstance(api, dict) and str(api.get("allow_unauthenticated")).lower() == "true"
    if isinstance(listen, str) and _is_address(listen) and open_to_everybody(listen, everybody=everybody):
        wrong = f"anybody who reaches {listen} could change mappings"
        yield SettingError.of(FieldError("api.allow_unauthenticated", wrong, PROTECT_API))


def _is_address(text: str) -> bool:
    try:
        return bool(Address.parse(text))
    except ValueError:
        return False
