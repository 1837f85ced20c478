"""Owns the one error that a filter pattern can raise."""


class InvalidPattern(ValueError):
    """The pattern cannot be used; whoever sent it has to change it (AWS: `InvalidParameterValueException`).

    Its text never differs, as on Lambda; `reason` holds EventBridge's words, which Lambda hides, for our own
    explanations (aws-behaviour#invalid-patterns).
    """

    def __init__(self, reason: str) -> None:
        super().__init__("Invalid filter pattern definition.")
        self.reason = reason
