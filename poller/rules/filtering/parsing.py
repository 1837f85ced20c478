"""Owns how a pattern's JSON text becomes branches of fields, and everything that makes a pattern invalid.

The words in `InvalidPattern.reason` are EventBridge's (aws-behaviour#invalid-patterns). The parse follows Event Ruler where JSON leaves a
choice: a key that is written twice overrides at its leaf, and a field in an alternative of `$or` overrides the
same field written before it.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from poller.domain.untrusted.numbers import json_whole
from poller.rules.filtering.addresses import AddressRange, parse_address, parse_cidr
from poller.rules.filtering.conditions import (
    Absent,
    Condition,
    Exists,
    InRange,
    Literal,
    NotLiterals,
    NotNumbers,
    NotTexts,
    NumberBetween,
    NumberIs,
    TextCondition,
    TextKind,
    double,
)
from poller.rules.filtering.errors import InvalidPattern

DEPTH_MAX = 100
"""Objects inside objects in one pattern."""
FIELDS_MAX = 256
"""Fields in one branch; Event Ruler's limit."""
BRANCHES_MAX = 1000
"""Combinations that the alternatives of all `$or` may multiply to; EventBridge's limit."""
CONDITIONS_MAX = 32_768
"""Fields of all combinations together: what compiling takes grows with them, not with the text of the pattern."""
NESTING_MAX = 300
"""Objects and arrays inside each other, operators and the alternatives of `$or` included."""
WILDCARDS_MAX = 5
"""Stars in one wildcard. EventBridge judges by the work a matcher may have; six stars are known to be refused."""

OR = "$or"
_NOT_IN_OR = frozenset(
    {
        "exactly",
        "equals-ignore-case",
        "prefix",
        "suffix",
        "anything-but",
        "exists",
        "wildcard",
        "numeric",
        "cidr",
        "html",
        "=",
        "<",
        "<=",
        ">",
        ">=",
        "regex",
        "not-wildcard",
        "not-equals-ignore-case",
        "date-after",
        "date-on-or-after",
        "date-before",
        "date-on-or-before",
        "in-date-range",
        "ip-address-in-range",
        "ip-address-not-in-range",
    }
)
"""Words that Event Ruler keeps for operators, today's and tomorrow's."""
_INFINITY = float("inf")


class Members(tuple[tuple[str, object], ...]):
    """A JSON object as its members in the order they are written, repeated keys included."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class Leaf:
    """The alternatives for one field: parsed, and as JSON text for explanations."""

    conditions: tuple[Condition, ...]
    text: str


Branch = Mapping[str, Leaf]
"""Fields that must all hold, by dotted path."""


def parse_pattern(text: str | bytes) -> tuple[Branch, ...]:
    """The branches of a pattern, one of which has to hold. Raises InvalidPattern.

    `$or` that is not an array of at least two objects free of operator names is an ordinary key, as for Event
    Ruler, which compiles a pattern without `$or` when it cannot compile it with.
    """
    tree = _read(text)
    try:
        return tuple(_branches([{}], (), tree, with_or=True, inside_or=False))
    except InvalidPattern as invalid:
        try:
            return tuple(_branches([{}], (), tree, with_or=False, inside_or=False))
        except InvalidPattern:
            raise invalid from None


def render(value: object) -> str:
    """JSON text of a part of a parsed pattern."""
    return json.dumps(_plain(value), ensure_ascii=False)


def _plain(value: object) -> object:
    if isinstance(value, Members):
        return {key: _plain(member) for key, member in value}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return value


def _read(text: str | bytes) -> Members:
    try:
        decoded = text.decode() if isinstance(text, bytes) else text
        tree = json.loads(
            decoded, object_pairs_hook=Members, parse_constant=_refuse_constant, parse_int=json_whole
        )
    except (ValueError, RecursionError) as error:
        raise InvalidPattern(f"Filter is not JSON: {error}") from error
    if not isinstance(tree, Members):
        raise InvalidPattern("Filter is not an object")
    _check_nesting(tree)
    return tree


def _check_nesting(tree: object) -> None:
    """Everything that follows goes down by calls."""
    level: list[object] = [tree]
    for _ in range(NESTING_MAX):
        inner = [each for value in level for each in _parts(value)]
        if not inner:
            return
        level = inner
    raise InvalidPattern(f"Objects and arrays are nested deeper than {NESTING_MAX}")


def _parts(value: object) -> Iterable[object]:
    if isinstance(value, Members):
        return (member for _, member in value)
    return value if isinstance(value, list) else ()


def _refuse_constant(name: str) -> object:
    raise ValueError(f"{name} is not JSON")


def _branches(
    branches: list[dict[str, Leaf]],
    path: tuple[str, ...],
    members: Members,
    *,
    with_or: bool,
    inside_or: bool,
) -> list[dict[str, Leaf]]:
    """What `branches` become when the members of an object at `path` are added to each."""
    if not members:
        raise InvalidPattern("Empty objects are not allowed")
    if len(path) > DEPTH_MAX:
        raise InvalidPattern(f"Objects are nested deeper than {DEPTH_MAX}")
    for key, value in members:
        if with_or and key == OR:
            branches = _multiply(branches, path, value)
        elif inside_or and key in _NOT_IN_OR:
            raise InvalidPattern(f"{key} is a reserved name which cannot be used inside {OR}")
        elif isinstance(value, Members):
            branches = _branches(branches, (*path, key), value, with_or=with_or, inside_or=inside_or)
        elif isinstance(value, list):
            _add(branches, ".".join((*path, key)), value)
        else:
            raise InvalidPattern(f'"{key}" must be an object or an array')
    return branches


def _multiply(branches: list[dict[str, Leaf]], path: tuple[str, ...], value: object) -> list[dict[str, Leaf]]:
    if not isinstance(value, list):
        raise InvalidPattern(f"It must be an Array followed with {OR}.")
    if len(value) < 2:
        raise InvalidPattern(f"There must have at least 2 Objects in {OR} relationship.")
    product: list[dict[str, Leaf]] = []
    for alternative in value:
        if not isinstance(alternative, Members):
            raise InvalidPattern(f"Only JSON object is allowed in array of {OR} relationship.")
        copies = [dict(branch) for branch in branches]
        product += _branches(copies, path, alternative, with_or=True, inside_or=True)
        if len(product) > BRANCHES_MAX:
            raise InvalidPattern(f"{OR} alternatives multiply to more than {BRANCHES_MAX}")
        _check_size(product)
    return product


def _add(branches: list[dict[str, Leaf]], path: str, values: list[object]) -> None:
    if not values:
        raise InvalidPattern("Empty arrays are not allowed")
    leaf = Leaf(tuple(_condition(value) for value in values), render(values))
    for branch in branches:
        branch[path] = leaf
        if len(branch) > FIELDS_MAX:
            raise InvalidPattern(f"More than {FIELDS_MAX} fields")
    _check_size(branches)


def _check_size(branches: Sequence[Branch]) -> None:
    if len(branches) > 1 and sum(map(len, branches)) > CONDITIONS_MAX:
        raise InvalidPattern(f"{OR} alternatives multiply to more than {CONDITIONS_MAX} fields")


def _condition(value: object) -> Condition:
    match value:
        case bool() | None:
            return Literal(value)
        case str():
            address = parse_address(value)
            return Literal(value) if address is None else InRange(AddressRange(address, address))
        case int() | float():
            return NumberIs(double(value))
        case Members():
            return _operator(value)
        case _:
            raise InvalidPattern("Match value must be String, number, true, false, or null")


def _operator(members: Members) -> Condition:
    name, operand = _only(members, "Match expression name not found")
    match name:
        case "exactly":
            return Literal(_string(operand, "exact match pattern must be a string"))
        case "prefix":
            return _affix(name, operand, plain=TextKind.PREFIX, ignoring_case=TextKind.PREFIX_IGNORE_CASE)
        case "suffix":
            return _affix(name, operand, plain=TextKind.SUFFIX, ignoring_case=TextKind.SUFFIX_IGNORE_CASE)
        case "equals-ignore-case":
            return TextCondition(
                TextKind.IGNORE_CASE, _string(operand, "equals-ignore-case match pattern must be a string")
            )
        case "wildcard":
            return TextCondition(TextKind.WILDCARD, _wildcard(operand))
        case "cidr":
            return InRange(parse_cidr(_string(operand, "prefix match pattern must be a string")))
        case "numeric":
            return _numeric(operand)
        case "exists":
            return _exists(operand)
        case "anything-but":
            return _anything_but(operand)
        case _:
            raise InvalidPattern(f"Unrecognized match type {name}")


def _only(members: Members, nothing: str) -> tuple[str, object]:
    if not members:
        raise InvalidPattern(nothing)
    if len(members) > 1:
        raise InvalidPattern("Only one key allowed in match expression")
    return members[0]


def _string(operand: object, otherwise: str) -> str:
    if not isinstance(operand, str):
        raise InvalidPattern(otherwise)
    return operand


def _affix(name: str, operand: object, *, plain: TextKind, ignoring_case: TextKind) -> TextCondition:
    if not isinstance(operand, Members):
        return TextCondition(plain, _string(operand, f"{name} match pattern must be a string"))
    inner, text = _only(operand, f"{name.capitalize()} expression name not found")
    if inner != "equals-ignore-case":
        raise InvalidPattern(f"Unsupported {name} pattern: {inner}")
    return TextCondition(ignoring_case, _string(text, "equals-ignore-case match pattern must be a string"))


def _wildcard(operand: object) -> str:
    text = _string(operand, "wildcard match pattern must be a string")
    stars, at = 0, 0
    while at < len(text):
        # Positions count from a quotation mark before the text, as EventBridge counts them.
        if text[at] == "\\":
            if text[at + 1 : at + 2] not in ("*", "\\"):
                raise InvalidPattern(f"Invalid escape character at pos {at + 1}")
            at += 1
        elif text[at] == "*":
            stars += 1
            if text[at + 1 : at + 2] == "*":
                raise InvalidPattern(f"Consecutive wildcard characters at pos {at + 1}")
        at += 1
    if stars > WILDCARDS_MAX:
        raise InvalidPattern(
            "Rule is too complex - try using fewer wildcard characters or fewer repeating character sequences "
            "after a wildcard character"
        )
    return text


def _exists(operand: object) -> Condition:
    if not isinstance(operand, bool):
        raise InvalidPattern("exists match pattern must be either true or false.")
    return Exists() if operand else Absent()


def _numeric(operand: object) -> Condition:
    if not isinstance(operand, list):
        raise InvalidPattern("Value of numeric must be an array.")
    match operand:
        case ["=", value]:
            return NumberIs(_number(value, "Value of equals must be numeric"))
        case [("<" | "<=") as upper, value]:
            high = _number(value, f"Value of {upper} must be numeric")
            return NumberBetween(-_INFINITY, high, False, upper == "<")
        case [(">" | ">=") as lower, value]:
            low = _number(value, f"Value of {lower} must be numeric")
            return NumberBetween(low, _INFINITY, lower == ">", False)
        case [(">" | ">=") as lower, bottom, ("<" | "<=") as upper, top]:
            low = _number(bottom, f"Value of {lower} must be numeric")
            high = _number(top, f"Value of {upper} must be numeric")
            if not low < high:
                raise InvalidPattern("Bottom must be less than top")
            return NumberBetween(low, high, lower == ">", upper == "<")
        case _:
            raise InvalidPattern(_what_is_wrong_with_numeric(operand))


def _what_is_wrong_with_numeric(operand: list[object]) -> str:
    match operand:
        case []:
            return "Invalid member in numeric match: ]"
        case [str() as operator, *_] if operator not in ("=", "<", "<=", ">", ">="):
            return f"Unrecognized numeric range operator: {operator}"
        case [str() as operator]:
            return f"Value of {'equals' if operator == '=' else operator} must be numeric"
        case [">" | ">=", _, str() as operator, *_] if operator not in ("<", "<="):
            return f"Bad numeric range operator: {operator}"
        case [">" | ">=", _, str() as operator]:
            return f"Value of {operator} must be numeric"
        case [">" | ">=", _, str(), _, *_]:
            return "Too many terms in numeric range expression"
        case [">" | ">=", _, bad, *_]:
            return f"Bad value in numeric range: {render(bad)}"
        case [str(), *_]:
            return "Too many elements in numeric expression"
        case _:
            return f"Invalid member in numeric match: {render(operand[0])}"


def _number(value: object, otherwise: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InvalidPattern(otherwise)
    number = double(value)
    if abs(number) == _INFINITY:
        raise InvalidPattern("Cannot compare number: it is beyond the range of a double")
    return number


def _anything_but(operand: object) -> Condition:
    match operand:
        case str():
            return NotLiterals(frozenset((operand,)))
        case bool() | None:
            raise InvalidPattern("Value of anything-but must be an array or single string/number value.")
        case int() | float():
            return NotNumbers(frozenset((_number(operand, ""),)))
        case Members():
            return _anything_but_text(operand)
        case list():
            return _anything_but_list(operand)
        case _:
            raise InvalidPattern("Value of anything-but must be an array or single string/number value.")


def _anything_but_list(values: list[object]) -> Condition:
    if any(isinstance(value, bool) or not isinstance(value, str | int | float) for value in values):
        raise InvalidPattern("Inside anything but list, start|null|boolean is not supported.")
    texts = frozenset(value for value in values if isinstance(value, str))
    numbers = frozenset(_number(value, "") for value in values if not isinstance(value, str))
    if bool(texts) == bool(numbers):
        raise InvalidPattern(
            "Inside anything but list, either all values are number or string, mixed type is not supported"
        )
    return NotLiterals(texts) if texts else NotNumbers(numbers)


_NOT_KINDS = {
    "prefix": TextKind.PREFIX,
    "suffix": TextKind.SUFFIX,
    "wildcard": TextKind.WILDCARD,
    "equals-ignore-case": TextKind.IGNORE_CASE,
}


def _anything_but_text(members: Members) -> NotTexts:
    name, operand = _only(members, "Anything-But expression name not found")
    kind = _NOT_KINDS.get(name)
    if kind is None:
        raise InvalidPattern(f"Unsupported anything-but pattern: {name}")
    if isinstance(operand, bool | None | Members):
        raise InvalidPattern("Value of anything-but must be an array or single string/number value.")
    if operand == []:
        raise InvalidPattern("Empty arrays are not allowed")
    operands: Iterable[object] = operand if isinstance(operand, list) else [operand]
    return NotTexts(tuple(TextCondition(kind, _negated(kind, each)) for each in operands))


def _negated(kind: TextKind, operand: object) -> str:
    match kind:
        case TextKind.WILDCARD:
            return _wildcard(operand)
        case TextKind.IGNORE_CASE:
            where = "Inside anything-but/equals-ignore-case list, number|start|null|boolean is not supported."
            return _string(operand, where)
        case _:
            text = _string(operand, "prefix/suffix match pattern must be a string")
            if not text:
                raise InvalidPattern("Null prefix/suffix not allowed")
            return text
