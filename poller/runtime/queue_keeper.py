"""Owns the extension of visibility for messages that wait or run."""

import asyncio
from collections.abc import Sequence

from poller.errors import PortError
from poller.records import Monotonic, Undone
from poller.rules.visibility import Extend
from poller.runtime.queue_scope import QueueScope, extend
from poller.runtime.stopping import wait_until

EXTEND_S_MIN = 1.0
"""An extension call may take so long in any case; one that takes longer is given up when half of the time left is over."""


class Keeper:
    """Extends what is due at a moment in one call of the port; a call that takes long holds up no later one."""

    def __init__(self, scope: QueueScope) -> None:
        self._scope = scope
        self._closed = False
        self._failures = 0

    def close(self) -> None:
        """Nothing is held any more."""
        self._closed = True
        self._scope.taken.set()

    async def run(self) -> None:
        """Extends until closed."""
        scope = self._scope
        async with asyncio.TaskGroup() as calls:
            while not self._closed:
                scope.taken.clear()
                for each in scope.holds.due(scope.now):
                    calls.create_task(self._extend(each), name="extension")
                moment = scope.holds.next_due
                await wait_until(scope.taken, None if moment is None else max(0.0, moment - scope.now))

    async def _extend(self, command: Extend) -> None:
        try:
            await self._extend_now(command)
        finally:
            # What follows from the answer may be due first.
            self._scope.taken.set()

    async def _extend_now(self, command: Extend) -> None:
        scope, sent = self._scope, self._scope.now
        receipts = [held.receipt for held in command.held]
        within_s = max(EXTEND_S_MIN, (command.until - sent) / 2)
        undone = await extend(scope, receipts, visibility_s=command.visibility_s, within_s=within_s)
        if isinstance(undone, PortError):
            wait_s = scope.parts.port_wait_s(self._failures)
            self._failures += 1
            scope.tell_failed(undone, wait_s=wait_s)
            scope.holds.postponed(command.held, now=scope.now, wait_s=wait_s)
            return
        self._failures = 0
        self._note(command, receipts, undone, Monotonic(sent + command.visibility_s))

    def _note(
        self, command: Extend, receipts: Sequence[str], undone: Sequence[Undone], until: Monotonic
    ) -> None:
        holds, now = self._scope.holds, self._scope.now
        refused = {each.receipt: each.lapsed for each in undone}
        # A message that came anew meanwhile has another receipt, and its own time.
        same = [
            (held, refused.get(receipt))
            for held, receipt in zip(command.held, receipts, strict=True)
            if held.receipt == receipt
        ]
        holds.extended([held for held, answer in same if answer is None], until=until)
        holds.gone([held for held, answer in same if answer is True], now=now)
        holds.postponed([held for held, answer in same if answer is False], now=now, wait_s=0.0)
