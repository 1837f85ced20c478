"""Owns how the spec of a custom resource becomes a mapping: AWS's members by ACK's names, and the configuration file's own fields.

ACK (AWS Controllers for Kubernetes) writes AWS's names with a small first letter, and ARN and KMS as they are spelled. The file's own
fields keep the file's names. What a spec says is then checked as a mapping of the configuration file is, by the same code.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from poller.config.aws_validation import violations
from poller.config.mapping import EventSourceMapping, as_written
from poller.config.members import TABLE, RequestKind, refused
from poller.config.settings import FILE_CONCURRENCY_MIN, FileMembers, mapping_errors
from poller.config.violations import answer
from poller.config_errors.error_messages import complaints
from poller.domain.records import Epoch
from poller.domain.resources.resource import MESSAGE_CHARS_MAX, SPEC_BYTES_MAX
from poller.domain.untrusted.texts import cut, line_of

OWN = tuple(name for name in FileMembers.model_fields if name not in EventSourceMapping.model_fields)
"""The file's own fields."""
REFERENCES = ("functionRef", "eventSourceRef", "queueRefs")
"""ACK's references to other resources."""
NO_REFERENCE = "a reference to another resource; write the name or the ARN itself"
NESTING_MAX = 32
"""Levels of a spec. AWS's members and the settings of the plug-ins have ten at most."""
TOO_DEEP = f"the spec has more than {NESTING_MAX} levels"
TOO_LARGE = f"the spec has more than {SPEC_BYTES_MAX} bytes"
_SPELLED = {
    "EventSourceArn": "eventSourceARN",
    "KMSKeyArn": "kmsKeyARN",
    "DocumentDBEventSourceConfig": "documentDBEventSourceConfig",
}
_UUID = {"uuid": "UUID"}


@dataclass(frozen=True, slots=True)
class Read:
    """A spec that was read: AWS's members and the file's own fields as a definition keeps them, or why it is refused."""

    parameters: Mapping[str, Any]
    own: Mapping[str, Any]
    refused: str = ""


def ack_name(name: str) -> str:
    """ACK's name of one of AWS's members."""
    return _SPELLED.get(name, name[:1].lower() + name[1:])


def read_spec(spec: Mapping[str, Any], *, now: Epoch) -> Read:
    """The mapping that a spec asks for. A refusal has AWS's text where AWS has one, else the text for the configuration file."""
    try:
        if len(json.dumps(spec)) > SPEC_BYTES_MAX:
            return _refused(TOO_LARGE)
    except (RecursionError, TypeError, ValueError):
        return _refused("the spec is no JSON document")
    if _is_deep(spec):
        return _refused(TOO_DEEP)
    for name in REFERENCES:
        if spec.get(name) is not None:
            return _refused(f"spec.{name}: {NO_REFERENCE}")
    for name, aws in UNSUPPORTED.items():
        if spec.get(name) is not None:
            return _refused(f"Unsupported {aws} parameter for given event source mapping type.")
    try:
        mapping = FileMembers.model_validate(_by_aws_names(spec))
    except ValidationError as error:
        found = complaints(error, FileMembers)
        return _refused("; ".join(f"{_place(each.path)}: {each.wrong}" for each in found[:5]))
    by_aws = answer(violations(mapping, now=now, concurrency_min=FILE_CONCURRENCY_MIN, destination_urls=True))
    if by_aws is not None:
        return _refused(by_aws[1])
    errors = mapping_errors(mapping)
    if errors:
        return _refused("; ".join(f"{_place(each.path)}: {each.wrong}; {each.remedy}" for each in errors[:5]))
    own = mapping.model_dump(mode="json", exclude_unset=True, exclude_none=True, include=set(OWN))
    return Read({name: value for name, value in as_written(mapping).items() if name != "Tags"}, own)


def own_members(parameters: Mapping[str, Any], own: Mapping[str, Any]) -> FileMembers:
    """The mapping of a definition that was made of a resource. Raises pydantic's ValidationError if this version does not know it."""
    return FileMembers.model_validate({**parameters, **own})


def _is_deep(spec: Mapping[str, Any]) -> bool:
    level: list[Any] = [spec]
    for _ in range(NESTING_MAX + 1):
        inside = [each.values() if isinstance(each, Mapping) else each for each in level]
        level = [one for each in inside for one in each if isinstance(one, Mapping | list)]
    return bool(level)


def _refused(text: str) -> Read:
    return Read({}, {}, line_of(text, chars_max=MESSAGE_CHARS_MAX))


def _by_aws_names(spec: Mapping[str, Any]) -> dict[str, Any]:
    """The spec with the names of the configuration file. Unknown names stay, and are refused as the file's are."""
    return {_UUID.get(name, name): value for name, value in _renamed(spec, "").items()}


def _renamed(given: Mapping[str, Any], path: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in given.items():
        aws = _AWS_NAMES.get((path, name))
        found[aws or name] = value if aws is None else _inside(value, f"{path}{aws}")
    return found


def _inside(value: Any, path: str) -> Any:
    if isinstance(value, Mapping) and not path.endswith("Tags"):
        return _renamed(value, f"{path}.")
    if isinstance(value, list):
        return [_renamed(each, f"{path}[].") if isinstance(each, Mapping) else each for each in value]
    return value


def _place(path: tuple[int | str, ...]) -> str:
    """The place in the spec of a path in AWS's names."""
    names = {"UUID": "uuid", **dict(zip(OWN[1:], OWN[1:], strict=True))}
    text = ".".join(
        names.get(part) or ack_name(part) if isinstance(part, str) else str(part) for part in path
    )
    return cut(f"spec.{text}" if text else "spec", 200)


def _aws_names() -> dict[tuple[str, str], str]:
    found = {}
    for member in TABLE:
        if member.requests is RequestKind.NEITHER:
            continue
        path, dot, name = member.path.rpartition(".")
        if name.isalnum():
            found[path + dot, ack_name(name)] = name
    return found


_AWS_NAMES = _aws_names()
"""AWS's name of each member, by the path of what it is in and by ACK's name."""
UNSUPPORTED = {ack_name(name): name for name in refused()}
"""AWS's names of the members for sources that are not supported here, by ACK's."""
