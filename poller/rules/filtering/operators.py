"""Owns how one value in a pattern's array becomes a condition, and the errors of operators (aws-behaviour#operators)."""

from collections.abc import Iterable

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
from poller.rules.filtering.pattern_json import Members, render

WILDCARDS_MAX = 5
"""Stars in one wildcard. EventBridge limits the work of its matcher; it is known to refuse six stars."""
_INFINITY = float("inf")


def condition(value: object) -> Condition:
    """The condition of one value in a pattern's array. Raises InvalidPattern."""
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
        # EventBridge counts positions from the quotation mark before the text.
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
