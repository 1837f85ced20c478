"""Owns the fields of a `logging` record that were given with `extra=`: it finds, cleans and bounds them.

As in Lambda's JSON log format, each field becomes a member of the line. A field cannot replace a member that every line has.
"""

import logging
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import Any

from poller.domain.untrusted.credentials import HIDDEN, gives_credential
from poller.domain.untrusted.rendering import plain
from poller.domain.untrusted.texts import CUT, line_of

EVENT = "poller_event"
"""The field with which our own loggers give the event name of a line."""
FIELDS_MAX = 32
NAME_CHARS_MAX = 64
TEXT_CHARS_MAX = 1024
CHARS_MAX = 8192
"""Characters of all names and texts of a line together. Further texts are replaced by an ellipsis."""
VALUES_MAX = 200
"""Values in all fields of a line together. Further values are replaced by an ellipsis."""
DEPTH_MAX = 8

_OF_RECORDS = frozenset(vars(logging.makeLogRecord({})))
_OF_LOGGING = _OF_RECORDS | {"message", "asctime", "aws_request_id", EVENT}
"""The attributes that every record has or that formatters add."""
_OURS = frozenset({"timestamp", "level", "event", "function", "request_id", "logger", "error", "trace"})


def fields_of_record(record: logging.LogRecord) -> dict[str, Any]:
    """The fields that were given with `extra=`. It raises nothing, whatever the values are."""
    members: dict[Any, Any] = record.__dict__
    return {} if len(members) == len(_OF_RECORDS) else fields_of(members)


def fields_of(members: Mapping[Any, Any]) -> dict[str, Any]:
    """The fields among the members of a record, cleaned and bounded."""
    names = [name for name in members if type(name) is str and name not in _OF_LOGGING]
    found: dict[str, Any] = {}
    values = _Values()
    for name in names[:FIELDS_MAX]:
        shown = values.name(name)
        if shown and shown not in _OURS and shown not in found:
            found[shown] = values.clean(shown, plain(members[name]))
    return found


class _Values:
    """Cleans values, up to the limits of one line."""

    def __init__(self) -> None:
        self._left = VALUES_MAX
        self._chars_left = CHARS_MAX

    def name(self, name: str) -> str:
        """The cleaned name."""
        return self._text(name, NAME_CHARS_MAX)

    def clean(self, name: str, value: Any, depth: int = 0) -> Any:
        """The value with cleaned texts. If the name is one like `password`, the value is hidden."""
        self._left -= 1
        if self._left < 0 or depth > DEPTH_MAX:
            return CUT
        if isinstance(value, dict):
            shown: dict[str, Any] = {}
            for each, found in self._some(value.items()):
                # If two names are equal after cleaning, the first one is kept.
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
