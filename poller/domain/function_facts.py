"""Owns the settings of a function that its service reports: time limit, role, state."""

from dataclasses import dataclass

CALLABLE_STATES = frozenset({"", "Active"})
UPDATE_FAILED = "Failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class FunctionFacts:
    """A function's own configuration, in AWS's words; a text is empty where the service says nothing.

    `state` is `Active` when the function can be called at once. `update_status` is the status of its last update.
    """

    timeout_s: float
    role_arn: str = ""
    state: str = ""
    state_reason: str = ""
    update_status: str = ""
    update_reason: str = ""

    @property
    def trouble(self) -> str:
        """Why the function does not run, or does not run as it was last deployed; empty if there is no problem."""
        if self.state not in CALLABLE_STATES:
            return _with_reason(f"its state is {self.state}", self.state_reason)
        if self.update_status == UPDATE_FAILED:
            return _with_reason("its last update failed, the version before it runs", self.update_reason)
        return ""


def _with_reason(text: str, reason: str) -> str:
    return f"{text} ({reason})" if reason else text
