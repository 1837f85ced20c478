"""One line in the table of members is all that a new member of AWS's needs to be read, checked, shown and described."""

from typing import Any

import pytest
from pydantic import create_model

from adapters.control.aws_errors import RequestRejected
from adapters.control.mappings import mapping_document, request_members
from adapters.control.openapi import lambda_paths
from poller.config import aws_validation, member_rules
from poller.config.mapping import EventSourceMapping, Whole
from poller.config.members import (
    TABLE,
    JsonType,
    Member,
    RequestKind,
    SourceGroup,
    document_order,
    requested,
    with_defaults,
)
from poller.domain.mapping_api import MappingView
from poller.domain.records import Epoch, MappingId
from poller.domain.rows import MappingState

STREAM = "arn:aws:kinesis:eu-west-1:111122223333:stream/orders"
QUEUE = "arn:aws:sqs:eu-west-1:111122223333:orders"
NEW = Member(
    "Patience", JsonType.WHOLE, SourceGroup.STREAMS, span=(1, 5), defaults={SourceGroup.STREAMS: 3}, place=155
)
MORE = (*TABLE, NEW)
Extended: Any = create_model("Extended", __base__=EventSourceMapping, Patience=(Whole | None, None))
"""The attribute that the engine reads."""


def refused(monkeypatch: pytest.MonkeyPatch, source: str, patience: object) -> list[tuple[str, str]]:
    for module in (aws_validation, member_rules):
        monkeypatch.setattr(module, "TABLE", MORE)
    position = {"StartingPosition": "LATEST"} if source == STREAM else {}
    mapping = Extended(FunctionName="f", EventSourceArn=source, Patience=patience, **position)
    return [(each.field, each.text) for each in aws_validation.violations(mapping, now=Epoch(0.0))]


def view(source: str, parameters: dict[str, Any]) -> MappingView:
    return MappingView(
        mapping=MappingId("a"),
        parameters={"EventSourceArn": source, **parameters},
        function_arn="arn:aws:lambda:eu-west-1:111122223333:function:f",
        state=MappingState.ENABLED,
        reason="",
        last_modified=Epoch(0.0),
    )


def test_a_new_member_is_read_from_requests_by_its_type() -> None:
    for kind in (RequestKind.CREATE, RequestKind.UPDATE):
        structure = request_members.structure(requested(kind, MORE))
        assert request_members.read(b'{"Patience": 4}', structure) == {"Patience": 4}
        with pytest.raises(RequestRejected, match="STRING_VALUE can not be converted to an Integer"):
            request_members.read(b'{"Patience": "4"}', structure)


def test_a_new_member_has_its_range(monkeypatch: pytest.MonkeyPatch) -> None:
    constraint = (
        "Value '6' at 'patience' failed to satisfy constraint: Member must have value less than or equal to 5"
    )
    assert refused(monkeypatch, STREAM, 6) == [("Patience", constraint)]
    assert refused(monkeypatch, STREAM, 5) == refused(monkeypatch, STREAM, None) == []


def test_a_new_member_is_refused_where_the_source_does_not_take_it(monkeypatch: pytest.MonkeyPatch) -> None:
    text = "Unsupported Patience parameter for given event source mapping type."
    assert refused(monkeypatch, QUEUE, 5) == [("Patience", text)]
    assert refused(monkeypatch, QUEUE, None) == []


def test_a_new_member_has_its_default_where_the_source_takes_it() -> None:
    assert with_defaults({}, SourceGroup.STREAMS, MORE)["Patience"] == 3
    assert with_defaults({"Patience": 5}, SourceGroup.STREAMS, MORE)["Patience"] == 5
    assert "Patience" not in with_defaults({}, SourceGroup.QUEUES, MORE)


def test_a_new_member_has_its_place_in_the_document() -> None:
    shown = mapping_document.mapping(view(STREAM, {"Patience": 4}), MORE)
    order = [name for name in shown if name != "Patience"]
    assert shown["Patience"] == 4
    assert list(shown).index("Patience") == list(shown).index("BatchSize") + 1
    assert order == list(document_order())
    assert mapping_document.mapping(view(QUEUE, {"Patience": 4}), MORE)["Patience"] is None


def test_a_new_member_stands_in_openapi() -> None:
    schemas = lambda_paths.schemas(MORE)
    for name in ("CreateRequest", "UpdateRequest", "Mapping"):
        assert schemas[name]["properties"]["Patience"] == {
            "type": ["integer", "null"],
            "minimum": 1,
            "maximum": 5,
        }
    assert "Patience" not in str(lambda_paths.schemas())
