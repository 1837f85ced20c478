"""Owns the tasks of the engine: every task is started here, and every unexpected end of a task is noticed.

A plain TaskGroup notices a task that raises. It does not notice a task that was cancelled by foreign code or that returned too
early: the other tasks go on, and nothing does the work of the missing one. A group of this module checks at the end of each task
whether its work was over. If not, that is a fault: the observer gets an event, and the group ends as if the task had raised an
error. The owner of the group then starts all of it again. Tasks that can be started again alone use `kept`.

`SystemExit` or `KeyboardInterrupt` from a task would end the whole program with the status of a success. Here they count as
errors of that task.
"""

import asyncio
from collections.abc import Callable, Coroutine
from functools import partial
from types import TracebackType
from typing import Any, Self

from poller.domain.records import MappingId
from poller.domain.telemetry.daemon_events import TaskEnded
from poller.domain.telemetry.labels import TaskEnd, TaskKind
from poller.domain.telemetry.observers import Observer
from poller.rules.responses import cut

AGAIN_S = 0.5
"""The wait before a task that ended by itself is started again alone."""

type OnEnd = Callable[[TaskEnd, BaseException | None], None]
"""Is called with how a task ended, and with its error."""
type Over = Callable[[], bool]
"""Whether a task may end now."""

_WORDS = {
    TaskEnd.CANCELLED: "was cancelled although nobody had stopped it",
    TaskEnd.RETURNED: "returned although nobody had stopped it",
    TaskEnd.RAISED: "was ended by an error",
}


def _never() -> bool:
    return False


class TaskFault(Exception):
    """A task of the engine ended although its work was not over."""

    def __init__(self, name: str, end: TaskEnd, reason: str = "") -> None:
        super().__init__(f"task {name!r} {_WORDS[end]}" + (f": {reason}" if reason else ""))
        self.name = name
        self.end = end


class WatchedTasks:
    """A TaskGroup that notices every end of its tasks. `mapping` is the mapping of the tasks; None for the daemon's own."""

    def __init__(self, observer: Observer, mapping: MappingId | None = None) -> None:
        self._observer = observer
        self._mapping = mapping
        self._group = asyncio.TaskGroup()
        self._running = 0
        self._idle = asyncio.Event()
        self._ending = False
        self._fault: TaskFault | None = None

    async def __aenter__(self) -> Self:
        await self._group.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Waits for all tasks. Raises as TaskGroup does; a fault of a task is one of the errors."""
        if error is None:
            error = await self._all_ended()
        # From here on cancellations come from the group itself.
        self._ending = True
        await self._group.__aexit__(type(error) if error is not None else None, error, trace)
        if self._fault is not None and error is None:
            raise ExceptionGroup("a task ended by itself", [self._fault])

    def start[T](
        self, kind: TaskKind, work: Coroutine[Any, Any, T], *, of: str = "", over: Over | None = None
    ) -> asyncio.Task[T]:
        """Starts a task. If it ends before its work is over, the group ends with a TaskFault.

        `over` says whether the work is over. Without it the work is over when the task returns a value other than None.
        `of` is added to the task's name and says what it belongs to.
        """
        name = f"{kind} {of}".strip()
        try:
            task = self._spawn(_shielded(name, work), name)
        except RuntimeError:
            # The group has ended, so the task cannot start.
            work.close()
            raise
        # If the task is cancelled before its first step, the coroutine never runs and must be closed.
        task.add_done_callback(lambda _: work.close())
        task.add_done_callback(partial(self._ended, kind, over))
        return task

    def kept(
        self,
        kind: TaskKind,
        make: Callable[[], Coroutine[Any, Any, None]],
        *,
        over: Over = _never,
        of: str = "",
        fatal: tuple[type[BaseException], ...] = (),
    ) -> "KeptTask":
        """Starts a task that is started again after AGAIN_S whenever it ends too early, unless `cancel` ended it.

        Its errors are reported and have no effect on other tasks, except for the errors in `fatal`.
        """
        return KeptTask(self, kind, make, over=over, name=f"{kind} {of}".strip(), fatal=fatal)

    def report_end(self, kind: TaskKind, name: str, end: TaskEnd, reason: str = "") -> None:
        """Emits TaskEnded for a fault."""
        self._observer.on(TaskEnded(task=kind, name=name, end=end, mapping=self._mapping, reason=reason))

    def spawn(
        self,
        work: Coroutine[Any, Any, None],
        name: str,
        ended: OnEnd,
        *,
        fatal: tuple[type[BaseException], ...] = (),
    ) -> asyncio.Task[None]:
        """Starts a task and calls `ended` when it ends, however that is. Only `fatal` errors end the group."""
        errors: list[BaseException] = []
        inner = _shielded(name, work)
        task = self._spawn(_contained(inner, errors, fatal), name)

        def report(done: asyncio.Task[None]) -> None:
            # If the task was cancelled before its first step, these coroutines never ran and must be closed.
            inner.close()
            work.close()
            error = errors[0] if errors else None if done.cancelled() else done.exception()
            if error is not None:
                ended(TaskEnd.RAISED, error)
            else:
                ended(TaskEnd.CANCELLED if done.cancelled() else TaskEnd.RETURNED, None)

        task.add_done_callback(report)
        return task

    @property
    def ending(self) -> bool:
        """Whether the group is ending and cancels its tasks itself."""
        return self._ending

    async def _all_ended(self) -> asyncio.CancelledError | None:
        """Waits until no task is left. Returns the cancellation if one came first."""
        try:
            while self._running:
                self._idle.clear()
                await self._idle.wait()
        except asyncio.CancelledError as error:
            return error
        return None

    def _spawn[T](self, work: Coroutine[Any, Any, T], name: str) -> asyncio.Task[T]:
        task = self._group.create_task(work, name=name)
        self._running += 1
        task.add_done_callback(self._count)
        return task

    def _count(self, task: asyncio.Task[Any]) -> None:
        self._running -= 1
        self._ending = self._ending or (not task.cancelled() and task.exception() is not None)
        if not self._running:
            self._idle.set()

    def _ended(self, kind: TaskKind, over: Over | None, task: asyncio.Task[Any]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            if not isinstance(error, BaseExceptionGroup):
                # An error group comes from inner tasks, which have reported their errors themselves.
                self.report_end(kind, task.get_name(), TaskEnd.RAISED, reason_of(error))
            return
        end = TaskEnd.CANCELLED if task.cancelled() else TaskEnd.RETURNED
        finished = over() if over is not None else not task.cancelled() and task.result() is not None
        if finished or self._ending:
            return
        self.report_end(kind, task.get_name(), end)
        self._end_with(TaskFault(task.get_name(), end))

    def _end_with(self, fault: TaskFault) -> None:
        """Makes the group end, by a task that raises the fault. A TaskGroup ends in no other way."""
        self._ending, self._fault = True, fault
        self._group.create_task(_raising(fault), name="fault").add_done_callback(self._insist)

    def _insist(self, task: asyncio.Task[Any]) -> None:
        """Starts the task that raises the fault again, if foreign code cancelled it together with all others."""
        if task.cancelled() and self._fault is not None and self._running:
            self._end_with(self._fault)


class KeptTask:
    """A task that is started again whenever it ends before its work is over."""

    def __init__(
        self,
        group: WatchedTasks,
        kind: TaskKind,
        make: Callable[[], Coroutine[Any, Any, None]],
        *,
        over: Over,
        name: str,
        fatal: tuple[type[BaseException], ...],
    ) -> None:
        self._group = group
        self._kind = kind
        self._make = make
        self._over = over
        self._name = name
        self._fatal = fatal
        self._stopped = False
        self._done = asyncio.Event()
        self._task = self._begin(0.0)

    def cancel(self) -> None:
        """Ends it for good."""
        self._stopped = True
        self._task.cancel()

    async def wait(self) -> None:
        """Waits until it has ended for good."""
        await self._done.wait()

    def _begin(self, after_s: float) -> asyncio.Task[None]:
        return self._group.spawn(self._run(after_s), self._name, self._ended, fatal=self._fatal)

    async def _run(self, after_s: float) -> None:
        if after_s:
            await asyncio.sleep(after_s)
        await self._make()

    def _ended(self, end: TaskEnd, error: BaseException | None) -> None:
        over = self._stopped or self._group.ending or self._over()
        # An error group comes from inner tasks, which have reported their errors themselves.
        if (error is not None or not over) and not isinstance(error, BaseExceptionGroup):
            self._group.report_end(self._kind, self._name, end, reason_of(error) if error is not None else "")
        if over:
            self._done.set()
        else:
            self._task = self._begin(AGAIN_S)


def ended_note(event: TaskEnded, ago_s: float) -> str:
    """One line for the status about a task that ended by itself."""
    whose = f" of mapping {event.mapping}" if event.mapping is not None else ""
    reason = f": {event.reason}" if event.reason else ""
    return f"task {event.name!r}{whose} {_WORDS[event.end]}{reason}; started again ({ago_s:.0f} s ago)"


def reason_of(error: BaseException) -> str:
    """The type and text of an error, on one line."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return cut(f"{type(error).__name__}: {_text(error)}")


def _text(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:  # noqa: BLE001 - foreign code: even `str` of an error may raise
        return "(its text could not be made)"


async def _shielded[T](name: str, work: Coroutine[Any, Any, T]) -> T:
    try:
        return await work
    except (SystemExit, KeyboardInterrupt) as error:
        raise TaskFault(name, TaskEnd.RAISED, reason_of(error)) from error


async def _contained(
    work: Coroutine[Any, Any, None], errors: list[BaseException], fatal: tuple[type[BaseException], ...]
) -> None:
    try:
        await work
    except asyncio.CancelledError:
        raise
    except fatal:
        raise
    except BaseException as error:  # noqa: BLE001 - the code that started the task decides what follows
        errors.append(error)


async def _raising(fault: TaskFault) -> None:
    raise fault
