"""Owns the results of checks of outside services: the check's name, its severity, and a remedy."""

from dataclasses import dataclass
from enum import StrEnum


class Severity(StrEnum):
    """How a check went. Only a PROBLEM prevents the daemon from working."""

    OK = "ok"
    UNTRIED = "untried"
    """The check would need a call with side effects, or an earlier check failed."""
    WARNING = "warning"
    PROBLEM = "problem"


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check. `check` is its name: an IAM action, an attribute, or a name of ours.

    `text` is understood without the name. It may be empty if the check succeeded. `remedy` says what to do about a failure.
    """

    check: str
    grade: Severity
    text: str = ""
    remedy: str = ""

    @property
    def line(self) -> str:
        """The text and the remedy, on one line."""
        return f"{self.text or self.check}; {self.remedy}" if self.remedy else self.text or self.check


@dataclass(frozen=True, slots=True)
class LambdaConsumer:
    """An event source mapping that AWS Lambda runs: its UUID, its function's ARN and its state (`Enabled`, `Creating` …)."""

    uuid: str
    function_arn: str
    state: str
