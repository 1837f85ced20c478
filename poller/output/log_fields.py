"""Owns the fields that somebody gives to a line of `logging` with `extra=`: which they are, cleaned and bounded.

As in Lambda's JSON log format, each is a member of the line. None may take the place of a member that the line has anyway.
"""

import logging
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import Any

from poller.domain.untrusted.credentials import HIDDEN, gives_credential
from poller.domain.untrusted.rendering import plain
from poller.domain.untrusted.texts import CUT, line_of

EVENT = "poller_event"
"""The field by which a line of our own loggers says its event."""
FIELDS_MAX = 32
NAME_CHARS_MAX = 64
TEXT_CHARS_MAX = 1024
CHARS_MAX = 8192
"""In all names and texts of a line together; a text beyond is an ellipsis."""
VALUES_MAX = 200
"""In all fields of a line together; what is beyond is an ellipsis."""
DEPTH_MAX = 8

_OF_RECORDS = frozenset(vars(logging.makeLogRecord({})))
_OF_LOGGING = _OF_RECORDS | {"message", "asctime", "aws_request_id", EVENT}
"""What every record has, and what formatters add to it."""
_OURS = frozenset({"timestamp", "level", "event", "function", "request_id", "logger", "error", "trace"})


def fields_of_record(record: logging.LogRecord) -> dict[str, Any]:
    """What was given with `extra=`; raises nothing, whatever the values are."""
    members: dict[Any, Any] = record.__dict__
    return {} if len(members) == len(_OF_RECORDS) else fields_of(members)


def fields_of(members: Mapping[Any, Any]) -> dict[str, Any]:
    """The same of the members of a record; of what it has given itself, as it is."""
    names = [name for name in members if type(name) is str and name not in _OF_LOGGING]
    found: dict[str, Any] = {}
    values = _Values()
    for name in names[:FIELDS_MAX]:
        shown = values.name(name)
        if shown and shown not in _OURS and shown not in found:
            found[shown] = values.clean(shown, plain(members[name]))
    return found


class _Values:
    """Makes values clean, as many of them as a line has room for."""

    def __init__(self) -> None:
        self._left = VALUES_MAX
        self._chars_left = CHARS_MAX

    def name(self, name: str) -> str:
        """A clean name."""
        return self._text(name, NAME_CHARS_MAX)

    def clean(self, name: str, value: Any, depth: int = 0) -> Any:
        """A value with clean texts. Its name counts: what `password` gives is hidden like `password=...` in a text."""
        self._left -= 1
        if self._left < 0 or depth > DEPTH_MAX:
            return CUT
        if isinstance(value, dict):
            shown: dict[str, Any] = {}
            for each, found in self._some(value.items()):
                # Of names that are the same once they are clean, the first one stays.
                if (clean := self.name(each)) not in shown:
                    shown[clean] = self.clean(clean, found, depth + 1)
            return shown
        if isinstance(value, list):
            return [self.clean(name, each, depth + 1) for each in self._some(value)]
        if isinstance(value, bool | float) or value is None:
            return value
        if gives_credential(name):
            return HIDDEN
        return self._text(value, TEXT_CHARS_MAX) if isinstance(value, str) else value

    def _text(self, text: str, chars_max: int) -> str:
        found = line_of(text, chars_max=min(chars_max, max(1, self._chars_left)))
        self._chars_left -= len(found)
        return found

    def _some[T](self, values: Iterable[T]) -> Iterator[T]:
        return islice(values, max(0, self._left))
