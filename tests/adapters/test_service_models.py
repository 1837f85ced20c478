"""AWS's service models, walked as far as the code speaks the services, against what was decided about each member.

When a newer model has a member, a choice, a pattern or a limit that `service_decisions.txt` does not have, a test here fails:
decide what becomes of it, and write that down.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from botocore import xform_name

from poller.config.mapping import EventSourceMapping
from poller.config.members import TABLE, JsonType, Member, RequestKind, SourceGroup, document_order, requested
from tests.adapters.service_models import IN, OUT, Model, members, model, shape, shape_of, shapes_of

LIST = Path(__file__).with_name("service_decisions.txt")
ADAPTERS = Path(__file__).parents[2] / "adapters"
USED = ("read", "sent", "passed on", "answered", "refused")
UNUSED = ("not read", "not sent", "refused", "null")


SAME_NAMES = {
    ("kinesis", "DescribeStream"): "DynamoDB Streams' operation is called",
    ("kinesis", "TagResource"): "Lambda's is answered",
    ("kinesis", "UntagResource"): "Lambda's is answered",
    ("events", "TagResource"): "Lambda's is answered",
    ("events", "UntagResource"): "Lambda's is answered",
    ("sns", "TagResource"): "Lambda's is answered",
    ("sns", "UntagResource"): "Lambda's is answered",
}
"""Names that stand in the code for something else."""


@dataclass(frozen=True, slots=True)
class Section:
    """One operation one way: used members with the model's words, and unused ones."""

    used: dict[str, str]
    unused: tuple[str, ...]
    decisions: tuple[tuple[str, bool], ...]


def _sections() -> Iterator[tuple[tuple[str, str, str], Section]]:
    blocks = re.split(r"^\[(.+)\]$", LIST.read_text(), flags=re.MULTILINE)[1:]
    for names, text in zip(blocks[::2], blocks[1::2], strict=True):
        section = _section(text)
        for name in names.split(", "):
            service, operation, way = name.split()
            yield (service, operation, way), section


def _section(text: str) -> Section:
    used, unused, decisions = {}, [], []
    for line in filter(None, map(str.strip, text.splitlines())):
        left, _, decision = line.rpartition(" = ")
        path, _, says = left.partition(" (")
        decisions.append((decision, bool(says)))
        if says:
            used[path] = says.removesuffix(")")
        else:
            unused += left.split(", ")
    return Section(used, tuple(unused), tuple(decisions))


SECTIONS = dict(_sections())


@pytest.mark.parametrize("name", SECTIONS, ids=" ".join)
def test_every_member_of_the_model_is_decided_and_nothing_else(name: tuple[str, str, str]) -> None:
    section, found = SECTIONS[name], {each.path: each.says for each in members(*name)}
    for path, says in found.items():
        if not any(_below(path, each) for each in section.unused):
            assert section.used.get(path) == says, f"the model has {path} ({says}): decide, and write it down"
    gone = section.used.keys() - found.keys()
    assert not gone, "the model no longer has these"
    for path in section.unused:
        assert any(_below(each, path) for each in found), f"the model no longer has {path}"


@pytest.mark.parametrize("name", SECTIONS, ids=" ".join)
def test_every_decision_begins_with_what_becomes_of_the_member(name: tuple[str, str, str]) -> None:
    for decision, used in SECTIONS[name].decisions:
        assert decision.startswith(USED if used else UNUSED), decision


def test_every_operation_that_the_code_calls_or_answers_is_walked_both_ways() -> None:
    services = {service for service, _, _ in SECTIONS}
    text = "\n".join(
        each.read_text()
        for each in sorted(ADAPTERS.rglob("*.py"))
        if "demo" not in each.relative_to(ADAPTERS).parts
    )
    spoken = {
        (service, operation)
        for service in services
        for operation in model(service)["operations"]
        if f'"{operation}"' in text or re.search(rf"(_api|_?service|client)\.{xform_name(operation)}\(", text)
    }
    assert spoken - SAME_NAMES.keys() == {(service, operation) for service, operation, _ in SECTIONS}
    for service, operation, _ in SECTIONS:
        ways = {way for way in (IN, OUT) if shape_of(service, operation, way)}
        listed = {way for one, other, way in SECTIONS if (one, other) == (service, operation)}
        assert {way for way in ways if any(True for _ in members(service, operation, way))} <= listed


def _below(path: str, top: str) -> bool:
    return path == top or path.startswith((f"{top}.", f"{top}[", f"{top}{{"))


TYPES = {
    "string": JsonType.TEXT,
    "integer": JsonType.WHOLE,
    "boolean": JsonType.FLAG,
    "timestamp": JsonType.MOMENT,
    "list": JsonType.LIST,
    "map": JsonType.MAP,
    "structure": JsonType.OBJECT,
}
PATH = {"UUID"}
"""Stands in the path of a request, not among its members."""
OURS = {
    "ProvisionedPollerConfig.MinimumPollers": "AWS refuses 1 for queues",
    "ProvisionedPollerConfig.MaximumPollers": "AWS refuses 1 for queues",
    "ProvisionedPollerConfig.PollerGroupName": "refused at any length",
    "DestinationConfig.OnSuccess.Destination": "refused at any length",
    "StartingPositionTimestamp": "the model has no range, the service none that is known",
}
"""Members whose limits are not the model's, and why."""


def limits(path: str, found: Model) -> tuple[object, ...]:
    """Type, range, length and choices by the model, as the table has them."""
    bounds = (found.get("min", 0), found["max"]) if "max" in found else None
    number = found["type"] == "integer"
    span, length = (bounds, None) if number else (None, bounds)
    return TYPES[found["type"]], span, length, tuple(sorted(found.get("enum", ())))


def decided(member: Member) -> tuple[object, ...]:
    return member.type, member.span, member.length, tuple(sorted(member.choices))


@pytest.mark.parametrize(
    ("operation", "which"),
    [("CreateEventSourceMapping", RequestKind.CREATE), ("UpdateEventSourceMapping", RequestKind.UPDATE)],
)
def test_the_table_has_decided_about_each_member_choice_and_limit_of_a_request(
    operation: str, which: RequestKind
) -> None:
    table = {each.path: each for each in TABLE if which & each.requests}
    refused = {each.path for each in table.values() if each.top and not each.sources}
    found = {
        path: says
        for path, says in shapes_of("lambda", operation, IN)
        if path not in PATH and not any(path != each and _below(path, each) for each in refused)
    }
    assert found.keys() <= table.keys(), "the model has these: write a line for each into the table"
    assert table.keys() - found.keys() <= refused, "the model no longer has these"
    for path, says in found.items():
        if path in OURS:
            assert decided(table[path])[0] == limits(path, says)[0]
        elif path not in refused:
            assert decided(table[path]) == limits(path, says), path
    assert {
        path for path in OURS if path in found and decided(table[path]) == limits(path, found[path])
    } == set()


def test_the_document_of_a_mapping_has_the_models_members() -> None:
    assert sorted(shape("lambda", "EventSourceMappingConfiguration")["members"]) == sorted(document_order())
    places = [each.place for each in TABLE if each.place is not None]
    assert len(places) == len(set(places))


def test_a_mapping_has_an_attribute_for_each_member_of_the_table_and_no_other() -> None:
    named = {each.path for each in requested(RequestKind.CREATE) if each.top}
    assert EventSourceMapping.model_fields.keys() == named
    assert all(each.sources is not SourceGroup.NONE for each in TABLE if each.path in named)
