"""Owns how `retryAfterSeconds` is read, by which a report says when to try a message of a queue again.

A value that is not a wait never changes the verdict: the message has failed, and its value is ignored and counted.
"""

from collections.abc import Mapping
from math import isfinite
from typing import Any

import msgspec

MEMBER = "retryAfterSeconds"
SECONDS_MAX = 1e9
"""Numbers from here on are ignored. They are rather a date in epoch seconds or milliseconds than a wait."""


class RetryAfter(msgspec.Struct, frozen=True, gc=False):
    """What a report says about the next tries: the seconds by index in the batch, zero or more.

    `ignored` counts the values that are not a wait. `reason` says what is wrong with the first of them.
    """

    seconds: Mapping[int, float]
    ignored: int = 0
    reason: str = ""


class RetryAfterReader:
    """Collects the waits of one report."""

    def __init__(self) -> None:
        self._seconds: dict[int, float] = {}
        self._ignored = 0
        self._reason = ""

    def read(self, item: Mapping[str, Any], place: int) -> None:
        """Takes an item that names the record at `place`. If a record is named twice, its longest wait counts."""
        value = item.get(MEMBER)
        if value is None:
            return
        if reason := wrong(value):
            self._ignored += 1
            self._reason = self._reason or reason
        else:
            self._seconds[place] = max(float(value), self._seconds.get(place, 0.0))

    @property
    def found(self) -> RetryAfter | None:
        """What the report said; None if it has no such member."""
        if not (self._seconds or self._ignored):
            return None
        return RetryAfter(self._seconds, self._ignored, self._reason)


def wrong(value: object) -> str:
    """Why a value is not a wait in seconds; empty if it is one. The text holds nothing of the value."""
    match value:
        case bool():
            return "true or false, and not a number"
        case float() if not isfinite(value):
            return "not a finite number"
        case int() | float() if value < 0:
            return "a negative number"
        case int() | float() if value >= SECONDS_MAX:
            return "too large a number, perhaps a date or milliseconds"
        case int() | float():
            return ""
        case str():
            return "a text, and not a number"
        case _:
            return "a list or an object, and not a number"
