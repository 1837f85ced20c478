"""Owns the tasks of asynchronous handlers: each call has one of its own, so that it can cancel and break only itself.

A task cannot be forced to end, since a handler may ignore every cancellation. So a call that takes too long is cancelled once
and then left behind. It counts as running until the handler returns. A TaskGroup would wait for such a task for ever.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from poller.domain.invocations import FunctionError, Outcome
from poller.domain.records import Monotonic
from poller.foreign_tasks import foreign_context

END_TURNS_MAX = 20
"""Turns of the loop in which a cancelled handler can end before its slot counts as still taken. They take no time."""


@dataclass(slots=True)
class _Call:
    """The outcome of one call. It is kept outside the task, since a handler can make its own task end in any way."""

    outcome: Outcome | None = None
    ended: Monotonic = Monotonic(0.0)


class HandlerTasks:
    """The running calls of one function. Every method must be called on the loop."""

    def __init__(self, name: str, monotonic: Callable[[], Monotonic]) -> None:
        self._name = name
        self._monotonic = monotonic
        self._running: set[asyncio.Task[None]] = set()

    @property
    def busy(self) -> int:
        """The number of calls whose handler has not returned, including those that nobody waits for any more."""
        return len(self._running)

    @property
    def left(self) -> int:
        """The number of calls that were cancelled and whose handler has not returned."""
        return sum(task.cancelling() > 0 for task in self._running)

    async def run(self, work: Callable[[], Awaitable[Outcome]], timeout_s: float) -> Outcome | None:
        """Runs `work` in a task of its own and returns its outcome; None if it took longer than `timeout_s`.

        Raises what `work` raises. If the caller is cancelled, the task is cancelled too, but not waited for.
        """
        call = _Call()
        deadline = self._monotonic() + timeout_s
        loop = asyncio.get_running_loop()
        task = asyncio.Task(
            self._run_work(call, work),
            loop=loop,
            name=self._name,
            context=foreign_context(self._name),
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
            await _let_end((task,))
            return None
        if call.outcome is not None:
            return call.outcome if call.ended < deadline else None
        if task.cancelled():
            return FunctionError("CancelledError", "the task of the call was cancelled before it began")
        task.result()
        raise AssertionError("a call that ended without outcome, cancellation or error")

    async def room(self, places: int) -> bool:
        """Whether fewer than `places` calls run, after cancelled ones had a chance to end."""
        if self.busy >= places:
            await _let_end(tuple(task for task in self._running if task.cancelling()))
        return self.busy < places

    async def close(self, grace_s: float) -> None:
        """Cancels the running calls and waits `grace_s` for them. Calls that ignore that are left behind."""
        for task in self._running:
            task.cancel()
        if self._running:
            await asyncio.wait(tuple(self._running), timeout=grace_s)

    async def _run_work(self, call: _Call, work: Callable[[], Awaitable[Outcome]]) -> None:
        outcome = await work()
        call.ended = self._monotonic()
        call.outcome = outcome


async def _let_end(tasks: tuple[asyncio.Task[None], ...]) -> None:
    for _ in range(END_TURNS_MAX):
        if all(task.done() for task in tasks):
            return
        await asyncio.sleep(0)
