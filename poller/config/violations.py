"""Owns violations: what AWS would refuse in a mapping, with AWS's exception and text (aws-behaviour#error-texts)."""

from dataclasses import dataclass
from enum import StrEnum

VIOLATIONS_MAX = 200
"""Violations of the API model that are looked for. No answer has room for more: the shortest text has some 60 of its 8,192 characters."""


class ViolationType(StrEnum):
    """AWS's exception for a refused parameter."""

    PARAMETER = "InvalidParameterValueException"
    VALIDATION = "ValidationException"


@dataclass(frozen=True, slots=True)
class Violation:
    """One reason for which AWS would refuse a mapping.

    `field` is the path in AWS's names. `text` is AWS's text; for VALIDATION it is the constraint without the heading.
    `remedy` says what to do instead, for people who write a configuration file.
    """

    fault: ViolationType
    field: str
    text: str
    remedy: str

    @property
    def message(self) -> str:
        """AWS's whole text if this is the only violation."""
        return _headed([self.text]) if self.fault is ViolationType.VALIDATION else self.text


def answer(found: list[Violation]) -> tuple[ViolationType, str] | None:
    """The answer of AWS's API: all VALIDATION errors in one text, else the first violation; None if there is none."""
    constraints = [each.text for each in found if each.fault is ViolationType.VALIDATION]
    if constraints:
        return ViolationType.VALIDATION, _headed(constraints)
    return (found[0].fault, found[0].text) if found else None


def _headed(constraints: list[str]) -> str:
    noun = "error" if len(constraints) == 1 else "errors"
    more = " or more" if len(constraints) >= VIOLATIONS_MAX else ""
    return f"{len(constraints)}{more} validation {noun} detected: {'; '.join(constraints)}"


def parameter(field: str, text: str, remedy: str) -> Violation:
    """A violation with a text of its own."""
    return Violation(ViolationType.PARAMETER, field, text, remedy)


def constraint(field: str, value: object, must: str, remedy: str) -> Violation:
    """A value that the API model does not allow: `must` says what the value must do."""
    path = ".".join(part[:1].lower() + part[1:] for part in field.split("."))
    text = f"Value '{value}' at '{path}' failed to satisfy constraint: Member must {must}"
    return Violation(ViolationType.VALIDATION, field, text, remedy)
