"""Owns the conditions of a pattern on one value (aws-behaviour#operators), and the predicate that they compile to.

A value is a JSON scalar. Arrays and objects are split into scalars before. The conditions in a pattern's array are
alternatives: one of them must hold.
"""

from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from poller.rules.filtering.addresses import AddressRange, AddressSet, parse_address

Scalar = str | int | float | bool | None
Test = Callable[[object], bool]
"""Whether one scalar satisfies a field. It accepts any object and never raises."""
TextTest = Callable[[str], bool]
NumberTest = Callable[[float], bool]
type Slices[T] = Generator[None, None, T]
"""Work in slices: each `next` does a piece of work of a few milliseconds. The generator returns the result."""


class TextKind(StrEnum):
    """The operators that compare text, with the words of the pattern language."""

    PREFIX = "prefix"
    SUFFIX = "suffix"
    WILDCARD = "wildcard"
    IGNORE_CASE = "equals-ignore-case"
    PREFIX_IGNORE_CASE = "prefix equals-ignore-case"
    SUFFIX_IGNORE_CASE = "suffix equals-ignore-case"


@dataclass(frozen=True, slots=True)
class Literal:
    """The value is exactly this text, boolean or null."""

    value: str | bool | None


@dataclass(frozen=True, slots=True)
class NumberIs:
    """A number with this double value, in any notation."""

    value: float


@dataclass(frozen=True, slots=True)
class NumberBetween:
    """A number in a range. A missing bound is infinite; an open bound is not part of the range."""

    low: float
    high: float
    low_open: bool
    high_open: bool


@dataclass(frozen=True, slots=True)
class InRange:
    """A text that is an IP address in a range (`cidr`, or a literal address in the pattern)."""

    addresses: AddressRange


@dataclass(frozen=True, slots=True)
class TextCondition:
    """One text operator. `operand` is as in the pattern, with the escapes of a wildcard."""

    kind: TextKind
    operand: str


@dataclass(frozen=True, slots=True)
class Exists:
    """The key has a value that is neither an object nor an empty array."""


@dataclass(frozen=True, slots=True)
class Absent:
    """The key has no value that `Exists` accepts. This is decided by the structure, never by a value."""


@dataclass(frozen=True, slots=True)
class NotLiterals:
    """Any value except these texts."""

    values: frozenset[str]


@dataclass(frozen=True, slots=True)
class NotNumbers:
    """Any value except these numbers."""

    values: frozenset[float]


@dataclass(frozen=True, slots=True)
class NotTexts:
    """Any value for which none of the text operators holds."""

    texts: tuple[TextCondition, ...]


Not = NotLiterals | NotNumbers | NotTexts
Condition = (
    Literal
    | NumberIs
    | NumberBetween
    | InRange
    | TextCondition
    | Exists
    | Absent
    | NotLiterals
    | NotNumbers
    | NotTexts
)


def compile_test(conditions: Sequence[Condition]) -> Test:
    """A predicate that is true for a scalar if any of the conditions holds."""
    if any(isinstance(condition, Exists) for condition in conditions):
        return _always
    literals = _plain_literals(conditions)
    if literals is not None:
        return literals.__contains__
    ranges = [condition.addresses for condition in conditions if isinstance(condition, InRange)]
    texts = [_text_test(condition) for condition in conditions if not isinstance(condition, InRange)]
    return _by_type(
        text=_any_of([*texts, AddressSet(ranges).holds] if ranges else texts),
        number=_any_of([_number_test(condition) for condition in conditions]),
        true=any(_holds_for(condition, True) for condition in conditions),
        false=any(_holds_for(condition, False) for condition in conditions),
        null=any(_holds_for(condition, None) for condition in conditions),
    )


def weight_of(conditions: Sequence[Condition]) -> int:
    """How many comparisons a test makes at most; at least one."""
    return sum(len(each.texts) if isinstance(each, NotTexts) else 1 for each in conditions)


class LongTest:
    """The predicate of `compile_test` for a text of megabytes. It makes one comparison in each slice."""

    def __init__(self, conditions: Sequence[Condition]) -> None:
        self._conditions = conditions

    def __call__(self, text: str) -> Slices[bool]:
        """Whether any of the conditions holds."""
        for condition in self._conditions:
            yield
            if isinstance(condition, Exists):
                return True
            if isinstance(condition, NotTexts):
                if not (yield from _one_of(condition.texts, text)):
                    return True
            elif (test := _text_test(condition)) is not None and test(text):
                return True
        return False


def _one_of(texts: Sequence[TextCondition], text: str) -> Slices[bool]:
    for each in texts:
        yield
        if compile_text(each)(text):
            return True
    return False


def _always(_: object) -> bool:
    return True


def _plain_literals(conditions: Sequence[Condition]) -> frozenset[object] | None:
    """The set of accepted values, if a set lookup is enough. Booleans prevent that, because they equal 0 and 1 in Python."""
    values = [c.value for c in conditions if isinstance(c, Literal) and not isinstance(c.value, bool)]
    return frozenset(values) if len(values) == len(conditions) else None


def _by_type(*, text: TextTest, number: NumberTest, true: bool, false: bool, null: bool) -> Test:
    def test(value: object) -> bool:
        if isinstance(value, str):
            return text(value)
        if value is None:
            return null
        if value is True:
            return true
        if value is False:
            return false
        return isinstance(value, int | float) and number(double(value))

    return test


def double(value: float) -> float:
    """The IEEE double nearest to a JSON number; infinite if the number is beyond a double's range."""
    try:
        return float(value)
    except OverflowError:
        return float("inf") if value > 0 else float("-inf")


def _holds_for(condition: Condition, constant: bool | None) -> bool:
    """Whether a condition holds for true, false or null."""
    if isinstance(condition, Literal):
        return condition.value is constant
    return isinstance(condition, Not)


def _any_of[T](tests: Iterable[Callable[[T], bool] | None]) -> Callable[[T], bool]:
    useful = tuple(test for test in tests if test is not None)
    if len(useful) == 1:
        return useful[0]
    return lambda value: any(test(value) for test in useful)


def _number_test(condition: Condition) -> NumberTest | None:
    match condition:
        case NumberIs(expected):
            return lambda number: number == expected
        case NumberBetween():
            return _between(condition)
        case NotNumbers(values):
            return lambda number: number not in values
        case NotLiterals() | NotTexts():
            return lambda _: True
        case _:
            return None


def _between(condition: NumberBetween) -> NumberTest:
    low, high = condition.low, condition.high
    match condition.low_open, condition.high_open:
        case True, True:
            return lambda number: low < number < high
        case True, False:
            return lambda number: low < number <= high
        case False, True:
            return lambda number: low <= number < high
        case _:
            return lambda number: low <= number <= high


def _text_test(condition: Condition) -> TextTest | None:
    match condition:
        case Literal(str(expected)):
            return lambda text: text == expected
        case TextCondition():
            return compile_text(condition)
        case InRange(addresses):
            return lambda text: (address := parse_address(text)) is not None and address in addresses
        case NotLiterals(values):
            return lambda text: text not in values
        case NotTexts(texts):
            positive = _any_of([compile_text(text) for text in texts])
            return lambda text: not positive(text)
        case NotNumbers():
            return lambda _: True
        case _:
            return None


def compile_text(condition: TextCondition) -> TextTest:
    """The predicate of one text operator. Its time is linear in the value's length."""
    operand = condition.operand
    match condition.kind:
        case TextKind.PREFIX:
            return lambda text: text.startswith(operand)
        case TextKind.SUFFIX:
            return lambda text: text.endswith(operand)
        case TextKind.WILDCARD:
            return _wildcard(split_wildcard(operand))
        case TextKind.IGNORE_CASE:
            forms = _forms(operand)
            return lambda text: _end_of(forms, text) == len(text)
        case TextKind.PREFIX_IGNORE_CASE:
            forms = _forms(operand)
            return lambda text: _end_of(forms, text) >= 0
        case TextKind.SUFFIX_IGNORE_CASE:
            return _suffix_ignoring_case(operand)


def _forms(operand: Iterable[str]) -> tuple[tuple[str, str], ...]:
    """The accepted forms of each character. Event Ruler accepts the lower and the upper form (for `ß` also `SS`), and no mixture.

    No form is a prefix or suffix of the other form of its character, so the match never has to go back.
    """
    return tuple((character.lower(), character.upper()) for character in operand)


def _end_of(forms: tuple[tuple[str, str], ...], text: str) -> int:
    """The index in a text behind these characters at its start; -1 if it does not begin with them."""
    at = 0
    for lower, upper in forms:
        if text.startswith(lower, at):
            at += len(lower)
        elif text.startswith(upper, at):
            at += len(upper)
        else:
            return -1
    return at


def _suffix_ignoring_case(operand: str) -> TextTest:
    """A suffix test. It compares from the end, because the forms of a character differ in length."""
    forms = tuple((lower[::-1], upper[::-1]) for lower, upper in reversed(_forms(operand)))
    longest = sum(max(map(len, each)) for each in forms)
    return lambda text: _end_of(forms, text[len(text) - min(longest, len(text)) :][::-1]) >= 0


def split_wildcard(operand: str) -> tuple[str, ...]:
    r"""The literal parts between the stars of a valid wildcard. `\*` and `\\` stand for a star and a backslash."""
    parts, escaped = [""], False
    for character in operand:
        if escaped or character not in "*\\":
            parts[-1] += character
            escaped = False
        elif character == "*":
            parts.append("")
        else:
            escaped = True
    return tuple(parts)


def _wildcard(parts: tuple[str, ...]) -> TextTest:
    if len(parts) == 1:
        return lambda text: text == parts[0]
    first, *middle, last = parts
    shortest = len(first) + len(last)

    def test(text: str) -> bool:
        if len(text) < shortest or not text.startswith(first) or not text.endswith(last):
            return False
        at, end = len(first), len(text) - len(last)
        for part in middle:
            # The leftmost match is always the best one, because it leaves most of the text for the parts that follow.
            at = text.find(part, at, end)
            if at < 0:
                return False
            at += len(part)
        return True

    return test
