"""Owns the tasks in which asynchronous handlers run: each call has one of its own, so that it can cancel and break only itself.

A task cannot be ended from outside either: a handler may refuse every cancellation. Whoever gives one up asks once, and
leaves it; it counts as running until the handler returns. A TaskGroup would wait for it, and let nobody end.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from poller.domain.invocations import FunctionError, Outcome
from poller.domain.records import Monotonic
from poller.foreign_tasks import foreign_context

UNWIND_TURNS_MAX = 20
"""Turns of the loop that a cancelled handler has to end before its place counts as taken. They take no time."""


@dataclass(slots=True)
class _Call:
    """What one task makes of its handler, kept beside the task, whose own end a handler can spoil."""

    outcome: Outcome | None = None
    ended: Monotonic = Monotonic(0.0)


class HandlerTasks:
    """The running calls of one function; every method is called on the loop."""

    def __init__(self, name: str, monotonic: Callable[[], Monotonic]) -> None:
        self._name = name
        self._monotonic = monotonic
        self._running: set[asyncio.Task[None]] = set()

    @property
    def busy(self) -> int:
        """Calls whose handler has not returned, those included that nobody waits for any more."""
        return len(self._running)

    async def run(self, work: Callable[[], Awaitable[Outcome]], timeout_s: float) -> Outcome | None:
        """The outcome of `work`, run in a task of its own; None when it took longer than `timeout_s`.

        Raises what `work` raises. A cancellation of the caller is passed on to the task, and not waited for.
        """
        call = _Call()
        deadline = self._monotonic() + timeout_s
        loop = asyncio.get_running_loop()
        task = asyncio.Task(
            self._carry(call, work),
            loop=loop,
            name=self._name,
            context=foreign_context(),
            eager_start=True,
        )
        if not task.done():
            self._running.add(task)
            task.add_done_callback(self._running.discard)
            try:
                await asyncio.wait((task,), timeout=timeout_s)
            except asyncio.CancelledError:
                task.cancel()
                raise
        if not task.done():
            task.cancel()
            await _unwound((task,))
            return None
        if call.outcome is not None:
            return call.outcome if call.ended < deadline else None
        if task.cancelled():
            return FunctionError("CancelledError", "the task of the call was cancelled before it began")
        task.result()
        raise AssertionError("a call that ended without outcome, cancellation or error")

    async def room(self, places: int) -> bool:
        """Whether fewer than `places` calls run, once those have ended that were told to and do."""
        if self.busy >= places:
            await _unwound(tuple(task for task in self._running if task.cancelling()))
        return self.busy < places

    async def close(self, grace_s: float) -> None:
        """Cancels what still runs and waits `grace_s` for it; what refuses is left."""
        for task in self._running:
            task.cancel()
        if self._running:
            await asyncio.wait(tuple(self._running), timeout=grace_s)

    async def _carry(self, call: _Call, work: Callable[[], Awaitable[Outcome]]) -> None:
        outcome = await work()
        call.ended = self._monotonic()
        call.outcome = outcome


async def _unwound(tasks: tuple[asyncio.Task[None], ...]) -> None:
    for _ in range(UNWIND_TURNS_MAX):
        if all(task.done() for task in tasks):
            return
        await asyncio.sleep(0)
