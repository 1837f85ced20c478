"""Owns how a function's rate and circuit breaker are written."""

from typing import Self

from pydantic import model_validator

from poller.config.field_types import Fraction, PerSecond, SecondsFrom1
from poller.config.sections.section import Section
from poller.config_errors.error_messages import FieldError, refused


class FunctionRate(Section):
    """How fast all workers of the store together may call a function."""

    invocations_per_s: PerSecond | None = None
    records_per_s: PerSecond | None = None

    @model_validator(mode="after")
    def _limits_something(self) -> Self:
        if self.invocations_per_s is None and self.records_per_s is None:
            wrong, remedy = "limits nothing", "write a number, or one at records_per_s, or remove rate"
            raise refused([FieldError("invocations_per_s", wrong, remedy)])
        return self


class FunctionBreaker(Section):
    """When a function is not called any more because its calls fail, and for how long."""

    failures: Fraction = 0.5
    window_s: SecondsFrom1 = 60.0
    open_s: SecondsFrom1 = 30.0
