"""Owns a store that can be ended by SIGKILL at any moment and started again with what it had."""

import os
import signal
import time
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

from adapters.demo.processes import HOST, free_port
from tests import emulators

AWAY_S = 1.0
"""How long it is away: for less than a lease."""


class KeptStore:
    """DynamoDB tables in files; use it as a context manager. Each start has the same URL and the same tables."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._port = free_port()
        self._stack = ExitStack()
        self._pid = 0

    @property
    def url(self) -> str:
        """Its endpoint."""
        return f"http://{HOST}:{self._port}"

    def __enter__(self) -> Self:
        """Starts it for the first time."""
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Ends it."""
        self._stack.close()

    def start(self) -> None:
        """Starts it; returns when it answers."""
        running = emulators.dynalite(self._folder, port=self._port, tables=self._folder / "tables")
        self._pid = self._stack.enter_context(running).pid

    def kill(self) -> None:
        """Ends it by SIGKILL: what was answered is in its files, and nothing else."""
        os.kill(self._pid, signal.SIGKILL)
        self._stack.close()

    def fails_for_a_moment(self) -> None:
        """Is killed, and started again after a while."""
        self.kill()
        time.sleep(AWAY_S)
        self.start()
