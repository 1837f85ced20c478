"""Owns the functions that are kept open for the Invoke API. A function is opened by its first call, and closed when none came for a while.

Mappings and calls use the same open function, so they share its slots, its rate and its breaker. A function is never open with two
plans at once: when its plan changes, the calls that run finish first, and later calls open it anew.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import ExitStack, asynccontextmanager
from functools import partial

from poller.domain.functions.calls import NoRoom, ThrottleReason
from poller.domain.plan import FunctionPlan
from poller.domain.telemetry.labels import TaskEnd, TaskKind
from poller.rules.functions.naming import NamedFunction
from poller.runtime.invoking import Function
from poller.runtime.mappings.components import FunctionPool
from poller.runtime.mappings.supervisor import PartFailed
from poller.runtime.stopping import Stop, wait_until
from poller.runtime.watched_tasks import TaskFault, WatchedTasks, reason_of

IDLE_S = 600.0
"""A function that no call used for this long is closed, unless a mapping uses it."""
HELD_MAX = 1000
"""Functions and versions that are kept open at once."""


class HeldFunctions:
    """The functions that are open for calls, by the ARN that is called. Each has a task of `scope`."""

    def __init__(self, pool: FunctionPool, scope: WatchedTasks, stop: Stop) -> None:
        self.tasks: set[asyncio.Task[None]] = set()
        """They end when the daemon is asked to stop and the calls that run have ended."""
        self._pool = pool
        self._scope = scope
        self._stop = stop
        self._held: dict[str, HeldFunction] = {}

    @asynccontextmanager
    async def opened(self, named: NamedFunction) -> AsyncIterator[Function]:
        """The open function inside the block. Raises PartFailed and TaskFault if it cannot be opened, and NoRoom."""
        held = self._held.get(named.arn)
        if held is None or held.named != named or held.left:
            held = self._hold(named)
        with held.used():
            function = await held.opened()
            # The task that keeps it open may end while this call runs. If the function were opened again then, there would be two
            # sets of slots. After a stop only that task keeps it open, which ends with the daemon's grace time.
            with ExitStack() as use:
                use.enter_context(self._pool.kept_open(function))
                with self._stop.listening(use.close):
                    yield function

    def keep(self, functions: Mapping[str, FunctionPlan]) -> None:
        """Closes the functions whose plans are not in `functions` any more, when the calls that run have ended."""
        for held in self._held.values():
            if functions.get(held.named.plan.name) != held.named.plan:
                held.leave()

    def trouble(self, arn: str) -> str:
        """Why the last opening of a function failed; empty if it did not."""
        held = self._held.get(arn)
        return "" if held is None or held.trouble is None else reason_of(held.trouble)

    def _hold(self, named: NamedFunction) -> "HeldFunction":
        if len(self._held) >= HELD_MAX and named.arn not in self._held:
            raise NoRoom(
                ThrottleReason.CALLER, f"{HELD_MAX} functions and versions are open; try again later"
            )
        held = self._held[named.arn] = HeldFunction(named)
        name = f"{TaskKind.FUNCTION_CALLS} {named.arn}"
        task = self._scope.spawn(held.run(self._pool, self._stop), name, partial(self._ended, held, name))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
        return held

    def _ended(self, held: "HeldFunction", name: str, end: TaskEnd, error: BaseException | None) -> None:
        """Removes a function that is not open any more. The next call opens it again."""
        if self._held.get(held.named.arn) is held:
            del self._held[held.named.arn]
        expected = error is None and (held.left or held.trouble is not None)
        if expected or (error is None and self._scope.ending):
            return
        held.end_with(TaskFault(name, end, "" if error is None else reason_of(error)))
        self._scope.report_end(TaskKind.FUNCTION_CALLS, name, end, "" if error is None else reason_of(error))


class HeldFunction:
    """One function that is open for calls by one ARN."""

    def __init__(self, named: NamedFunction) -> None:
        self.named = named
        self.left = False
        """No call may begin any more."""
        self.trouble: Exception | None = None
        self._function: Function | None = None
        self._settled = asyncio.Event()
        self._changed = asyncio.Event()
        self._users = 0

    async def run(self, pool: FunctionPool, stop: Stop) -> None:
        """Opens the function and keeps it open until it is left and no call uses it, or until none has used it for IDLE_S."""
        try:
            with stop.listening(self.leave):
                async with pool.using(self.named.plan, self.leave) as function:
                    with function.slots.used():
                        async with function.used_by(self.named.arn):
                            self._function = function
                            self._settled.set()
                            await self._until_left()
        except (PartFailed, TaskFault) as error:
            self.end_with(error)

    def end_with(self, error: Exception) -> None:
        """The function cannot be opened, or is not open any more."""
        self.trouble, self.left = error, True
        self._settled.set()

    def leave(self) -> None:
        """Begins no call any more; closes the function when the calls that run have ended."""
        self.left = True
        self._changed.set()

    def used(self) -> "_Use":
        """A call uses the function inside the block."""
        return _Use(self)

    async def opened(self) -> Function:
        """Waits until the function is open; raises the error of its opening."""
        await self._settled.wait()
        if self._function is None:
            assert self.trouble is not None, "a function that is neither open nor in trouble"
            raise self.trouble
        return self._function

    async def _until_left(self) -> None:
        while self._users or not self.left:
            self._changed.clear()
            woken = await wait_until(self._changed, None if self._users else IDLE_S)
            if not woken and not self._users:
                self.left = True

    def count(self, more: int) -> None:
        """For uses."""
        self._users += more
        self._changed.set()


class _Use:
    """Counts one call that uses a function."""

    __slots__ = ("_held",)

    def __init__(self, held: HeldFunction) -> None:
        self._held = held

    def __enter__(self) -> None:
        self._held.count(1)

    def __exit__(self, *_: object) -> None:
        self._held.count(-1)
