"""Owns the Protocol of sources that say which calls of AWS they make.

One method of a source may make several calls, or none: a listing has pages, a place behind a record is found by reading that record, and
mappings share what one of them asks for. So only the source knows its calls.
"""

from collections.abc import Callable
from typing import Protocol, runtime_checkable

from poller.domain.telemetry.labels import SourceCall

type CallCounter = Callable[[SourceCall], None]
"""Takes each call as it is sent. It must not raise."""


def uncounted(_call: SourceCall) -> None:
    """Counts nothing: nobody has asked for it."""


@runtime_checkable
class CountedCalls(Protocol):
    """A source that says which calls it makes."""

    def count_calls(self, count: CallCounter) -> None:
        """From now on `count` gets each call as it is sent, whether it fails or not.

        What mappings share (a listing) is counted by the source whose mapping had it asked.
        """
        ...
