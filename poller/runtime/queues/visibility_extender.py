"""Owns the extension calls for messages that wait or run."""

from poller.domain.errors import PortError
from poller.domain.telemetry.labels import TaskKind
from poller.rules.queues.visibility import Extend
from poller.runtime.queues.in_flight import InFlight, extend
from poller.runtime.stopping import wait_until

EXTEND_S_MIN = 1.0
"""An extension call may take this long in any case. A longer one is given up after half of the remaining time."""


class VisibilityExtender:
    """Extends all messages that are due at one moment in one call. A slow call does not delay later ones."""

    def __init__(self, scope: InFlight) -> None:
        self._scope = scope
        self._closed = False
        self._failures = 0

    def close(self) -> None:
        """Ends `run`, because no messages are in flight any more."""
        self._closed = True
        self._scope.taken.set()

    def may_end(self) -> bool:
        """Whether `close` was called."""
        return self._closed

    async def run(self) -> None:
        """Extends until closed."""
        scope = self._scope
        async with scope.tasks() as calls:
            while not self._closed:
                scope.taken.clear()
                for each in scope.tracker.visibility.due(scope.now):
                    calls.start(TaskKind.EXTENSION, self._extend(each))
                moment = scope.tracker.visibility.next_due
                await wait_until(scope.taken, None if moment is None else max(0.0, moment - scope.now))

    async def _extend(self, command: Extend) -> bool:
        try:
            await self._extend_now(command)
            return True
        finally:
            # The next extension of these messages may be due before all others.
            self._scope.taken.set()
            if self._scope.tracker.delays:
                self._scope.failed.set()

    async def _extend_now(self, command: Extend) -> None:
        scope, sent = self._scope, self._scope.now
        receipts = [held.receipt for held in command.held]
        within_s = max(EXTEND_S_MIN, (command.until - sent) / 2)
        undone = await extend(scope, receipts, visibility_s=command.visibility_s, within_s=within_s)
        if isinstance(undone, PortError):
            wait_s = scope.parts.port_wait_s(self._failures)
            self._failures += 1
            scope.report_failed(undone, wait_s=wait_s)
            scope.tracker.visibility.postponed(command.held, now=scope.now, wait_s=wait_s)
            return
        self._failures = 0
        scope.tracker.visibility.answered(command, receipts, undone, sent=sent, now=scope.now)
