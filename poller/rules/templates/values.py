"""Owns the values of a template: resolved ones are plain data, and others say what is missing.

A text of which only a part is missing keeps the rest, so that a person sees what it would be: `arn:aws:sqs:eu-west-1:<AWS::AccountId>:orders`.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

STEPS_MAX = 200_000
"""Values that are looked at in one template. The largest templates have some ten thousand."""
DEPTH_MAX = 100
"""Levels of values and of resources that refer to each other."""
TEXT_CHARS_MAX = 16_384
"""The longest text that is put together: four times the longest filter pattern."""


class InvalidTemplate(ValueError):
    """The template cannot be used. The text is the problem, a semicolon and the remedy."""


@dataclass(frozen=True, slots=True)
class Unresolved:
    """A value that the template alone does not tell. `written` is what is known of it, with the missing parts in angle brackets."""

    written: str
    why: str


class _Nothing:
    """AWS::NoValue: the member is not there."""


NOTHING: Final = _Nothing()


@dataclass(frozen=True, slots=True)
class Given:
    """What the user says beside the template: values of parameters, by name; the region and the account, empty if not given."""

    parameters: Mapping[str, str] = field(default_factory=dict)
    region: str = ""
    account: str = ""


def text_of(value: object) -> str | Unresolved:
    """A value as a part of a text."""
    match value:
        case Unresolved() | str():
            return value
        case bool():
            return str(value).lower()
        case int() | float():
            return str(value)
        case _:
            return Unresolved("<value>", "a list or a table where a text belongs")


def joined(parts: Iterable[object]) -> str | Unresolved:
    """The parts as one text; unresolved if any of them is, for the reason of the first one."""
    texts = [text_of(each) for each in parts]
    whole = "".join(each.written if isinstance(each, Unresolved) else each for each in texts)
    if len(whole) > TEXT_CHARS_MAX:
        return Unresolved("<text>", f"a text of more than {TEXT_CHARS_MAX} characters")
    reasons = [each.why for each in texts if isinstance(each, Unresolved)]
    return Unresolved(whole, reasons[0]) if reasons else whole


def unresolved_in(value: object) -> Iterator[Unresolved]:
    """Every unresolved value inside a value."""
    left = [value]
    while left:
        match left.pop():
            case Unresolved() as found:
                yield found
            case dict() as table:
                left += table.values()
            case list() as items:
                left += items
            case _:
                pass


def table(value: object) -> dict[str, Any]:
    """The value if it is a table, else an empty one."""
    return value if isinstance(value, dict) else {}


def items(value: object) -> list[Any]:
    """The value if it is a list, else an empty one."""
    return value if isinstance(value, list) else []
