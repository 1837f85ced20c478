"""Owns the calls that put off the next try of failed messages (`retry_backoff` and `retryAfterSeconds`)."""

import asyncio

from poller.domain.errors import PortError
from poller.domain.telemetry.labels import TaskKind
from poller.domain.telemetry.mapping_events import RetriesDelayed
from poller.rules.queues.retry_delays import DelayCall
from poller.runtime.queues.in_flight import InFlight, extend

LINGER_S = 0.02
"""How long a call waits for other messages to share it."""


class RetryDelayer:
    """Changes the visibility of messages that failed, ten in one call. A call that fails is not repeated."""

    def __init__(self, scope: InFlight) -> None:
        self._scope = scope
        self._closed = False

    def close(self) -> None:
        """No more messages will fail: `run` makes the last calls and returns."""
        self._closed = True
        self._scope.failed.set()

    def may_end(self) -> bool:
        """Whether `close` was called."""
        return self._closed

    async def run(self) -> None:
        """Puts off failed messages until closed."""
        scope = self._scope
        async with scope.tasks() as calls:
            while not self._closed or scope.tracker.delays:
                await scope.failed.wait()
                if not self._closed:
                    await asyncio.sleep(LINGER_S)
                scope.failed.clear()
                # After a stop, running polls would catch what becomes visible before they are answered.
                hidden_s_min = scope.polls.left_s if scope.stop.requested else 0.0
                for call in scope.tracker.delays.take(scope.now, hidden_s_min=hidden_s_min):
                    calls.start(TaskKind.EXTENSION, self._delay(call))

    async def _delay(self, call: DelayCall) -> bool:
        scope, sent = self._scope, self._scope.now
        seconds: int | tuple[int, ...] = call.visibility_s
        if len(set(call.visibility_s)) == 1:
            seconds = call.visibility_s[0]
        undone = await extend(scope, call.receipts, visibility_s=seconds, within_s=call.until - sent)
        if isinstance(undone, PortError):
            scope.report_failed(undone)
            return True
        parts = scope.parts
        count = scope.tracker.delayed(call, undone, sent=sent, now=scope.now, epoch=parts.clock.now())
        if count:
            parts.observer.on(RetriesDelayed(mapping=parts.plan.mapping, messages=count))
        return True
