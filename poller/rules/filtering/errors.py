"""Owns the one error that a filter pattern can raise."""


class InvalidPattern(ValueError):
    """The pattern is invalid and has to be changed (AWS: `InvalidParameterValueException`).

    The text of the error is always the same, as on Lambda. `reason` has EventBridge's text, which Lambda hides; our own
    explanations show it (aws-behaviour#invalid-patterns).
    """

    def __init__(self, reason: str) -> None:
        super().__init__("Invalid filter pattern definition.")
        self.reason = reason
