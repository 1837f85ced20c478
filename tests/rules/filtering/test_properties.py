"""Laws that hold for any pattern and any event."""

import json
from itertools import product

from hypothesis import given
from hypothesis import strategies as st

from poller.commands.filter import explain_command
from poller.rules.filtering import Filter, InvalidPattern, compile_pattern, explain
from poller.rules.filtering.addresses import AddressSet, parse_address, parse_cidr
from tests.bounds.slices import answered

KEYS = st.sampled_from(["a", "b", "c", "a.b", "", "body"])
NUMBERS = st.sampled_from([0, 1, -1, 5, 5.0, 0.1, 1e300, 10**30])
TEXTS = st.sampled_from(["", "a", "A", "ab", "é", "É", "x*y", "10.0.0.5", "::1", "1", "null", "\ud800"])
SCALARS = st.none() | st.booleans() | NUMBERS | TEXTS
JSON = st.recursive(
    SCALARS | st.text(max_size=30) | st.integers() | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(KEYS | st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=8,
)
EVENTS = st.dictionaries(KEYS, JSON, max_size=4)


def one_key(name: str, operand: st.SearchStrategy[object]) -> st.SearchStrategy[object]:
    return operand.map(lambda value: {name: value})


SOME_TEXT = TEXTS.filter(bool)
CONDITIONS: st.SearchStrategy[object] = st.one_of(
    SCALARS,
    one_key("prefix", TEXTS | one_key("equals-ignore-case", TEXTS)),
    one_key("suffix", TEXTS | one_key("equals-ignore-case", TEXTS)),
    one_key("equals-ignore-case", TEXTS),
    one_key("wildcard", st.sampled_from(["*", "a*", "*b", "x\\*y", "*0*", ""])),
    one_key("exists", st.booleans()),
    one_key("numeric", st.tuples(st.sampled_from(["=", "<", "<=", ">", ">="]), NUMBERS)),
    one_key("cidr", st.sampled_from(["10.0.0.0/24", "::/64", "0.0.0.0/0"])),
    one_key("anything-but", TEXTS | NUMBERS | st.lists(TEXTS, min_size=1) | st.lists(NUMBERS, min_size=1)),
    one_key(
        "anything-but", one_key("prefix", SOME_TEXT) | one_key("suffix", st.lists(SOME_TEXT, min_size=1))
    ),
    one_key("anything-but", one_key("wildcard", st.just("*a*")) | one_key("equals-ignore-case", TEXTS)),
)
LEAVES = st.lists(CONDITIONS, min_size=1, max_size=3)
PATTERNS = st.recursive(
    st.dictionaries(KEYS, LEAVES, min_size=1, max_size=3),
    lambda inner: (
        st.dictionaries(KEYS, LEAVES | inner, min_size=1, max_size=3)
        | st.lists(inner, min_size=2, max_size=3).map(lambda alternatives: {"$or": alternatives})
    ),
    max_leaves=6,
)


ADDRESSES = st.sampled_from(
    ["10.0.0.5", "10.0.255.255", "11.0.0.0", "0.0.0.0", "255.255.255.255", "::1", "a"]
) | (st.ip_addresses().map(str))
RANGES = st.lists(
    st.tuples(ADDRESSES.filter(lambda text: parse_address(text) is not None), st.integers(0, 31)), max_size=8
)


@given(RANGES, ADDRESSES)
def test_a_set_of_ranges_holds_an_address_if_one_of_them_does(
    ranges: list[tuple[str, int]], text: str
) -> None:
    found = [parse_cidr(f"{address}/{mask}") for address, mask in ranges]
    address = parse_address(text)
    assert AddressSet(found).holds(text) == (address is not None and any(address in each for each in found))


@given(PATTERNS, JSON)
def test_a_compiled_pattern_answers_any_json(pattern: object, event: object) -> None:
    compiled = compile_pattern(json.dumps(pattern))
    assert compiled.matches(event) in (True, False)


def refusal(text: str | bytes) -> InvalidPattern | None:
    """What compiling says against a text, if anything; any other error than InvalidPattern escapes."""
    try:
        compile_pattern(text)
    except InvalidPattern as invalid:
        return invalid
    return None


@given(JSON.map(json.dumps) | st.text() | st.binary())
def test_any_text_is_a_pattern_or_an_invalid_pattern_with_a_reason(text: str | bytes) -> None:
    invalid = refusal(text)
    assert invalid is None or (str(invalid) == "Invalid filter pattern definition." and invalid.reason)


@given(PATTERNS, JSON | EVENTS)
def test_the_explanation_agrees_with_the_answer(pattern: object, event: object) -> None:
    compiled = compile_pattern(json.dumps(pattern))
    explanation = explain(compiled, event)
    assert explanation.matched is compiled.matches(event)
    assert bool(explanation.failures) is not explanation.matched


@given(PATTERNS, JSON, st.sampled_from([None, "kinesis", "dynamodb", "sqs", "other"]))
def test_the_command_answers_with_a_status_and_a_text(
    pattern: object, event: object, source: str | None
) -> None:
    status, text = explain_command(json.dumps(pattern), json.dumps(event), source)
    assert status in (0, 1, 2)
    assert text


@given(st.lists(PATTERNS, min_size=1, max_size=3), EVENTS)
def test_a_filter_passes_what_any_of_its_patterns_passes(
    patterns: list[object], event: dict[str, object]
) -> None:
    texts = [json.dumps(pattern) for pattern in patterns]
    joined = Filter.of(texts, "dynamodb")
    each = [Filter.of([text], "dynamodb") for text in texts]
    assert joined is not None
    assert answered(joined.matches_dynamodb(event)) is any(
        answered(one.matches_dynamodb(event)) for one in each if one is not None
    )


@given(LEAVES, LEAVES, EVENTS)
def test_values_in_one_array_are_alternatives(left: list[object], right: list[object], event: object) -> None:
    def holds(leaf: list[object]) -> bool:
        return compile_pattern(json.dumps({"a": leaf})).matches(event)

    assert holds(left + right) is (holds(left) or holds(right))


@given(PATTERNS, PATTERNS, EVENTS)
def test_or_is_the_disjunction_of_its_objects(left: object, right: object, event: object) -> None:
    def holds(pattern: object) -> bool:
        return compile_pattern(json.dumps(pattern)).matches(event)

    assert holds({"$or": [left, right]}) is (holds(left) or holds(right))


@given(LEAVES, LEAVES, st.dictionaries(KEYS, SCALARS | st.lists(SCALARS, max_size=3)))
def test_keys_are_conjoined_where_no_array_joins_them(
    left: list[object], right: list[object], event: object
) -> None:
    def holds(pattern: object) -> bool:
        return compile_pattern(json.dumps(pattern)).matches(event)

    assert holds({"a": left, "b": right}) is (holds({"a": left}) and holds({"b": right}))


@given(PATTERNS.filter(lambda pattern: "$or" not in json.dumps(pattern)), EVENTS)
def test_the_order_of_keys_does_not_matter(pattern: object, event: object) -> None:
    compiled = compile_pattern(json.dumps(without_repeated_paths(pattern)))
    mirrored = compile_pattern(json.dumps(backwards(without_repeated_paths(pattern))))
    assert compiled.matches(event) is mirrored.matches(backwards(event))


def without_repeated_paths(pattern: object) -> object:
    """The pattern with dotted keys renamed; two spellings of one path override by order, which is another rule."""
    if isinstance(pattern, dict):
        return {key.replace(".", "-"): without_repeated_paths(value) for key, value in pattern.items()}
    return pattern


def backwards(value: object) -> object:
    """The same JSON with the members of every object written in the opposite order."""
    if isinstance(value, dict):
        return {key: backwards(value[key]) for key in reversed(value)}
    return [backwards(item) for item in value] if isinstance(value, list) else value


ELEMENTS = st.dictionaries(
    st.sampled_from("pqr"), st.integers(0, 2) | st.lists(st.integers(0, 2), max_size=2)
)
NESTED = st.recursive(
    ELEMENTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("pqr"), inner, max_size=3),
    max_leaves=8,
)
WANTED = st.dictionaries(
    st.sampled_from(["p", "q", "r", "p.p", "p.q", "q.p", "q.q", "q.r"]),
    st.sampled_from([[0], [1], [2], [{"exists": True}], [{"exists": False}], [1, {"exists": False}]]),
    min_size=1,
    max_size=4,
)


@given(WANTED, st.dictionaries(st.sampled_from("lm"), NESTED, min_size=1))
def test_array_consistency_is_that_of_trying_every_choice(
    wanted: dict[str, list[object]], event: object
) -> None:
    pattern = {f"l.{path}": leaf for path, leaf in wanted.items()} | {"m.p": [0, 1, {"exists": False}]}
    leaves = list(flatten(event, "", ()))
    assert compile_pattern(json.dumps(pattern)).matches(event) is any_choice(
        sorted(pattern.items()), leaves, {}
    )


Spot = tuple[tuple[str, int], ...]
Found = tuple[str, object, Spot]


def flatten(value: object, path: str, spot: Spot) -> list[Found]:
    """Each leaf of an event with its path and the array elements that it stands in."""
    if isinstance(value, dict):
        return [
            found
            for key, inner in value.items()
            for found in flatten(inner, f"{path}.{key}" if path else key, spot)
        ]
    if not isinstance(value, list):
        return [(path, value, spot)]
    name = f"{path}@{spot}"
    inside = [
        (*spot, (name, index)) if isinstance(item, dict | list) else spot for index, item in enumerate(value)
    ]
    return [found for item, where in zip(value, inside, strict=True) for found in flatten(item, path, where)]


def any_choice(wanted: list[tuple[str, list[object]]], leaves: list[Found], chosen: dict[str, int]) -> bool:
    """Try for each field in turn every leaf that agrees with those chosen before, or its absence."""
    if not wanted:
        return True
    (path, leaf), *rest = wanted
    agreeing = [
        (value, spot)
        for at, value, spot in leaves
        if at == path and all(chosen.get(k, i) == i for k, i in spot)
    ]
    if not agreeing:
        return {"exists": False} in leaf and any_choice(rest, leaves, chosen)
    return any(
        (value in leaf or {"exists": True} in leaf) and any_choice(rest, leaves, chosen | dict(spot))
        for value, spot in agreeing
    )


def test_every_pair_of_choices_under_two_arrays_is_tried() -> None:
    for a, b in product(range(3), range(3)):
        event = {"l": [{"p": n, "q": n} for n in range(3)], "m": [{"p": n} for n in range(3)]}
        pattern = json.dumps({"l": {"p": [a], "q": [a]}, "m": {"p": [b]}})
        assert compile_pattern(pattern).matches(event)
