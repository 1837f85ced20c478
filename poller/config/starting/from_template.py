"""Owns what of a template becomes a configuration: members that are resolved and right, and a mark for each of the others."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

from pydantic import ValidationError

from poller.config.members import TABLE, JsonType, Member
from poller.config.settings import MAPPINGS_MAX, FileMapping, FileMembers
from poller.config.starting.draft import Draft, MappingDraft, MemberMark
from poller.config.starting.functions import NUMBER_MAX, function_draft, missing_of
from poller.config_errors.error_messages import Layer, complaints, lines
from poller.domain.arns import FunctionName
from poller.domain.errors import InvalidConfiguration
from poller.domain.untrusted.numbers import whole
from poller.rules.templates.cloudformation import find
from poller.rules.templates.found import FoundFunction, FoundInTemplate, FoundMapping
from poller.rules.templates.serverless import find_serverless, is_serverless
from poller.rules.templates.values import Given, InvalidTemplate, unresolved_in

REASONS_MAX = 5
"""How many reasons a template without a mapping is refused with."""
ROUNDS_MAX = 10
"""How often a mapping is checked; each round leaves out what was wrong."""
MEMBERS = frozenset(
    {each.path for each in TABLE if each.top and each.requests and each.sources} | {"KmsKeyArn"}
)
_TOP: Mapping[str, Member] = {each.path: each for each in TABLE if each.top}
_FLAGS = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}


@dataclass(frozen=True, slots=True)
class CarriedTemplate:
    """The draft of a file, and one line for each thing that was not carried over; `skipped` says what is no mapping here."""

    draft: Draft
    left: tuple[str, ...]
    skipped: tuple[str, ...]


def from_template(template: dict[str, Any], given: Given, *, place: PurePath, store: str) -> CarriedTemplate:
    """The configuration that a template gives. `place` is the path of its file. Raises InvalidConfiguration."""
    try:
        finder = find_serverless if is_serverless(template) else find
        found = finder(template, given, MEMBERS)
    except InvalidTemplate as error:
        raise InvalidConfiguration([f"{place}: {error}"]) from None
    if len(found.mappings) > MAPPINGS_MAX:
        raise InvalidConfiguration([f"{place}: more than {MAPPINGS_MAX} mappings; split it"])
    if not found.mappings:
        reasons = [*found.unread, *found.left_out][:REASONS_MAX]
        seen = "; ".join(reasons) or "no event source mapping of Kinesis, DynamoDB Streams or SQS"
        raise InvalidConfiguration([f"{place}: nothing to carry over: {seen}"])
    drafts = [_mapping(each) for each in found.mappings]
    functions = _functions(found, drafts)
    entries = [function_draft(each, _folder(place)) for each in functions]
    left = [
        *found.unread,
        *(line for each, entry in zip(functions, entries, strict=True) for line in missing_of(each, entry)),
        *(line for each, entry in zip(found.mappings, drafts, strict=True) for line in _left(each, entry)),
    ]
    region = given.region or (found.region if isinstance(found.region, str) else "")
    draft = Draft(
        store=store,
        region=region,
        functions=entries,
        mappings=drafts,
        comments=[
            f"Written by `poller init --from-template {place.name}`; `poller check` says what is missing."
        ],
    )
    return CarriedTemplate(draft, tuple(left), tuple(found.left_out))


def _functions(found: FoundInTemplate, drafts: list[MappingDraft]) -> list[FoundFunction]:
    """The functions that the mappings name, in the order of the mappings."""
    names = [_bare(each.members.get("FunctionName")) for each in drafts]
    return [found.functions[name] for name in dict.fromkeys(names) if name in found.functions]


def _folder(place: PurePath) -> str:
    """The folder of the template, empty if it is the current one."""
    folder = str(place.parent)
    return "" if folder == "." else folder


def _bare(text: object) -> str:
    try:
        return FunctionName.parse(text).name if isinstance(text, str) else ""
    except ValueError:
        return ""


def _left(mapping: FoundMapping, draft: MappingDraft) -> Iterator[str]:
    for mark in draft.marks:
        yield f"{mapping.place}.{mark.member}: {mark.why} ({mark.written})"
    for name in mapping.unknown:
        yield f"{mapping.place}.{name}: no member of a mapping here"


def _mapping(found: FoundMapping) -> MappingDraft:
    """A mapping with the members that are resolved and right. What is wrong is marked, as is what is not known."""
    members: dict[str, Any] = {}
    marks: list[MemberMark] = []
    for name, value in found.members.items():
        missing = next(unresolved_in(value), None)
        if missing is None:
            members[name] = _plain(name, value)
        else:
            marks.append(MemberMark(name, missing.written, missing.why))
    marks += _wrong(members)
    comments = [
        found.place,
        *found.notes,
        *(f"{name}: no member of a mapping here" for name in found.unknown),
    ]
    return MappingDraft(members=members, marks=marks, comments=comments)


def _plain(name: str, value: Any) -> Any:
    """A value in the form in which a file has it: templates have numbers and flags as texts, too."""
    match value:
        case dict():
            return {each: _nested(inner) for each, inner in value.items()}
        case str() if name in _TOP and _TOP[name].type is JsonType.FLAG:
            return _FLAGS.get(value.lower(), value)
        case str() if name in _TOP and _TOP[name].type is JsonType.WHOLE:
            return _nested(value)
        case int() if name in _TOP and _TOP[name].type is JsonType.TEXT and not isinstance(value, bool):
            return str(value)
        case str() if name == "FunctionResponseTypes":
            return [value]
        case _:
            return value


def _nested(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    return whole(value, least=-NUMBER_MAX, most=NUMBER_MAX, default=value)


def _wrong(members: dict[str, Any]) -> Iterator[MemberMark]:
    """Takes out of `members` what the loader would refuse, with a mark for each."""
    for _ in range(ROUNDS_MAX):
        found = list(_errors(members))
        if not found:
            return
        for name, text in found:
            if name in members:
                yield MemberMark(name, str(members.pop(name)), text)


def _errors(members: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """The top member of each error in a mapping, and its text. A mapping without a source is checked as far as that goes."""
    model = FileMapping if "EventSourceArn" in members else FileMembers
    filled = {"FunctionName": "x", **members}
    try:
        model.model_validate(filled)
    except ValidationError as error:
        for complaint in complaints(error, model):
            text = lines([complaint], [Layer("mapping", filled)])[0]
            yield str(complaint.path[0]).partition(".")[0], text.removeprefix("mapping: ")
