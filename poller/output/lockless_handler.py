"""Owns a `logging` handler without a lock. User code could hold such a lock for a long time.

The output behind the handler has to be thread-safe by itself.
"""

import logging
from typing import Any


class LocklessHandler(logging.Handler):
    """A handler whose `emit` runs at once, in the thread that logs."""

    def createLock(self) -> None:  # noqa: N802 - a name of `logging`
        """Creates no lock, so that `acquire` and `release` do nothing."""
        self.lock = None

    def handle(self, record: logging.LogRecord) -> bool:
        """Emits the record unless a filter rejects it."""
        found: Any = self.filter(record)
        if found:
            self.emit(found if isinstance(found, logging.LogRecord) else record)
        return found  # type: ignore[no-any-return]  # a record too, which typeshed does not say
