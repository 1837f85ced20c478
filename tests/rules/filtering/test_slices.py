"""Filters that are asked of texts in slices: they answer as the whole event does, and refuse what is not JSON."""

import json

import msgspec
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from poller.rules.filtering import compile_pattern, is_light
from poller.rules.filtering.alternatives import FEW, Alternatives
from poller.rules.filtering.reading import DEPTH_MAX, NotJson, read
from poller.rules.filtering.summaries import Index
from tests.bounds.slices import finished
from tests.rules.filtering.test_properties import EVENTS, JSON, NESTED, PATTERNS, WANTED


def searched(pattern: object, event: object) -> bool:
    alternatives = Alternatives(compile_pattern(json.dumps(pattern)).branches)
    return finished(alternatives.search("", json.dumps(event), ""))


def matched(pattern: object, event: object) -> bool:
    return compile_pattern(json.dumps(pattern)).matches(event)


LEAVES = st.integers(0, 2) | st.lists(st.integers(0, 2), max_size=2)
UNTANGLED = st.recursive(
    st.dictionaries(st.sampled_from("pqr"), LEAVES, max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("pqr"), inner | LEAVES, max_size=3)
    ),
    max_leaves=8,
)
"""Events in which no field is both beside an array and in it."""


@given(st.lists(WANTED, min_size=1, max_size=3), st.dictionaries(st.sampled_from("pq"), UNTANGLED))
def test_a_text_is_answered_as_its_event(wanted: list[dict[str, list[object]]], event: object) -> None:
    pattern = {"$or": [*wanted, *wanted]}
    assert searched(pattern, event) is matched(pattern, event)


@given(WANTED, st.dictionaries(st.sampled_from("pqr"), NESTED))
def test_an_event_that_is_too_tangled_to_tell_passes(wanted: object, event: object) -> None:
    assert searched(wanted, event) or not matched(wanted, event)


@given(PATTERNS, EVENTS)
def test_no_event_that_matches_is_lost(pattern: object, event: object) -> None:
    assert searched(pattern, event) or not matched(pattern, event)


@settings(max_examples=20)
@given(st.lists(PATTERNS, min_size=FEW + 1, max_size=FEW + 3), EVENTS)
def test_many_alternatives_answer_as_each_of_them(patterns: list[object], event: dict[str, object]) -> None:
    compiled = [compile_pattern(json.dumps(pattern)) for pattern in patterns]
    branches = [branch for each in compiled for branch in each.branches]
    assert Alternatives(branches).holds(event) is any(each.matches(event) for each in compiled)


TANGLED = {"a": [1, [2], [[3]], {"b": 4}, [[[5, [6]]]]]}


@pytest.mark.parametrize(
    ("value", "expected"), [*[(each, True) for each in (1, 2, 3, 5, 6)], (4, False), (7, False)]
)
def test_one_field_is_found_wherever_it_is(value: int, expected: bool) -> None:
    assert searched({"a": [value]}, TANGLED) is expected
    assert matched({"a": [value]}, TANGLED) is expected


def test_fields_that_are_in_one_place_only_rule_out_a_tangled_event() -> None:
    assert not searched({"a": [1], "c": [1]}, TANGLED | {"c": 2})
    assert not searched({"a": [9], "a.b": [4]}, TANGLED)
    assert searched({"a": [2], "a.b": [4]}, TANGLED)
    assert not matched({"a": [2], "a.b": [4]}, TANGLED)


def test_a_repeated_key_counts_where_it_stands_last() -> None:
    def found(text: str) -> bool:
        return finished(Alternatives(compile_pattern('{"a": {"b": [1]}}').branches).search("", text, ""))

    assert found('{"a": {"b": 2}, "a": {"b": 1}}')
    assert not found('{"a": {"b": 1}, "a": {"b": 2}}')
    assert not found('{"a": {"b": 1}, "a": {}}')
    assert found('{"a": {"b": 1}, "\\u0061": 2, "a": {"\\u0062": 1}}')


def is_json(text: str) -> bool:
    try:
        finished(read(text, None, Index(())))
    except NotJson:
        return False
    return True


def parses(text: str) -> bool:
    try:
        orjson.loads(text)
    except orjson.JSONDecodeError:
        return False
    return True


PIECES = st.sampled_from(
    [
        *'[]{},:" \t\r\n0123456789-+.eE\\/',
        '"a"',
        '""',
        '"a":',
        "null",
        "true",
        "false",
        "\\n",
        "\\u00e9",
        "\x00",
        "é",
    ]
)


@given(
    st.lists(PIECES, max_size=12).map("".join) | JSON.map(json.dumps).filter(lambda text: "\\ud" not in text)
)
def test_the_reader_knows_json_as_a_parser_does(text: str) -> None:
    assert is_json(text) is parses(text) or "e" in text.lower()


@given(st.integers() | st.floats(allow_nan=False, allow_infinity=False))
def test_numbers_are_read_as_a_parser_reads_them(number: float) -> None:
    assert searched({"a": [number]}, {"a": number})


@pytest.mark.parametrize(
    "text", ['{"a": "é\\n\\"' + "x" * 70_000 + '\\u00e9"}', '{"a": "' + "é" * 70_000 + '"}']
)
def test_long_texts_are_compared_whole(text: str) -> None:
    value = json.loads(text)["a"]
    for condition in ([{"suffix": value[-20:]}], [{"anything-but": {"wildcard": ["b", "*y*"]}}]):
        pattern = compile_pattern(json.dumps({"a": condition}))
        assert finished(Alternatives(pattern.branches).search("", text, ""))
    pattern = compile_pattern(json.dumps({"a": [{"anything-but": {"prefix": ["b", value[:3]]}}]}))
    assert not finished(Alternatives(pattern.branches).search("", text, ""))


def test_json_is_read_to_a_depth_that_no_parser_reaches() -> None:
    assert is_json("[" * DEPTH_MAX + "1" + "]" * DEPTH_MAX)
    assert not is_json("[" * DEPTH_MAX + "1" + "]" * (DEPTH_MAX - 1))
    assert not is_json("[" * (DEPTH_MAX + 1) + "1" + "]" * (DEPTH_MAX + 1))


@pytest.mark.parametrize(("members", "light"), [(1, True), (400_000, False)])
def test_a_raw_part_of_an_answer_is_weighed_like_the_bytes_that_it_holds(
    members: int, *, light: bool
) -> None:
    """The images of a DynamoDB change are such parts."""
    image = b"{" + b",".join([b'"name":{"S":""}'] * members) + b',"pad":"' + b"x" * 100_000 + b'"}'
    assert is_light(image) is light
    assert is_light(msgspec.Raw(image)) is light
