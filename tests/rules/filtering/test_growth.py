"""What filters take: linear in the payload and in the pattern, with no slice that stands the event loop still."""

import base64
import gc
import json
import time
from collections.abc import Callable
from functools import partial

import pytest

from poller.rules.filtering import Filter, InvalidPattern, compile_pattern
from poller.rules.filtering.alternatives import Alternatives
from poller.rules.filtering.parsing import CONDITIONS_MAX, FIELDS_MAX
from poller.rules.filtering.reading import NotJson
from tests.bounds.growth import assert_linear, cost
from tests.bounds.slices import answered, finished, longest_slice

SLICE_S_MAX = 0.05
PATTERN_CHARS_MAX = 4_096

ONE = ['{"data": {"a": [2]}}']
TWO = ['{"data": {"a": {"x": [2], "y": [{"exists": false}]}}}']
BOTH = ['{"data": {"a": [2], "a.x": [1, {"exists": false}]}}']
HEAVY = [json.dumps({"data": {"a": [{"anything-but": {"wildcard": ["*b*", "*c*c*"] * 100}}]}})]
MANY = [
    json.dumps(
        {
            "data": {
                "$or": [{"a": {"x": [n]}} for n in range(30)],
                "b": {"$or": [{"y": [n]} for n in range(30)]},
            }
        }
    )
]


def filling(unit: str, before: str = "", after: str = "") -> Callable[[int], str]:
    """Payloads of so many characters of one unit."""

    def made(size: int) -> str:
        units = ",".join([unit] * max(1, size // (len(unit) + 1)))
        return f'{{"a":{before}[{units}]{after}}}'

    return made


def nested(opening: str, closing: str, inner: str = "1") -> Callable[[int], str]:
    def made(size: int) -> str:
        depth = size // (len(opening) + len(closing))
        return '{"a":' + opening * depth + inner + closing * depth + "}"

    return made


def deep_and_wide(size: int) -> str:
    """A thousand arrays in each other, and as many small ones in the innermost as fit."""
    return filling("[1]", "[" * 1_000, "]" * 1_000)(size)


def staircase(size: int) -> str:
    """Elements at every depth."""
    return nested("[[1],[1],[1],", "]", "[1]")(size)


def texts(unit: str) -> Callable[[int], str]:
    return lambda size: json.dumps({"a": unit * (size // len(unit))})


PAYLOADS: dict[str, Callable[[int], str]] = {
    "deep and wide": deep_and_wide,
    "staircase": staircase,
    "small arrays": filling("[1]"),
    "empty arrays": filling("[]"),
    "empty objects": filling("{}"),
    "objects": filling('{"x":1}'),
    "objects that differ": lambda size: json.dumps({"a": [{"xyz"[n % 3]: n} for n in range(size // 12)]}),
    "mixed": filling('1,[1],{"x":1}'),
    "mixed at every depth": nested('[1,{"x":1},', "]"),
    "numbers": filling("1"),
    "words": filling('"abc"'),
    "objects in each other": nested('{"a":', "}"),
    "arrays in each other": nested("[", "]"),
    "keys": lambda size: json.dumps({f"{n:x}": 0 for n in range(size // 12)} | {"a": 1}),
    "one text": texts("ab"),
    "escapes": texts('"\n'),
    "digits": lambda size: '{"a":' + "1" * size + "}",
    "colons": texts(":"),
    "blanks": lambda size: '{"a":' + " " * size + "1}",
    "not JSON": lambda size: filling("[1]")(size) + "]",
    "text": lambda size: "ab" * (size // 2),
}


def parsed(patterns: list[str]) -> Callable[[str], bool]:
    """Asks as mappings do, of payloads that are short enough to be parsed."""
    criteria = Filter.of(patterns, "kinesis")
    assert criteria is not None

    def answer(payload: str) -> bool:
        data = base64.b64encode(payload.encode()).decode()
        return answered(criteria.matches_kinesis("k", "1", 0.0, data))

    return answer


def read(patterns: list[str]) -> Callable[[str], bool]:
    """Asks as mappings do where a payload is too long for that."""
    alternatives = Alternatives([branch for text in patterns for branch in compile_pattern(text).branches])

    def answer(payload: str) -> bool:
        try:
            return finished(alternatives.search("{}", payload, "data"))
        except NotJson:
            return False

    return answer


@pytest.mark.parametrize("payload", PAYLOADS.values(), ids=PAYLOADS)
def test_four_times_the_payload_takes_four_times_as_long(payload: Callable[[int], str]) -> None:
    for patterns in (TWO, BOTH):
        assert_linear(read(patterns), payload, 4 * 1024)


def test_a_thousand_arrays_around_many_take_milliseconds() -> None:
    payload = deep_and_wide(122_000)
    assert parsed(['{"data": {"a": [1]}}'])(payload)
    assert not parsed(ONE)(payload)
    found = cost(parsed(['{"data": {"a": [1]}}']), deep_and_wide, 30_000)
    assert found.seconds < 1
    assert found.peak_bytes < 3_000_000


@pytest.mark.parametrize("payload", PAYLOADS.values(), ids=PAYLOADS)
def test_no_slice_is_long(payload: Callable[[int], str]) -> None:
    data = base64.b64encode(payload(SIZE).encode()).decode()
    for patterns in (BOTH, HEAVY, MANY):
        # What is really long is long each time; a busy machine is not.
        assert min(slice_s(patterns, data) for _ in range(2)) < SLICE_S_MAX


def slice_s(patterns: list[str], data: str) -> float:
    """The longest slice of one answer."""
    criteria = Filter.of(patterns, "kinesis")
    assert criteria is not None
    began = time.thread_time()
    answer = criteria.matches_kinesis("k", "1", 0.0, data)
    first_s = time.thread_time() - began
    return first_s if isinstance(answer, bool) else max(first_s, longest_slice(answer)[1])


SIZE = 72 * 1024


def conditions(condition: Callable[[int], object]) -> Callable[[int], str]:
    return lambda size: json.dumps({"a": [condition(n) for n in range(size)]})


PATTERN_FAMILIES: dict[str, tuple[Callable[[int], str], int]] = {
    "values": (conditions(lambda n: f"v{n}"), 1_000),
    "addresses": (conditions(lambda n: f"10.0.{n % 200}.1"), 500),
    "ranges": (conditions(lambda n: {"numeric": [">", n, "<", n + 1]}), 250),
    "wildcards": (conditions(lambda n: {"wildcard": f"*{n}*{n}*"}), 250),
    "ignoring case": (
        lambda size: json.dumps({"a": [{"suffix": {"equals-ignore-case": "ß" * size}}]}),
        1_000,
    ),
    "fields": (lambda size: json.dumps({f"{n:x}": [1] for n in range(size)}), FIELDS_MAX // 4),
    "dots": (lambda size: json.dumps({"." * size: [1]}), 1_000),
    "objects": (lambda size: '{"a":' * size + "[1]" + "}" * size, 25),
    "alternatives": (lambda size: json.dumps({"$or": [{f"{n:x}": [n]} for n in range(size)]}), 200),
    "alternatives in each other": (lambda size: '{"$or":[{"c":[1]},' * size + '{"a":[1]}' + "]}" * size, 30),
}


@pytest.mark.parametrize(("make", "size"), PATTERN_FAMILIES.values(), ids=PATTERN_FAMILIES)
def test_four_times_the_pattern_takes_four_times_as_long(make: Callable[[int], str], size: int) -> None:
    assert_linear(compile_pattern, make, size)


@pytest.mark.parametrize(("make", "size"), PATTERN_FAMILIES.values(), ids=PATTERN_FAMILIES)
@pytest.mark.parametrize("value", ["ß" * 3_000, ["1"] * 100], ids=["text", "texts"])
def test_four_times_the_pattern_answers_within_four_times_as_long(
    make: Callable[[int], str], size: int, value: object
) -> None:
    def compiled(size: int) -> Callable[[object], bool]:
        return compile_pattern(make(size)).matches

    assert_linear(lambda matches: matches({"a": value}), compiled, size // 4)


def refused(text: str) -> str:
    with pytest.raises(InvalidPattern) as invalid:
        compile_pattern(text)
    return invalid.value.reason


FIELDS = ",".join(f'"{n:x}": [1]' for n in range(200))
PRODUCT = ",".join(
    f'"$or": [{",".join(f"""{{"{key}{n}": [1]}}""" for n in range(10))}]' for key in ("x", "y", "z")
)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('{"$or": [' * 400 + '{"a": [1]}, {"b": [1]}' + "]}" * 400, "deeper than 300"),
        ('{"a": [{"numeric": ' + "[" * 2000 + "]" * 2000 + "}]}", "deeper than 300"),
        (f"{{{FIELDS}, {PRODUCT}}}", f"more than {CONDITIONS_MAX} fields"),
        (f"{{{PRODUCT}, {FIELDS}}}", f"more than {CONDITIONS_MAX} fields"),
        (f'{{"a": [{{"numeric": ["=", {"9" * 4_000}]}}]}}', "beyond the range"),
    ],
    ids=["alternatives", "operand", "fields first", "fields last", "digits"],
)
def test_a_pattern_that_would_take_long_is_refused_at_once(text: str, reason: str) -> None:
    assert reason in refused(text)


def test_any_pattern_is_compiled_within_a_step() -> None:
    for text in (
        json.dumps({"." * 4_080: [1]}),
        json.dumps({"a": [{"suffix": {"equals-ignore-case": "ß" * 4_000}}]}, ensure_ascii=False),
        "{" + PRODUCT + "," + FIELDS[: FIELDS.index('"1c"') - 1] + "}",
        '{"a":' * 95 + json.dumps({"$or": [{f"{n}": [1]} for n in range(255)]}) + "}" * 95,
    ):
        assert len(text) <= PATTERN_CHARS_MAX
        assert seconds(partial(compile_pattern, text)) < SLICE_S_MAX * 2


def seconds(work: Callable[[], object]) -> float:
    """The least CPU time of three tries, without the garbage collector, which goes through all objects of the test run."""
    found = []
    gc.disable()
    try:
        for _ in range(3):
            began = time.thread_time()
            work()
            found.append(time.thread_time() - began)
    finally:
        gc.enable()
    return min(found)
