"""What makes a pattern invalid on AWS (aws-behaviour#invalid-patterns), and our own limits."""

import json

import pytest

from poller.rules.filtering import InvalidPattern, compile_pattern


def reason_of(text: str | bytes) -> str:
    with pytest.raises(InvalidPattern) as caught:
        compile_pattern(text)
    assert str(caught.value) == "Invalid filter pattern definition."
    return caught.value.reason


@pytest.mark.parametrize("text", ["null", "[]", "1", "true", '"eventSource"', '[{"a": [1]}]'])
def test_a_pattern_is_an_object(text: str) -> None:
    assert reason_of(text) == "Filter is not an object"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "eventSource",
        '{"a": [1]',
        '{"a": [1]} x',
        '{"a": [1],}',
        "{'a': [1]}",
        '{"a": [NaN]}',
        '{"a": [Infinity]}',
        '{"a": [01]}',
        '{"a": ["\n"]}',
        b'{"a": ["\xff"]}',
        "[" * 100_000,
    ],
)
def test_a_pattern_is_strict_json(text: str | bytes) -> None:
    assert reason_of(text).startswith("Filter is not JSON")


@pytest.mark.parametrize(
    ("pattern", "reason"),
    [
        ({}, "Empty objects are not allowed"),
        ({"a": {}}, "Empty objects are not allowed"),
        ({"a": []}, "Empty arrays are not allowed"),
        ({"eventSource": "aws:sqs"}, '"eventSource" must be an object or an array'),
        ({"k": 1}, '"k" must be an object or an array'),
        ({"k": None}, '"k" must be an object or an array'),
        ({"k": {"l": True}}, '"l" must be an object or an array'),
        ({"k": [[1]]}, "Match value must be String, number, true, false, or null"),
        ({"k": [{}]}, "Match expression name not found"),
        ({"k": [{"X": 1}]}, "Unrecognized match type X"),
        ({"k": [{"Prefix": "a"}]}, "Unrecognized match type Prefix"),
        ({"k": [{"prefix": "a", "suffix": "b"}]}, "Only one key allowed in match expression"),
        ({"k": [{"exactly": 1}]}, "exact match pattern must be a string"),
        ({"k": [{"prefix": 1}]}, "prefix match pattern must be a string"),
        ({"k": [{"prefix": ["a"]}]}, "prefix match pattern must be a string"),
        ({"k": [{"suffix": None}]}, "suffix match pattern must be a string"),
        ({"k": [{"prefix": {"wildcard": "a"}}]}, "Unsupported prefix pattern: wildcard"),
        ({"k": [{"prefix": {}}]}, "Prefix expression name not found"),
        ({"k": [{"suffix": {"equals-ignore-case": 1}}]}, "equals-ignore-case match pattern must be a string"),
        ({"k": [{"equals-ignore-case": ["a"]}]}, "equals-ignore-case match pattern must be a string"),
        ({"k": [{"wildcard": 1}]}, "wildcard match pattern must be a string"),
        ({"k": [{"wildcard": "a**b"}]}, "Consecutive wildcard characters at pos 2"),
        ({"k": [{"wildcard": "a\\b"}]}, "Invalid escape character at pos 2"),
        ({"k": [{"wildcard": "a\\"}]}, "Invalid escape character at pos 2"),
        ({"k": [{"exists": "true"}]}, "exists match pattern must be either true or false."),
        ({"k": [{"exists": None}]}, "exists match pattern must be either true or false."),
    ],
)
def test_shape_and_operands_are_checked(pattern: object, reason: str) -> None:
    assert reason_of(json.dumps(pattern)) == reason


@pytest.mark.parametrize("wildcard", ["*:*:*:*:*:event-bus/*", "*a*a*a*a*a*"])
def test_a_wildcard_with_many_stars_is_too_complex(wildcard: str) -> None:
    assert reason_of(json.dumps({"k": [{"wildcard": wildcard}]})).startswith("Rule is too complex - ")


@pytest.mark.parametrize(
    ("numeric", "reason"),
    [
        (5, "Value of numeric must be an array."),
        ({">": 1}, "Value of numeric must be an array."),
        ([], "Invalid member in numeric match: ]"),
        ([1], "Invalid member in numeric match: 1"),
        (["!", 1], "Unrecognized numeric range operator: !"),
        (["<"], "Value of < must be numeric"),
        (["<", "1"], "Value of < must be numeric"),
        ([">", True], "Value of > must be numeric"),
        (["="], "Value of equals must be numeric"),
        (["=", None], "Value of equals must be numeric"),
        (["=", 1, 2], "Too many elements in numeric expression"),
        (["<", 1, ">", 0], "Too many elements in numeric expression"),
        ([">", 1, ">", 2], "Bad numeric range operator: >"),
        ([">", 1, "=", 2], "Bad numeric range operator: ="),
        ([">", 1, 2], "Bad value in numeric range: 2"),
        ([">", 1, "<"], "Value of < must be numeric"),
        ([">", 1, "<", "2"], "Value of < must be numeric"),
        ([">", 1, "<", 2, 3], "Too many terms in numeric range expression"),
        ([">", 2, "<", 1], "Bottom must be less than top"),
        ([">=", 1, "<=", 1], "Bottom must be less than top"),
    ],
)
def test_numeric_is_one_comparison_or_a_range(numeric: object, reason: str) -> None:
    assert reason_of(json.dumps({"k": [{"numeric": numeric}]})) == reason


NEITHER = "Value of anything-but must be an array or single string/number value."
LIST = "Inside anything but list, start|null|boolean is not supported."
MIXED = "Inside anything but list, either all values are number or string, mixed type is not supported"
IGNORE_CASE = "Inside anything-but/equals-ignore-case list, number|start|null|boolean is not supported."


@pytest.mark.parametrize(
    ("operand", "reason"),
    [
        (None, NEITHER),
        (True, NEITHER),
        ({"prefix": None}, NEITHER),
        ({"prefix": {"equals-ignore-case": "a"}}, NEITHER),
        ([None], LIST),
        (["a", True], LIST),
        ([["a"]], LIST),
        (["a", 1], MIXED),
        ([], MIXED),
        ({}, "Anything-But expression name not found"),
        ({"prefix": "a", "suffix": "b"}, "Only one key allowed in match expression"),
        ({"numeric": [">", 1]}, "Unsupported anything-but pattern: numeric"),
        ({"prefix": ""}, "Null prefix/suffix not allowed"),
        ({"suffix": ["a", ""]}, "Null prefix/suffix not allowed"),
        ({"prefix": 1}, "prefix/suffix match pattern must be a string"),
        ({"suffix": [1]}, "prefix/suffix match pattern must be a string"),
        ({"suffix": []}, "Empty arrays are not allowed"),
        ({"equals-ignore-case": [1]}, IGNORE_CASE),
        ({"equals-ignore-case": 1}, IGNORE_CASE),
        ({"wildcard": 1}, "wildcard match pattern must be a string"),
        ({"wildcard": "a**"}, "Consecutive wildcard characters at pos 2"),
    ],
)
def test_anything_but_takes_texts_or_numbers(operand: object, reason: str) -> None:
    assert reason_of(json.dumps({"k": [{"anything-but": operand}]})) == reason


@pytest.mark.parametrize(
    ("cidr", "reason"),
    [
        (["10.0.0.0/24"], "prefix match pattern must be a string"),
        ("10.0.0.0", "Malformed CIDR, one '/' required"),
        ("10.0.0.0/24/1", "Malformed CIDR, one '/' required"),
        ("10.0.0.0/a", "Malformed CIDR, mask bits must be an integer"),
        ("10.0.0.0/", "Malformed CIDR, mask bits must be an integer"),
        ("10.0.0.0/99999999999", "Malformed CIDR, mask bits must be an integer"),
        ("10.0.0.0/-1", "Malformed CIDR, mask bits must not be negative"),
        ("10.0.0.0/32", "IPv4 mask bits must be < 32"),
        ("::1/128", "IPv6 mask bits must be < 128"),
        ("10.0.0/24", "Nonstandard IP address: 10.0.0"),
        ("10.0.0.256/24", "Nonstandard IP address: 10.0.0.256"),
        ("1::2::3/64", "Nonstandard IP address: 1::2::3"),
        ("host/24", "Nonstandard IP address: host"),
        ("/24", "Nonstandard IP address: "),
    ],
)
def test_cidr_is_an_address_and_a_mask(cidr: object, reason: str) -> None:
    assert reason_of(json.dumps({"k": [{"cidr": cidr}]})) == reason


@pytest.mark.parametrize(
    ("or_value", "reason"),
    [
        ([{"a": [1]}], "There must have at least 2 Objects in $or relationship."),
        ([], "There must have at least 2 Objects in $or relationship."),
        ([{"a": [1]}, "b"], "Only JSON object is allowed in array of $or relationship."),
        ([{"a": [1]}, {}], "Empty objects are not allowed"),
        ([{"a": [1]}, {"numeric": [1]}], "numeric is a reserved name which cannot be used inside $or"),
        ([{"a": [1]}, {"a": {"prefix": ["x"]}}], "prefix is a reserved name which cannot be used inside $or"),
        ("a", "It must be an Array followed with $or."),
    ],
)
def test_or_joins_two_objects_or_more(or_value: object, reason: str) -> None:
    assert reason_of(json.dumps({"$or": or_value})) == reason


def test_an_operand_beyond_a_double_cannot_be_compared() -> None:
    for operator in ('{"numeric": [">", 1e400]}', '{"anything-but": 1e400}', '{"anything-but": [1e400]}'):
        assert reason_of(f'{{"k": [{operator}]}}').startswith("Cannot compare number")


def test_what_alternatives_multiply_to_is_bounded() -> None:
    two = [{"a": [1]}, {"b": [1]}]
    allowed = {f"k{n}": {"$or": two} for n in range(9)}
    compile_pattern(json.dumps(allowed))
    assert "multiply" in reason_of(json.dumps(allowed | {"k9": {"$or": two}}))
    nested = [
        {"a": {"$or": [{f"c{n}": [1]} for n in range(600)]}},
        {"b": {"$or": [{f"d{n}": [1]} for n in range(600)]}},
    ]
    assert "multiply" in reason_of(json.dumps({"$or": nested}))


def test_fields_and_depth_are_bounded() -> None:
    compile_pattern(json.dumps({f"k{n}": [1] for n in range(256)}))
    assert reason_of(json.dumps({f"k{n}": [1] for n in range(257)})) == "More than 256 fields"
    assert reason_of('{"a":' * 200 + "[1]" + "}" * 200) == "Objects are nested deeper than 100"
