"""Owns how the JSON text of a pattern is read: with repeated keys, bounded in depth, and back to text for explanations."""

import json
from collections.abc import Iterable

from poller.domain.untrusted.numbers import json_whole
from poller.rules.filtering.errors import InvalidPattern

NESTING_MAX = 300
"""Levels of nested objects and arrays, including operators and the alternatives of `$or`."""


class Members(tuple[tuple[str, object], ...]):
    """A JSON object as a sequence of its members in written order, with repeated keys."""

    __slots__ = ()


def render(value: object) -> str:
    """The JSON text of a part of a parsed pattern."""
    return json.dumps(_plain(value), ensure_ascii=False)


def _plain(value: object) -> object:
    if isinstance(value, Members):
        return {key: _plain(member) for key, member in value}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return value


def read(text: str | bytes) -> Members:
    """The members of a pattern's text. Raises InvalidPattern."""
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
    """Refuses deep nesting, because the code that follows is recursive."""
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
