"""Owns what a look at the outside finds: a check by name, how it went, and what to do about it."""

from dataclasses import dataclass
from enum import StrEnum


class Severity(StrEnum):
    """How a check went; only a problem stands in the daemon's way."""

    OK = "ok"
    UNTRIED = "untried"
    """Nothing tells without an effect, or something before it failed."""
    WARNING = "warning"
    PROBLEM = "problem"


@dataclass(frozen=True, slots=True)
class Finding:
    """One check: its name (an IAM action, an attribute, or our own word), how it went, and the remedy if it went wrong.

    `text` stands for itself on a line; of what is fine it may be empty.
    """

    check: str
    grade: Severity
    text: str = ""
    remedy: str = ""

    @property
    def line(self) -> str:
        """Text and remedy."""
        return f"{self.text or self.check}; {self.remedy}" if self.remedy else self.text or self.check


@dataclass(frozen=True, slots=True)
class LambdaConsumer:
    """An event source mapping of AWS Lambda's own: its UUID, its function's ARN and its state (`Enabled`, `Creating` …)."""

    uuid: str
    function_arn: str
    state: str
