"""Owns the ranges of the numbers in the section `tuning`."""

from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from types import MappingProxyType

from poller.config.field_types import COUNT_MAX, SECONDS_MAX, WAITS_MAX
from poller.config_errors.error_messages import FieldError

LEAST = MappingProxyType({"memory_mb": 64})
"""Numbers that must be more than just above zero. With less memory an answer of ten large messages would have no room."""


def out_of_range(value: object, prefix: str) -> Iterator[FieldError]:
    """An error for every number that is not above zero and at most its bound, and for a list without numbers."""
    for field in fields(value) if is_dataclass(value) else ():
        each, name = getattr(value, field.name), f"{prefix}{field.name}"
        if isinstance(each, tuple):
            if not 0 < len(each) <= WAITS_MAX or not all(0 < wait <= SECONDS_MAX for wait in each):
                remedy = f"write 1 to {WAITS_MAX} numbers, each more than 0 and at most {SECONDS_MAX}"
                yield FieldError(name, "out of range", remedy)
            continue
        most = COUNT_MAX if isinstance(each, int) else SECONDS_MAX
        if is_dataclass(each):
            yield from out_of_range(each, f"{name}.")
        elif isinstance(each, int | float) and not 0 < each <= most:
            yield FieldError(name, "out of range", f"write more than 0, at most {most}")
        elif isinstance(each, int) and each < (least := LEAST.get(name, 0)):
            yield FieldError(name, "out of range", f"write {least} or more, at most {most}")
