"""Operators and structure of the pattern language (aws-behaviour#operators, aws-behaviour#structure-of-patterns)."""

import json

import pytest

from poller.rules.filtering import compile_pattern

MISSING = object()


def holds(condition: str, value: object) -> bool:
    event = {} if value is MISSING else {"k": value}
    return compile_pattern(f'{{"k": {condition}}}').matches(event)


def matches(pattern: object, event: object) -> bool:
    return compile_pattern(json.dumps(pattern)).matches(event)


@pytest.mark.parametrize(
    ("condition", "value", "expected"),
    [
        ("[null]", None, True),
        ("[null]", "null", False),
        ("[null]", [], False),
        ("[null]", MISSING, False),
        ('[""]', "", True),
        ('[""]', None, False),
        ("[false]", False, True),
        ("[false]", True, False),
        ("[false]", 0, False),
        ("[true]", 1, False),
        ("[1]", True, False),
        ("[0]", False, False),
        ('["true"]', True, False),
        ('["a", "b"]', ["b", "c"], True),
        ('["a", "b"]', ["c", "d"], False),
        ('["a"]', [["a"]], True),
        ("[300]", 300.0, True),
        ("[300.0]", 300, True),
        ("[3e2]", 300, True),
        ("[0]", -0.0, True),
        ("[300]", "300", False),
        ('["300"]', 300, False),
        ("[9007199254740993]", 9007199254740992, True),
        ("[1e400]", 1e308, False),
    ],
)
def test_equality_is_by_type_and_numbers_are_doubles(condition: str, value: object, expected: bool) -> None:
    assert holds(condition, value) is expected


@pytest.mark.parametrize(
    ("condition", "value", "expected"),
    [
        ('[{"numeric": [">", 100]}]', 101, True),
        ('[{"numeric": [">", 100]}]', 101.0, True),
        ('[{"numeric": [">", 100]}]', 100, False),
        ('[{"numeric": [">", 100]}]', "300", False),
        ('[{"numeric": [">", 100]}]', None, False),
        ('[{"numeric": [">", 100]}]', True, False),
        ('[{"numeric": [">", 100]}]', MISSING, False),
        ('[{"numeric": ["<", 100]}]', 99, True),
        ('[{"numeric": ["<", 100]}]', 100, False),
        ('[{"numeric": ["<=", 100]}]', 100, True),
        ('[{"numeric": [">=", 100]}]', 100, True),
        ('[{"numeric": [">=", 100, "<", 200]}]', 100, True),
        ('[{"numeric": [">=", 100, "<", 200]}]', 200, False),
        ('[{"numeric": [">", 100, "<=", 200]}]', 100, False),
        ('[{"numeric": [">", 100, "<=", 200]}]', 200, True),
        ('[{"numeric": [">", 100, "<", 200]}]', 150, True),
        ('[{"numeric": [">=", 100, "<=", 200]}]', 200, True),
        ('[{"numeric": ["=", 301.8]}]', 301.8, True),
        ('[{"numeric": ["=", 3.018e2]}]', 301.8, True),
        ('[{"numeric": ["=", 301.8]}]', "301.8", False),
        ('[{"numeric": [">", 1700000000000]}]', 1767225600125, True),
        ('[{"numeric": [">", 0]}]', [-1, 1], True),
        ('[{"numeric": [">", 0]}]', 10**400, True),
    ],
)
def test_numeric_compares_numbers_only(condition: str, value: object, expected: bool) -> None:
    assert holds(condition, value) is expected


@pytest.mark.parametrize(
    ("condition", "value", "expected"),
    [
        ('[{"prefix": "us-"}]', "us-1", True),
        ('[{"prefix": "us-"}]', "eu-1", False),
        ('[{"prefix": "1"}]', 12, False),
        ('[{"prefix": ""}]', "anything", True),
        ('[{"prefix": ""}]', "", True),
        ('[{"prefix": ""}]', None, False),
        ('[{"suffix": ""}]', "anything", True),
        ('[{"suffix": ".png"}]', "image.png", True),
        ('[{"suffix": ".PNG"}]', "image.png", False),
        ('[{"prefix": {"equals-ignore-case": "EventB"}}]', "EvEnTbridge", True),
        ('[{"prefix": {"equals-ignore-case": "EventB"}}]', "EvEnTridge", False),
        ('[{"suffix": {"equals-ignore-case": ".png"}}]', "image.PNG", True),
        ('[{"suffix": {"equals-ignore-case": ".png"}}]', "image.PNGs", False),
        ('[{"suffix": {"equals-ignore-case": ".png"}}]', "g", False),
        ('[{"suffix": {"equals-ignore-case": ""}}]', "image", True),
        ('[{"equals-ignore-case": "x y"}]', "X Y", True),
        ('[{"equals-ignore-case": "x y"}]', ["a", "X Y"], True),
        ('[{"equals-ignore-case": "x y"}]', "x  y", False),
        ('[{"equals-ignore-case": ""}]', "", True),
        ('[{"equals-ignore-case": ""}]', "a", False),
        ('[{"equals-ignore-case": "é"}]', "É", True),
        ('[{"equals-ignore-case": "é"}]', "e", False),
        ('[{"equals-ignore-case": "straße"}]', "STRASSE", True),
        ('[{"suffix": {"equals-ignore-case": "aße"}}]', "STRASSE", True),
        ('[{"equals-ignore-case": "strasse"}]', "straße", False),
        ('[{"equals-ignore-case": "k"}]', "\u212a", False),
        ('[{"equals-ignore-case": "\u212a"}]', "k", True),
        ('[{"equals-ignore-case": "a.c"}]', "abc", False),
        ('[{"exactly": "a"}]', "a", True),
        ('[{"exactly": "a"}]', "A", False),
    ],
)
def test_text_operators_compare_text_only(condition: str, value: object, expected: bool) -> None:
    assert holds(condition, value) is expected


@pytest.mark.parametrize(
    ("wildcard", "value", "expected"),
    [
        ("/Users/*/doc.txt", "/Users/a/b/doc.txt", True),
        ("/Users/*/doc.txt", "/Users/a/notdoc.txt", False),
        ("/Users/*/doc.txt", "/Users//doc.txt", True),
        ("/Users/*/doc.txt", "/Users/doc.txt", False),
        ("", "", True),
        ("", "a", False),
        ("*", "", True),
        ("*", "line\nbreak", True),
        ("a*", "a", True),
        ("*a", "ba", True),
        ("*a*", "bab", True),
        ("*a*", "bb", False),
        ("a*b*c", "abbc", True),
        ("a*b*c", "acb", False),
        ("a*a", "a", False),
        ("*ab*ab*", "abab", True),
        ("*ab*ab*", "abxb", False),
        ("*.*.*.5", "10.0.0.5", True),
        (r"x\*y", "x*y", True),
        (r"x\*y", "xzy", False),
        (r"a\\b", r"a\b", True),
        (r"a\\*", r"a\bc", True),
        (r"*\**", "a*b", True),
        (r"*\**", "ab", False),
        ("*", 12, False),
        ("*", None, False),
    ],
)
def test_a_star_stands_for_any_text(wildcard: str, value: object, expected: bool) -> None:
    assert holds(json.dumps([{"wildcard": wildcard}]), value) is expected


@pytest.mark.parametrize(
    ("operand", "value", "expected"),
    [
        ("init", "init", False),
        ("init", "other", True),
        ("init", None, True),
        ("init", 12, True),
        ("init", True, True),
        ("init", MISSING, False),
        ("init", [], False),
        ("init", {}, False),
        ("init", ["init"], False),
        ("init", ["init", "other"], True),
        ("", "", False),
        (["a", "b"], "c", True),
        (["a", "b"], "a", False),
        ([100, 200], 999, True),
        ([100, 200], 100, False),
        ([100, 200], 100.0, False),
        ([100, 200], "100", True),
        (100, 100, False),
        (100, None, True),
        (0, 0, False),
        (0, False, True),
        ({"prefix": "init"}, "post-init", True),
        ({"prefix": "init"}, "init-x", False),
        ({"prefix": "init"}, 12, True),
        ({"prefix": "init"}, None, True),
        ({"prefix": "init"}, MISSING, False),
        ({"prefix": ["init", "pre"]}, "pre-x", False),
        ({"suffix": [".txt", ".jpg"]}, "a.txt.bak", True),
        ({"suffix": [".txt", ".jpg"]}, "a.jpg", False),
        ({"suffix": ".txt"}, "a.txt", False),
        ({"equals-ignore-case": "initializing"}, "INITIALIZING", False),
        ({"equals-ignore-case": ["initializing", "stopped"]}, "Running", True),
        ({"equals-ignore-case": ["initializing", "stopped"]}, "Stopped", False),
        ({"wildcard": "*/init/*"}, "dir/init/file", False),
        ({"wildcard": "*/init/*"}, "dir/post/file", True),
        ({"wildcard": "*/init/*"}, 123, True),
        ({"wildcard": ["*/init/*", "*/pre/*"]}, "dir/pre/file", False),
        ({"wildcard": "*"}, "anything", False),
    ],
)
def test_anything_but_wants_a_value_and_takes_every_other(
    operand: object, value: object, expected: bool
) -> None:
    assert holds(json.dumps([{"anything-but": operand}]), value) is expected


@pytest.mark.parametrize(
    ("condition", "value", "expected"),
    [
        ('[{"exists": true}]', "a", True),
        ('[{"exists": true}]', "", True),
        ('[{"exists": true}]', None, True),
        ('[{"exists": true}]', False, True),
        ('[{"exists": true}]', {"inner": 1}, False),
        ('[{"exists": true}]', {}, False),
        ('[{"exists": true}]', [], False),
        ('[{"exists": true}]', [{}], False),
        ('[{"exists": true}]', [{}, 1], True),
        ('[{"exists": true}]', MISSING, False),
        ('[{"exists": false}]', MISSING, True),
        ('[{"exists": false}]', {"inner": 1}, True),
        ('[{"exists": false}]', [], True),
        ('[{"exists": false}]', "a", False),
        ('[{"exists": false}]', None, False),
        ('["a", {"exists": false}]', MISSING, True),
        ('["a", {"exists": false}]', "a", True),
        ('["a", {"exists": false}]', "b", False),
        ('[{"exists": false}, {"exists": true}]', "b", True),
    ],
)
def test_only_leaves_exist(condition: str, value: object, expected: bool) -> None:
    assert holds(condition, value) is expected


@pytest.mark.parametrize(
    ("condition", "value", "expected"),
    [
        ('[{"cidr": "10.0.0.0/24"}]', "10.0.0.255", True),
        ('[{"cidr": "10.0.0.0/24"}]', "10.0.0.256", False),
        ('[{"cidr": "10.0.0.0/24"}]', "10.0.1.0", False),
        ('[{"cidr": "10.0.0.0/24"}]', 123, False),
        ('[{"cidr": "10.0.0.0/24"}]', "10.0.0", False),
        ('[{"cidr": "10.0.0.77/24"}]', "10.0.0.1", True),
        ('[{"cidr": "0.0.0.0/0"}]', "255.255.255.255", True),
        ('[{"cidr": "10.0.0.4/31"}]', "10.0.0.5", True),
        ('[{"cidr": "10.0.0.4/31"}]', "10.0.0.6", False),
        ('[{"cidr": "10.0.0.0/24"}]', "::ffff:a00:5", True),
        ('[{"cidr": "10.0.0.0/24"}]', "a00:5::", False),
        ('[{"cidr": "2001:db8:1234:1a00::/64"}]', "2001:0db8:1234:1a00:0000:0000:0000:0001", True),
        ('[{"cidr": "2001:db8:1234:1a00::/64"}]', "2001:db8:1234:1a01::1", False),
        ('[{"cidr": "2001:db8:1234:1a00::/64"}]', "2001:db8:1234:1a00::1::2", False),
        ('["10.0.0.5"]', "10.0.0.5", True),
        ('["10.0.0.5"]', "010.0.0.5", True),
        ('["10.0.0.5"]', "10.0.0.6", False),
        ('["::1"]', "0:0:0:0:0:0:0:1", True),
        ('["10.0.0.256"]', "10.0.0.256", True),
        ('[{"anything-but": "10.0.0.5"}]', "10.0.0.5", False),
        ('[{"cidr": "10.1.0.0/16"}, {"prefix": "10.0."}]', "10.0.0.5", True),
        ('[{"cidr": "10.1.0.0/16"}, {"anything-but": "10.0.0.5"}]', "10.0.0.5", False),
        ('[{"cidr": "10.0.0.0/24"}, {"numeric": [">", 5]}]', "10.0.0.5", True),
    ],
)
def test_addresses_compare_as_addresses(condition: str, value: object, expected: bool) -> None:
    assert holds(condition, value) is expected


@pytest.mark.parametrize(
    ("pattern", "event", "expected"),
    [
        ({"a": {"b": [1]}}, {"a": {"b": 1, "c": 2}}, True),
        ({"a": [1], "b": [2]}, {"a": 1, "b": 3}, False),
        ({"a": [1]}, {"A": 1}, False),
        ({"a": [{"prefix": "x"}, {"numeric": [">", 1]}]}, {"a": 2}, True),
        ({"a": {"b": [{"exists": False}]}}, {}, True),
        ({"a": {"b": [{"exists": False}]}}, {"a": 1}, True),
        ({"a.b": [1]}, {"a": {"b": 1}}, True),
        ({"a": {"b": [1]}}, {"a.b": 1}, True),
        ({"a.b": [1]}, {"a.b": 1}, True),
        ({"a": {"b": {"c": [1]}}}, {"a": {"b.c": 1}}, True),
        ({"a": {"b": {"c": [1]}}}, {"a.b": {"c": 1}}, True),
        ({"a.b": {"b": [1]}}, {"a": {"b": 1}}, False),
        ({"a": {"b": [1]}}, {"a.b": {"b": 1}}, False),
        ({"a": {"b": [1]}}, {"a.b": 1, "a": {"b": 2}}, True),
        ({"a": {"b": [{"exists": False}]}}, {"a.b": 1}, False),
        ({"": [1]}, {"": 1}, True),
        ({"a": {"": [1]}}, {"a": {"": 1}}, True),
        ({"a": ['{"b": 1}']}, {"a": '{"b": 1}'}, True),
        ({"a": {"b": [1]}}, {"a": '{"b": 1}'}, False),
        ({"list": {"id": [{"exists": True}]}}, {"list": [{"x": 1}, {"id": 2}]}, True),
        ({"a": [1]}, [1], False),
        ({"a": [1]}, "a", False),
        ({"a": [1]}, None, False),
    ],
)
def test_paths_are_keys_joined_by_dots(pattern: object, event: object, expected: bool) -> None:
    assert matches(pattern, event) is expected


@pytest.mark.parametrize(
    ("pattern", "event", "expected"),
    [
        ({"l": {"a": [1], "b": [2]}}, {"l": [{"a": 1, "b": 2}]}, True),
        ({"l": {"a": [1], "b": [2]}}, {"l": [{"a": 1}, {"b": 2}]}, False),
        ({"l": {"a": [1], "b": [2]}}, {"l": [{"a": 1, "b": 3}, {"a": 1, "b": 2}]}, True),
        ({"l": {"a": [1], "m": {"b": [2]}}}, {"l": [{"a": 1, "m": [{"b": 1}, {"b": 2}]}]}, True),
        ({"l": {"m": {"a": [1], "b": [2]}}}, {"l": [{"m": [{"a": 1}, {"b": 2}]}]}, False),
        ({"l": {"m": {"a": [1], "b": [2]}}}, {"l": [{"m": {"a": 1}}, {"m": {"b": 2}}]}, False),
        ({"l": {"a": [1]}, "m": {"b": [2]}}, {"l": [{"a": 1}, {}], "m": [{}, {"b": 2}]}, True),
        ({"l": {"a": [1], "b": [2]}}, {"l": [[{"a": 1}], [{"b": 2}]]}, False),
        ({"l": {"a": [1], "b": [2]}}, {"l": {"a": [0, 1], "b": [2, 3]}}, True),
        ({"l": {"a": [1], "b": [{"exists": False}]}}, {"l": [{"a": 1}, {"b": 2}]}, True),
        ({"l": {"a": [{"exists": False}], "b": [2]}}, {"l": [{"a": 1}, {"b": 2}]}, False),
        ({"l": {"a": [1], "b": [2]}}, {"l": [{"a": 1}], "l.b": 2}, True),
        ({"l": {"a": [1], "b": [2]}}, {"l": [{"a": 1}, {"b": 2}], "l.b": 3}, False),
        ({"l": {"a": [1], "b": [2]}}, {"l": [{"a": 1}, {"b": 3}], "l.b": 2}, True),
    ],
)
def test_conditions_under_one_array_are_met_by_one_element(
    pattern: object, event: object, expected: bool
) -> None:
    assert matches(pattern, event) is expected


@pytest.mark.parametrize(
    ("pattern", "event", "expected"),
    [
        ({"$or": [{"a": [1]}, {"b": [2]}]}, {"a": 1}, True),
        ({"$or": [{"a": [1]}, {"b": [2]}]}, {"b": 2}, True),
        ({"$or": [{"a": [1]}, {"b": [2]}]}, {"a": 2, "b": 1}, False),
        ({"c": [3], "$or": [{"a": [1]}, {"b": [2]}]}, {"a": 1}, False),
        ({"c": [3], "$or": [{"a": [1]}, {"b": [2]}]}, {"a": 1, "c": 3}, True),
        ({"o": {"$or": [{"a": [1]}, {"b": [2]}]}}, {"o": {"b": 2}}, True),
        ({"o": {"$or": [{"a": [1]}, {"b": [2]}]}}, {"b": 2}, False),
        ({"$or": [{"a": [1]}, {"b": [2], "$or": [{"c": [3]}, {"d": [4]}]}]}, {"b": 2, "d": 4}, True),
        ({"$or": [{"a": [1]}, {"b": [2], "$or": [{"c": [3]}, {"d": [4]}]}]}, {"b": 2}, False),
        (
            {"p": {"$or": [{"a": [1]}, {"b": [2]}]}, "$or": [{"c": [3]}, {"d": [4]}]},
            {"p": {"a": 1}, "d": 4},
            True,
        ),
        ({"a": [1], "$or": [{"a": [2]}, {"b": [2]}]}, {"a": 2}, True),
        ({"$or": {"a": [1]}}, {"$or": {"a": 1}}, True),
        ({"$or": ["x"]}, {"$or": "x"}, True),
        ({"$or": [{"prefix": "x"}, {"suffix": "y"}]}, {"$or": "xa"}, True),
        ({"a": {"$or": {"b": [1]}}}, {"a": {"$or": {"b": 1}}}, True),
    ],
)
def test_or_multiplies_branches_and_is_a_key_where_it_cannot(
    pattern: object, event: object, expected: bool
) -> None:
    assert matches(pattern, event) is expected


@pytest.mark.parametrize(
    ("text", "event", "expected"),
    [
        ('{"a": ["x"], "a": ["y"]}', {"a": "y"}, True),
        ('{"a": ["x"], "a": ["y"]}', {"a": "x"}, False),
        ('{"a": {"b": [1]}, "a.b": [2]}', {"a": {"b": 2}}, True),
        ('{"a": {"b": [1]}, "a": {"c": [2]}}', {"a": {"b": 1, "c": 2}}, True),
        ('{"a": {"b": [1]}, "a": {"c": [2]}}', {"a": {"c": 2}}, False),
    ],
)
def test_a_repeated_key_overrides_at_its_leaf(text: str, event: object, expected: bool) -> None:
    assert compile_pattern(text).matches(event) is expected


def test_long_arrays_are_joined_and_not_multiplied() -> None:
    pattern = compile_pattern('{"l": {"a": [{"exists": true}], "b": [{"exists": true}], "c": ["last"]}}')
    elements: list[object] = [{"a": n, "b": n, "c": n} for n in range(20_000)]
    assert not pattern.matches({"l": elements})
    assert pattern.matches({"l": [*elements, {"a": 1, "b": 2, "c": "last"}]})


def test_arrays_nested_deeper_than_calls_may_be_are_walked() -> None:
    deep: object = "x"
    for _ in range(5_000):
        deep = [deep]
    assert holds('["x"]', deep)


def test_a_pattern_knows_its_top_level_keys() -> None:
    pattern = compile_pattern('{"data.kind": ["a"], "$or": [{"partitionKey": ["p"]}, {"x": {"y": [1]}}]}')
    assert pattern.fields == {"data", "partitionKey", "x"}


def test_a_pattern_may_be_given_as_bytes() -> None:
    assert compile_pattern('{"k": ["é"]}'.encode()).matches({"k": "é"})
