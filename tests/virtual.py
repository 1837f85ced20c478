"""Owns virtual time: an event loop whose clock jumps to the next timer instead of waiting for it.

`run_virtual(main())` is to tests of the runtime what `asyncio.run` is to a program. Nothing outside the process exists
on this loop: sockets, threads and signals are refused. The same program takes the same steps every time.
Tasks that were started in a scope (`in_scope`) can be frozen together, as a stopped process would be.
"""

import asyncio
import selectors
from collections.abc import Callable, Coroutine, Generator, Mapping
from concurrent.futures import Executor
from contextvars import Context, ContextVar, copy_context
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

from poller.clock import LoopClock
from poller.foreign_tasks import contained, foreign

EPOCH_BASE = 1_767_225_600.0
"""Epoch seconds at virtual time 0: 2026-01-01T00:00:00Z."""
LIMIT_S = 7 * 86_400.0
STEPS_MAX = 5_000_000
TIMERS_PER_TURN_MAX = 20_000
WAITING_SHOWN_MAX = 40
_TICK_S = 1e-9
# A context variable, because tasks and callbacks inherit it from whoever starts them, and nothing else tells whose they are.
_SCOPE: ContextVar[str] = ContextVar("scope", default="")


class Deadlock(Exception):
    """Every task waits and no timer is armed: nothing can ever happen again."""


class LimitPassed(Exception):
    """The program took more virtual time, or more turns of the loop, than it may."""


class _Selector(selectors.BaseSelector):
    """Knows no input or output: to wait is to move `now_s`."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.limit_s = LIMIT_S
        self.steps_left = STEPS_MAX
        self.sealed = False
        self.timers_this_turn = 0
        self._keys: dict[int, selectors.SelectorKey] = {}

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """Advances the clock by `timeout`; raises Deadlock for None and LimitPassed at the limits."""
        self.timers_this_turn = 0
        if timeout is None:
            raise Deadlock(f"every task waits at {self.now_s} s and no timer is armed")
        self.steps_left -= 1
        if self.steps_left < 0:
            raise LimitPassed(f"too many turns of the loop at {self.now_s} s")
        if timeout > 0:
            # Whole nanoseconds keep sums of tenths exact; the next one at least, or a wait for less would never end.
            self.now_s = max(round(self.now_s + timeout, 9), round(self.now_s + _TICK_S, 9))
        if self.now_s > self.limit_s:
            raise LimitPassed(f"not done after {self.limit_s} s of virtual time")
        return []

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        """Takes the loop's own wake-up socket while the loop is built, and nothing else."""
        if self.sealed:
            raise RuntimeError("no sockets or pipes on virtual time; use a fake service")
        key = selectors.SelectorKey(fileobj, _descriptor(fileobj), events, data)
        self._keys[key.fd] = key
        return key

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        """Inverse of `register`."""
        return self._keys.pop(_descriptor(fileobj))

    def get_map(self) -> Mapping[Any, selectors.SelectorKey]:
        """The registered sockets by descriptor."""
        return self._keys


def _descriptor(fileobj: Any) -> int:
    return fileobj if isinstance(fileobj, int) else int(fileobj.fileno())


class _Task[T](asyncio.Task[T]):
    """Hashes by birth, so that sets of tasks (in TaskGroup, in asyncio.wait) have the same order in every run."""

    def __init__(self, coro: Coroutine[Any, Any, T], *, serial: int, **options: Any) -> None:
        self._serial = serial
        self._foreign = foreign()
        super().__init__(contained(coro) if self._foreign else coro, **options)
        if self._foreign:
            self.add_done_callback(lambda _: coro.close())

    def cancel(self, msg: Any | None = None) -> bool:
        """As asyncio's; foreign code cancels its own tasks only."""
        return False if foreign() and not self._foreign else super().cancel(msg)

    def __hash__(self) -> int:
        return self._serial

    def __eq__(self, other: object) -> bool:
        return self is other


@dataclass(slots=True)
class _Late:
    """A callback that may have to wait for its scope to thaw."""

    callback: Callable[[], object]
    context: Context | None
    handle: asyncio.Handle | None = None

    def run(self) -> None:
        """Calls back, unless that was cancelled meanwhile."""
        if self.handle is None or not self.handle.cancelled():
            self.callback()


def in_scope(scope: str) -> Context:
    """The context to start the first task of a scope in."""
    context = copy_context()
    context.run(_SCOPE.set, scope)
    return context


def tasks_in_scope(scope: str) -> list[asyncio.Task[Any]]:
    """The tasks of a scope that the loop made, in the order of their birth."""
    found = [each for each in asyncio.all_tasks() if isinstance(each, _Task)]
    return sorted((each for each in found if _scope_of(each.get_context()) == scope), key=hash)


def _scope_of(context: Context | None) -> str:
    return _SCOPE.get() if context is None else context.get(_SCOPE, "")


class VirtualLoop(asyncio.SelectorEventLoop):
    """Event loop on virtual time; `complaints` are the contexts that its exception handler was called with."""

    def __init__(self) -> None:
        self.virtual = _Selector()
        super().__init__(self.virtual)
        self.virtual.sealed = True
        self.complaints: list[dict[str, Any]] = []
        self._born = 0
        self._frozen: dict[str, list[_Late]] = {}
        self.set_exception_handler(lambda _, context: self.complaints.append(context))
        self.set_task_factory(self._task)

    def time(self) -> float:
        """Virtual seconds since the loop was made."""
        return self.virtual.now_s

    def freeze(self, scope: str) -> None:
        """Nothing of this scope runs until `thaw`; its timers that fire meanwhile, and answers to it, are late."""
        self._frozen.setdefault(scope, [])

    def thaw(self, scope: str) -> None:
        """Lets the scope go on, with what it missed, in the order in which that came."""
        for late in self._frozen.pop(scope, []):
            super().call_soon(late.run, context=late.context)

    def call_soon[*Ts](
        self, callback: Callable[[*Ts], object], *args: *Ts, context: Context | None = None
    ) -> asyncio.Handle:
        """As asyncio's, but for frozen scopes."""
        if self._frozen and (scope := _scope_of(context)) in self._frozen:
            handle = asyncio.Handle(callback, args, self, context)
            self._frozen[scope].append(_Late(partial(callback, *args), context, handle))
            return handle
        return super().call_soon(callback, *args, context=context)

    def call_at[*Ts](
        self, when: float, callback: Callable[[*Ts], object], *args: *Ts, context: Context | None = None
    ) -> asyncio.TimerHandle:
        """As asyncio's, but for frozen scopes; raises LimitPassed in a task that spins without ever waiting."""
        self.virtual.timers_this_turn += 1
        if self.virtual.timers_this_turn > TIMERS_PER_TURN_MAX:
            raise LimitPassed(f"a task spins at {self.time()} s: it arms timers and never waits")
        scope = _scope_of(context)
        if not scope:
            return super().call_at(when, callback, *args, context=context)
        late = _Late(partial(callback, *args), context)
        late.handle = timer = super().call_at(when, self._fire, scope, late, context=context)
        return timer

    def _fire(self, scope: str, late: "_Late") -> None:
        if scope in self._frozen:
            self._frozen[scope].append(late)
        else:
            late.run()

    def _task(self, _: asyncio.AbstractEventLoop, coro: Any, **options: Any) -> asyncio.Task[Any]:
        self._born += 1
        return _Task(coro, serial=self._born, loop=self, **options)

    def run_in_executor[*Ts, T](
        self, executor: Executor | None, func: Callable[[*Ts], T], *args: *Ts
    ) -> asyncio.Future[T]:
        """Refused: a thread would run in real time."""
        raise RuntimeError(f"no threads on virtual time: {func!r} wants an executor")

    def add_signal_handler[*Ts](self, sig: int, callback: Callable[[*Ts], object], *args: *Ts) -> None:
        """Refused: signals come from outside."""
        raise RuntimeError(f"no signals on virtual time: signal {sig}")


def run_virtual[T](
    main: Coroutine[Any, Any, T], *, limit_s: float = LIMIT_S, steps_max: int = STEPS_MAX
) -> T:
    """Runs `main` to its end on virtual time and returns its value.

    Raises Deadlock or LimitPassed (with a list of the tasks and where they wait), what `main` raises, and an
    ExceptionGroup when something else failed on the loop unseen.
    """
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        loop = runner.get_loop()
        assert isinstance(loop, VirtualLoop)
        loop.virtual.limit_s, loop.virtual.steps_left = limit_s, steps_max
        try:
            result = runner.run(main)
        except (Deadlock, LimitPassed) as error:
            error.add_note(waiting(loop))
            raise
        finally:
            # The runner cancels what is left, and that takes time and turns of its own.
            loop.virtual.limit_s, loop.virtual.steps_left = loop.time() + LIMIT_S, STEPS_MAX
    _raise_complaints(loop.complaints)
    return result


def virtual_clock() -> LoopClock:
    """The daemon's clock on virtual time: epoch time is EPOCH_BASE plus the loop's."""
    return LoopClock(wall=lambda: EPOCH_BASE + asyncio.get_running_loop().time())


def waiting(loop: asyncio.AbstractEventLoop) -> str:
    """One line for each unfinished task: its name and the functions that it waits in, outermost first."""
    tasks = sorted(asyncio.all_tasks(loop), key=hash)
    lines = [f"{task.get_name()}: {' > '.join(_places(task.get_coro()))}" for task in tasks]
    more = [f"and {len(lines) - WAITING_SHOWN_MAX} more"] if len(lines) > WAITING_SHOWN_MAX else []
    return "\n".join(["waiting:", *lines[:WAITING_SHOWN_MAX], *more])


def _places(awaited: Any) -> Generator[str]:
    while awaited is not None:
        code: CodeType | None = getattr(awaited, "cr_code", getattr(awaited, "gi_code", None))
        frame: FrameType | None = getattr(awaited, "cr_frame", getattr(awaited, "gi_frame", None))
        if code is not None:
            line = frame.f_lineno if frame is not None else code.co_firstlineno
            yield f"{code.co_qualname} ({Path(code.co_filename).name}:{line})"
        awaited = getattr(awaited, "cr_await", getattr(awaited, "gi_yieldfrom", None))


def _raise_complaints(complaints: list[dict[str, Any]]) -> None:
    if not complaints:
        return
    errors = [each.get("exception") or RuntimeError(each["message"]) for each in complaints]
    raise BaseExceptionGroup("failed unseen on the loop", errors)
