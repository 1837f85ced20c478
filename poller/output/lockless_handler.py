"""Owns a handler of `logging` that takes no lock: code of functions could hold it, or be slow while it is held.

Whatever writes the lines has to be safe in threads by itself.
"""

import logging
from typing import Any


class LocklessHandler(logging.Handler):
    """A handler whose `emit` is called by whoever logs, at once."""

    def createLock(self) -> None:  # noqa: N802 - a name of `logging`
        """None: `acquire` and `release` then do nothing."""
        self.lock = None

    def handle(self, record: logging.LogRecord) -> bool:
        """Emits the record unless a filter keeps it back."""
        found: Any = self.filter(record)
        if found:
            self.emit(found if isinstance(found, logging.LogRecord) else record)
        return found  # type: ignore[no-any-return]  # a record too, which typeshed does not say
