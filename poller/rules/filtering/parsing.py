"""Owns how a pattern's JSON text becomes branches of fields, and the structural errors that make a pattern invalid.

The texts in `InvalidPattern.reason` are EventBridge's (aws-behaviour#invalid-patterns). Where JSON leaves a choice, the parser follows
Event Ruler: if a key is written twice, the last value of each leaf counts, and a field in an alternative of `$or` replaces the same
field written before it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from poller.rules.filtering.conditions import Condition
from poller.rules.filtering.errors import InvalidPattern
from poller.rules.filtering.operators import condition
from poller.rules.filtering.pattern_json import Members, read, render

DEPTH_MAX = 100
"""Levels of nested objects in one pattern."""
FIELDS_MAX = 256
"""Fields in one branch; Event Ruler's limit."""
BRANCHES_MAX = 1000
"""Combinations of the alternatives of all `$or`; EventBridge's limit."""
CONDITIONS_MAX = 32_768
"""Fields of all combinations together. The time to compile a pattern grows with them, not with its text."""

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
"""Words that Event Ruler reserves for operators, present and future ones."""


@dataclass(frozen=True, slots=True)
class Leaf:
    """The conditions of one field, of which one must hold: parsed, and as JSON text for explanations."""

    conditions: tuple[Condition, ...]
    text: str


Branch = Mapping[str, Leaf]
"""Fields that must all hold, by dotted path."""


def parse_pattern(text: str | bytes) -> tuple[Branch, ...]:
    """The branches of a pattern, of which one must hold. Raises InvalidPattern.

    `$or` is an ordinary key unless it is an array of at least two objects without operator names. Event Ruler does the same: if it
    cannot compile a pattern with `$or`, it compiles the pattern without that meaning.
    """
    tree = read(text)
    try:
        return tuple(_branches([{}], (), tree, with_or=True, inside_or=False))
    except InvalidPattern as invalid:
        try:
            return tuple(_branches([{}], (), tree, with_or=False, inside_or=False))
        except InvalidPattern:
            raise invalid from None


def _branches(
    branches: list[dict[str, Leaf]],
    path: tuple[str, ...],
    members: Members,
    *,
    with_or: bool,
    inside_or: bool,
) -> list[dict[str, Leaf]]:
    """The branches after the members of an object at `path` were added to each."""
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
    leaf = Leaf(tuple(condition(value) for value in values), render(values))
    for branch in branches:
        branch[path] = leaf
        if len(branch) > FIELDS_MAX:
            raise InvalidPattern(f"More than {FIELDS_MAX} fields")
    _check_size(branches)


def _check_size(branches: Sequence[Branch]) -> None:
    if len(branches) > 1 and sum(map(len, branches)) > CONDITIONS_MAX:
        raise InvalidPattern(f"{OR} alternatives multiply to more than {CONDITIONS_MAX} fields")
