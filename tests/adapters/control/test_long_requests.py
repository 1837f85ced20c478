"""Requests of a megabyte, made of as many values as fit: all are answered, and no step of the loop is long."""

import json
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import pytest

from adapters.control.aws_errors import RequestRejected
from adapters.control.mappings.request_members import CREATE, VALUES_MAX, read
from adapters.control.responses import BODY_BYTES_MAX
from adapters.control.settings import ApiSettings
from poller.config.members import ENTRIES_MAX, TABLE, JsonType, Member
from poller.config.violations import VIOLATIONS_MAX
from poller.domain.mapping_api import ApiError, MappingView
from poller.domain.records import Epoch, MappingId
from poller.runtime.mappings import api_requests
from tests.adapters.control.mapping_control import MappingModel
from tests.adapters.control.serving import Running, Setting, serving
from tests.bounds.growth import assert_linear
from tests.bounds.loop_steps import longest_step

ROOT = "/2015-03-31/event-source-mappings"
ID = "0f4b8a5e-8b0c-4a56-9c0e-0d7d6b0c2b11"
TAGS = f"/2017-03-31/tags/arn%3Aaws%3Alambda%3Aeu-west-1%3A111122223333%3Aevent-source-mapping%3A{ID}"
ON_QUEUE = {"FunctionName": "reader", "EventSourceArn": "arn:aws:sqs:eu-west-1:111122223333:orders"}
JSON = {"Content-Type": "application/json"}
NOW = Epoch(1_767_225_600.0)
STEP_S_MAX = 0.05
TRIES = 3
"""A step that is really long is long each time."""
KEY_CHARS = 10

LONG = [each for each in TABLE if each.type in {JsonType.LIST, JsonType.MAP}]
"""All members with entries, those of other kinds of sources too. A new line of the table comes here by itself."""
ITEMS = {
    "empty texts": '""',
    "nulls": "null",
    "numbers": "1",
    "lists": "[]",
    "objects": "{}",
    "filters": '{"Pattern":""}',
    "long texts": f'"{"x" * 1100}"',
    "long filters": f'{{"Pattern":"{"x" * 1100}"}}',
}


class ValidatingModel(MappingModel):
    """Refuses the requests that a daemon refuses."""

    async def create(self, request: Mapping[str, Any]) -> MappingView:
        api_requests.created_by(request, now=NOW)
        return await super().create(request)

    async def update(self, mapping: MappingId, request: Mapping[str, Any]) -> MappingView:
        api_requests.updated_by(self._found(mapping).parameters, request, now=NOW)
        return await super().update(mapping, request)

    async def tag(self, mapping: MappingId, tags: Mapping[str, str]) -> None:
        api_requests.with_tags(self._found(mapping).tags, tags)
        await super().tag(mapping, tags)


def body(member: Member, item: str, entries: int) -> bytes:
    """A request in which a member has so many entries."""
    if member.type is JsonType.MAP:
        inner = "{" + ",".join(f'"{number:0{KEY_CHARS - 3}x}":{item}' for number in range(entries)) + "}"
    else:
        inner = "[" + ",".join([item] * entries) + "]"
    for name in reversed(member.path.split(".")):
        inner = f'{{"{name}":{inner}}}'
    given = "".join(f'"{name}":"{value}",' for name, value in ON_QUEUE.items())
    return f"{{{given}{inner[1:]}".encode()


def fitting(member: Member, item: str) -> int:
    """How many entries a body has room for."""
    each = len(item) + 1 + (KEY_CHARS if member.type is JsonType.MAP else 0)
    return (BODY_BYTES_MAX - 400) // each


def longest_step_s(sent: bytes) -> float:
    """The longest step of the loop while a body is sent to each operation that has one."""
    model = ValidatingModel(ids=[ID])

    async def use(run: Running) -> float:
        await run.ask("POST", ROOT, json=ON_QUEUE)
        with longest_step() as longest:
            for method, path in (("POST", ROOT), ("PUT", f"{ROOT}/{ID}"), ("POST", TAGS)):
                status, text, _ = await run.ask(method, path, data=sent, headers=JSON)
                assert status < 500, text
        return longest.seconds

    return serving(use, Setting(api=ApiSettings(allow_unauthenticated=True), control=model, tags=model))


@pytest.mark.parametrize("item", ITEMS.values(), ids=ITEMS)
@pytest.mark.parametrize("member", LONG, ids=lambda each: each.path)
def test_entries_of_a_megabyte_are_answered_in_short_steps(member: Member, item: str) -> None:
    fit = fitting(member, item)
    for entries in {fit, min(fit, VALUES_MAX // 3), min(fit, ENTRIES_MAX)}:
        sent = body(member, item, entries)
        assert len(sent) <= BODY_BYTES_MAX
        assert any(longest_step_s(sent) < STEP_S_MAX for _ in range(TRIES)), entries


UNKNOWN = {
    "names": "{" + ",".join(f'"{number:x}":1' for number in range(100_000)) + "}",
    "nested lists": f'{{"x":[{",".join(["[" * 900 + "]" * 900] * 570)}]}}',
    "nested objects": f'{{"x":[{",".join([chr(123) + (chr(34) * 2 + ":{") * 900 + "}" * 901] * 200)}]}}',
    "one number": f'{{"x":{"1" * 1_000_000}}}',
    "one text of escapes": '{"x":"' + "\\u0001" * 170_000 + '"}',
}


@pytest.mark.parametrize("text", UNKNOWN.values(), ids=UNKNOWN)
def test_unknown_members_of_a_megabyte_are_answered_in_short_steps(text: str) -> None:
    assert len(text) <= BODY_BYTES_MAX
    assert any(longest_step_s(text.encode()) < STEP_S_MAX for _ in range(TRIES))


@pytest.mark.parametrize("member", LONG, ids=lambda each: each.path)
def test_the_time_of_a_refusal_grows_with_the_entries_at_most(member: Member) -> None:
    def refuse(sent: bytes) -> None:
        with suppress(ApiError, RequestRejected):
            api_requests.created_by(read(sent, CREATE), now=NOW)

    assert_linear(refuse, lambda entries: body(member, '""', entries), VALUES_MAX // 12)


def refusal(**members: Any) -> str:
    """The text with which a create request is refused."""
    with pytest.raises(ApiError) as refused:
        api_requests.created_by(read(json.dumps(ON_QUEUE | members).encode(), CREATE), now=NOW)
    return refused.value.text


OF_SET = "failed to satisfy constraint: Member must satisfy enum value set: [ReportBatchItemFailures]"
AT_MOST = "failed to satisfy constraint: Member must have length less than or equal to"


def test_an_ordinary_request_has_all_violations_in_its_text() -> None:
    at = "at 'functionResponseTypes'"
    assert refusal(FunctionResponseTypes=["a", "b"]) == (
        f"3 validation errors detected: Value 'a' {at} {OF_SET}; Value 'b' {at} {OF_SET}; Value '[a, b]' {at} {AT_MOST} 1"
    )
    assert refusal(FunctionResponseTypes=[""] * 100).startswith("101 validation errors detected: ")


def test_more_violations_than_an_answer_has_room_for_are_not_looked_for() -> None:
    text = refusal(FunctionResponseTypes=[""] * ENTRIES_MAX)
    assert text.startswith(f"{VIOLATIONS_MAX} or more validation errors detected: ")
    assert text.count("Value ''") == VIOLATIONS_MAX


@pytest.mark.parametrize(
    ("members", "field", "most"),
    [
        ({"FunctionResponseTypes": [None] * 1001}, "functionResponseTypes", 1),
        ({"MetricsConfig": {"Metrics": ["EventCount"] * 1001}}, "metricsConfig.metrics", 3),
        ({"FilterCriteria": {"Filters": [{}] * 1001}}, "filterCriteria.filters", ENTRIES_MAX),
        ({"Tags": {str(number): "" for number in range(1001)}}, "tags", ENTRIES_MAX),
    ],
)
def test_too_many_entries_are_refused_by_their_number_alone(
    members: dict[str, Any], field: str, most: int
) -> None:
    assert refusal(**members) == f"1 validation error detected: Value at '{field}' {AT_MOST} {most}"


def test_all_members_at_their_longest_have_fewer_values_than_a_body_may() -> None:
    texts = [each for each in TABLE if each.type is JsonType.TEXT and each.length is not None]
    many = {
        "FilterCriteria.Filters[].Pattern": 5,
        "Tags{key}": api_requests.TAGS_MAX,
        "Tags{}": api_requests.TAGS_MAX,
    }
    longest = sum(each.length[1] * many.get(each.path, 1) for each in texts if each.length)
    assert longest + 1_000 < VALUES_MAX
